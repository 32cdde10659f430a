//! Watched folders: every picture is answered exactly once, whenever the process is killed.

use paradise_data::embedded;
use paradise_engine::Shape;
use paradise_runtime::{BackendKind, Bundle, load};
use paradise_tests::daemon::Daemon;
use paradise_tests::{deep, shipped, until};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const PICTURES: usize = 60;

/// A service that watches `in`, and where its answers go.
fn serve(folder: &Path, journal: bool) -> Daemon {
    let path = folder.join("paradised.toml");
    let journal =
        if journal { format!("journal = '{}'\n", folder.join("answers.jsonl").display()) } else { String::new() };
    fs::write(&path, format!("[[folder]]\npath = '{}'\n{journal}", folder.join("in").display())).unwrap();
    Daemon::start(&[&shipped()], &["--config", path.to_str().unwrap()])
}

/// Answers by the picture's name.
fn answers(folder: &Path, journal: bool) -> BTreeMap<String, Vec<Value>> {
    let mut all: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let mut add =
        |answer: Value| all.entry(answer["picture"].as_str().unwrap().to_string()).or_default().push(answer);
    if journal {
        let text = fs::read_to_string(folder.join("answers.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).for_each(&mut add);
    } else {
        for entry in fs::read_dir(folder.join("in")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|ending| ending == "json") {
                add(serde_json::from_slice(&fs::read(&path).unwrap()).unwrap());
            }
        }
    }
    all
}

/// Moves pictures in, kills the service so many times meanwhile, and looks at what was answered.
fn killed(journal: bool, times: usize, seed: u64) {
    let (folder, mut rng) = (tempfile::tempdir().unwrap(), fastrand::Rng::with_seed(seed));
    let folder = folder.path();
    for name in ["in", "made"] {
        fs::create_dir(folder.join(name)).unwrap();
    }
    let test = embedded::subset().unwrap().test;
    let mut backend = load(&Bundle::open(&shipped()).unwrap(), BackendKind::Int8).unwrap();
    let mut truth = Vec::new();
    for i in 0..PICTURES {
        let png = paradise_picture::png(test.image(i), Shape::new(28, 28, 1)).unwrap();
        truth.push(backend.picture(&png, None).unwrap().label);
        fs::write(folder.join(format!("made/{i:03}.png")), png).unwrap();
    }
    fs::write(folder.join("made/no picture.png"), b"nothing of the kind").unwrap();
    let mut left: Vec<_> =
        fs::read_dir(folder.join("made")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    let each = left.len().div_ceil(times + 1);
    for part in left.chunks(each) {
        let daemon = serve(folder, journal);
        for name in part {
            fs::rename(folder.join("made").join(name), folder.join("in").join(name)).unwrap();
        }
        std::thread::sleep(Duration::from_micros(rng.u64(..15_000)));
        assert!(Command::new("kill").args(["-9", &daemon.id().to_string()]).status().unwrap().success());
    }
    let daemon = serve(folder, journal);
    until("all answers", || answers(folder, journal).len() == PICTURES + 1);
    // Another look answers nothing again.
    let looked = daemon.text("/metrics");
    std::thread::sleep(Duration::from_millis(1500));
    let count = |text: &str| text.lines().find(|line| line.starts_with("nv_inference_count{")).map(String::from);
    assert_eq!(count(&daemon.text("/metrics")), count(&looked));
    for (name, all) in answers(folder, journal) {
        let [answer] = &all[..] else { panic!("{name}: {} answers", all.len()) };
        match name.strip_suffix(".png").and_then(|number| number.parse::<usize>().ok()) {
            Some(i) => assert_eq!(answer["label"], *truth[i], "{answer}"),
            None => assert!(answer["error"].as_str().unwrap().contains("none of JPEG"), "{answer}"),
        }
    }
}

#[test]
fn every_picture_is_answered_once_though_the_service_is_killed() {
    for (journal, seed) in [(false, 1), (true, 2)] {
        killed(journal, if deep() { 20 } else { 4 }, seed);
    }
}

#[test]
fn another_picture_of_the_same_name_is_another_picture_and_half_a_picture_waits() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("in")).unwrap();
    let daemon = serve(folder.path(), false);
    let test = embedded::subset().unwrap().test;
    let picture = |i| paradise_picture::png(test.image(i), Shape::new(28, 28, 1)).unwrap();
    let path = folder.path().join("in/a.png");
    let answer =
        || fs::read(folder.path().join("in/a.png.json")).ok().map(|b| serde_json::from_slice::<Value>(&b).unwrap());
    let put = |bytes: &[u8]| {
        fs::write(folder.path().join("new"), bytes).unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
    };
    put(&picture(0));
    until("an answer", || answer().is_some());
    let first = answer().unwrap();
    put(&picture(1));
    until("another", || answer().unwrap()["sha256"] != first["sha256"]);
    // A writer that is slow: until it closes the file, there is nothing to answer.
    use std::io::Write;
    let mut slow = fs::File::create(folder.path().join("in/slow.png")).unwrap();
    let bytes = picture(2);
    slow.write_all(&bytes[..100]).unwrap();
    std::thread::sleep(Duration::from_millis(700));
    assert!(!folder.path().join("in/slow.png.json").exists());
    slow.write_all(&bytes[100..]).unwrap();
    drop(slow);
    let written = folder.path().join("in/slow.png.json");
    until("an answer", || written.exists());
    let said: Value = serde_json::from_slice(&fs::read(written).unwrap()).unwrap();
    assert!(said["label"].is_string(), "{said}");
    assert_eq!(daemon.stop(), Some(0));
}
