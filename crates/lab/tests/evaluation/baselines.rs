//! Pictures that no model made: those given, and those of the nearest training pair.

use std::path::Path;

use earthmapper::Modality;
use earthmapper_geo::pairs::{PairFolder, PairSelection, PairSource};
use earthmapper_geo::{Picture, WriteOptions, write_picture};
use earthmapper_lab::data::read_square;
use earthmapper_lab::evaluate::{Candidate, Directions, EvaluateOptions, Subject, Training, evaluate_given};
use earthmapper_lab::metrics::root_mean_square_error;
use earthmapper_lab::progress::{Interrupt, ProgressMode};

use super::{SIDE, failure, model, pairs, quick, run};

/// Writes true pictures of one kind as predictions.
fn write_truths(pairs: &PairFolder, target: Modality, folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    for index in 0..pairs.len() {
        let pair = read_square(pairs, index, SIDE).unwrap();
        let picture = if target == Modality::Map { pair.map } else { pair.satellite };
        write_picture(folder.join(format!("{}.png", pair.name)), &picture, &WriteOptions::default()).unwrap();
    }
}

#[test]
fn given_pictures_that_are_the_truth_are_perfect() {
    let temporary = tempfile::tempdir().unwrap();
    let pairs = pairs(temporary.path(), 4);
    let given = |folder: &Path, target| {
        let options = EvaluateOptions { tile_side: 24, ..EvaluateOptions::without_model() };
        evaluate_given(folder, target, &pairs, &options, ProgressMode::Silent, &Interrupt::new())
    };
    for target in Modality::ALL {
        let folder = temporary.path().join(target.to_string());
        write_truths(&pairs, target, &folder);
        let evaluated = given(&folder, target).unwrap();
        let evaluation = &evaluated.evaluation;
        let perfect: &[(&str, f64)] = match target {
            Modality::Map => &[
                ("PSNR (dB)", 100.0),
                ("RMSE", 0.0),
                ("IoU water", 1.0),
                ("IoU mean", 1.0),
                ("class accuracy", 1.0),
                ("road precision, 2 px", 1.0),
                ("road F1, 2 px", 1.0),
                ("detail", 1.0),
            ],
            Modality::Satellite => &[("PSNR (dB)", 100.0), ("RMSE", 0.0), ("detail", 1.0)],
        };
        for (metric, value) in perfect {
            let found = evaluation.section(target).unwrap().number(Candidate::Model, metric).unwrap();
            assert_eq!((found.value, found.interval), (Some(*value), Some([*value; 2])), "{metric}");
        }
        assert_eq!(evaluation.sections.len(), 1);
        assert_eq!(evaluation.subject, Subject::Predictions { name: target.to_string() });
        assert!(evaluation.table().contains("not computed") && evaluation.notes().contains("--model DIR"));
        evaluated.write(&temporary.path().join("out").join(target.to_string()), false).unwrap();
    }

    let folder = temporary.path().join("map");
    let refuses = |words: &str| {
        let error = given(&folder, Modality::Map).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    let replace = WriteOptions { overwrite: true, ..Default::default() };
    write_picture(folder.join("3.png"), &Picture::filled(8, 8, [0; 3]), &replace).unwrap();
    refuses("3.png: is 8 × 8 pixels, but the first prediction is 16 × 16; make all of one size");
    write_picture(folder.join("1.png"), &Picture::filled(16, 8, [0; 3]), &replace).unwrap();
    refuses("1.png: is 16 × 8 pixels; predictions must be square");
    std::fs::remove_file(folder.join("2.png")).unwrap();
    refuses("1 of 4 pairs have no prediction (2); add them");
    std::fs::write(folder.join("2.png"), "no picture").unwrap();
    std::fs::rename(folder.join("2.png"), folder.join("1.png")).unwrap();
    std::fs::rename(folder.join("3.png"), folder.join("2.png")).unwrap();
    std::fs::copy(folder.join("2.png"), folder.join("3.png")).unwrap();
    refuses("1.png");
    for name in ["1.png", "2.png", "3.png", "4.png"] {
        std::fs::remove_file(folder.join(name)).unwrap();
    }
    refuses("holds no prediction of any of the 4 pairs; name them like the pairs, such as 1.png");
    std::fs::remove_dir(&folder).unwrap();
    refuses("is not a folder");
}

#[test]
fn the_nearest_training_pair_is_found_by_its_input() {
    let temporary = tempfile::tempdir().unwrap();
    let pairs = pairs(temporary.path(), 4);
    // The same photographs a little brighter, with maps that say which they are.
    let folder = temporary.path().join("training");
    std::fs::create_dir(&folder).unwrap();
    let shade = |index: usize| [40 * (index as u8 + 1); 3];
    for index in 0..pairs.len() {
        let mut photograph = read_square(&pairs, index, SIDE).unwrap().satellite;
        photograph.rgb_mut().iter_mut().for_each(|value| *value += 1);
        let both = Picture::hconcat(&[&photograph, &Picture::filled(SIDE, SIDE, shade(index))]);
        write_picture(folder.join(format!("{}.png", 4 - index)), &both, &WriteOptions::default()).unwrap();
    }
    let source = PairSource::SideBySide { folder: folder.clone(), order: Default::default() };
    let opened = PairFolder::open(&source, &PairSelection::default()).unwrap();
    let read = || Training::read(opened.clone(), SIDE, ProgressMode::Silent, &Interrupt::new()).unwrap();
    for index in 0..pairs.len() {
        let photograph = read_square(&pairs, index, SIDE).unwrap().satellite;
        let found = read().nearest(Modality::Map, &photograph, None).unwrap();
        assert_eq!(opened.name(found), (4 - index).to_string());
    }
    // Maps of four shades, a quarter of the pixels each: the lower middle is the median.
    assert_eq!(read().blank().map, [80; 3]);

    let model = model(&pairs);
    let trained = EvaluateOptions { training: Some(opened), directions: Directions::ToMap, ..quick(&model) };
    let evaluation = run(&model, &pairs, &trained).evaluation;
    let mut expected = 0.0;
    for index in 0..pairs.len() {
        let truth = read_square(&pairs, index, SIDE).unwrap().map;
        let retrieved = Picture::filled(SIDE, SIDE, shade(index));
        expected += root_mean_square_error(&retrieved, &truth).unwrap() / 4.0;
    }
    let found = evaluation.number(Modality::Map, Candidate::Nearest, "RMSE").unwrap();
    assert!((found - expected).abs() < 1e-12, "{found} {expected}");
    assert_eq!(evaluation.blank.map, [80; 3]);

    // Measured on what it was trained on, a pair is not its own neighbour.
    let own = EvaluateOptions { training: Some(pairs.clone()), ..trained };
    let evaluation = run(&model, &pairs, &own).evaluation;
    assert!(evaluation.number(Modality::Map, Candidate::Nearest, "RMSE").unwrap() > 0.0);
    let one = PairSource::SideBySide { folder: temporary.path().into(), order: Default::default() };
    let one = PairFolder::open(&one, &"1..1".parse().unwrap()).unwrap();
    let alone = EvaluateOptions { training: Some(one.clone()), ..own };
    assert!(failure(&model, &one, &alone).contains("only training pair and measured itself"));
}
