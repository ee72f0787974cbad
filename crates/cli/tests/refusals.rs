//! Bad input: one clear line, the documented exit code, and nothing half-written.

mod support;

use std::process::Command;

use support::{Finished, SIDE, Workshop};

const USAGE: i32 = 2;
const BAD_INPUT: i32 = 3;
const MODEL: i32 = 4;

/// Translates `input` with the tiny model.
fn translate(input: &str) -> String {
    format!("translate {input} out/made.png --to map --model model")
}

#[test]
fn files_that_are_no_pictures() {
    let workshop = Workshop::new();
    let good = std::fs::read(workshop.path("good.png")).unwrap();
    std::fs::write(workshop.path("empty.png"), []).unwrap();
    std::fs::write(workshop.path("truncated.png"), &good[..good.len() / 2]).unwrap();
    std::fs::write(workshop.path("text.png"), "not a picture\n").unwrap();
    for (input, words) in [
        ("empty.png", "empty.png: is empty"),
        ("truncated.png", "truncated.png: is damaged or cut short"),
        ("text.png", "text.png: is not a picture"),
        ("absent.png", "absent.png: not found"),
        ("out", "out: is a folder"),
    ] {
        workshop.refuses(&translate(input), BAD_INPUT, words);
        workshop.refuses(
            &format!("outpaint {input} out/made.png --as map --left 3 --model model"),
            BAD_INPUT,
            words,
        );
        workshop.refuses(
            &format!("inpaint good.png out/made.png --as map --mask {input} --model model"),
            BAD_INPUT,
            words,
        );
    }
}

#[test]
fn a_picture_of_900_million_pixels() {
    let workshop = Workshop::new();
    std::fs::write(workshop.path("huge.png"), png_header(30_000, 30_000)).unwrap();
    workshop.refuses(&translate("huge.png"), BAD_INPUT, "30000 × 30000");
    workshop.refuses(&format!("{} --max-pixels 100", translate("good.png")), BAD_INPUT, "16 × 16");
}

/// A PNG that is all header: a few bytes that claim to be a large picture.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut header = [width.to_be_bytes(), height.to_be_bytes()].concat();
    header.extend([8, 2, 0, 0, 0]);
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    for (name, data) in [(b"IHDR", header.as_slice()), (b"IDAT", [].as_slice()), (b"IEND", [].as_slice())] {
        let named = [name.as_slice(), data].concat();
        file.extend((data.len() as u32).to_be_bytes());
        file.extend(&named);
        file.extend(checksum(&named).to_be_bytes());
    }
    file
}

/// CRC-32 as PNG uses it.
fn checksum(bytes: &[u8]) -> u32 {
    let step = |sum: u32, _: i32| if sum & 1 == 1 { 0xedb8_8320 ^ (sum >> 1) } else { sum >> 1 };
    !bytes.iter().fold(u32::MAX, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), step))
}

#[test]
fn masks_and_given_pictures_of_another_size() {
    let workshop = Workshop::new();
    workshop.picture("small.png", 8, 8);
    let black = image::GrayImage::new(SIDE, SIDE);
    black.save(workshop.path("black.png")).unwrap();
    let white = image::GrayImage::from_pixel(SIDE, SIDE, image::Luma([255]));
    white.save(workshop.path("white.png")).unwrap();
    let inpaint = "inpaint good.png out/made.png --as map --model model";
    workshop.refuses(&format!("{inpaint} --mask small.png"), BAD_INPUT, "small.png: is 8 × 8");
    workshop.refuses(&format!("{inpaint} --mask black.png"), BAD_INPUT, "black.png: has no white pixel");
    workshop.refuses(
        &format!("{inpaint} --mask white.png --given small.png"),
        BAD_INPUT,
        "small.png: is 8 × 8",
    );
}

#[test]
fn views_of_what_has_one() {
    let workshop = Workshop::new();
    let satellite = "translate good.png out/made.png --to satellite --model model";
    workshop.refuses(&format!("{satellite} --views 4"), USAGE, "--views 4 needs --to map");
    for command in [
        "translate good.png out/made.png --to map --model model --views 3",
        "outpaint good.png out/made.png --as map --left 3 --model model --views 4",
        "inpaint good.png out/made.png --as map --mask good.png --model model --views 4",
        "generate out/a.png out/b.png --model model --views 4",
    ] {
        let finished = workshop.run(command);
        assert_eq!(finished.code, USAGE, "{command}: {}", finished.stderr);
        assert!(finished.stderr.contains("--views"), "{command}: {}", finished.stderr);
    }
}

#[test]
fn places_that_are_not_on_earth() {
    let workshop = Workshop::new();
    for place in ["--lat 91 --lon 0", "--lat -90.5 --lon 0", "--lat nan --lon 0"] {
        workshop.refuses(&format!("{} {place}", translate("good.png")), BAD_INPUT, "is outside -90 … 90");
        workshop.refuses(
            &format!("generate out/a.png out/b.png --model model {place}"),
            BAD_INPUT,
            "latitude",
        );
    }
    workshop.refuses(&format!("{} --lat 9 --lon inf", translate("good.png")), BAD_INPUT, "longitude");
    let metres = format!("{} --lat 9 --lon 9 --metres-per-pixel 0", translate("good.png"));
    workshop.refuses(&metres, BAD_INPUT, "metres");
}

#[test]
fn model_folders_that_are_not_whole() {
    type Damage = fn(&std::path::Path);
    let remove: Damage = |path| std::fs::remove_file(path).unwrap();
    let truncate: Damage = |path| {
        let bytes = std::fs::read(path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    };
    let replace: Damage = |path| std::fs::write(path, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR").unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer/config.json", "tokenizer/model.safetensors"] {
        for damage in [remove, truncate, replace] {
            // The checks must hold without the checksums too.
            for checksums in [true, false] {
                let workshop = Workshop::new();
                damage(&workshop.path("model").join(name));
                if !checksums {
                    std::fs::remove_file(workshop.path("model/SHA256SUMS")).unwrap();
                }
                workshop.refuses(&translate("good.png"), MODEL, name);
                workshop.refuses("model info --model model", MODEL, name);
            }
        }
    }
}

#[test]
fn weights_of_another_network() {
    let workshop = Workshop::new();
    let model = workshop.path("model");
    std::fs::copy(model.join("tokenizer/model.safetensors"), model.join("model.safetensors")).unwrap();
    workshop.refuses(&translate("good.png"), MODEL, "does not match SHA256SUMS");
    std::fs::remove_file(model.join("SHA256SUMS")).unwrap();
    workshop.refuses(&translate("good.png"), MODEL, "weights do not fit the configuration");
    workshop.refuses(
        "translate good.png out/made.png --to map --model nowhere",
        MODEL,
        "nowhere: no such model",
    );
}

#[test]
fn configurations_and_data_that_cannot_be_trained_on() {
    let workshop = Workshop::new();
    std::fs::create_dir(workshop.path("nothing")).unwrap();
    let config = |head: &str| {
        format!("{head}steps = 1\n[data]\nlayout = \"side-by-side\"\nfolder = \"nothing\"\n[tokenizer]\n")
    };
    std::fs::write(workshop.path("unknown.toml"), config("stepps = 1\n")).unwrap();
    std::fs::write(workshop.path("broken.toml"), "steps = \n").unwrap();
    std::fs::write(workshop.path("nothing.toml"), config("")).unwrap();
    for (file, words) in [
        ("unknown.toml", "stepps"),
        ("unknown.toml", "unknown.toml"),
        ("broken.toml", "broken.toml"),
        ("absent.toml", "absent.toml"),
        ("good.png", "good.png"),
        ("nothing.toml", "nothing: no pairs"),
    ] {
        workshop.refuses(&format!("train tokenizer -c {file} --run out/run"), BAD_INPUT, words);
    }
    workshop.refuses("train transformer -c unknown.toml --run out/run", BAD_INPUT, "unknown.toml");
    workshop.refuses(
        "evaluate --data nothing --out out/measured --model model",
        BAD_INPUT,
        "nothing: no pairs",
    );
    // Refused late, and still without an empty folder left behind.
    std::fs::create_dir(workshop.path("pairs")).unwrap();
    workshop.picture("pairs/1.png", 2 * SIDE, SIDE);
    let evaluate = "evaluate --data pairs --out out/measured --model model";
    workshop.refuses(&format!("{evaluate} --lat 91 --lon 0"), BAD_INPUT, "latitude 91");
    workshop.refuses(&format!("{evaluate} --tau 0.5"), 2, "--tau needs --key-points");
}

#[test]
fn outputs_that_exist_or_cannot_be() {
    let workshop = Workshop::new();
    workshop.picture("out/there.png", 3, 3);
    let refuses = |output: &str, words: &str| {
        workshop.refuses(&format!("translate good.png {output} --to map --model model"), 1, words);
    };
    refuses("out/there.png", "out/there.png: already exists; pass --overwrite");
    refuses("out/made.gif", "out/made.gif: the ending says no known format");
    refuses("out/made", "out/made");
    refuses("missing/made.png", "there is no folder missing");
    workshop.refuses("generate out/made.png out/there.png --model model", 1, "already exists");
    workshop.refuses("model export model --from-run out", 1, "model: exists already");
    // The check comes before the work: not even the input is looked at.
    workshop.refuses("translate absent.png out/there.png --to map --model model", 1, "already exists");
    workshop.run("translate good.png out/there.png --to map --model model --overwrite").succeeded();
}

#[test]
fn flags_that_make_no_sense() {
    let workshop = Workshop::new();
    for arguments in [
        "",
        "translat",
        "translate good.png",
        "translate good.png out/made.png --to moon",
        "translate good.png out/made.png --to map --lat 3",
        "translate good.png out/made.png --to map --guidance 1,2",
        "translate good.png out/made.png --to map --greedy --top-k 3",
        "train tokenizer -c a.toml --run out/run --resume --overwrite",
    ] {
        misused(&workshop, arguments);
    }
    // Found out only after reading the flags, but wrong flags all the same.
    for arguments in [
        "translate good.png out/made.png --to map --model model --device tpu",
        "translate good.png out/made.png --to map --model model --entropy out/made.png",
        "translate good.png out/made.png --to map --model model --temperature 0",
        "translate good.png out/made.png --to map --model model --samples 0",
        "outpaint good.png out/made.png --as map --model model",
        "generate out/made.png out/made.png --model model",
    ] {
        misused(&workshop, arguments);
    }
}

/// Checks that the program says that its flags are wrong, on stderr, and does nothing.
#[track_caller]
fn misused(workshop: &Workshop, arguments: &str) {
    let before = support::contents(&workshop.path("."));
    let Finished { code, stdout, stderr } = workshop.run(arguments);
    assert_eq!((code, stdout.as_str()), (2, ""), "{arguments}: {stderr}");
    assert!(!stderr.is_empty(), "{arguments}: says nothing");
    assert!(before == support::contents(&workshop.path(".")), "{arguments}: left something behind");
}

/// Runs the program where no file may grow beyond this many kibibytes: for a program the same as a full disk, without
/// needing one. None where there is no bash to set the limit with.
fn limited(workshop: &Workshop, kibibytes: u64, arguments: &str) -> Option<Finished> {
    let mut command = Command::new("bash");
    workshop.isolate(&mut command);
    command.args([
        "-c",
        &format!("trap '' XFSZ && ulimit -f {kibibytes} && exec \"$0\" \"$@\""),
        env!("CARGO_BIN_EXE_earthmapper"),
        "-q",
    ]);
    let output = command.args(arguments.split_whitespace()).output().ok();
    if output.is_none() {
        println!("skipped: there is no bash to limit the size of files with");
    }
    output.map(Finished::from)
}

#[test]
fn a_full_disk() {
    let workshop = Workshop::with_pairs(2);
    workshop.picture("large.png", 40, 30);
    workshop.run("-q train tokenizer -c tokenizer.toml --run out/tokenizer").succeeded();
    workshop.run("-q train transformer -c transformer.toml --run out/run").succeeded();
    for (arguments, words) in [
        ("translate large.png out/made.png --to map --model model", "out/made.png: cannot be written"),
        ("translate large.png out/made.jpg --to map --model model --samples 2", "cannot be written"),
        ("generate out/a.webp out/b.webp --model model", "cannot be written"),
        ("train tokenizer -c tokenizer.toml --run out/second", "out/second"),
        ("model export out/exported --from-run out/run", "out/exported"),
    ] {
        let before = support::contents(&workshop.path("."));
        let Some(finished) = limited(&workshop, 0, arguments) else { return };
        workshop.check_refusal(arguments, finished, 1, words);
        assert!(before == support::contents(&workshop.path(".")), "{arguments}: left something behind");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_second_output_that_cannot_be_written() {
    let workshop = Workshop::new();
    // The folder is there, but nobody can write into it, which only writing tells.
    let arguments = "-q translate good.png out/a.png --entropy /proc/b.png --to map --model model";
    let Finished { code, stdout, stderr } = workshop.run(arguments);
    assert_eq!((code, stdout.trim()), (5, "out/a.png"), "{stderr}");
    assert!(stderr.contains("only 1 of 2 outputs are written: /proc/b.png"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(workshop.path("out/a.png").exists());
}

#[test]
fn weights_that_cannot_be_imported() {
    let workshop = Workshop::new();
    std::fs::write(workshop.path("empty.pth"), []).unwrap();
    std::fs::write(workshop.path("text.safetensors"), "not weights\n").unwrap();
    let own = "model/model.safetensors";
    for (file, words) in
        [("absent.pth", "absent.pth"), ("empty.pth", "empty.pth"), ("text.safetensors", "text"), (own, own)]
    {
        for network in ["vae", "inception", "lpips", "dinov2"] {
            workshop.refuses(&format!("model import out/imported --{network} {file}"), BAD_INPUT, words);
        }
    }
    // One of them, and only one.
    let both = format!("--vae {own} --inception {own}");
    for (flags, words) in [("", "required"), (&both, "cannot be used with")] {
        let Finished { code, stderr, .. } = workshop.run(&format!("model import out/imported {flags}"));
        assert_eq!(code, USAGE, "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
    }
    let nowhere = format!("model import absent/imported --inception {own}");
    workshop.refuses(&nowhere, 1, "there is no folder absent");
}
