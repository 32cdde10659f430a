//! One picture on several threads: the same verdict from the command line and the service, and clear refusals.

use paradise_tests::daemon::Daemon;
use paradise_tests::{program, root, shipped, text};
use serde_json::Value;

fn paradised(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = program("paradised").args(arguments).output().expect("paradised starts");
    let (out, err) = text(&output);
    (output.status.code(), out, err)
}

/// A picture file with something on it.
fn picture(folder: &std::path::Path) -> std::path::PathBuf {
    let pixels: Vec<u8> = (0..3 * 32 * 32u32).map(|i| (i * 31 % 251) as u8).collect();
    let path = folder.join("x.png");
    image::save_buffer(&path, &pixels, 32, 32, image::ExtendedColorType::Rgb8).expect("a writable folder");
    path
}

/// A verdict without how long it took.
fn verdict(mut answer: Value) -> Value {
    let fields = answer.as_object_mut().expect("an object");
    ["latency_us", "image", "model", "version"].iter().for_each(|name| drop(fields.remove(*name)));
    answer
}

#[test]
fn several_threads_give_the_verdict_of_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = picture(folder.path());
    for bundle in ["cifar10-resnet8-pm", "cifar10-resnet20-pm"] {
        let bundle = root().join("models").join(bundle);
        let (model, image) = (bundle.to_str().expect("UTF-8"), path.to_str().expect("UTF-8"));
        let classified = |extra: &[&str]| {
            let (code, out, err) = paradised(&[&["classify", "--json", "--model", model, image], extra].concat());
            assert_eq!(code, Some(0), "{extra:?}: {err}");
            verdict(serde_json::from_str(&out).expect("JSON"))
        };
        let one = classified(&[]);
        for extra in [&["--threads", "2"][..], &["--threads", "5"], &["--threads", "2", "--pin", "0"]] {
            assert_eq!(classified(extra), one, "{extra:?}");
        }
        let daemon = Daemon::start(&[&bundle], &["--threads", "2", "--workers", "2"]);
        for _ in 0..20 {
            let (status, served) = daemon.request("POST", "/v1/classify", &std::fs::read(&path).expect("a picture"));
            assert_eq!((status, verdict(served)), (200, one.clone()));
        }
        assert_eq!(daemon.stop(), Some(0));
    }
}

#[test]
fn latency_is_measured_by_threads_and_by_kernels() {
    let model = root().join("models/cifar10-resnet20-pm");
    let model = model.to_str().expect("UTF-8");
    let bench = |extra: &[&str]| paradised(&[&["bench", "--model", model, "--runs", "3"], extra].concat());
    let (code, out, err) = bench(&["--threads", "2", "--json"]);
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
    assert_eq!((code, &report["threads"]), (Some(0), &Value::from(2)));
    let (code, out, err) = bench(&["--kernels", "scalar", "--threads", "2", "--per-layer"]);
    assert!(code == Some(0) && out.contains("2 threads") && out.contains("scalar loops"), "{out}{err}");
    let (code, out, _) = bench(&["--workers", "2"]);
    assert!(code == Some(0) && out.contains("images/s on 2 threads"), "{out}");
}

#[test]
fn what_is_not_there_is_refused_by_name() {
    let model = shipped();
    let model = model.to_str().expect("UTF-8");
    for (arguments, why) in [
        (&["--threads", "0"][..], "0 is not in 1..=64"),
        (&["--pin", "99999"], "may not run on core 99999"),
        (&["--pin", "x"], "invalid digit"),
        (&["--kernels", "mmx"], "--kernels mmx: this CPU has "),
        (&["--threads", "2", "--backend", "tract"], "--threads and --pin are for --backend int8"),
        (&["--workers", "2", "--threads", "2"], "cannot be used with"),
    ] {
        let (code, _, err) = paradised(&[&["bench", "--model", model, "--runs", "1"], arguments].concat());
        assert!(code == Some(2) && err.contains(why), "{arguments:?}: {code:?} {err}");
    }
    let (code, _, err) = paradised(&["serve", "--listen", "127.0.0.1:0", "--model", model, "--pin", "99999"]);
    assert!(code == Some(2) && err.contains("may not run on core 99999"), "{code:?} {err}");
}
