//! Numbers, tables, files and pages.

use earthmapper::{EarthMapper, Modality};
use earthmapper_geo::pairs::{PairFolder, PairSelection, PairSource};
use earthmapper_lab::data::read_square;
use earthmapper_lab::evaluate::{
    Candidate, Directions, EvaluateError, EvaluateOptions, Evaluation, evaluate,
};
use earthmapper_lab::metrics::{MapScores, Palette, blank_map};
use earthmapper_lab::progress::{Interrupt, ProgressMode};

use super::{SIDE, model, pairs, quick, run};
use burn::tensor::Device;

#[test]
fn an_evaluation_holds_its_baselines_and_survives_writing() {
    let temporary = tempfile::tempdir().unwrap();
    let pairs = pairs(temporary.path(), 5);
    let model = model(&pairs);
    let options = quick(&model);
    let evaluated = run(&model, &pairs, &options);
    let evaluation = &evaluated.evaluation;

    // The blank map is exactly what its definition gives, by a second implementation.
    let mut blank = MapScores::new(Palette::new_york());
    for index in 0..pairs.len() {
        let truth = read_square(&pairs, index, SIDE).unwrap().map;
        blank.add(&blank_map(SIDE, SIDE, options.blank.map), &truth).unwrap();
    }
    let blank = blank.summary().unwrap();
    let of = |candidate, metric: &str| evaluation.number(Modality::Map, candidate, metric);
    let close = |found: Option<f64>, expected: f64| (found.unwrap() - expected).abs() < 1e-12;
    assert!(close(of(Candidate::Blank, "PSNR (dB)"), blank.psnr.mean));
    assert!(close(of(Candidate::Blank, "SSIM"), blank.ssim.mean));
    assert!(close(of(Candidate::Blank, "RMSE"), blank.rmse.mean));
    for class in &blank.classes {
        let found = of(Candidate::Blank, &format!("IoU {}", class.name));
        assert_eq!(found, class.intersection_over_union, "{}", class.name);
    }
    assert!(close(of(Candidate::Blank, "IoU mean"), blank.mean_intersection_over_union.unwrap()));
    assert!(close(of(Candidate::Blank, "class accuracy"), blank.class_accuracy.unwrap()));
    assert_eq!(of(Candidate::Blank, "road F1, 2 px"), blank.roads.f1);
    assert_eq!(of(Candidate::Blank, "road precision, 2 px"), None);
    assert_eq!(of(Candidate::Blank, "road recall, 2 px"), Some(0.0));

    // A transformer that knows nothing does not beat the codec under it.
    assert!(of(Candidate::Ceiling, "RMSE") < of(Candidate::Model, "RMSE"), "{}", evaluation.table());
    for (target, candidate, metric) in [
        (Modality::Map, Candidate::Cycle, "class accuracy"),
        (Modality::Map, Candidate::Model, "mean entropy"),
        (Modality::Satellite, Candidate::Model, "PSNR (dB)"),
        (Modality::Satellite, Candidate::Model, "SSIM"),
        (Modality::Satellite, Candidate::Model, "detail"),
        (Modality::Satellite, Candidate::Ceiling, "detail"),
        (Modality::Satellite, Candidate::Blank, "RMSE"),
    ] {
        let found = evaluation.number(target, candidate, metric);
        assert!(found.is_some_and(f64::is_finite), "{target} {candidate} {metric}: {found:?}");
    }
    assert!(of(Candidate::Model, "diversity, RMSE").unwrap() > 0.0);
    assert!(evaluation.number(Modality::Satellite, Candidate::Model, "diversity, RMSE").unwrap() > 0.0);
    assert_eq!(evaluation.names, ["1", "5"]);
    assert_eq!(evaluation.section(Modality::Map).unwrap().confusion.as_ref().unwrap().pixels(), 5 * 256);
    assert!(evaluation.seconds_per_translation.unwrap() > 0.0);

    let out = temporary.path().join("out");
    evaluated.write(&out, false).unwrap();
    let refused = evaluated.write(&out, false);
    assert!(matches!(refused, Err(EvaluateError::Write(_))), "nothing is replaced unasked");
    evaluated.write(&out, true).unwrap();
    let text = std::fs::read_to_string(out.join("evaluation.json")).unwrap();
    let again = Evaluation::from_json(&text).unwrap();
    assert_eq!((again.table(), again.notes()), (evaluation.table(), evaluation.notes()));
    assert_eq!(again.subject, evaluation.subject);
    assert!(Evaluation::from_json("{\"model\": \"tiny\"}").unwrap_err().contains("older format"));
    assert!(Evaluation::from_json(&text.replacen("2", "9", 1)).unwrap_err().contains("format 9"));

    let mut reader = csv::Reader::from_path(out.join("pictures.csv")).unwrap();
    let head = reader.headers().unwrap().clone();
    let records: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    // Blank, model, ceiling, cycle of maps; blank, model, ceiling of photographs.
    assert_eq!(records.len(), 5 * 7);
    let column = |name: &str| head.iter().position(|found| found == name).unwrap();
    let made = |record: &&csv::StringRecord| {
        &record[column("candidate")] == "model" && &record[column("target")] == "map"
    };
    let psnr: Vec<f64> =
        records.iter().filter(made).map(|r| r[column("PSNR (dB)")].parse().unwrap()).collect();
    assert!((psnr.iter().sum::<f64>() / 5.0 - of(Candidate::Model, "PSNR (dB)").unwrap()).abs() < 1e-5);

    // Input, truth, made, difference, (map made back,) entropy; of five pairs each sheet shows one.
    let sheet = &evaluated.sheets[0];
    assert_eq!((sheet.picture.width(), sheet.picture.height()), (5 * 28 + 4, 28 + 4));
    assert_eq!(evaluated.sheets[3].picture.width(), 6 * 28 + 4);
    for sheet in &evaluated.sheets {
        assert!(out.join(sheet.file_name()).is_file(), "{}", sheet.file_name());
    }
    let html = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert_eq!(html.matches("src=\"data:image/png;base64,").count(), 6);
    assert!(html.matches("<svg").count() >= 5 && html.contains("nearest training pair: not computed"));
    assert!(!html.contains("<script") && !html.contains("src=\"http") && !html.contains("href="));
}

#[test]
fn options_are_written_as_they_were_given() {
    let temporary = tempfile::tempdir().unwrap();
    let pairs = pairs(temporary.path(), 1);
    let model = model(&pairs);
    let mut options = EvaluateOptions { directions: Directions::ToMap, ..quick(&model) };
    options.generation.to_map.sampler.top_p = 0.55;
    let json = run(&model, &pairs, &options).evaluation.to_json();
    assert!(json.contains("\"top_p\": 0.55,") || json.contains("\"top_p\": 0.55\n"), "{json}");
}

#[test]
fn places_make_a_map_of_errors() {
    let temporary = tempfile::tempdir().unwrap();
    pairs(temporary.path(), 3);
    let mut manifest = String::from("{\"format\":1,\"sources\":[]}\n");
    for i in 1..=3 {
        let (west, east) = (11.0 + 0.01 * f64::from(i), 11.01 + 0.01 * f64::from(i));
        let middle = f64::midpoint(west, east);
        manifest += &format!(
            "{{\"name\":\"{i}\",\"file\":\"{i}.png\",\"source\":\"s\",\"bounds\":[{west},43.0,{east},43.01],\
             \"place\":{{\"longitude\":{middle},\"latitude\":43.005}},\"metres_per_pixel\":2.0,\"side\":16,\
             \"split\":\"validation\"}}\n"
        );
    }
    std::fs::write(temporary.path().join("manifest.jsonl"), manifest).unwrap();
    let source = PairSource::Manifest { manifest: temporary.path().into() };
    let pairs = PairFolder::open(&source, &PairSelection::default()).unwrap();
    let model = model(&pairs);
    let evaluated = run(&model, &pairs, &quick(&model));
    let html = evaluated.html();
    assert!(html.contains("Where they lie") && html.contains("longitude"), "no map of errors");
    assert!(evaluated.pictures().contains("\n2,11.025000,43.005000,map,model,"), "{}", evaluated.pictures());
}

#[test]
fn a_model_of_one_modality_is_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let pairs = pairs(temporary.path(), 1);
    let two = model(&pairs);
    let mut config = two.config.clone();
    config.transformer.modalities = vec![Modality::Map];
    let one = EarthMapper::new(config, two.tokenizer_config.clone(), 1, &Device::flex());
    let error = evaluate(&one, &pairs, &quick(&one), ProgressMode::Silent, &Interrupt::new()).unwrap_err();
    assert!(error.to_string().contains("knows map"), "{error}");
}
