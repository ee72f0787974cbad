//! What a training promises, on pictures of 16 pixels.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use burn::tensor::{Device, Distribution, Tensor};
use earthmapper::config::Forcing;
use earthmapper::guidance::Guidance;
use earthmapper::init::Init;
use earthmapper::model::save_tokenizer;
use earthmapper::sampler::SamplerConfig;
use earthmapper::tokenizer::MultiScaleTokenizer;
use earthmapper::translator::{Condition, GenerationOptions, Translator};
use earthmapper::weights::{HostTensor, HostTensors, Storage, collect};
use earthmapper::{DecoderConfig, EarthMapper, Modality, TokenizerConfig, TransformerConfig};
use earthmapper_geo::pairs::{PairError, PairSource};
use earthmapper_geo::{Picture, WriteOptions, write_picture};
use earthmapper_lab::data::DataError;
use earthmapper_lab::export::{export_model, open_tokenizer, with_decoder_of};
use earthmapper_lab::optimiser::load_module;
use earthmapper_lab::progress::{Interrupt, ProgressMode};
use earthmapper_lab::run::{Checkpoint, Environment, Run};
use earthmapper_lab::semantic_infusion::{SemanticInfusionConfig, Targets};
use earthmapper_lab::session::{Outcome, Session, Start, TrainError};
use earthmapper_lab::train::{Learner, Precision, TransformerTraining};
use earthmapper_lab::train_tokenizer::{AdversarialLoss, Judged, Learn, TokenizerTraining};
use earthmapper_lab::{train, train_tokenizer};

/// A pair: coloured quadrants, and their "map" with the colours exchanged.
fn drawn(i: u32) -> [Picture; 2] {
    let colour = |x: u32, y: u32| [(40 * i + 90 * (x / 8)) as u8, (120 * (y / 8)) as u8, (25 * i) as u8];
    let photograph = Picture::drawn(16, 16, colour);
    let map = Picture::drawn(16, 16, |x, y| {
        let [r, g, b] = colour(x, y);
        [255 - g, 255 - r, b]
    });
    [photograph, map]
}

/// Pairs side by side.
fn pairs(folder: &Path, count: u32) {
    std::fs::create_dir_all(folder).unwrap();
    for i in 0..count {
        let [photograph, map] = drawn(i);
        let both = Picture::hconcat(&[&photograph, &map]);
        write_picture(folder.join(format!("{i}.png")), &both, &WriteOptions::default()).unwrap();
    }
}

/// The same pairs in two folders.
fn pairs_in_two_folders(folder: &Path, count: u32) -> PairSource {
    for (name, modality) in [("satellite", 0), ("map", 1)] {
        std::fs::create_dir_all(folder.join(name)).unwrap();
        for i in 0..count {
            let path = folder.join(name).join(format!("{i}.png"));
            write_picture(path, &drawn(i)[modality], &WriteOptions::default()).unwrap();
        }
    }
    PairSource::TwoFolders { satellite: folder.join("satellite"), map: folder.join("map") }
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

/// The values of one number of the log, in order.
fn series(run: &Path, name: &str) -> Vec<f64> {
    numbers(run).iter().filter_map(|line| line[name].as_f64()).collect()
}

/// Runs `train` to its end, stopping it after every single step; gives back how often it was started.
fn step_by_step(folder: &Path, train: impl Fn(&Session) -> Outcome) -> usize {
    let mut starts = 0;
    loop {
        let start = if starts == 0 { Start::Fresh } else { Start::Resume };
        let session = session(folder, start);
        session.interrupt.request();
        starts += 1;
        if train(&session) == Outcome::Finished {
            return starts;
        }
        assert!(folder.join("last").exists(), "an interrupted run leaves a checkpoint");
    }
}

/// Stops a training some time after its first checkpoint; where exactly is up to the clock, which is the point.
fn interrupt_soon(session: &Session) {
    let (interrupt, folder) = (session.interrupt.clone(), session.folder.clone());
    std::thread::spawn(move || {
        while !folder.join("last").exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        interrupt.request();
    });
}

/// What a process that was killed after the checkpoint of `step` leaves of a run: later lines in the log, the last of
/// them torn, and half a checkpoint.
fn killed_after(whole: &Path, broken: &Path, step: u64) {
    copy(whole, broken);
    for entry in std::fs::read_dir(broken.join("checkpoints")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.strip_prefix("step-").unwrap().parse::<u64>().unwrap() > step {
            std::fs::remove_dir_all(&path).unwrap();
        }
    }
    std::fs::create_dir(broken.join("checkpoints/.tmp-step-99")).unwrap();
    std::fs::write(broken.join("checkpoints/.tmp-step-99/average.bpk"), b"half").unwrap();
    let log = broken.join("metrics.jsonl");
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, text + "{\"step\": 9, \"half").unwrap();
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// The weights and their average in the newest checkpoint of a tokenizer's run.
fn tokenizer_weights(run: &Path, config: &TokenizerConfig) -> [HostTensors; 2] {
    let folder = Checkpoint::newest(run).unwrap().folder;
    ["tokenizer.bpk", "average.bpk"].map(|file| {
        let fresh = MultiScaleTokenizer::new(config, &mut Init::new(0, &Device::flex()));
        collect(&load_module(fresh, &folder.join(file)).unwrap())
    })
}

/// The same of a transformer's run.
fn learner_weights(run: &Path, config: &TransformerTraining, features: Option<usize>) -> [HostTensors; 2] {
    let folder = Checkpoint::newest(run).unwrap().folder;
    ["learner.bpk", "average.bpk"].map(|file| {
        let fresh = Learner::fresh(config, &tokenizer_config(), features, &Device::flex());
        collect(&load_module(fresh, &folder.join(file)).unwrap())
    })
}

fn assert_same_end(whole: &Path, broken: &Path, weights: impl Fn(&Path) -> [HostTensors; 2], case: &str) {
    assert_eq!(numbers(whole), numbers(broken), "{case}");
    assert!(weights(whole) == weights(broken), "{case}: the weights differ");
    let best = |run: &Path| std::fs::read_to_string(run.join("best")).unwrap();
    assert_eq!(best(whole), best(broken), "{case}");
}

#[test]
fn a_stopped_tokenizer_run_goes_on_as_if_never_stopped() {
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
            pictures: Judged::Both,
            features: 0.0,
        });
        let train = |session: &Session| train_tokenizer::train(&config, session).unwrap();
        let weights = |run: &Path| tokenizer_weights(run, &config.tokenizer);
        let run = |name: &str| temporary.path().join(format!("{name}-{adversarial}"));
        let whole = run("whole");
        assert_eq!(train(&session(&whole, Start::Fresh)), Outcome::Finished);
        assert_eq!(train(&session(&run("again"), Start::Fresh)), Outcome::Finished);
        assert_same_end(&whole, &run("again"), weights, "the same run twice");

        assert_eq!(step_by_step(&run("steps"), train), 9);
        assert_same_end(&whole, &run("steps"), weights, "stopped after every step");
        for step in [6, 8] {
            let broken = run(&format!("killed-{step}"));
            killed_after(&whole, &broken, step);
            assert_eq!(train(&session(&broken, Start::Resume)), Outcome::Finished);
            assert_same_end(&whole, &broken, weights, &format!("killed after step {step}"));
        }

        let names: BTreeSet<String> =
            numbers(&whole).iter().flat_map(|line| line.as_object().unwrap().keys().cloned()).collect();
        for name in [
            "validation/psnr_satellite",
            "validation/psnr_map",
            "validation/code_use/2",
            "validation/dead_codes",
        ] {
            assert!(names.contains(name), "{name} is logged");
        }
        assert_eq!(names.contains("adaptive_weight") && names.contains("discriminator"), adversarial);
    }
}

#[test]
fn two_folders_are_the_same_pairs() {
    let temporary = tempfile::tempdir().unwrap();
    let data = temporary.path().join("data");
    pairs(&data, 3);
    let beside = tokenizer_training(&data, 3);
    let apart = TokenizerTraining { data: pairs_in_two_folders(temporary.path(), 3), ..beside.clone() };
    let runs = [("beside", &beside), ("apart", &apart)].map(|(name, config)| {
        let run = temporary.path().join(name);
        train_tokenizer::train(config, &session(&run, Start::Fresh)).unwrap();
        numbers(&run)
    });
    assert_eq!(runs[0], runs[1]);
}

/// A tokenizer trained for a moment.
fn trained_tokenizer(folder: &Path, data: &Path) -> PathBuf {
    let run = folder.join("tokenizer");
    train_tokenizer::train(&tokenizer_training(data, 4), &session(&run, Start::Fresh)).unwrap();
    run
}

#[test]
fn a_stopped_transformer_run_goes_on_as_if_never_stopped() {
    let temporary = tempfile::tempdir().unwrap();
    let data = temporary.path().join("data");
    pairs(&data, 6);
    let tokenizer = trained_tokenizer(temporary.path(), &data);
    let mut config = transformer_training(&data, &tokenizer, 9);
    config.data = pairs_in_two_folders(temporary.path(), 6);
    (config.transformer.forcing, config.transformer.guide_blocks) = (Forcing::Aligned, 1);
    config.transformer.tied_head = true;
    (config.token_noise, config.scale_weights) = (0.3, vec![0.2, 0.3, 0.5]);
    config.blotted = 0.2;
    let train = |session: &Session| train::train(&config, session).unwrap();
    let weights = |run: &Path| learner_weights(run, &config, None);
    let run = |name: &str| temporary.path().join(name);
    let whole = run("whole");
    assert_eq!(train(&session(&whole, Start::Fresh)), Outcome::Finished);
    assert_eq!(train(&session(&run("again"), Start::Fresh)), Outcome::Finished);
    assert_same_end(&whole, &run("again"), weights, "the same run twice");

    let stopped = session(&run("soon"), Start::Fresh);
    interrupt_soon(&stopped);
    if train(&stopped) == Outcome::Interrupted {
        assert_eq!(train(&session(&run("soon"), Start::Resume)), Outcome::Finished);
    }
    assert_same_end(&whole, &run("soon"), weights, "stopped somewhere");

    // Asked to stop before the first token is made, a run stops there, and begins again when it is resumed. With the
    // tokens of another run it gets to its steps.
    let early = session(&run("steps"), Start::Fresh);
    early.interrupt.request();
    assert_eq!(train(&early), Outcome::Interrupted);
    copy(&whole.join("tokens"), &run("steps").join("tokens"));
    for starts in 1.. {
        let session = session(&run("steps"), Start::Resume);
        session.interrupt.request();
        if train(&session) == Outcome::Finished {
            assert_eq!(starts, 9, "one step each");
            break;
        }
    }
    assert_same_end(&whole, &run("steps"), weights, "stopped after every step");
    for step in [6, 8] {
        let broken = run(&format!("killed-{step}"));
        killed_after(&whole, &broken, step);
        // Tokens that are lost or damaged are made anew.
        let files: Vec<PathBuf> =
            std::fs::read_dir(broken.join("tokens")).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 3, "two variants and the validation");
        std::fs::remove_file(&files[0]).unwrap();
        std::fs::write(&files[1], b"half").unwrap();
        assert_eq!(train(&session(&broken, Start::Resume)), Outcome::Finished);
        assert_same_end(&whole, &broken, weights, &format!("killed after step {step}"));
    }
}

#[test]
fn a_model_folder_holds_the_exported_model_and_fine_tuning_starts_from_it() {
    let temporary = tempfile::tempdir().unwrap();
    let data = temporary.path().join("data");
    pairs(&data, 4);
    let tokenizer = trained_tokenizer(temporary.path(), &data);
    let config = transformer_training(&data, &tokenizer, 12);
    let run = temporary.path().join("run");
    train::train(&config, &session(&run, Start::Fresh)).unwrap();
    let model = export_model(&run, &Device::flex()).unwrap();
    let saved = temporary.path().join("model");
    model.save(&saved, Storage::F32, "card").unwrap();
    let back = EarthMapper::load(&saved, &Device::flex()).unwrap();
    assert_eq!(collect(&back.transformer), collect(&model.transformer));
    assert_eq!(collect(&back.tokenizer), collect(&open_tokenizer(&tokenizer, &Device::flex()).unwrap().1));
    let translated = |model: &EarthMapper| {
        let [satellite, _] = drawn(2);
        let source = Translator::new(model).encode(&[satellite]);
        let condition = Condition::translation(model, source[0].clone(), Modality::Map, config.place);
        let options = GenerationOptions { guidance: Guidance::Off, ..Default::default() };
        let mut made = Translator::new(model).run(&[condition], &[7], &options, &mut |_| {}).unwrap();
        (source[0].tokens.clone(), made.swap_remove(0).tokens)
    };
    assert!(translated(&back) == translated(&model), "a model that is read back makes other tokens");

    // Another decoder of the same tokens can take the place of its own.
    let mut finer = TokenizerTraining {
        from: Some(tokenizer.clone()),
        learn: Learn::Decoder,
        ..tokenizer_training(&data, 2)
    };
    finer.tokenizer.decoder =
        Some(DecoderConfig { fold: 1, channels: 6, multipliers: vec![1, 1, 2], residual_blocks: 1 });
    let finer_run = temporary.path().join("finer");
    train_tokenizer::train(&finer, &session(&finer_run, Start::Fresh)).unwrap();
    let changed = with_decoder_of(model.clone(), &finer_run, &Device::flex()).unwrap();
    assert_eq!(changed.tokenizer_config, finer.tokenizer);
    assert!(translated(&changed) == translated(&model), "another decoder makes other tokens");
    assert!(collect(&changed.tokenizer) == tokenizer_weights(&finer_run, &finer.tokenizer)[1]);
    let changed_folder = temporary.path().join("changed");
    changed.save(&changed_folder, Storage::F16, "card").unwrap();
    EarthMapper::load(&changed_folder, &Device::flex()).unwrap();
    // Back again, from 16 bits.
    let back_again = with_decoder_of(model.clone(), &changed_folder, &Device::flex()).unwrap();
    assert!(translated(&back_again) == translated(&model));
    let stranger = temporary.path().join("stranger");
    train_tokenizer::train(&tokenizer_training(&data, 2), &session(&stranger, Start::Fresh)).unwrap();
    let error = with_decoder_of(model.clone(), &stranger, &Device::flex()).unwrap_err().to_string();
    assert!(error.contains("stranger") && error.contains("other tokens"), "{error}");

    // With a rate of zero the model stays where it starts, and so the loss measured is that of the start.
    let mut tuned = TransformerTraining { from: Some(saved.clone()), steps: 1, ..config };
    tuned.optimiser.learning_rate = 0.0;
    let tuned_run = temporary.path().join("tuned");
    train::train(&tuned, &session(&tuned_run, Start::Fresh)).unwrap();
    let best = series(&run, "validation/loss").into_iter().fold(f64::INFINITY, f64::min);
    let start = series(&tuned_run, "validation/loss")[0];
    assert!((start - best).abs() < 1e-4, "fine-tuning starts at {start}, the model ended at {best}");

    let missing = TransformerTraining { from: Some(temporary.path().join("nowhere")), ..tuned.clone() };
    let run = temporary.path().join("from-nowhere");
    let error = train::train(&missing, &session(&run, Start::Fresh)).unwrap_err();
    assert!(matches!(error, TrainError::Model(_)) && error.to_string().contains("nowhere"), "{error}");
    let mut other = tuned;
    other.transformer.depth = 3;
    let error = train::train(&other, &session(&run, Start::Fresh)).unwrap_err();
    assert!(matches!(error, TrainError::Config { key: "from", .. }), "{error}");
    assert!(!run.exists(), "nothing is made for a training that cannot begin");
}

#[test]
fn a_tokenizer_learns_two_pairs_by_heart() {
    let temporary = tempfile::tempdir().unwrap();
    let data = temporary.path().join("data");
    pairs(&data, 2);
    let mut config = tokenizer_training(&data, 150);
    config.augment = Default::default();
    config.augment.picture_side = 16;
    // From noise, so that what is learned is learned by gradient.
    config.start.pairs = 0;
    config.optimiser.learning_rate = 5e-3;
    (config.validate_every, config.checkpoint_every, config.log_every) = (150, 150, 10);
    let run = temporary.path().join("run");
    train_tokenizer::train(&config, &session(&run, Start::Fresh)).unwrap();
    let losses = series(&run, "reconstruction");
    assert!(losses[losses.len() - 1] < 0.4 * losses[0], "{losses:?}");
}

/// Whether a weight comes after the quantizer.
fn after_the_quantizer(name: &str) -> bool {
    ["decoder.", "after_quantizer.", "linear.out."].iter().any(|start| name.starts_with(start))
}

#[test]
fn a_decoder_learns_alone_and_the_tokens_stay() {
    let temporary = tempfile::tempdir().unwrap();
    let data = temporary.path().join("data");
    pairs(&data, 5);
    let first = trained_tokenizer(temporary.path(), &data);
    let device = Device::flex();
    let (_, before) = open_tokenizer(&first, &device).unwrap();
    let begun = collect(&before);
    let pictures = Tensor::<4>::random([7, 3, 16, 16], Distribution::Uniform(-1.0, 1.0), &device);
    let finer = DecoderConfig { fold: 1, channels: 6, multipliers: vec![1, 1, 2], residual_blocks: 2 };
    for (name, decoder) in [("same", None), ("finer", Some(finer))] {
        let mut config = TokenizerTraining {
            from: Some(first.clone()),
            learn: Learn::Decoder,
            token_noise: 0.2,
            ..tokenizer_training(&data, 9)
        };
        config.tokenizer.decoder = decoder;
        // What would change the tokens at once, if the whole tokenizer learned.
        (config.revival.every, config.optimiser.learning_rate) = (2, 1e-2);
        (config.losses.ssim, config.losses.edges) = (0.5, 0.5);
        config.losses.adversarial = Some(AdversarialLoss {
            weight: 0.1,
            start: 3,
            discriminator: toml::from_str("width = 4\nlayers = 1").unwrap(),
            learning_rate: 1e-3,
            pictures: Judged::Satellite,
            features: 0.3,
        });
        let train = |session: &Session| train_tokenizer::train(&config, session).unwrap();
        let run = |which: &str| temporary.path().join(format!("{name}-{which}"));
        let (whole, said) = listening(|| {
            let whole = run("whole");
            assert_eq!(train(&session(&whole, Start::Fresh)), Outcome::Finished);
            whole
        });
        assert!(said.contains("only the decoder learns"), "{said}");
        let last = numbers(&whole).into_iter().rfind(|line| line["features"].is_number()).unwrap();
        assert!(last["features"].as_f64().unwrap() > 0.0, "{last}");
        let weights = |run: &Path| tokenizer_weights(run, &config.tokenizer);
        for tensors in weights(&whole) {
            for (name, tensor) in &tensors {
                if after_the_quantizer(name) {
                    assert_ne!(Some(tensor), begun.get(name), "{name} learns");
                } else {
                    assert_eq!(Some(tensor), begun.get(name), "{name} stays");
                }
            }
            let kept =
                |tensors: &HostTensors| tensors.keys().filter(|name| !after_the_quantizer(name)).count();
            assert_eq!(kept(&tensors), kept(&begun));
        }
        let (opened, after) = open_tokenizer(&whole, &device).unwrap();
        assert_eq!(opened, config.tokenizer);
        let (a, b) = (before.encode(pictures.clone()), after.encode(pictures.clone()));
        assert!(a.tokens == b.tokens, "{name}: the tokens changed");
        assert_eq!(a.features.into_data(), b.features.into_data());
        assert_eq!(after.decode(&b.tokens).dims(), [7, 3, 16, 16]);
        assert_ne!(before.decode(&b.tokens).into_data(), after.decode(&b.tokens).into_data());
        assert!(series(&whole, "quantizer").is_empty() && !series(&whole, "adaptive_weight").is_empty());

        assert_eq!(step_by_step(&run("steps"), train), 9);
        assert_same_end(&whole, &run("steps"), weights, name);
    }
}

#[test]
fn a_tokenizer_starts_from_another_one() {
    let temporary = tempfile::tempdir().unwrap();
    let data = temporary.path().join("data");
    pairs(&data, 4);
    let first = trained_tokenizer(temporary.path(), &data);
    let folder = temporary.path().join("folder");
    let (shape, tokenizer) = open_tokenizer(&first, &Device::flex()).unwrap();
    save_tokenizer(&shape, &tokenizer, &folder, Storage::F32).unwrap();
    // With a rate of zero everything stays where it starts, and what is measured is the start.
    let mut still = TokenizerTraining { from: Some(folder.clone()), ..tokenizer_training(&data, 1) };
    (still.optimiser.learning_rate, still.optimiser.weight_decay) = (0.0, 0.0);
    let run = temporary.path().join("still");
    train_tokenizer::train(&still, &session(&run, Start::Fresh)).unwrap();
    assert!(tokenizer_weights(&run, &shape)[0] == collect(&tokenizer));
    for name in ["validation/psnr_satellite", "validation/psnr_map"] {
        let best = series(&first, name).into_iter().fold(0.0, f64::max);
        assert_close(&series(&run, name), &[best], 1e-4, name);
    }
    // The whole tokenizer may go on learning with a decoder of another shape.
    let shape = TokenizerConfig {
        decoder: Some(DecoderConfig { fold: 4, channels: 8, multipliers: vec![2], residual_blocks: 1 }),
        ..shape
    };
    let all = TokenizerTraining { tokenizer: shape.clone(), ..still.clone() };
    let run = temporary.path().join("all");
    train_tokenizer::train(&all, &session(&run, Start::Fresh)).unwrap();
    let [weights, _] = tokenizer_weights(&run, &shape);
    let begun = collect(&tokenizer);
    assert!(weights.iter().all(|(name, tensor)| name.starts_with("decoder.") || begun[name] == *tensor));

    let alone = TokenizerTraining { learn: Learn::Decoder, ..still };
    let run = temporary.path().join("refused");
    let refused = |change: &dyn Fn(&mut TokenizerTraining)| {
        let mut config = alone.clone();
        change(&mut config);
        let error = train_tokenizer::train(&config, &session(&run, Start::Fresh)).unwrap_err();
        assert!(!run.exists(), "nothing is made for a training that cannot begin");
        (error.to_string(), error)
    };
    let key = |(text, error): (String, TrainError), wanted: &str, part: &str| {
        let right = matches!(&error, TrainError::Config { key, .. } if *key == wanted);
        assert!(right && text.contains(part), "{text}");
    };
    key(refused(&|config| config.from = None), "from", "needs the tokenizer");
    key(refused(&|config| config.token_noise = 1.5), "token_noise", "between 0 and 1");
    key(refused(&|config| config.token_noise = f64::NAN), "token_noise", "between 0 and 1");
    let noisy_whole = |config: &mut TokenizerTraining| (config.learn, config.token_noise) = (Learn::All, 0.1);
    key(refused(&noisy_whole), "token_noise", "learn = \"decoder\"");
    key(refused(&|config| config.tokenizer.vocabulary = 30), "from", "vocabulary");
    key(refused(&|config| config.tokenizer.phi_ratio = 0.25), "from", "another phi_ratio;");
    let wider = |config: &mut TokenizerTraining| {
        (config.learn, config.tokenizer.channels) = (Learn::All, 16);
    };
    key(refused(&wider), "from", "encoder.");
    let deeper = |config: &mut TokenizerTraining| {
        (config.learn, config.tokenizer.residual_blocks) = (Learn::All, 2);
    };
    key(refused(&deeper), "from", "blocks.1");
    let (text, error) = refused(&|config| config.from = Some(temporary.path().join("nowhere")));
    assert!(matches!(error, TrainError::Model(_)) && text.contains("nowhere"), "{text}");
    let text = toml::to_string(&alone).unwrap().replacen("learn = \"decoder\"", "learn = \"decodr\"", 1);
    let error = toml::from_str::<TokenizerTraining>(&text).unwrap_err().to_string();
    assert!(error.contains("decodr") && error.contains("decoder"), "{error}");
}

#[test]
fn dead_codes_are_revived() {
    let temporary = tempfile::tempdir().unwrap();
    let data = temporary.path().join("data");
    pairs(&data, 6);
    let mut config = tokenizer_training(&data, 60);
    config.start.pairs = 0;
    config.tokenizer.vocabulary = 64;
    (config.validate_every, config.checkpoint_every) = (60, 60);
    let dead = [0, 5].map(|every| {
        (config.revival.every, config.revival.until) = (every, 1.0);
        let run = temporary.path().join(format!("every-{every}"));
        train_tokenizer::train(&config, &session(&run, Start::Fresh)).unwrap();
        series(&run, "validation/dead_codes")[0]
    });
    println!("dead codes without and with revival: {dead:?}");
    assert!(dead[0] >= 8.0 && dead[1] <= 0.7 * dead[0], "{dead:?}");
}

#[test]
fn two_pairs_are_learned_by_heart() {
    let temporary = tempfile::tempdir().unwrap();
    let data = temporary.path().join("data");
    pairs(&data, 2);
    let tokenizer = trained_tokenizer(temporary.path(), &data);
    for forcing in [Forcing::Sequence, Forcing::Aligned] {
        learned_by_heart(temporary.path(), transformer_training(&data, &tokenizer, 400), forcing);
    }
}

fn learned_by_heart(folder: &Path, mut config: TransformerTraining, forcing: Forcing) {
    config.transformer.forcing = forcing;
    if forcing == Forcing::Aligned {
        (config.transformer.guide_blocks, config.transformer.tied_head) = (1, true);
    }
    (config.joint_share, config.to_map_share) = (0.0, 0.7);
    config.augment = Default::default();
    config.augment.picture_side = 16;
    (config.variants, config.accumulate, config.label_smoothing) = (1, 1, 0.0);
    (config.hide_condition, config.hide_place, config.transformer.drop_path) = (0.0, 0.0, 0.0);
    (config.validate_every, config.checkpoint_every, config.log_every) = (400, 400, 20);
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
        let encoded = Translator::new(&model).encode(&[pair.satellite, pair.map]);
        let condition = Condition::translation(&model, encoded[0].clone(), Modality::Map, config.place);
        let made = Translator::new(&model).run(&[condition], &[0], &options, &mut |_| {}).unwrap();
        let same = (0..3).flat_map(|k| made[0].tokens.scale(k).iter().zip(encoded[1].tokens.scale(k)));
        let wrong = same.filter(|(a, b)| a != b).count();
        // In the sequence, the first scale does not see the known picture and can only guess which map it is.
        let guesses = if forcing == Forcing::Sequence { 2 } else { 0 };
        assert!(wrong <= 2 + guesses, "{forcing:?}: {wrong} of 42 codes of map {index} are wrong");
    }
}

/// Trains four good steps, then goes on with a rate that spoils the weights, then with the good one again.
fn spoil(
    run: &Path,
    start: impl Fn(&Session) -> Result<Outcome, TrainError>,
    spoil: impl Fn(&Session) -> Result<Outcome, TrainError>,
) {
    for begin in [Start::Fresh, Start::Resume, Start::Resume, Start::Resume] {
        let session = session(run, begin);
        session.interrupt.request();
        assert_eq!(start(&session).unwrap(), Outcome::Interrupted);
    }
    let error = spoil(&session(run, Start::Resume)).unwrap_err();
    // The step with that rate still has a finite loss; what it leaves has none.
    assert!(matches!(error, TrainError::NotANumber { step: 6, last: Some(4), .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("step 6") && text.contains("step 4") && text.contains("learning_rate"), "{text}");
    let (resumed, checkpoint) = Run::resume(run, &Environment::current("cpu", 1)).unwrap();
    assert_eq!(checkpoint.unwrap().step, 4);
    drop(resumed);
    assert_eq!(start(&session(run, Start::Resume)).unwrap(), Outcome::Finished);
}

#[test]
fn a_loss_that_is_no_number_stops_and_keeps_the_last_good_checkpoint() {
    let temporary = tempfile::tempdir().unwrap();
    let data = temporary.path().join("data");
    pairs(&data, 4);
    let mut good = tokenizer_training(&data, 8);
    good.checkpoint_every = 1;
    let mut bad = good.clone();
    (bad.optimiser.learning_rate, bad.optimiser.clip_norm) = (1e30, 0.0);
    spoil(
        &temporary.path().join("tokenizer-run"),
        |session| train_tokenizer::train(&good, session),
        |session| train_tokenizer::train(&bad, session),
    );

    // From the very first step there is nothing good to keep, and the run says so.
    let run = temporary.path().join("never-good");
    let error = train_tokenizer::train(&bad, &session(&run, Start::Fresh)).unwrap_err();
    assert!(matches!(error, TrainError::NotANumber { step: 2, last: None, .. }), "{error}");
    assert!(error.to_string().contains("no good checkpoint"), "{error}");
    let (_, checkpoint) = Run::resume(&run, &Environment::current("cpu", 1)).unwrap();
    assert!(checkpoint.is_none());

    let tokenizer = trained_tokenizer(temporary.path(), &data);
    let mut good = transformer_training(&data, &tokenizer, 8);
    good.checkpoint_every = 1;
    let mut bad = good.clone();
    (bad.optimiser.learning_rate, bad.optimiser.clip_norm) = (1e30, 0.0);
    let run = temporary.path().join("run");
    // Tokens first, because an interrupt stops their making as well.
    let warm = temporary.path().join("warm");
    train::train(&good, &session(&warm, Start::Fresh)).unwrap();
    let early = session(&run, Start::Fresh);
    early.interrupt.request();
    assert_eq!(train::train(&good, &early).unwrap(), Outcome::Interrupted);
    copy(&warm.join("tokens"), &run.join("tokens"));
    spoil(
        &run,
        |session| train::train(&good, &Session { start: Start::Resume, ..session.clone() }),
        |session| train::train(&bad, session),
    );
}

/// A configuration whose steps depend on nothing random.
fn plain(data: &Path, tokenizer: &Path, steps: u64) -> TransformerTraining {
    let mut config = transformer_training(data, tokenizer, steps);
    (config.hide_condition, config.hide_place, config.transformer.drop_path) = (0.0, 0.0, 0.0);
    config
}

fn run_of(folder: &Path, name: &str, config: &TransformerTraining) -> PathBuf {
    let run = folder.join(name);
    assert_eq!(train::train(config, &session(&run, Start::Fresh)).unwrap(), Outcome::Finished);
    run
}

fn assert_close(a: &[f64], b: &[f64], tolerance: f64, what: &str) {
    let close = |(a, b): (&f64, &f64)| (a - b).abs() <= tolerance * a.abs().max(b.abs());
    assert!(!a.is_empty() && a.len() == b.len() && a.iter().zip(b).all(close), "{what}: {a:?} {b:?}");
}

#[test]
fn accumulating_parts_equals_one_batch() {
    let temporary = tempfile::tempdir().unwrap();
    let data = temporary.path().join("data");
    pairs(&data, 8);
    let tokenizer = trained_tokenizer(temporary.path(), &data);
    // Eight pairs in two parts of two; and all there is of three pairs in parts of two and one.
    for (pairs, batch) in [(8, 4), (3, 3)] {
        let mut parts = plain(&data, &tokenizer, 3);
        parts.training.limit = Some(pairs);
        (parts.batch_size, parts.accumulate) = (2, 2);
        let whole = TransformerTraining { batch_size: batch, accumulate: 1, ..parts.clone() };
        let parts = run_of(temporary.path(), &format!("parts-{pairs}"), &parts);
        let whole = run_of(temporary.path(), &format!("whole-{pairs}"), &whole);
        for name in ["loss", "cross_entropy", "gradient_norm", "validation/loss"] {
            assert_close(&series(&parts, name), &series(&whole, name), 1e-3, name);
        }
    }
}

#[test]
fn scales_that_weigh_by_their_tokens_are_the_plain_mean() {
    let temporary = tempfile::tempdir().unwrap();
    let data = temporary.path().join("data");
    pairs(&data, 4);
    let tokenizer = trained_tokenizer(temporary.path(), &data);
    let plain = plain(&data, &tokenizer, 3);
    let weighted = |name: &str, scale_weights: [f64; 3]| {
        let config = TransformerTraining { scale_weights: scale_weights.into(), ..plain.clone() };
        series(&run_of(temporary.path(), name, &config), "loss")
    };
    let whole = series(&run_of(temporary.path(), "plain", &plain), "loss");
    // Sides 1, 2 and 4.
    let by_tokens = weighted("tokens", [1.0 / 21.0, 4.0 / 21.0, 16.0 / 21.0]);
    assert_close(&by_tokens, &whole, 1e-4, "by tokens");
    let coarse = weighted("coarse", [1.0, 0.0, 0.0]);
    assert!((coarse[0] / whole[0] - 1.0).abs() > 1e-4, "{coarse:?} {whole:?}");

    for wrong in [vec![0.5, 0.5], vec![0.5, 0.6, -0.1], vec![0.5, 0.5, 0.5]] {
        let config = TransformerTraining { scale_weights: wrong, ..plain.clone() };
        let error = train::train(&config, &session(&temporary.path().join("no"), Start::Fresh)).unwrap_err();
        assert!(matches!(error, TrainError::Config { key: "scale_weights", .. }), "{error}");
    }
}

/// A random DINOv2 of width 12 for pictures of 16 px, in transformers' names.
fn tiny_dinov2(path: &Path) {
    let mut shapes: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut put = |name: &str, shape: &[usize]| drop(shapes.insert(name.into(), shape.to_vec()));
    put("embeddings.cls_token", &[1, 1, 12]);
    put("embeddings.mask_token", &[1, 12]);
    put("embeddings.position_embeddings", &[1, 5, 12]);
    put("embeddings.patch_embeddings.projection.weight", &[12, 3, 8, 8]);
    put("embeddings.patch_embeddings.projection.bias", &[12]);
    put("layernorm.weight", &[12]);
    put("layernorm.bias", &[12]);
    for layer in 0..2 {
        let mut put = |name: &str, shape: &[usize]| put(&format!("encoder.layer.{layer}.{name}"), shape);
        for name in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            put(&format!("attention.{name}.weight"), &[12, 12]);
            put(&format!("attention.{name}.bias"), &[12]);
        }
        for (name, to, from) in [("mlp.fc1", 24, 12), ("mlp.fc2", 12, 24)] {
            put(&format!("{name}.weight"), &[to, from]);
            put(&format!("{name}.bias"), &[to]);
        }
        for name in ["norm1", "norm2"] {
            put(&format!("{name}.weight"), &[12]);
            put(&format!("{name}.bias"), &[12]);
        }
        put("layer_scale1.lambda1", &[12]);
        put("layer_scale2.lambda1", &[12]);
    }
    let value = |i: usize, salt: usize| (((i + 1) * (2 * salt + 7919)) as f32).sin() * 0.3;
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = shapes
        .into_iter()
        .enumerate()
        .map(|(salt, (name, shape))| {
            let count: usize = shape.iter().product();
            let bytes = (0..count).flat_map(|i| value(i, salt).to_le_bytes()).collect();
            (name, shape, bytes)
        })
        .collect();
    let views = bytes.iter().map(|(name, shape, bytes)| {
        (name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap())
    });
    let config = r#"{"num_attention_heads": 2, "layer_norm_eps": 1e-6}"#;
    let metadata = Some([("config".to_string(), config.to_string())].into());
    std::fs::write(path, safetensors::serialize(views, metadata).unwrap()).unwrap();
}

#[test]
fn semantic_infusion_pulls_and_is_off_without_weights() {
    let temporary = tempfile::tempdir().unwrap();
    let data = temporary.path().join("data");
    pairs(&data, 4);
    let tokenizer = trained_tokenizer(temporary.path(), &data);
    let weights = temporary.path().join("dinov2.safetensors");
    tiny_dinov2(&weights);
    let without = plain(&data, &tokenizer, 4);
    let with = |targets: Targets, weights: &Path| {
        let infusion = SemanticInfusionConfig { weights: weights.into(), sigma: 0.5, targets };
        TransformerTraining { semantic_infusion: Some(infusion), ..without.clone() }
    };
    let (off, said) = listening(|| run_of(temporary.path(), "off", &without));
    assert!(said.contains("semantic infusion: off"), "{said}");
    assert!(series(&off, "semantic").is_empty());
    let (exact, said) = listening(|| run_of(temporary.path(), "exact", &with(Targets::Exact, &weights)));
    assert!(said.contains("semantic infusion: on"), "{said}");
    let cheap = run_of(temporary.path(), "cheap", &with(Targets::Cheap, &weights));
    for run in [&exact, &cheap] {
        let (loss, cross_entropy, semantic) =
            (series(run, "loss"), series(run, "cross_entropy"), series(run, "semantic"));
        assert!(semantic.iter().all(|loss| *loss > 0.0), "{semantic:?}");
        let sum: Vec<f64> = cross_entropy.iter().zip(&semantic).map(|(a, b)| a + b).collect();
        assert_close(&loss, &sum, 1e-5, "loss");
        // The same weights at first, but another gradient, and so other weights from then on.
        assert_close(&cross_entropy[..1], &series(&off, "cross_entropy")[..1], 1e-6, "the first step");
        let norms = [run, &off].map(|run| series(run, "gradient_norm")[0]);
        assert!((norms[0] / norms[1] - 1.0).abs() > 1e-4, "{norms:?}");
        assert_ne!(cross_entropy[3], series(&off, "cross_entropy")[3]);
    }
    assert_ne!(series(&exact, "semantic")[0], series(&cheap, "semantic")[0]);
    let config = with(Targets::Exact, &weights);
    assert!(learner_weights(&exact, &config, Some(12))[0].keys().any(|name| name.starts_with("alignment")));
    export_model(&exact, &Device::flex()).unwrap();
    // In 16 bits the alignment still meets 32-bit hidden states.
    let mut sixteen = with(Targets::Cheap, &weights);
    sixteen.precision = Precision::Bf16;
    let sixteen = run_of(temporary.path(), "sixteen", &sixteen);
    assert_close(&series(&sixteen, "semantic")[..1], &series(&cheap, "semantic")[..1], 0.05, "16 bits");

    let run = temporary.path().join("refused");
    let foreign = temporary.path().join("foreign.safetensors");
    let tensors = [("hello".to_string(), HostTensor { shape: vec![2], values: vec![1.0, 2.0] })];
    std::fs::write(&foreign, earthmapper::weights::to_bytes(&HostTensors::from(tensors), Storage::F32))
        .unwrap();
    let torn = temporary.path().join("torn.safetensors");
    std::fs::write(&torn, &std::fs::read(&weights).unwrap()[..1000]).unwrap();
    for path in [temporary.path().join("missing.safetensors"), foreign, torn] {
        let config = with(Targets::Cheap, &path);
        let error = train::train(&config, &session(&run, Start::Fresh)).unwrap_err();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(matches!(error, TrainError::Weights(_)) && error.to_string().contains(&name), "{error}");
        assert!(!run.exists(), "nothing is made for a training that cannot begin");
    }
}

#[test]
fn sixteen_bit_passes_teach_the_32_bit_weights() {
    let temporary = tempfile::tempdir().unwrap();
    let data = temporary.path().join("data");
    pairs(&data, 4);
    let tokenizer = trained_tokenizer(temporary.path(), &data);
    let mut config = plain(&data, &tokenizer, 30);
    config.optimiser.weight_decay = 0.0;
    let full = run_of(temporary.path(), "full", &config);
    config.precision = Precision::Bf16;
    assert!(Device::flex().supports_dtype(burn::tensor::DType::BF16));
    let half = run_of(temporary.path(), "half", &config);
    for name in ["cross_entropy", "gradient_norm"] {
        assert_close(&series(&half, name)[..1], &series(&full, name)[..1], 0.05, name);
    }
    let losses = series(&half, "cross_entropy");
    assert!(losses[losses.len() - 1] < 0.95 * losses[0], "{losses:?}");

    // Every tensor that 32-bit passes move is moved by 16-bit passes too, about as far, and in steps finer than 16 bits.
    let start = {
        let mut config = config.clone();
        (config.steps, config.optimiser.learning_rate) = (1, 0.0);
        learner_weights(&run_of(temporary.path(), "start", &config), &config, None)
    };
    let [full, half] = [full, half].map(|run| learner_weights(&run, &config, None));
    let moved = |end: &HostTensor, start: &HostTensor| {
        let squares = end.values.iter().zip(&start.values).map(|(a, b)| f64::from(a - b).powi(2));
        squares.sum::<f64>().sqrt()
    };
    let mut finer = 0;
    for (name, start) in &start[0] {
        let [full, half] = [&full, &half].map(|end| moved(&end[0][name], start));
        assert!(
            (full == 0.0) == (half == 0.0) && half <= 2.0 * full && full <= 2.0 * half,
            "{name}: {full} {half}"
        );
        finer += usize::from(half > 0.0);
    }
    assert!(finer > 20, "{finer} tensors moved");
    let sixteen_bits = |value: &f32| value.to_bits() & 0xffff == 0;
    assert!(half[0].values().flat_map(|tensor| &tensor.values).any(|value| !sixteen_bits(value)));
}

#[test]
fn wrong_configurations_are_named() {
    let temporary = tempfile::tempdir().unwrap();
    let data = temporary.path().join("data");
    std::fs::create_dir_all(&data).unwrap();
    let config = tokenizer_training(&data, 2);
    let run = temporary.path().join("run");
    let error = train_tokenizer::train(&config, &session(&run, Start::Fresh)).unwrap_err();
    assert!(matches!(error, TrainError::Pairs(PairError::NoPairs { .. })), "{error}");
    let wrong = {
        let mut config = config.clone();
        config.augment.picture_side = 32;
        config
    };
    let error = train_tokenizer::train(&wrong, &session(&run, Start::Fresh)).unwrap_err();
    assert!(matches!(error, TrainError::Config { key: "augment.picture_side", .. }), "{error}");
    pairs(&data, 2);
    let mut wrong = config.clone();
    wrong.losses.adversarial = Some(toml::from_str("weight = 0.1\nstart = 0\nlearning_rate = 1e-3").unwrap());
    let error = train_tokenizer::train(&wrong, &session(&run, Start::Fresh)).unwrap_err();
    let key = "losses.adversarial.discriminator";
    assert!(matches!(&error, TrainError::Config { key: found, .. } if *found == key), "{error}");
    for features in ["-1.0", "nan", "inf"] {
        let text = format!(
            "weight = 0.1\nstart = 0\nlearning_rate = 1e-3\ndiscriminator = {{ layers = 1 }}\nfeatures = {features}"
        );
        wrong.losses.adversarial = Some(toml::from_str(&text).unwrap());
        let error = train_tokenizer::train(&wrong, &session(&run, Start::Fresh)).unwrap_err();
        assert!(error.to_string().contains("losses.adversarial.features"), "{error}");
    }
    let mut wrong = config.clone();
    wrong.optimiser.learning_rate = f64::NAN;
    let error = train_tokenizer::train(&wrong, &session(&run, Start::Fresh)).unwrap_err();
    assert!(error.to_string().contains("learning_rate"), "{error}");
    assert!(!run.exists(), "nothing is made for a training that cannot begin");

    let tokenizer = toml::to_string(&config).unwrap();
    let transformer = toml::to_string(&transformer_training(&data, &run, 2)).unwrap();
    // At the top and inside every table.
    for (text, known, unknown) in [
        (&tokenizer, "log_every", "log_evry"),
        (&tokenizer, "folder", "foldr"),
        (&tokenizer, "vocabulary", "vocabulry"),
        (&tokenizer, "crop_min", "crop_mn"),
        (&tokenizer, "batch_size", "batch_sze"),
        (&tokenizer, "beta", "betta"),
        (&tokenizer, "ssim", "sssim"),
        (&transformer, "hide_place", "hide_places"),
        (&transformer, "clip_norm", "clip_nrm"),
        (&transformer, "drop_path", "drop_pth"),
    ] {
        let text = text.replacen(&format!("{known} ="), &format!("{unknown} ="), 1);
        let error = match text.contains("[tokenizer]") {
            true => toml::from_str::<TokenizerTraining>(&text).unwrap_err(),
            false => toml::from_str::<TransformerTraining>(&text).unwrap_err(),
        };
        assert!(error.to_string().contains(unknown), "{unknown}: {error}");
    }
}

#[test]
fn unreadable_pictures_are_named_and_skipped_within_the_limit() {
    let temporary = tempfile::tempdir().unwrap();
    let data = temporary.path().join("data");
    pairs(&data, 4);
    let damage = |name: &str| std::fs::write(data.join(name), b"no picture").unwrap();
    damage("9.png");
    let config = tokenizer_training(&data, 4);
    let run = |name: &str| temporary.path().join(name);
    let (outcome, said) = listening(|| train_tokenizer::train(&config, &session(&run("a"), Start::Fresh)));
    assert_eq!(outcome.unwrap(), Outcome::Finished, "one may always be unreadable");
    assert!(said.contains("skipped: ") && said.contains("9.png"), "{said}");
    let transformer = transformer_training(&data, &run("a"), 4);
    let (outcome, said) = listening(|| train::train(&transformer, &session(&run("b"), Start::Fresh)));
    assert_eq!(outcome.unwrap(), Outcome::Finished);
    assert!(said.contains("skipped: ") && said.contains("9.png"), "{said}");

    ["10.png", "11.png", "12.png"].into_iter().for_each(damage);
    let too_many = |error: TrainError| {
        let text = error.to_string();
        assert!(matches!(error, TrainError::Data(DataError::TooManyUnreadable { .. })), "{text}");
        assert!(text.contains(".png") && text.contains("skip_limit"), "{text}");
    };
    too_many(train_tokenizer::train(&config, &session(&run("c"), Start::Fresh)).unwrap_err());
    assert!(!run("c").exists(), "a validation that cannot work is noticed before the run begins");
    let mut apart = TokenizerTraining { steps: 20, ..config.clone() };
    (apart.validation.last, apart.start.pairs) = (Some(3), 0);
    too_many(train_tokenizer::train(&apart, &session(&run("d"), Start::Fresh)).unwrap_err());
    too_many(train::train(&transformer, &session(&run("e"), Start::Fresh)).unwrap_err());
    let mut lenient = transformer.clone();
    lenient.skip_limit = 0.5;
    train::train(&lenient, &session(&run("f"), Start::Fresh)).unwrap();

    // One unreadable pair is within the limit, but nothing is left of a folder of one.
    let mut alone = transformer;
    alone.training.first = Some(12);
    let error = train::train(&alone, &session(&run("g"), Start::Fresh)).unwrap_err();
    alone.skip_limit = 1.0;
    too_many(error);
    let error = train::train(&alone, &session(&run("h"), Start::Fresh)).unwrap_err();
    assert!(matches!(error, TrainError::Data(DataError::NothingReadable { .. })), "{error}");
}

/// What `work` says through tracing on this thread.
fn listening<T>(work: impl FnOnce() -> T) -> (T, String) {
    // One for the whole process: subscribers that come and go make other threads' events be taken for unwanted.
    static EAR: std::sync::Once = std::sync::Once::new();
    EAR.call_once(|| tracing::subscriber::set_global_default(Ear).expect("the only one"));
    SAID.set(Some(String::new()));
    let result = work();
    (result, SAID.take().expect("set above"))
}

thread_local! {
    /// What was said on this thread, while somebody listens.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

struct Ear;

impl tracing::Subscriber for Ear {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct Text<'a>(&'a mut String);
        impl tracing::field::Visit for Text<'_> {
            fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0.push_str(&format!("{value:?}\n"));
            }
        }
        SAID.with_borrow_mut(|said| said.iter_mut().for_each(|said| event.record(&mut Text(said))));
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}
