//! What a card measures is what a device answers: seven made sets of pictures of the kinds that two implementations once saw in
//! two ways, each trained, exported and classified by `paradised`, image for image.

use image::{DynamicImage, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};
use paradise_engine::Model;
use paradise_evaluate::prediction::int8;
use paradise_runtime::Bundle;
use paradise_tests::{program, text, train};
use paradise_train::config::Config;
use paradise_train::export::card::Card;
use paradise_train::export::encoded::turned;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

/// Pictures a class for training and for testing.
const EACH: [(&str, u32); 2] = [("train", 60), ("test", 12)];

/// A bright bar at the top, in the middle or at the left, a little different in each picture.
fn bar(class: u32, i: u32, w: u32, h: u32) -> RgbImage {
    RgbImage::from_fn(w, h, |x, y| {
        let inside = match class {
            0 => y < h / 4,
            1 => (3 * h / 8..5 * h / 8).contains(&y),
            _ => x < w / 4,
        };
        let noise = (x.wrapping_mul(37) ^ y.wrapping_mul(101) ^ i.wrapping_mul(59)) % 40;
        let v = if inside { 200 + (noise % 30) as u8 } else { (20 + noise) as u8 };
        Rgb([v, v.saturating_sub((i % 20) as u8), v])
    })
}

fn file(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).expect("encodes");
    bytes.into_inner()
}

fn png(picture: impl Into<DynamicImage>) -> Vec<u8> {
    file(&picture.into(), ImageFormat::Png)
}

/// A set: its name, the lines of its `[data]` table, and how a picture is stored.
struct Set {
    name: &'static str,
    data: &'static str,
    stored: fn(u32, u32) -> (Vec<u8>, &'static str),
}

/// Other pixels are hidden where the picture is transparent.
fn hidden(class: u32, i: u32) -> (Vec<u8>, &'static str) {
    let (seen, other) = (bar(class, i, 32, 32), bar((class + 1) % 3, i, 32, 32));
    let pixel = |x, y| {
        let p = seen.get_pixel(x, y).0;
        let q = other.get_pixel(x, y).0;
        if p[0] > 128 { Rgba([p[0], p[1], p[2], 255]) } else { Rgba([q[0], q[1], q[2], 0]) }
    };
    (png(RgbaImage::from_fn(32, 32, pixel)), "png")
}

/// The object in the middle third; the sides show other classes.
fn wide(class: u32, i: u32) -> (Vec<u8>, &'static str) {
    let parts = [bar((class + 1) % 3, i, 32, 32), bar(class, i, 32, 32), bar((class + 2) % 3, i, 32, 32)];
    (png(RgbImage::from_fn(96, 32, |x, y| *parts[(x / 32) as usize].get_pixel(x % 32, y))), "png")
}

const SETS: [Set; 6] = [
    Set {
        name: "turned",
        data: "side = 32",
        stored: |class, i| {
            let seen = DynamicImage::from(bar(class, i, 40, 30)).rotate270();
            (turned(&file(&seen, ImageFormat::Jpeg)), "jpg")
        },
    },
    Set { name: "hidden", data: "", stored: hidden },
    Set { name: "wide", data: "side = 32", stored: wide },
    Set {
        name: "large",
        data: "side = 64\ncrop_share = 0.875",
        stored: |class, i| (png(bar(class, i, 96, 96)), "png"),
    },
    Set {
        name: "luma",
        data: "channels = 1\nside = 28\ngeometry = \"letterbox\"",
        stored: |class, i| (file(&bar(class, i, 50, 40).into(), ImageFormat::WebP), "dat"),
    },
    Set {
        name: "dark",
        data: "side = 24\ngeometry = \"stretch\"\npolarity = \"inverted\"",
        stored: |class, i| {
            let mut picture = bar(class, i, 30, 44);
            picture.pixels_mut().for_each(|p| p.0 = p.0.map(|v| 255 - v));
            (file(&picture.into(), ImageFormat::Tiff), "jfif")
        },
    },
];

/// Writes the pictures of a set.
fn written(set: &Set, folder: &Path) {
    for (part, each) in EACH {
        for class in 0..3 {
            let at = folder.join(part).join(["top", "middle", "left"][class as usize]);
            fs::create_dir_all(&at).expect("writable");
            for i in 0..each {
                let (bytes, ending) = (set.stored)(class, i + if part == "test" { 1000 } else { 0 });
                fs::write(at.join(format!("{i:03}.{ending}")), bytes).expect("writable");
            }
        }
    }
}

/// Every test picture by `paradised`: path, class and decision.
fn device(bundle: &Path, pictures: &Path) -> Vec<(PathBuf, usize, String)> {
    let mut paths = Vec::new();
    for class in fs::read_dir(pictures.join("test")).expect("written") {
        for entry in fs::read_dir(class.expect("an entry").path()).expect("written") {
            paths.push(entry.expect("an entry").path());
        }
    }
    paths.sort();
    let output = program("paradised").args(["classify", "--json", "--model"]).arg(bundle).args(&paths).output();
    let output = output.expect("paradised starts");
    assert!(output.status.success(), "{}", text(&output).1);
    let lines: Vec<serde_json::Value> =
        text(&output).0.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    assert_eq!(lines.len(), paths.len());
    let of = |v: &serde_json::Value| {
        (v["class"].as_u64().expect("a class") as usize, v["decision"].as_str().expect("a decision").to_string())
    };
    paths.into_iter().zip(&lines).map(|(path, line)| (path, of(line).0, of(line).1)).collect()
}

/// The classes and decisions behind the card, and the device's, image for image.
fn compare(name: &str, bundle: &Path, pictures: &Path) {
    let opened = Bundle::open(bundle).expect("a bundle");
    let model = Model::parse(opened.file("model.pmq").expect("listed")).expect("a model");
    let card = Card::of(&opened).expect("a card");
    let splits = card.load(Some(pictures)).expect("its pictures");
    assert_eq!(splits.policy, model.header().policy, "{name}");
    let records = int8::predict(&model, &splits.test).expect("runs");
    let answers = device(bundle, pictures);
    assert_eq!(records.len(), answers.len(), "{name}");
    // The card's images are stratified: the k-th of each class in turn.
    let mut by_class: Vec<Vec<&(PathBuf, usize, String)>> = vec![Vec::new(); splits.labels.len()];
    for answer in &answers {
        let folder = answer.0.parent().and_then(Path::file_name).expect("a class").to_string_lossy().into_owned();
        by_class[splits.labels.iter().position(|l| *l == folder).expect("a class")].push(answer);
    }
    let mut next = vec![0; splits.labels.len()];
    let mut right = 0;
    for (record, label) in records.iter().zip(&splits.test.labels) {
        let class = usize::from(*label);
        let (path, given, decision) = by_class[class][next[class]];
        next[class] += 1;
        let accepted = if record.accept { "accept" } else { "abstain" };
        assert_eq!((*given, decision.as_str()), (usize::from(record.class), accepted), "{name}: {}", path.display());
        right += usize::from(*given == class);
    }
    assert_eq!(right, card.accuracy.int8_clean.correct, "{name}");
    println!("{name}: {right} of {} right, as the card says", records.len());
    assert!(right * 3 > records.len() * 2, "{name} learned nothing: {right} of {}", records.len());
}

#[test]
fn the_device_answers_as_the_card_measured() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for set in &SETS {
        let at = |part: &str| folder.path().join(set.name).join(part).to_string_lossy().into_owned();
        written(set, Path::new(&at("pictures")));
        let config = format!(
            "[data]\nsource = \"image-folder\"\nfolder = {:?}\nvalidation = 20\ncalibration = 40\nshift = 0\nflip = false\n{}\n\
             [encoder]\nchannels = [6, 8]\nhidden = 16\nlatent = 6\n[objective]\nkind = \"standard\"\n\
             [fit]\nepochs = 12\nbatch = 16\npeak_rate = 4e-3\nselect = \"clean\"\n",
            at("pictures"),
            set.data
        );
        fs::write(at("run.toml"), config).expect("writable");
        train(&["fit", "--config", &at("run.toml"), "--out", &at("run")]);
        let resolved = Config::read(Path::new(&at("run/config.toml")), &[]).expect("a configuration");
        assert!(resolved.data.geometry.is_some() && resolved.data.polarity.is_some(), "{}", set.name);
        // The pictures move; the run does not mind.
        fs::rename(at("pictures"), at("moved")).expect("renamed");
        let moved = at("moved");
        train(&[
            "export",
            "--run",
            &at("run"),
            "--data",
            &moved,
            "--out",
            &at("bundle"),
            "--no-checks",
            "--quantise",
            "min-max",
        ]);
        compare(set.name, Path::new(&at("bundle")), Path::new(&moved));
    }
    // The same network from its ONNX file, as from elsewhere: one channel, colour pictures.
    let at = |part: &str| folder.path().join("luma").join(part).to_string_lossy().into_owned();
    let (file, pictures, out) = (at("bundle/encoder.onnx"), at("moved"), at("imported"));
    let geometry = ["--geometry", "letterbox", "--quantise", "min-max"];
    train(&[&["import-onnx", &file, "--calibrate", &pictures, "--out", &out][..], &geometry].concat());
    compare("imported", Path::new(&out), Path::new(&pictures));
    let card = fs::read_to_string(Path::new(&out).join("card.toml")).expect("a card");
    assert!(card.contains("[imported.same_class]"), "{card}");
}
