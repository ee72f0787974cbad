//! The sweeps in `configs/sweeps`: each can be read, names keys that there are, and has the points that it should.

use std::collections::BTreeMap;
use std::path::Path;

use earthmapper_geo::pairs::PairSource;
use earthmapper_lab::sweep::SweepConfig;

/// Every file and its number of points; the small bases are no sweeps.
const SWEEPS: [(&str, usize); 13] = [
    ("guidance-choice", 5),
    ("guidance-to-map", 7 + 4),
    ("guidance-to-satellite", 7 + 4),
    ("held-out-region", 3 * 2),
    ("hrq-depth", 4 * 3),
    ("hrq-depth-generation", 4),
    ("hrq-or-vq", 5 * 3),
    ("key-points", 3 * 4 + 1),
    ("places", 5),
    ("sampling-to-map", 3 * 4 + 1),
    ("sampling-to-satellite", 3 * 4 + 1),
    ("scales", 5 * 3),
    ("semantic-infusion", 3),
];

// One test, since paths in the files begin at the root of the repository, and a program has one current folder.
#[test]
fn shipped_sweeps_expand_to_their_points() {
    std::env::set_current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).unwrap();
    let mut files: Vec<String> = std::fs::read_dir("configs/sweeps")
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .filter(|name| !name.ends_with("-small"))
        .collect();
    files.sort();
    assert_eq!(
        files,
        SWEEPS.map(|(name, _)| name),
        "a sweep without a number of points here, or the other way round"
    );
    let mut all = BTreeMap::new();
    for (name, count) in SWEEPS {
        let file = Path::new("configs/sweeps").join(format!("{name}.toml"));
        let config = SweepConfig::read(&file).unwrap();
        let points = config.points(&file).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(points.len(), count, "{name}");
        // All stand beside the nearest of the pairs that were learned from.
        for evaluate in points.iter().map(|point| &point.settings.evaluate) {
            let (data, pairs) = evaluate.training().unwrap_or_else(|| panic!("{name}: no training pairs"));
            assert_eq!(data, &evaluate.data, "{name}");
            if matches!(data, PairSource::SideBySide { .. }) {
                assert_eq!(pairs.to_string(), "1..1000", "{name}");
            }
        }
        // No two points are the same, but for their names.
        for (index, point) in points.iter().enumerate() {
            let twin = points[..index].iter().find(|other| other.settings == point.settings);
            assert!(twin.is_none(), "{name}: {} is {}", point.label, twin.unwrap().label);
        }
        all.insert(name, points);
    }
    let depths: Vec<usize> = all["hrq-depth"]
        .iter()
        .step_by(3)
        .map(|point| point.settings.tokenizer.as_ref().unwrap().tokenizer.quantizer_depth)
        .collect();
    assert_eq!(depths, [1, 2, 4, 8]);
    let json = |point: &earthmapper_lab::sweep::Point| {
        serde_json::to_string(&point.settings.evaluate.generation.to_map).unwrap()
    };
    let sharpened = &all["key-points"][11];
    assert_eq!(sharpened.label, "sharpen, τ 0.9");
    assert!(json(sharpened).contains(r#""key_points":{"sharpen":{"tau":0.9,"temperature":0.5}}"#));
    assert!(json(&all["key-points"][12]).contains(r#""key_points":"off""#));
    let triple = r#""guidance":{"complexity":{"alpha":3.0,"beta":3.0,"gamma":3.0,"#;
    assert!(json(&all["guidance-to-map"][2]).contains(triple), "{}", json(&all["guidance-to-map"][2]));
    // What a sweep does not say is the model's own.
    assert!(json(&all["guidance-to-map"][2]).contains(r#""temperature":1.0,"top_k":5,"#));
}
