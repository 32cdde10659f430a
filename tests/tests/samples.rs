//! Hard samples: kept under a quota if that was asked for, listed and deleted; and no picture is written if it was not.

use paradise_engine::Shape;
use paradise_tests::camera::{Scene, Snapshots};
use paradise_tests::daemon::Daemon;
use paradise_tests::{shipped, skipped, until};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::Duration;

fn serve(folder: &Path, tables: &str) -> Daemon {
    let path = folder.join("paradised.toml");
    fs::write(&path, tables).unwrap();
    Daemon::start(&[&shipped()], &["--config", path.to_str().unwrap()])
}

/// Noise, from which the network abstains.
fn noise(seed: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let pixels: Vec<u8> = (0..28 * 28).map(|_| rng.u8(..)).collect();
    paradise_picture::png(&pixels, Shape::new(28, 28, 1)).unwrap()
}

/// Bytes of all files of a folder, but for those that go while it is read.
fn size(folder: &Path) -> u64 {
    fs::read_dir(folder).unwrap().filter_map(|entry| Some(entry.unwrap().metadata().ok()?.len())).sum()
}

#[test]
fn what_was_hard_is_kept_within_its_quota_listed_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    let tables = |bytes: u64| {
        format!("[samples]\nfolder = '{}'\nbytes = {bytes}\nbetween_seconds = 0\nmargin = 0.0\n", kept.display())
    };
    let quota = 20_000;
    let daemon = serve(folder.path(), &tables(quota));
    let list = |daemon: &Daemon| daemon.request("GET", "/v1/samples", b"").1;
    let count = |daemon: &Daemon| list(daemon)["samples"].as_array().unwrap().len();
    let mut largest = 0;
    for seed in 0..60 {
        assert_eq!(daemon.request("POST", "/v1/classify", &noise(seed)).1["decision"], "abstain");
        std::thread::sleep(Duration::from_millis(5));
        largest = largest.max(size(&kept));
    }
    // By at most one file.
    assert!(largest <= quota + noise(0).len() as u64, "{largest}");
    until("some", || count(&daemon) > 3);
    let said = list(&daemon);
    assert_eq!(said["bytes"].as_u64().unwrap() / 100, size(&kept) / 100, "{said}");
    let last = said["samples"].as_array().unwrap().last().unwrap().clone();
    assert!(last["why"].as_str().unwrap().len() > 5 && last["source"] == "http", "{last}");
    // What was sent last is what is kept.
    let file = kept.join(format!("{}.picture", last["id"].as_str().unwrap()));
    assert_eq!(fs::read(file).unwrap(), noise(59));
    // It goes on with what is there.
    assert_eq!(daemon.stop(), Some(0));
    let daemon = serve(folder.path(), &tables(quota));
    assert_eq!(list(&daemon), said);
    let before = count(&daemon);
    let path = format!("/v1/samples/{}", last["id"].as_str().unwrap());
    assert_eq!(daemon.request("DELETE", &path, b"").0, 200);
    assert_eq!((daemon.request("DELETE", &path, b"").0, count(&daemon)), (404, before - 1));
    for strange in ["/v1/samples/..%2fparadised.toml", "/v1/samples/%2e%2e", "/v1/samples/x"] {
        assert_eq!(daemon.request("DELETE", strange, b"").0, 404, "{strange}");
        assert_eq!(daemon.request("GET", strange, b"").0, 404, "{strange}");
    }
    assert_eq!(daemon.request("DELETE", "/v1/samples", b"").1["deleted"].as_u64(), Some(before as u64 - 1));
    assert_eq!((count(&daemon), size(&kept)), (0, 0));
}

#[test]
fn without_the_table_no_picture_is_ever_written() {
    if skipped("strace", "without_the_table_no_picture_is_ever_written") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut rng = fastrand::Rng::with_seed(1);
    let pixels = (0..28 * 28).map(|_| rng.u8(..250)).collect();
    let camera = Snapshots::start(Scene { pixels, width: 28, frozen: false });
    let config = folder.path().join("paradised.toml");
    fs::create_dir(folder.path().join("state")).unwrap();
    fs::write(
        &config,
        format!(
            "[[camera]]\nname = 'a'\nsource = '{}'\ninterval_ms = 50\ntrigger = 'always'\n[events]\nfile = '{}'\n",
            camera.url,
            folder.path().join("events.jsonl").display()
        ),
    )
    .unwrap();
    let trace = folder.path().join("trace");
    let [to, config, state] =
        [&trace, &config, &folder.path().join("state")].map(|path| path.to_string_lossy().into_owned());
    let watched = "trace=open,openat,creat,rename,renameat,renameat2,link,linkat,mkdir,mkdirat";
    let daemon = Daemon::traced(
        &["-e", watched, "-o", &to],
        &[&shipped()],
        &["--no-landlock", "--config", &config, "--state", &state],
    );
    for seed in 0..5 {
        assert_eq!(daemon.request("POST", "/v1/classify", &noise(seed)).1["decision"], "abstain");
    }
    until("answers", || daemon.request("GET", "/v1/cameras/a", b"").1["classified"].as_u64() > Some(5));
    assert_eq!(daemon.request("GET", "/v1/samples", b"").1["kept"], Value::Bool(false));
    assert_eq!(daemon.request("DELETE", "/v1/samples", b"").0, 404);
    assert_eq!(daemon.stop(), Some(0));
    let traced = fs::read_to_string(&trace).unwrap();
    let writes: Vec<&str> = traced
        .lines()
        .filter(|line| !line.contains("ENOENT") && !line.contains("EEXIST"))
        .filter(|line| {
            let opens =
                line.contains("open") && ["O_WRONLY", "O_RDWR", "O_CREAT"].iter().any(|flag| line.contains(flag));
            opens
                || ["creat(", "rename", "link", "mkdir"]
                    .iter()
                    .any(|call| line.contains(call) && !line.contains("readlink"))
        })
        .collect();
    assert!(traced.contains("model.pmq"), "the trace is of the service");
    for line in &writes {
        let known = ["events.jsonl", "journal.jsonl", "/dev/", "/proc/"].iter().any(|name| line.contains(name));
        assert!(known, "{line}");
    }
}
