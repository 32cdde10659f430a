//! The Open Inference Protocol over a real socket, by its usual clients and by a fuzzer of its description; several models at once;
//! models that are loaded anew while they answer.

use paradise_tests::daemon::{Daemon, answer};
use paradise_tests::{bundles, deep, program, root, shipped, skipped, text};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

fn python() -> Command {
    Command::new(root().join(".venv-clients/bin/python"))
}

/// A picture of the size of a model's input.
fn picture(to: &Path) -> Vec<u8> {
    let pixels: Vec<u8> = (0..28u32 * 28).map(|i| (i * 31 % 251) as u8).collect();
    let file = [&b"P5 28 28 255\n"[..], &pixels].concat();
    fs::write(to, &file).unwrap();
    file
}

#[test]
fn the_usual_clients_get_what_classify_prints() {
    if skipped("python", "the_usual_clients_get_what_classify_prints") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (file, verdict) = (folder.path().join("p.pgm"), folder.path().join("verdict.json"));
    picture(&file);
    let printed = program("paradised").args(["classify", "--json", "--model"]).arg(shipped()).arg(&file).output();
    fs::write(&verdict, text(&printed.unwrap()).0).unwrap();
    let daemon = Daemon::start(&[&shipped()], &[]);
    let ran = python()
        .arg(root().join("tests/clients/oip.py"))
        .args([&daemon.address, "fashion-mnist-small"])
        .args([&file, &verdict])
        .output()
        .unwrap();
    let (out, errors) = text(&ran);
    assert!(ran.status.success() && out.contains("both clients agree"), "{out}{errors}");
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_fuzzer_of_the_description_finds_nothing() {
    if skipped("python", "a_fuzzer_of_the_description_finds_nothing") {
        return;
    }
    // With a camera that shows nothing.
    let tables = tempfile::NamedTempFile::new().unwrap();
    fs::write(tables.path(), "[[camera]]\nname = 'door'\nsource = 'http://127.0.0.1:9/'\n").unwrap();
    let daemon = Daemon::start(&[&shipped()], &["--config", tables.path().to_str().unwrap()]);
    let url = format!("http://{}", daemon.address);
    let examples = if deep() { "500" } else { "20" };
    let fuzz = |config: &str, more: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("schemathesis.toml"), config).unwrap();
        let ran = Command::new(root().join(".venv-clients/bin/schemathesis"))
            .args(["run", &format!("{url}/openapi.json"), "--url", &url, "--seed", "7", "--workers", "1"])
            // Bytes that are no picture are no request, which no schema can say; a camera stays when what was collected of it is forgotten.
            .args(["--max-examples", examples, "--exclude-checks", "positive_data_acceptance,use_after_free"])
            .args(more)
            .current_dir(folder.path())
            .output()
            .unwrap();
        let (out, errors) = text(&ran);
        assert!(ran.status.success(), "{out}{errors}");
    };
    // Names that it makes up, then the model's own, which nobody may take away meanwhile; and that alone.
    let own = "fashion-mnist-small";
    let named = format!(
        "[parameters]\n\"path.model\" = {own:?}\n\"path.version\" = \"1\"\n\"query.model\" = {own:?}\n\"path.camera\" = \"door\"\n"
    );
    fuzz("", &["--exclude-operation-id", "unload"]);
    fuzz(&named, &["--exclude-operation-id", "unload"]);
    fuzz(&named, &["--include-operation-id", "unload"]);
    assert_eq!(daemon.request("POST", &format!("/v2/repository/models/{own}/load"), b"").0, 200);
    assert_eq!(daemon.request("GET", "/v2/health/ready", b"").0, 200);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn several_models_answer_by_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let file = picture(&folder.path().join("p.pgm"));
    let models: Vec<_> = bundles()
        .into_iter()
        .filter(|b| b.ends_with("fashion-mnist-small") || b.ends_with("cifar10-resnet8-pm"))
        .collect();
    assert_eq!(models.len(), 2);
    let daemon = Daemon::start(&models.iter().map(|b| b.as_path()).collect::<Vec<_>>(), &[]);
    let (status, body) = daemon.request("POST", "/v1/classify", &file);
    assert_eq!(
        (status, &body["error"]),
        (400, &json!("which model? ?model= one of cifar10-resnet8-pm, fashion-mnist-small"))
    );
    for (name, side, channels) in [("fashion-mnist-small", 28, 1), ("cifar10-resnet8-pm", 32, 3)] {
        let (status, body) = daemon.request("POST", &format!("/v1/classify?model={name}"), &file);
        assert_eq!((status, &body["model"]), (200, &json!(name)));
        let (status, body) = daemon.request("GET", &format!("/v2/models/{name}/versions/1"), b"");
        assert_eq!((status, &body["inputs"][0]["shape"]), (200, &json!([-1, side, side, channels])));
    }
    for (path, why) in [
        ("/v1/classify?model=other", "no model \"other\"; there are cifar10-resnet8-pm, fashion-mnist-small"),
        ("/v2/models/fashion-mnist-small/versions/2/infer", "has no version \"2\", but \"1\""),
        ("/v2/models/%ff/infer", "not UTF-8"),
    ] {
        let (status, body) = daemon.request("POST", path, &file);
        assert!(
            status == 404 && body["error"].as_str().is_some_and(|said| said.contains(why)),
            "{path} {status} {body}"
        );
    }
    // One goes, the other stays.
    assert_eq!(daemon.request("POST", "/v2/repository/models/cifar10-resnet8-pm/unload", b"").0, 200);
    assert_eq!(daemon.request("POST", "/v1/classify?model=cifar10-resnet8-pm", &file).0, 503);
    assert_eq!(daemon.request("POST", "/v1/classify?model=fashion-mnist-small", &file).0, 200);
    let (_, ready) = daemon.request("POST", "/v2/repository/index", br#"{"ready": true}"#);
    assert_eq!(ready.as_array().map(Vec::len), Some(1));
    assert_eq!(daemon.request("POST", "/v2/repository/models/cifar10-resnet8-pm/load", b"{}").0, 200);
    assert_eq!(daemon.request("POST", "/v1/classify?model=cifar10-resnet8-pm", &file).0, 200);
    assert_eq!(daemon.stop(), Some(0));
    let twice = program("paradised")
        .arg("serve")
        .arg("--model")
        .arg(shipped())
        .arg("--model")
        .arg(shipped())
        .output()
        .unwrap();
    assert!(twice.status.code() == Some(2) && text(&twice).1.contains("there are two models"), "{}", text(&twice).1);
}

/// An inference of one ready input.
fn infer(daemon: &Daemon, data: &[u8]) -> (u16, Value) {
    let body = json!({ "inputs": [{ "name": "image", "shape": [1, 28, 28, 1], "datatype": "UINT8", "data": data }],
        "outputs": [{ "name": "rate_nats" }] });
    daemon.request("POST", "/v2/models/fashion-mnist-small/infer", body.to_string().as_bytes())
}

#[test]
fn loading_anew_loses_no_request_and_keeps_what_answers() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("model");
    fs::create_dir(&bundle).unwrap();
    for entry in fs::read_dir(shipped()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), bundle.join(entry.file_name())).unwrap();
    }
    let daemon = Daemon::start(&[&bundle], &[]);
    let data: Vec<u8> = (0..784).map(|i| (i % 256) as u8).collect();
    let (status, expected) = infer(&daemon, &data);
    assert_eq!(status, 200, "{expected}");
    let done = AtomicBool::new(false);
    let asked = std::thread::scope(|scope| {
        let askers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut asked = 0;
                    while !done.load(Ordering::Relaxed) {
                        assert_eq!(infer(&daemon, &data), (200, expected.clone()));
                        asked += 1;
                    }
                    asked
                })
            })
            .collect();
        for _ in 0..4 {
            assert_eq!(daemon.request("POST", "/v2/repository/models/fashion-mnist-small/load", b"").0, 200);
        }
        // One that is damaged is refused, and the one before goes on.
        let weights = bundle.join("model.pmq");
        let mut bytes = fs::read(&weights).unwrap();
        let last = bytes.len() - 100;
        bytes[last] ^= 1;
        fs::write(&weights, bytes).unwrap();
        let (status, why) = daemon.request("POST", "/v2/repository/models/fashion-mnist-small/load", b"");
        assert!(
            status == 503
                && why["error"].as_str().is_some_and(|e| e.contains("model.pmq") || e.contains("self-test")),
            "{why}"
        );
        assert_eq!(daemon.request("GET", "/v2/models/fashion-mnist-small/ready", b"").0, 200);
        done.store(true, Ordering::Relaxed);
        askers.into_iter().map(|asker| asker.join().unwrap()).sum::<u32>()
    });
    assert!(asked > 20, "{asked}");
    assert_eq!(daemon.stop(), Some(0));
}

/// The numbers at `/metrics`, by name and labels.
fn metrics(daemon: &Daemon) -> BTreeMap<String, f64> {
    let all = daemon.text("/metrics");
    let lines = all.lines().filter(|line| line.starts_with("nv_") || line.starts_with("paradise_"));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, value)| (name.to_string(), value.parse().unwrap()))
        .collect()
}

#[test]
fn what_happens_is_counted() {
    let daemon = Daemon::start(&[&shipped()], &[]);
    let data: Vec<u8> = (0..784).map(|i| (i * 7 % 256) as u8).collect();
    for _ in 0..3 {
        assert_eq!(infer(&daemon, &data).0, 200);
    }
    assert_eq!(daemon.request("POST", "/v1/classify", b"no picture").0, 422);
    let seen = metrics(&daemon);
    let labels = "model=\"fashion-mnist-small\",version=\"1\"";
    let value = |name: &str| seen.get(&format!("{name}{{{labels}}}")).copied();
    assert_eq!(value("nv_inference_request_success"), Some(3.0), "{seen:?}");
    assert_eq!(value("nv_inference_request_failure"), Some(1.0));
    assert_eq!(value("nv_inference_count"), Some(3.0));
    assert_eq!(value("paradise_queue"), Some(0.0));
    assert_eq!(value("paradise_rate_nats_count"), Some(3.0));
    let judged: f64 = seen
        .iter()
        .filter(|(name, _)| name.starts_with("paradise_abstained{") || name.starts_with("paradise_accepted{"))
        .map(|(_, n)| n)
        .sum();
    assert_eq!(judged, 3.0, "{seen:?}");
    let [all, queue, compute] =
        ["request", "queue", "compute_infer"].map(|part| value(&format!("nv_inference_{part}_duration_us")).unwrap());
    assert!(compute > 0.0 && all >= queue + compute, "{all} {queue} {compute}");
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn malformed_requests_are_told_apart_and_none_ends_the_service() {
    let daemon = Daemon::start(&[&shipped()], &["--max-body", "100000"]);
    let path = "/v2/models/fashion-mnist-small/infer";
    let mut state = 11u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize
    };
    let good = json!({ "id": "a", "inputs": [{ "name": "image", "shape": [1], "datatype": "BYTES", "data": ["P2 1 1 9 5"] }] }).to_string();
    assert_eq!(daemon.request("POST", path, good.as_bytes()).0, 200);
    for _ in 0..if deep() { 10_000 } else { 300 } {
        let mut bytes = good.clone().into_bytes();
        for _ in 0..1 + next() % 4 {
            let at = next() % bytes.len();
            match next() % 3 {
                0 => bytes[at] = next() as u8,
                1 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, b"[]{}\",:0"[next() % 8]),
            }
        }
        let (status, body) = daemon.request("POST", path, &bytes);
        assert!(status == 200 || (400..500).contains(&status) && body["error"].is_string(), "{status} {body}");
    }
    let big = vec![b' '; 200_000];
    assert_eq!(daemon.request("POST", path, &big).0, 413);
    let mut stream = daemon.connect();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(answer(stream).0, 415);
    assert_eq!(daemon.request("POST", path, good.as_bytes()).0, 200);
    assert_eq!(daemon.stop(), Some(0));
}
