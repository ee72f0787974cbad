//! What a training promises, on pictures of 16 pixels.

use std::path::{Path, PathBuf};
use std::time::Duration;

use burn::tensor::Device;
use earthmapper::config::Forcing;
use earthmapper::guidance::Guidance;
use earthmapper::sampler::SamplerConfig;
use earthmapper::translator::{Condition, GenerationOptions, Translator};
use earthmapper::weights::{HostTensors, Storage, collect};
use earthmapper::{EarthMapper, Modality, TokenizerConfig, TransformerConfig};
use earthmapper_geo::pairs::PairError;
use earthmapper_geo::{Picture, WriteOptions, write_picture};
use earthmapper_lab::export::{export_model, open_tokenizer};
use earthmapper_lab::progress::{Interrupt, ProgressMode};
use earthmapper_lab::run::Run;
use earthmapper_lab::session::{Outcome, Session, Start, TrainError};
use earthmapper_lab::train::{Precision, TransformerTraining};
use earthmapper_lab::train_tokenizer::{AdversarialLoss, TokenizerTraining};
use earthmapper_lab::{train, train_tokenizer};

/// Side-by-side pairs: coloured quadrants, and their "map" with the colours exchanged.
fn pairs(folder: &Path, count: u32) {
    std::fs::create_dir_all(folder).unwrap();
    for i in 0..count {
        let colour = |x: u32, y: u32| [(40 * i + 90 * (x / 8)) as u8, (120 * (y / 8)) as u8, (25 * i) as u8];
        let photograph = Picture::drawn(16, 16, colour);
        let map = Picture::drawn(16, 16, |x, y| {
            let [r, g, b] = colour(x, y);
            [255 - g, 255 - r, b]
        });
        let both = Picture::hconcat(&[&photograph, &map]);
        write_picture(folder.join(format!("{i}.png")), &both, &WriteOptions::default()).unwrap();
    }
}

fn session(folder: &Path, start: Start) -> Session {
    Session {
        folder: folder.into(),
        device: Device::flex(),
        device_name: "cpu".into(),
        start,
        progress: ProgressMode::Silent,
        interrupt: Interrupt::new(),
    }
}

fn tokenizer_config() -> TokenizerConfig {
    TokenizerConfig {
        picture_side: 16,
        sides: vec![1, 2, 4],
        vocabulary: 24,
        latent_width: 6,
        quantizer_depth: 2,
        fold: 2,
        channels: 8,
        multipliers: vec![1, 2],
        residual_blocks: 1,
        linear_path: true,
        ..Default::default()
    }
}

fn tokenizer_training(data: &Path, steps: u64) -> TokenizerTraining {
    let text = format!(
        "seed = 3\nsteps = {steps}\nlog_every = 1\nvalidate_every = 4\ncheckpoint_every = 2\n[data]\n\
         layout = \"side-by-side\"\nfolder = {data:?}\n[loader]\nbatch_size = 2\nthreads = 2\n[augment]\n\
         picture_side = 16\nflip = true\nquarter_turns = true\ncrop_min = 0.7\n[revival]\nevery = 3\n[optimiser]\nwarm_up = 2\n[tokenizer]\n"
    );
    let text = text + &toml::to_string(&tokenizer_config()).unwrap();
    toml::from_str(&text).unwrap()
}

fn transformer_training(data: &Path, tokenizer: &Path, steps: u64) -> TransformerTraining {
    let text = format!(
        "name = \"tiny\"\nseed = 4\nsteps = {steps}\nbatch_size = 2\naccumulate = 2\ntokenizer = {tokenizer:?}\nvariants = 2\n\
         hide_condition = 0.3\nhide_place = 0.3\nlabel_smoothing = 0.05\nlog_every = 1\nvalidate_every = 4\n\
         checkpoint_every = 2\n[data]\nlayout = \"side-by-side\"\nfolder = {data:?}\n[augment]\npicture_side = 16\n\
         flip = true\nquarter_turns = true\n[optimiser]\nwarm_up = 2\n[place]\nlatitude = 40.7\nlongitude = -74.0\n[transformer]\n"
    );
    let transformer =
        TransformerConfig { depth: 2, width: 32, heads: 2, drop_path: 0.2, ..Default::default() };
    let text = text + &toml::to_string(&transformer).unwrap();
    toml::from_str(&text).unwrap()
}

/// The log without the clock.
fn numbers(run: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let line = |line: &str| {
        let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
        value.as_object_mut().unwrap().remove("seconds");
        value
    };
    text.lines().map(line).collect()
}

/// Stops a training after its first checkpoint; where exactly is up to the clock, which is the point.
fn interrupt_soon(session: &Session) {
    let (interrupt, folder) = (session.interrupt.clone(), session.folder.clone());
    std::thread::spawn(move || {
        while !folder.join("last").exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        interrupt.request();
    });
}

fn tokenizer_weights(run: &Path) -> HostTensors {
    collect(&open_tokenizer(run, &Device::flex()).unwrap().1)
}

#[test]
fn a_killed_tokenizer_run_goes_on_as_if_never_killed() {
    let temporary = tempfile::tempdir().unwrap();
    let data = temporary.path().join("data");
    pairs(&data, 5);
    for adversarial in [false, true] {
        let mut config = tokenizer_training(&data, 9);
        config.losses.adversarial = adversarial.then(|| AdversarialLoss {
            weight: 0.1,
            start: 3,
            discriminator: toml::from_str("width = 4\nlayers = 1").unwrap(),
            learning_rate: 1e-3,
        });
        let run = |name: &str| temporary.path().join(format!("{name}-{adversarial}"));
        let (whole, again, broken) = (run("whole"), run("again"), run("broken"));
        for folder in [&whole, &again] {
            let outcome = train_tokenizer::train(&config, &session(folder, Start::Fresh)).unwrap();
            assert_eq!(outcome, Outcome::Finished);
        }
        assert_eq!(numbers(&whole), numbers(&again), "the same run twice");
        let first = session(&broken, Start::Fresh);
        interrupt_soon(&first);
        let outcome = train_tokenizer::train(&config, &first).unwrap();
        println!("stopped: {outcome:?}");
        if outcome == Outcome::Interrupted {
            // A process that dies leaves what it logged after its last checkpoint.
            use std::io::Write;
            let mut log =
                std::fs::OpenOptions::new().append(true).open(broken.join("metrics.jsonl")).unwrap();
            write!(log, "{{\"step\": 9, \"half").unwrap();
            let outcome = train_tokenizer::train(&config, &session(&broken, Start::Resume)).unwrap();
            assert_eq!(outcome, Outcome::Finished);
        }
        assert_eq!(numbers(&whole), numbers(&broken), "adversarial {adversarial}");
        assert_eq!(tokenizer_weights(&whole), tokenizer_weights(&broken));
        let names = numbers(&whole)
            .iter()
            .flat_map(|line| line.as_object().unwrap().keys().cloned().collect::<Vec<_>>())
            .collect::<Vec<_>>();
        for name in ["validation/psnr_map", "validation/code_use/2", "validation/dead_codes"] {
            assert!(names.iter().any(|known| known == name), "{name} is logged");
        }
        assert_eq!(names.iter().any(|name| name == "adaptive_weight"), adversarial);
    }
}

/// A tokenizer trained for a moment.
fn trained_tokenizer(folder: &Path, data: &Path) -> PathBuf {
    let run = folder.join("tokenizer");
    train_tokenizer::train(&tokenizer_training(data, 4), &session(&run, Start::Fresh)).unwrap();
    run
}

#[test]
fn a_killed_transformer_run_goes_on_as_if_never_killed() {
    let temporary = tempfile::tempdir().unwrap();
    let data = temporary.path().join("data");
    pairs(&data, 6);
    let tokenizer = trained_tokenizer(temporary.path(), &data);
    let config = transformer_training(&data, &tokenizer, 9);
    let (whole, broken) = (temporary.path().join("whole"), temporary.path().join("broken"));
    assert_eq!(train::train(&config, &session(&whole, Start::Fresh)).unwrap(), Outcome::Finished);
    let first = session(&broken, Start::Fresh);
    interrupt_soon(&first);
    let outcome = train::train(&config, &first).unwrap();
    println!("stopped: {outcome:?}");
    if outcome == Outcome::Interrupted {
        assert_eq!(train::train(&config, &session(&broken, Start::Resume)).unwrap(), Outcome::Finished);
    }
    assert_eq!(numbers(&whole), numbers(&broken));
    let weights = |run: &Path| collect(&export_model(run, &Device::flex()).unwrap().transformer);
    assert_eq!(weights(&whole), weights(&broken));

    // A model folder brings back the model that was exported, and fine-tuning starts from it.
    let model = export_model(&whole, &Device::flex()).unwrap();
    let saved = temporary.path().join("model");
    model.save(&saved, Storage::F32, "card").unwrap();
    let back = EarthMapper::load(&saved, &Device::flex()).unwrap();
    assert_eq!(collect(&back.transformer), collect(&model.transformer));
    let tuned = TransformerTraining { from: Some(saved), steps: 1, ..config };
    let run = temporary.path().join("tuned");
    train::train(&tuned, &session(&run, Start::Fresh)).unwrap();
    let loss = |run: &Path, last: bool| {
        let lines = numbers(run);
        let losses: Vec<f64> = lines.iter().filter_map(|line| line["validation/loss"].as_f64()).collect();
        if last { losses[losses.len() - 1] } else { losses[0] }
    };
    assert!((loss(&run, false) - loss(&whole, true)).abs() < 0.2, "fine-tuning starts where the model was");
}

#[test]
fn two_pairs_are_learned_by_heart() {
    let temporary = tempfile::tempdir().unwrap();
    let data = temporary.path().join("data");
    pairs(&data, 2);
    let tokenizer = trained_tokenizer(temporary.path(), &data);
    for forcing in [Forcing::Sequence, Forcing::Aligned] {
        learned_by_heart(temporary.path(), transformer_training(&data, &tokenizer, 300), forcing);
    }
}

fn learned_by_heart(folder: &Path, mut config: TransformerTraining, forcing: Forcing) {
    config.transformer.forcing = forcing;
    (config.joint_share, config.to_map_share) = (0.0, 0.7);
    config.augment = Default::default();
    config.augment.picture_side = 16;
    (config.variants, config.accumulate, config.label_smoothing) = (1, 1, 0.0);
    (config.hide_condition, config.hide_place, config.transformer.drop_path) = (0.0, 0.0, 0.0);
    (config.validate_every, config.checkpoint_every, config.log_every) = (300, 300, 20);
    config.optimiser.learning_rate = 4e-3;
    config.optimiser.average_decay = 0.9;
    let run = folder.join(format!("{forcing:?}"));
    train::train(&config, &session(&run, Start::Fresh)).unwrap();
    let losses: Vec<f64> = numbers(&run).iter().filter_map(|line| line["cross_entropy"].as_f64()).collect();
    assert!(losses[losses.len() - 1] < 0.1 * losses[0], "{losses:?}");
    let model = export_model(&run, &Device::flex()).unwrap();
    let options =
        GenerationOptions { guidance: Guidance::Off, sampler: SamplerConfig::greedy(), ..Default::default() };
    let folder = earthmapper_geo::PairFolder::open(&config.data, &Default::default()).unwrap();
    for index in 0..2 {
        let pair = earthmapper_lab::data::read_square(&folder, index, 16).unwrap();
        let tokens = Translator::new(&model).encode(&[pair.satellite, pair.map]);
        let condition = Condition::translation(&model, tokens[0].clone(), Modality::Map, config.place);
        let made = Translator::new(&model).run(&[condition], &[0], &options, &mut |_| {}).unwrap();
        let same = (0..3).flat_map(|k| made[0].tokens.scale(k).iter().zip(tokens[1].scale(k)));
        let wrong = same.filter(|(a, b)| a != b).count();
        assert!(wrong <= 2, "{forcing:?}: {wrong} of 42 codes of map {index} are wrong");
    }
}

#[test]
fn a_loss_that_is_no_number_stops_and_keeps_the_last_good_checkpoint() {
    let temporary = tempfile::tempdir().unwrap();
    let data = temporary.path().join("data");
    pairs(&data, 4);
    let mut config = tokenizer_training(&data, 8);
    (config.optimiser.learning_rate, config.optimiser.clip_norm, config.optimiser.warm_up) = (1e30, 0.0, 0);
    config.checkpoint_every = 1;
    let run = temporary.path().join("run");
    let error = train_tokenizer::train(&config, &session(&run, Start::Fresh)).unwrap_err();
    assert!(matches!(error, TrainError::NotANumber { .. }), "{error}");
    assert!(error.to_string().contains("learning_rate"));
    let (_, checkpoint) = Run::resume(&run, &earthmapper_lab::run::Environment::current("cpu", 1)).unwrap();
    assert!(checkpoint.is_some_and(|checkpoint| checkpoint.step >= 1));
}

#[test]
fn sixteen_bit_training_learns_or_is_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let data = temporary.path().join("data");
    pairs(&data, 4);
    let tokenizer = trained_tokenizer(temporary.path(), &data);
    let mut config = transformer_training(&data, &tokenizer, 30);
    (config.precision, config.transformer.drop_path) = (Precision::Bf16, 0.0);
    let run = temporary.path().join("run");
    match train::train(&config, &session(&run, Start::Fresh)) {
        Ok(_) => {
            let lines = numbers(&run);
            let losses: Vec<f64> = lines.iter().filter_map(|line| line["cross_entropy"].as_f64()).collect();
            let norms: Vec<f64> = lines.iter().filter_map(|line| line["gradient_norm"].as_f64()).collect();
            assert!(norms.iter().all(|norm| *norm > 0.0), "gradients reach the weights: {norms:?}");
            assert!(losses[losses.len() - 1] < 0.95 * losses[0], "{losses:?}");
        }
        Err(error) => assert!(matches!(error, TrainError::Config { key: "precision", .. }), "{error}"),
    }
}

#[test]
fn wrong_configurations_and_folders_are_named() {
    let temporary = tempfile::tempdir().unwrap();
    let data = temporary.path().join("data");
    std::fs::create_dir_all(&data).unwrap();
    let config = tokenizer_training(&data, 2);
    let run = |name: &str| temporary.path().join(name);
    let error = train_tokenizer::train(&config, &session(&run("a"), Start::Fresh)).unwrap_err();
    assert!(matches!(error, TrainError::Pairs(PairError::NoPairs { .. })), "{error}");
    assert!(!run("a").exists(), "nothing is made for a training that cannot begin");

    let text = toml::to_string(&config).unwrap().replace("log_every", "log_evry");
    let error = toml::from_str::<TokenizerTraining>(&text).unwrap_err().to_string();
    assert!(error.contains("log_evry"), "{error}");

    pairs(&data, 4);
    std::fs::write(data.join("9.png"), b"no picture").unwrap();
    let mut config = tokenizer_training(&data, 2);
    config.start.pairs = 0;
    train_tokenizer::train(&config, &session(&run("b"), Start::Fresh)).unwrap_err();
    config.validation.last = Some(3);
    let outcome = train_tokenizer::train(&config, &session(&run("c"), Start::Fresh)).unwrap();
    assert_eq!(outcome, Outcome::Finished, "one unreadable pair is skipped");
    (0..3).for_each(|i| std::fs::write(data.join(format!("1{i}.png")), b"no picture").unwrap());
    config.steps = 20;
    let error = train_tokenizer::train(&config, &session(&run("d"), Start::Fresh)).unwrap_err();
    assert!(matches!(error, TrainError::Data(_)), "{error}");
}
