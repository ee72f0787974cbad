//! What a sweep promises, on drawn pairs of 16 pixels and a model that has learned nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use burn::tensor::Device;
use earthmapper::weights::Storage;
use earthmapper::{EarthMapper, EarthMapperConfig, Modality, TokenizerConfig, TransformerConfig};
use earthmapper_geo::pairs::{PairFolder, PairSelection, PairSource};
use earthmapper_geo::{Picture, WriteOptions, write_picture};
use earthmapper_lab::evaluate::{Candidate, Directions, EvaluateOptions, evaluate};
use earthmapper_lab::progress::{Interrupt, ProgressMode};
use earthmapper_lab::sweep::columns::Column;
use earthmapper_lab::sweep::report::Results;
use earthmapper_lab::sweep::{Basis, Plan, SweepConfig, SweepError, SweepOptions};

const SIDE: u32 = 16;

/// A folder with a model, pairs and whatever a test writes.
struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    /// Pairs 1 … 6; the map of pair i is land with i rows of road, so i/16 of it are urban.
    fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(bench.path("pairs")).unwrap();
        for i in 1..=6 {
            let is_road = |y: u32| y < i;
            let map = Picture::drawn(SIDE, SIDE, |_, y| if is_road(y) { [255; 3] } else { [233, 228, 222] });
            let photograph = Picture::drawn(SIDE, SIDE, |x, y| {
                [if is_road(y) { 120 } else { 60 } + (x * y % 7) as u8, 90, 40 + 3 * i as u8]
            });
            let both = Picture::hconcat(&[&photograph, &map]);
            write_picture(bench.path(&format!("pairs/{i}.png")), &both, &WriteOptions::default()).unwrap();
        }
        let transformer = TransformerConfig { depth: 2, width: 32, heads: 2, ..Default::default() };
        let config = EarthMapperConfig { format: 1, name: "tiny".into(), transformer, ..Default::default() };
        let model = EarthMapper::new(config, tokenizer(), 7, &Device::flex());
        model.save(&bench.path("model"), Storage::F32, "# tiny\n").unwrap();
        let training = format!(
            "steps = 3\nlog_every = 1\nvalidate_every = 2\ncheckpoint_every = 1\n[data]\nlayout = \"side-by-side\"\n\
             folder = {:?}\n[augment]\npicture_side = {SIDE}\n[loader]\nbatch_size = 2\n[tokenizer]\n{}",
            bench.path("pairs"),
            toml::to_string(&tokenizer()).unwrap()
        );
        fs::write(bench.path("tokenizer.toml"), training).unwrap();
        let training = format!(
            "name = \"trained\"\nsteps = 2\nbatch_size = 2\ntokenizer = \"unused\"\nlog_every = 1\n\
             validate_every = 2\ncheckpoint_every = 1\nvariants = 1\n[data]\nlayout = \"side-by-side\"\nfolder = {:?}\n\
             [augment]\npicture_side = {SIDE}\n[transformer]\ndepth = 2\nwidth = 32\nheads = 2\n",
            bench.path("pairs")
        );
        fs::write(bench.path("transformer.toml"), training).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a sweep of the bench's pairs; `{model}` and the like stand for its paths.
    fn sweep(&self, text: &str) -> PathBuf {
        let path = |name: &str| format!("{:?}", self.path(name));
        let text = text
            .replace("{model}", &path("model"))
            .replace("{tokenizer}", &path("tokenizer.toml"))
            .replace("{transformer}", &path("transformer.toml"))
            .replace("{data}", &format!("{{ layout = \"side-by-side\", folder = {} }}", path("pairs")));
        let file = self.path("sweep.toml");
        fs::write(&file, text).unwrap();
        file
    }

    fn options(&self, out: &str) -> SweepOptions {
        SweepOptions {
            out: self.path(out),
            device: Device::flex(),
            device_name: "cpu".into(),
            progress: ProgressMode::Silent,
            interrupt: Interrupt::new(),
        }
    }

    fn plan(&self, file: &Path, out: &str) -> Result<Plan, SweepError> {
        Plan::new(SweepConfig::read(file)?, file, &self.options(out))
    }

    fn run(&self, file: &Path, out: &str) -> Results {
        self.plan(file, out).unwrap().run(&self.options(out)).unwrap()
    }

    /// Runs with the request to stop already made: only what needs no computing can succeed.
    fn run_stopped(&self, file: &Path, out: &str) -> Result<Results, SweepError> {
        let options = self.options(out);
        options.interrupt.request();
        self.plan(file, out).unwrap().run(&options)
    }

    /// When each point's record was written.
    fn records(&self, out: &str) -> BTreeMap<PathBuf, SystemTime> {
        let folders = fs::read_dir(self.path(out).join("points")).unwrap().map(|entry| entry.unwrap().path());
        let records = folders.map(|folder| folder.join("result.json")).filter(|path| path.is_file());
        records.map(|path| (path.clone(), fs::metadata(path).unwrap().modified().unwrap())).collect()
    }
}

fn tokenizer() -> TokenizerConfig {
    TokenizerConfig {
        picture_side: SIDE as usize,
        sides: vec![1, 2, 4],
        vocabulary: 16,
        latent_width: 6,
        fold: 2,
        channels: 8,
        multipliers: vec![1, 2],
        residual_blocks: 1,
        linear_path: true,
        ..Default::default()
    }
}

const EVALUATE: &str =
    "[evaluate]\nmodel = {model}\ndata = {data}\nto = \"map\"\nbatch_size = 3\ndiversity_pictures = 2\n";

/// Two axes of two values and a point beside them.
fn grid(top_k: &str) -> String {
    format!(
        "title = \"A grid\"\n{EVALUATE}\
         [[axis]]\nname = \"force\"\n\
         [[axis.value]]\nlabel = \"index-add\"\n\
         set = {{ \"evaluate.generation.to_map.key_points\" = {{ index-add = {{ tau = 0.5 }} }} }}\n\
         [[axis.value]]\nlabel = \"off\"\n\
         [[axis]]\nname = \"top-k\"\nkey = \"evaluate.generation.to_map.sampler.top_k\"\nvalues = [{top_k}]\n\
         [[point]]\nlabel = \"ramp\"\nset = {{ \"evaluate.generation.to_map.guidance\" = {{ ramp = 1.5 }} }}\n\
         [report]\ndensity = true\nreference = \"ramp\"\n"
    )
}

#[test]
fn every_point_is_computed_once() {
    let bench = Bench::new();
    let file = bench.sweep(&grid("1, 4"));
    let plan = bench.plan(&file, "out").unwrap();
    assert_eq!((plan.points.len(), plan.done()), (5, 0));
    assert!(plan.estimate(&bench.options("out")).evaluations.is_none());
    assert!(!bench.path("out").exists(), "planning wrote something");
    let results = bench.run(&file, "out");
    assert!(results.failure().is_none());
    let labels: Vec<&str> = results.rows.iter().map(|row| row.label.as_str()).collect();
    assert_eq!(labels, ["index-add, top-k 1", "index-add, top-k 4", "off, top-k 1", "off, top-k 4", "ramp"]);
    for name in ["sweep.toml", "sweep.json", "sweep.csv", "sweep.md", "sweep.html", "ssim-by-top-k.svg"] {
        assert!(bench.path("out").join(name).is_file(), "{name}");
    }
    let first = bench.records("out");
    assert_eq!(first.len(), 5);
    assert!(!first.keys().any(|path| path.parent().unwrap().join("predictions").exists()));

    // The same again computes nothing, so a request to stop does not matter.
    let tables = fs::read(bench.path("out/sweep.csv")).unwrap();
    let again = bench.run_stopped(&file, "out").unwrap();
    assert_eq!(again.markdown(), results.markdown());
    assert_eq!(bench.records("out"), first);
    assert_eq!(fs::read(bench.path("out/sweep.csv")).unwrap(), tables);

    // Another value of one axis: its two points are new, and nothing else.
    let file = bench.sweep(&grid("1, 6"));
    let plan = bench.plan(&file, "out").unwrap();
    let done: Vec<bool> = plan.points.iter().map(|planned| planned.record.is_some()).collect();
    assert_eq!(done, [true, false, true, false, true]);
    assert!(plan.estimate(&bench.options("out")).evaluations.unwrap() > 0.0);
    assert!(matches!(bench.run_stopped(&file, "out"), Err(SweepError::Interrupted { done: 3, of: 5 })));
    bench.run(&file, "out");
    let second = bench.records("out");
    assert_eq!(second.len(), 7);
    assert!(first.iter().all(|(path, time)| second[path] == *time), "an old point was computed anew");

    // Other pairs are other points; pictures in larger batches and a moved model are not.
    let fewer = bench.sweep(&grid("1, 4").replace("batch_size", "pairs.limit = 3\nbatch_size"));
    assert_eq!(bench.plan(&fewer, "out").unwrap().done(), 0);
    fs::rename(bench.path("model"), bench.path("moved")).unwrap();
    let moved =
        grid("1, 4").replace("{model}", &format!("{:?}", bench.path("moved"))).replace("= 3\nd", "= 2\nd");
    assert_eq!(bench.plan(&bench.sweep(&moved), "out").unwrap().done(), 5);
    // A damaged record is computed anew.
    let path = first.keys().next().unwrap();
    fs::write(path, "{").unwrap();
    assert_eq!(bench.plan(&bench.sweep(&moved), "out").unwrap().done(), 4);
}

#[test]
fn a_stopped_sweep_goes_on() {
    let bench = Bench::new();
    let file = bench.sweep(&grid("1, 2, 3, 4, 5, 6"));
    let options = bench.options("out");
    let (interrupt, points) = (options.interrupt.clone(), bench.path("out/points"));
    let watcher = std::thread::spawn(move || {
        let is_done = |points: &Path| {
            let folders = fs::read_dir(points).into_iter().flatten().flatten();
            folders.filter(|folder| folder.path().join("result.json").is_file()).count() >= 2
        };
        while !is_done(&points) {
            std::thread::sleep(Duration::from_millis(1));
        }
        interrupt.request();
    });
    let stopped = bench.plan(&file, "out").unwrap().run(&options);
    watcher.join().unwrap();
    let Err(SweepError::Interrupted { done, of: 13 }) = stopped else { panic!("{stopped:?}") };
    assert!((2..13).contains(&done), "{done}");
    // What is done is written, and what is not is said so.
    let read = |name: &str| fs::read_to_string(bench.path("out").join(name)).unwrap();
    let json: serde_json::Value = serde_json::from_str(&read("sweep.json")).unwrap();
    let points = json["points"].as_array().unwrap();
    assert_eq!(points.iter().filter(|point| point["done"] == true).count(), done);
    assert!(points.iter().all(|point| point["failure"].is_null()));
    let count = |text: &str, words: &str| text.matches(words).count();
    assert_eq!(count(&read("sweep.md"), "| not done "), 13 - done);
    assert!(read("sweep.md").contains(&format!("- {} of 13 points are not done; the same", 13 - done)));
    assert_eq!(count(&read("sweep.csv"), ",not done,,,,\n"), 13 - done);
    assert_eq!(count(&read("sweep.csv"), ",map,model,SSIM,all,"), done);
    assert!(read("sweep.html").contains("not done"));
    let plot = read("ssim-by-top-k.svg");
    assert!((1..=done).contains(&count(&plot, "<circle")), "{plot}");
    let kept = bench.records("out");
    let results = bench.run(&file, "out");
    let records = bench.records("out");
    assert!(kept.iter().all(|(path, time)| records[path] == *time), "a point was computed twice");
    // It ends where one that was never stopped does.
    let whole = bench.run(&file, "whole");
    assert_eq!(results.csv(), whole.csv());
    assert!(!results.markdown().contains("not done"));
}

#[test]
fn the_nearest_training_pair_is_measured_once_and_is_that_of_an_evaluation() {
    let bench = Bench::new();
    let text = grid("1, 4").replace("batch_size", "pairs = { first = 4 }\nbatch_size");
    let without = bench.run(&bench.sweep(&text), "out");
    let missing = "- nearest training pair: not computed; give evaluate.training";
    assert!(without.markdown().contains(missing), "{}", without.markdown());
    assert!(!without.markdown().contains("(nearest training pair)"));

    // Training pairs make no point anew; a request to stop comes before they are looked at.
    let file = bench.sweep(&text.replace("batch_size", "training = { pairs = { last = 3 } }\nbatch_size"));
    assert_eq!(bench.plan(&file, "out").unwrap().done(), 5);
    assert!(matches!(bench.run_stopped(&file, "out"), Err(SweepError::Interrupted { done: 5, of: 5 })));
    let stopped = fs::read_to_string(bench.path("out/sweep.md")).unwrap();
    assert!(stopped.contains("- nearest training pair: not computed yet; the same command"), "{stopped}");
    let points = bench.records("out");
    let results = bench.run(&file, "out");
    assert_eq!(bench.records("out"), points);
    // One for five points; it is there the next time, which computes nothing.
    assert_eq!(fs::read_dir(bench.path("out/baselines")).unwrap().count(), 1);
    assert_eq!(bench.run_stopped(&file, "out").unwrap().markdown(), results.markdown());
    // Other training pairs are other baselines, of the same points.
    let other = bench.sweep(&text.replace("batch_size", "training = { pairs = { last = 2 } }\nbatch_size"));
    bench.run(&other, "out");
    assert_eq!(fs::read_dir(bench.path("out/baselines")).unwrap().count(), 2);
    assert_eq!(bench.records("out"), points);

    // The numbers are those of an evaluation with the same training pairs.
    let source = PairSource::SideBySide { folder: bench.path("pairs"), order: Default::default() };
    let chosen = |first, last| PairSelection { first, last, ..Default::default() };
    let pairs = PairFolder::open(&source, &chosen(Some(4), None)).unwrap();
    let model = EarthMapper::load(&bench.path("model"), &Device::flex()).unwrap();
    let mut options = EvaluateOptions::new(&model);
    options.directions = Directions::ToMap;
    options.training = Some(PairFolder::open(&source, &chosen(None, Some(3))).unwrap());
    let evaluated = evaluate(&model, &pairs, &options, ProgressMode::Silent, &Interrupt::new()).unwrap();
    for row in &results.rows {
        let record = row.record.as_ref().unwrap();
        for candidate in [Candidate::Blank, Candidate::Nearest] {
            for metric in ["SSIM", "PSNR (dB)", "road F1, 2 px", "IoU mean"] {
                let expected = evaluated.evaluation.section(Modality::Map).unwrap().number(candidate, metric);
                let column = Column::new(Modality::Map, candidate, metric, metric);
                assert_eq!(record.number(&column), expected.unwrap(), "{candidate} {metric}");
            }
        }
    }
    // Every table has it: all pairs, differences, and each number by urban density.
    let markdown = results.markdown();
    let tables = markdown.matches("\n|--").count() + markdown.matches("\n| --").count();
    assert!(tables > 3, "{markdown}");
    for name in ["(blank picture)", "(nearest training pair)", "(tokenizer's ceiling)"] {
        // Samples that differ are the model's alone.
        let of_model = markdown.matches("\n### diversity").count();
        assert_eq!(markdown.matches(name).count(), tables - of_model, "{name}\n{markdown}");
    }
    assert!(!markdown.contains("not computed; give evaluate.training"));
    let ssim = evaluated.evaluation.number(Modality::Map, Candidate::Nearest, "SSIM").unwrap();
    assert!(results.csv().contains(&format!("map,nearest,SSIM,all,{ssim:.6},")), "{}", results.csv());
    let json: serde_json::Value = serde_json::from_str(&results.json()).unwrap();
    assert_eq!(json["baselines"][1]["candidate"], "nearest");

    // Training pairs that cannot be read fail the baseline and not the points.
    fs::create_dir(bench.path("damaged")).unwrap();
    fs::write(bench.path("damaged/1.png"), "no picture").unwrap();
    let damaged = format!(
        "training.data = {{ layout = \"side-by-side\", folder = {:?} }}\nbatch_size",
        bench.path("damaged")
    );
    let results = bench.run(&bench.sweep(&text.replace("batch_size", &damaged)), "out");
    let failure = results.failure().unwrap().to_string();
    assert!(failure.starts_with("nearest training pair: ") && failure.contains("1.png"), "{failure}");
    assert!(results.rows.iter().all(|row| row.record.is_some()));
    assert!(results.markdown().contains("- nearest training pair: not computed; "));
}

#[test]
fn one_pair_says_how_long_a_sweep_takes() {
    let bench = Bench::new();
    let file = bench.sweep(&grid("1, 4"));
    let options = bench.options("out");
    let plan = bench.plan(&file, "out").unwrap();
    let mut estimate = plan.estimate(&options);
    assert_eq!((estimate.evaluations, &estimate.basis), (None, &None));
    plan.try_a_pair(&mut estimate, &options).unwrap();
    let Some(Basis::Pair { point, seconds }) = &estimate.basis else { panic!("{estimate:?}") };
    assert_eq!(point, "index-add, top-k 1");
    // Five points of six pairs and more samples take longer than one pair.
    assert!(estimate.evaluations.unwrap() > 5.0 * 6.0 / 2.0 * seconds, "{estimate:?}");
    assert!(!bench.path("out").exists(), "it kept something");
    // With points that are done there is no need for it.
    bench.run(&file, "out");
    let plan = bench.plan(&bench.sweep(&grid("1, 6")), "out").unwrap();
    let mut estimate = plan.estimate(&options);
    assert_eq!(estimate.basis, Some(Basis::Points(5)));
    let before = estimate.clone();
    plan.try_a_pair(&mut estimate, &options).unwrap();
    assert_eq!(estimate, before);
    // What has to be trained first cannot be tried.
    let text = "title = \"Depth\"\n[train]\ntokenizer = {tokenizer}\n[evaluate]\ndata = {data}\n\
                [[axis]]\nname = \"D\"\nkey = \"tokenizer.tokenizer.quantizer_depth\"\nvalues = [1, 2]\n";
    let (plan, options) = (bench.plan(&bench.sweep(text), "new").unwrap(), bench.options("new"));
    let mut estimate = plan.estimate(&options);
    plan.try_a_pair(&mut estimate, &options).unwrap();
    assert_eq!((estimate.evaluations, estimate.basis, estimate.trainings), (None, None, 2));
}

#[test]
fn tables_and_plots_hold_the_points() {
    let bench = Bench::new();
    let results = bench.run(&bench.sweep(&grid("1, 4")), "out");
    let markdown = results.markdown();
    assert!(markdown.starts_with("# A grid\n\n| force"), "{markdown}");
    let head = "| force | top-k | road F1, 2 px | IoU mean |";
    let plain: String = markdown.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(plain.contains(head) && plain.contains("| ramp | – |"), "{markdown}");
    assert!(markdown.contains("6 pairs, 1 to 6, per point"), "{markdown}");
    assert!(markdown.contains("diversity: mean difference between three more samples of 2 pairs"));
    // The baselines are the same for all points; the blank map is that of the hand-made groups below.
    let row =
        |name: &str| plain[plain.find(name).unwrap()..].split(" | ").map(str::to_owned).collect::<Vec<_>>();
    let record = results.rows[0].record.as_ref().unwrap();
    for (name, candidate) in
        [("(blank picture)", Candidate::Blank), ("(tokenizer's ceiling)", Candidate::Ceiling)]
    {
        let number = record.number(&Column::new(Modality::Map, candidate, "SSIM", "SSIM"));
        assert_eq!(row(name)[4], number.text(3), "{markdown}");
    }
    let missing = "- LPIPS, alex: not computed; give the weights as evaluate.lpips (alex)\n";
    assert!(markdown.contains(missing), "{markdown}");
    assert!(markdown.contains("## Difference from: ramp"), "{markdown}");
    let ssim_of = Column::new(Modality::Map, Candidate::Model, "SSIM", "SSIM");
    let [one, other] = [0, 4].map(|row: usize| results.rows[row].record.as_ref().unwrap());
    let difference = one.difference(other, &ssim_of);
    let (value, [low, high]) = (difference.value.unwrap(), difference.interval.unwrap());
    let expected = one.number(&ssim_of).value.unwrap() - other.number(&ssim_of).value.unwrap();
    assert!((value - expected).abs() < 1e-12 && low <= value && value <= high);
    assert_eq!(one.difference(one, &ssim_of).interval, Some([0.0, 0.0]));
    let figures = results.figures();
    let figure = |title: &str| figures.iter().find(|figure| figure.title == title).unwrap();
    // Two lines of two points; the point beside the grid is a line across and in the legend.
    let lines = figure("SSIM by top-k");
    assert_eq!(lines.svg.matches("<circle").count(), 4, "{}", lines.svg);
    assert!(lines.svg.contains("index-add") && lines.svg.contains("ramp"), "{}", lines.svg);
    let panels = figure("SSIM by top-k and urban density");
    assert_eq!(panels.svg.matches("<circle").count(), 3 * 4);
    let front = figure("road F1, 2 px against diversity, RMSE");
    assert_eq!(front.svg.matches("<circle").count(), 5);
    let (_, points) = &results.fronts()[0];
    let best = points.iter().filter(|point| point.is_best).count();
    assert!(best >= 1 && front.svg.matches("fill=\"#285AC8\"").count() >= best, "{}", front.svg);
    let html = fs::read_to_string(bench.path("out/sweep.html")).unwrap();
    assert_eq!(html.matches("<svg").count(), figures.len());
    assert!(!html.contains("<img") && !html.contains("src=") && !html.contains("<script"), "{html}");
    // A line per number: the values of CSV and of the table are those of the evaluation.
    let record = results.rows[3].record.as_ref().unwrap();
    let ssim = record.evaluation.number(Modality::Map, Candidate::Model, "SSIM").unwrap();
    assert!(results.csv().contains(&format!("\"off, top-k 4\",off,4,map,model,SSIM,all,{ssim:.6},")));
    assert!(plain.contains("| off | 4 | ") && plain.contains(&format!("{ssim:.3} [")));
    let json: serde_json::Value = serde_json::from_str(&results.json()).unwrap();
    assert_eq!(json["points"].as_array().unwrap().len(), 5);
    assert_eq!(json["points"][3]["coordinates"][1]["number"], 4.0);
}

#[test]
fn groups_by_density_are_what_one_counts_by_hand() {
    let bench = Bench::new();
    let results = bench.run(&bench.sweep(&grid("1")), "out");
    // Pair i is urban by i/16: thirds of two.
    let groups = results.groups.as_ref().unwrap();
    let names: Vec<(&str, Vec<&str>)> =
        groups.iter().map(|group| (group.name, group.names.iter().map(String::as_str).collect())).collect();
    assert_eq!(names, [("sparse", vec!["1", "2"]), ("middle", vec!["3", "4"]), ("dense", vec!["5", "6"])]);
    assert_eq!(groups[2].range, [5.0 / 16.0, 6.0 / 16.0]);
    // The blank map is land everywhere: wrong where there are roads.
    let accuracy = Column::new(Modality::Map, Candidate::Blank, "class accuracy", "");
    let record = results.rows[0].record.as_ref().unwrap();
    for (group, rows) in groups.iter().zip([1 + 2, 3 + 4, 5 + 6]) {
        let number = record.number_of_group(&accuracy, group);
        assert_eq!(number.value, Some(1.0 - f64::from(rows) / 32.0), "{}", group.name);
        // Two pictures: the interval ends at one and the other.
        let [low, high] = number.interval.unwrap();
        assert!((high - low - 1.0 / 16.0).abs() < 1e-12);
    }
    let all = record.number(&accuracy);
    assert_eq!(all.value, Some(1.0 - 21.0 / 96.0));
    let text = results.markdown();
    assert!(
        text.contains("sparse 6.2 % to 12.5 % (2 pairs), middle 18.8 % to 25.0 % (2 pairs), dense 31.2 %"),
        "{text}"
    );
    assert!(results.csv().contains("map,blank,class accuracy,dense,0.656250,"), "{}", results.csv());
}

#[test]
fn trainings_are_shared_and_a_failing_point_does_not_stop_the_others() {
    let bench = Bench::new();
    let text = "title = \"Depth\"\n[train]\ntokenizer = {tokenizer}\n[evaluate]\ndata = {data}\n\
                [[axis]]\nname = \"D\"\nkey = \"tokenizer.tokenizer.quantizer_depth\"\nvalues = [1, 0, 3]\n";
    let file = bench.sweep(text);
    let results = bench.run(&file, "out");
    // The others are in all files; of the failed one they say that it failed.
    let csv = fs::read_to_string(bench.path("out/sweep.csv")).unwrap();
    assert!(csv.contains("D 0,0,,,failed,,,,\n") && csv.contains("D 3,3,map,ceiling,SSIM,all,"), "{csv}");
    let failure = results.failure().unwrap().to_string();
    assert!(failure.starts_with("1 of 3 points failed, the others are written"), "{failure}");
    assert!(failure.contains("D 0: tokenizer: quantizer_depth"), "{failure}");
    let fact = |row: usize, name: &str| results.rows[row].number(&Column::fact(name)).value;
    // 1 + 4 + 16 positions, log₂ 16 = 4 bits a code.
    assert_eq!(fact(0, "bits per picture"), Some(21.0 * 4.0));
    assert_eq!(fact(2, "bits per picture"), Some(3.0 * 21.0 * 4.0));
    assert_eq!(fact(2, "steps"), Some(3.0));
    assert!((0.0..=1.0).contains(&fact(2, "codes used").unwrap()));
    assert!(results.rows[2].number(&results.columns[0]).value.unwrap().is_finite());
    assert!(results.figures().iter().any(|figure| figure.title == "map PSNR (dB) against bits per picture"));
    // The failed point is tried again, and only that.
    assert_eq!(bench.plan(&file, "out").unwrap().done(), 2);

    // Points that differ in the transformer only train one tokenizer.
    let text = "title = \"Both\"\n[train]\ntokenizer = {tokenizer}\ntransformer = {transformer}\n\
                [evaluate]\ndata = {data}\nto = \"map\"\ndiversity_pictures = 0\npairs.limit = 2\n\
                [[axis]]\nname = \"noise\"\nkey = \"transformer.token_noise\"\nvalues = [0.0, 0.3]\n";
    let file = bench.sweep(text);
    let results = bench.run(&file, "both");
    assert!(results.failure().is_none());
    let mut trainings: Vec<String> = fs::read_dir(bench.path("both/trainings"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().split('-').next().unwrap().to_owned())
        .collect();
    trainings.sort();
    assert_eq!(trainings, ["tokenizer", "transformer", "transformer"]);
    assert!(bench.run_stopped(&file, "both").is_ok());
    // A training that is done serves other points: only the measuring is new.
    let more = bench.sweep(&text.replace("limit = 2", "limit = 3"));
    assert_eq!(bench.plan(&more, "both").unwrap().estimate(&bench.options("both")).trainings, 0);
}

#[test]
fn what_cannot_be_swept_is_refused_before_anything_is_done() {
    let bench = Bench::new();
    let start = format!("title = \"Wrong\"\n{EVALUATE}");
    let axis = |text: &str| format!("{start}[[axis]]\nname = \"a\"\n{text}");
    let key = "key = \"evaluate.generation.to_map.sampler.top_k\"\n";
    for (text, words) in [
        (start.clone(), "axis: there are no points; give an [[axis]] or a [[point]]"),
        (axis(&format!("{key}values = []")), "axis a: has no values; give values = [...] with at least one"),
        (axis("values = [1]"), "axis a: has values but no key that takes them"),
        (
            axis("key = \"evaluate.generation.to_map.sampler.top_q\"\nvalues = [1]"),
            "a 1: evaluate: unknown field `top_q`",
        ),
        (axis("key = \"evaluate.sampler\"\nvalues = [1]"), "unknown field `sampler`"),
        (
            axis("key = \"tokenizer.steps\"\nvalues = [1]"),
            "there is no tokenizer; name its configuration in [train]",
        ),
        (
            axis("key = \"evaluate.generation.to_map.sampler.top_p\"\nvalues = [1.5]"),
            "a 1.5: evaluate.generation.to_map.sampler.top_p: must be between 0 and 1",
        ),
        (
            axis("key = \"evaluate.generation.to_map.views\"\nvalues = [1, 3]"),
            "a 3: evaluate.generation.to_map.views: must be 1, or toward the map 1, 4, 8 or 16",
        ),
        (
            axis(&format!("{key}values = [{}]", "1, ".repeat(300))),
            "the grid has 300 points, more than 256; shorten an axis or raise max_points",
        ),
        (
            axis(&format!("{key}values = [1]\n[[axis]]\nname = \"a\"\n{key}values = [1]")),
            "axis a: needs a name that no other axis has",
        ),
        (axis(&format!("{key}value = 3")), "line"),
        (format!("colour = 1\n{start}"), "unknown field `colour`"),
        (
            axis(&format!("{key}values = [1]\n[report]\nreference = \"b\"")),
            "report.reference: \"b\" is no point; name one of a 1",
        ),
        (axis(&format!("{key}values = [1]\n[set]\n\"evaluate.pairs.split\" = \"test\"")), "knows no splits"),
        (
            axis(&format!("{key}values = [1]\n[set]\n\"evaluate.palette\" = \"nowhere.json\"")),
            "nowhere.json: ",
        ),
        (
            axis(&format!("{key}values = [1]")).replace("{model}", "\"nowhere\""),
            "evaluate.model: nowhere: holds no model",
        ),
        (
            axis(&format!("{key}values = [1]\n[train]\ntokenizer = {{tokenizer}}")),
            "evaluate.model: does not go with [train]",
        ),
    ] {
        let file = bench.sweep(&text);
        let error = bench.plan(&file, "out").map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
        let names_a_file =
            error.contains("sweep.toml: ") || error.starts_with("nowhere") || error.contains("pairs: ");
        assert!(names_a_file && !error.contains('\n'), "{error}");
        assert!(!bench.path("out").exists());
    }
    // A folder with anything else in it is left alone.
    let file = bench.sweep(&axis(&format!("{key}values = [1]")));
    let error = bench.plan(&file, "pairs").unwrap_err().to_string();
    assert!(error.contains("pairs: holds other files; give a new folder"), "{error}");
}
