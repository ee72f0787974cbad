//! A folder with a tiny model and pictures in it, and a way to run the program there.

// Every test file is a program of its own and uses a part of this.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use earthmapper::config::TrainedOn;
use earthmapper::weights::Storage;
use earthmapper::{EarthMapper, EarthMapperConfig, TokenizerConfig, TransformerConfig};
use earthmapper_geo::{Picture, WriteOptions, write_picture};

/// Side of the model's pictures.
pub const SIDE: u32 = 16;

/// A folder to run the program in. It holds `model`, `good.png` (of the model's side) and the empty folder `out`.
pub struct Workshop {
    folder: tempfile::TempDir,
}

/// How a run of the program ended.
pub struct Finished {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the program writes UTF-8");
        let code = output.status.code().expect("ended by itself, not by a signal");
        Self { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Finished {
    /// Checks that all went well.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self
    }

    /// The one line of JSON on stdout.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {:?}", self.stdout))
    }
}

impl Workshop {
    pub fn new() -> Self {
        let workshop = Self { folder: tempfile::tempdir().unwrap() };
        tiny_model().save(&workshop.path("model"), Storage::F32, "# tiny\n").unwrap();
        std::fs::create_dir(workshop.path("out")).unwrap();
        workshop.picture("good.png", SIDE, SIDE);
        workshop
    }

    /// Starts the program and does not wait for it.
    pub fn start(&self, arguments: &str) -> Child {
        let mut command = self.command();
        command.args(arguments.split_whitespace()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// Side-by-side pairs, and configurations for both trainings.
    pub fn with_pairs(steps: u64) -> Self {
        let workshop = Self::new();
        std::fs::create_dir(workshop.path("pairs")).unwrap();
        for i in 0..4 {
            let colour =
                |x: u32, y: u32| [(40 * i + 90 * (x / 8)) as u8, (120 * (y / 8)) as u8, (25 * i) as u8];
            let pair = Picture::drawn(2 * SIDE, SIDE, colour);
            write_picture(workshop.path(&format!("pairs/{i}.png")), &pair, &WriteOptions::default()).unwrap();
        }
        let common = |batch: &str| {
            format!(
                "steps = {steps}\nlog_every = 1\nvalidate_every = 4\ncheckpoint_every = 2\n{batch}[data]\n\
                 layout = \"side-by-side\"\nfolder = \"pairs\"\n[augment]\npicture_side = {SIDE}\n"
            )
        };
        let tokenizer = toml::to_string(&tiny_tokenizer()).unwrap();
        let tokenizer = format!("{}[loader]\nbatch_size = 2\n[tokenizer]\n{tokenizer}", common(""));
        std::fs::write(workshop.path("tokenizer.toml"), tokenizer).unwrap();
        let head = "name = \"trained\"\nbatch_size = 2\ntokenizer = \"out/tokenizer\"\n";
        let transformer = format!("{}[transformer]\ndepth = 2\nwidth = 32\nheads = 4\n", common(head));
        std::fs::write(workshop.path("transformer.toml"), transformer).unwrap();
        workshop
    }

    /// Path of something in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a colourful picture.
    pub fn picture(&self, name: &str, width: u32, height: u32) -> Picture {
        let picture =
            Picture::drawn(width, height, |x, y| [(x * 29) as u8, (y * 31) as u8, ((x ^ y) * 11) as u8]);
        write_picture(self.path(name), &picture, &WriteOptions::default()).unwrap();
        picture
    }

    /// The program, to be run in the folder, free of settings from outside.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_earthmapper"));
        self.isolate(&mut command);
        command
    }

    /// Moves a command into the folder and takes the program's variables from it.
    pub fn isolate(&self, command: &mut Command) {
        command.current_dir(self.folder.path()).env("COLUMNS", "100").env_remove("RUST_LOG");
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("EARTHMAPPER_"))
        {
            command.env_remove(name);
        }
    }

    /// Runs the program; arguments are separated by blanks.
    pub fn run(&self, arguments: &str) -> Finished {
        self.command().args(arguments.split_whitespace()).output().unwrap().into()
    }

    /// Checks that the program refuses: this exit code, one line that says these words, nothing on stdout, and every
    /// file as it was.
    #[track_caller]
    pub fn refuses(&self, arguments: &str, code: i32, words: &str) {
        let before = contents(self.folder.path());
        let finished = self.run(&format!("-q {arguments}"));
        self.check_refusal(arguments, finished, code, words);
        assert!(before == contents(self.folder.path()), "{arguments}: left something behind or changed it");
    }

    /// Checks a refusal without looking at the files.
    #[track_caller]
    pub fn check_refusal(&self, what: &str, finished: Finished, code: i32, words: &str) {
        let Finished { code: found, stdout, stderr } = finished;
        assert_eq!(found, code, "{what}: {stderr}");
        assert_eq!(stdout, "", "{what}");
        assert_eq!(stderr.lines().count(), 1, "{what}: not one line but {stderr:?}");
        assert!(stderr.starts_with("error: "), "{what}: {stderr:?}");
        assert!(stderr.contains(words), "{what}: {stderr:?} does not say {words:?}");
    }
}

/// Every file below a folder and what it holds; folders hold nothing.
pub fn contents(folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut all = BTreeMap::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                all.insert(path.clone(), None);
                open.push(path);
            } else {
                all.insert(path.clone(), Some(std::fs::read(&path).unwrap()));
            }
        }
    }
    all
}

/// The same random weights every time.
fn tiny_model() -> EarthMapper {
    let transformer = TransformerConfig { depth: 2, width: 32, heads: 4, ..Default::default() };
    let trained_on = TrainedOn { places_known: true, metres_per_pixel: Some(0.6), ..Default::default() };
    let config = EarthMapperConfig { format: 1, name: "tiny".into(), transformer, trained_on };
    EarthMapper::new(config, tiny_tokenizer(), 11, &Device::flex())
}

/// A tokenizer for pictures of [`SIDE`].
pub fn tiny_tokenizer() -> TokenizerConfig {
    TokenizerConfig {
        picture_side: SIDE as usize,
        sides: vec![1, 2, 4],
        vocabulary: 24,
        latent_width: 6,
        fold: 2,
        channels: 8,
        multipliers: vec![1, 2],
        residual_blocks: 1,
        linear_path: true,
        ..Default::default()
    }
}

/// Waits for something that another program does.
#[track_caller]
pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(120), "waited two minutes for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
