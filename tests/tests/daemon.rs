//! `paradised serve` over a real socket: verdicts, health, limits, a full queue, a graceful stop.

use paradise_tests::daemon::{Daemon, answer};
use paradise_tests::{program, shipped, text};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

fn start(extra: &[&str]) -> Daemon {
    Daemon::start(&[&shipped()], extra)
}

fn picture(side: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let pixels: Vec<u8> = (0..side * side).map(|i| (i * 31 % 251) as u8).collect();
    let encoder = image::codecs::png::PngEncoder::new(&mut bytes);
    image::ImageEncoder::write_image(encoder, &pixels, side, side, image::ExtendedColorType::L8).unwrap();
    bytes
}

#[test]
fn a_picture_gets_the_verdict_that_classify_prints() {
    let daemon = start(&[]);
    let (status, served) = daemon.request("POST", "/v1/classify", &picture(28));
    assert_eq!(status, 200, "{served}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.png");
    std::fs::write(&path, picture(28)).unwrap();
    let output = program("paradised").args(["classify", "--json", "--model"]).arg(shipped()).arg(&path).output();
    let printed: serde_json::Value = serde_json::from_str(&text(&output.unwrap()).0).unwrap();
    let keys = [
        "label",
        "class",
        "score",
        "probabilities",
        "rate_nats",
        "posterior_entropy_nats",
        "predictive_entropy_nats",
        "picture_p",
        "posterior_p",
        "spread_p",
        "rate_p",
        "entropy_p",
        "predictive_p",
        "combined_p",
        "decision",
        "reason",
    ];
    for key in keys {
        assert_eq!(served[key], printed[key], "{key}");
        assert!(served.get(key).is_some(), "{key}");
    }
    assert!(served["latency_us"].as_u64().is_some_and(|us| us > 0));
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn health_and_errors_speak_json() {
    let daemon = start(&["--max-body", "1000"]);
    assert_eq!(daemon.request("GET", "/v2/health/live", b""), (200, serde_json::json!({ "live": true })));
    assert_eq!(
        daemon.request("GET", "/v2/health/ready", b""),
        (200, serde_json::json!({ "ready": true, "workers_replaced": 0 }))
    );
    let expect = |method: &str, path: &str, body: &[u8], status: u16, word: &str| {
        let (got, json) = daemon.request(method, path, body);
        assert_eq!(got, status, "{method} {path}: {json}");
        assert!(json["error"].as_str().is_some_and(|e| e.contains(word)), "{json}");
    };
    expect("GET", "/nothing", b"", 404, "/v1/classify");
    expect("GET", "/v1/classify", b"", 405, "method");
    expect("POST", "/v1/classify", b"", 422, "empty");
    expect("POST", "/v1/classify", b"some text", 422, "not a readable picture");
    expect("POST", "/v1/classify", &vec![0; 1001], 413, "1000 bytes");
    // Still alive after all of that.
    assert_eq!(daemon.request("GET", "/v2/health/live", b"").0, 200);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_full_queue_refuses_and_the_rest_is_answered() {
    let daemon = start(&["--queue", "1", "--workers", "1"]);
    let large = picture(3000);
    let statuses: Vec<(u16, serde_json::Value)> = std::thread::scope(|scope| {
        let requests: Vec<_> =
            (0..16).map(|_| scope.spawn(|| daemon.request("POST", "/v1/classify", &large))).collect();
        requests.into_iter().map(|r| r.join().expect("a request")).collect()
    });
    let count = |status| statuses.iter().filter(|s| s.0 == status).count();
    assert_eq!(count(200) + count(503), 16, "{statuses:?}");
    assert!(count(200) >= 1 && count(503) >= 1, "{} answered, {} refused", count(200), count(503));
    assert!(statuses.iter().any(|s| s.1["error"].as_str().is_some_and(|e| e.contains("queue is full"))));
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_stop_answers_what_is_under_way() {
    let daemon = start(&["--max-body", "67108864"]);
    let large = picture(5000);
    let mut stream = daemon.connect();
    let head = format!(
        "POST /v1/classify HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        large.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&large).unwrap();
    // The request is whole and its answer takes longer than this.
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(answer(stream).0, 200);
}

/// A grey progressive JPEG at which zune-jpeg alone panics.
const ADOBE: &[u8] = include_bytes!("../golden/progressive-app14.jpg");

#[test]
fn no_picture_ends_the_service() {
    let daemon = start(&[]);
    let mut cut = Vec::new();
    let grey = image::GrayImage::from_fn(64, 64, |x, y| image::Luma([(x * y) as u8]));
    image::codecs::jpeg::JpegEncoder::new(&mut cut).encode_image(&grey).unwrap();
    cut.truncate(cut.len() * 3 / 10);
    for _ in 0..3 {
        assert_eq!(daemon.request("POST", "/v1/classify", ADOBE).0, 200);
        let (status, answer) = daemon.request("POST", "/v1/classify", &cut);
        assert_eq!((status, &answer["error"]), (422, &"request body: not a readable picture: ends early".into()));
        assert_eq!(daemon.request("POST", "/v1/classify", &picture(28)).0, 200);
    }
    let (status, ready) = daemon.request("GET", "/v2/health/ready", b"");
    assert_eq!((status, ready), (200, serde_json::json!({ "ready": true, "workers_replaced": 0 })));
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn what_is_wrapped_around_a_picture_gets_415_and_why() {
    let daemon = start(&[]);
    let send = |headers: &str, body: &[u8]| {
        let mut stream = daemon.connect();
        let head = format!(
            "POST /v1/classify HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        answer(stream)
    };
    let picture = picture(28);
    for kind in ["", "Content-Type: image/png\r\n", "Content-Type: application/x-www-form-urlencoded\r\n"] {
        assert_eq!(send(kind, &picture).0, 200, "{kind}");
    }
    let refused = [
        ("Content-Type: multipart/form-data; boundary=x\r\n", &b"--x"[..]),
        ("Content-Type: application/json\r\n", br#"{"image":"aGVsbG8="}"#),
        ("Content-Encoding: gzip\r\n", &[0x1f, 0x8b, 8, 0]),
        ("", &[0x1f, 0x8b, 8, 0]),
        ("", br#"{"image":"aGVsbG8="}"#),
    ];
    for (headers, body) in refused {
        let (status, answer) = send(headers, body);
        assert_eq!(status, 415, "{headers}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains("--data-binary"), "{answer}");
    }
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_length_over_the_limit_is_told_before_the_body_is_read() {
    let daemon = start(&["--max-body", "1000"]);
    let mut stream = daemon.connect();
    stream.write_all(b"POST /v1/classify HTTP/1.1\r\nHost: test\r\nContent-Length: 50000000\r\n\r\n").unwrap();
    // Nothing of the body was sent yet.
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 413");
    // A client that sends all before it reads sees the answer, too.
    let (status, answer) = daemon.request("POST", "/v1/classify", &vec![7; 5_000_000]);
    assert_eq!(status, 413, "{answer}");
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn half_sent_heads_neither_block_nor_outlive_the_service() {
    let daemon = start(&[]);
    let began = std::time::Instant::now();
    let half: Vec<TcpStream> = (0..300)
        .map(|_| {
            let mut stream = daemon.connect();
            stream.write_all(b"POST /v1/classify HTTP/1.1\r\nHost: t").unwrap();
            stream
        })
        .collect();
    assert_eq!(daemon.request("POST", "/v1/classify", &picture(28)).0, 200);
    // All of them end by themselves, within seconds.
    for mut stream in half {
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
    // One more does not hold up the stop.
    let mut last = daemon.connect();
    last.write_all(b"POST /v1/classify HTTP/1.1\r\nHost: t").unwrap();
    let began = std::time::Instant::now();
    assert_eq!(daemon.stop(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn a_picture_that_takes_too_much_memory_is_refused_by_its_headers() {
    let daemon = start(&["--max-decoded", "8"]);
    let huge = b"P6 8000 8000 255\n123";
    let (status, body) = daemon.request("POST", "/v1/classify", huge);
    let why = body["error"].as_str().unwrap_or_default();
    assert!(
        status == 422 && why.contains("8000 x 8000 pixels take up to 185 MiB to decode, and the limit is 8 MiB"),
        "{status} {why}"
    );
    assert_eq!(daemon.request("POST", "/v1/classify", &picture(1000)).0, 200);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn names_of_hosts_are_listened_on() {
    let daemon = start(&["--listen", "localhost:0"]);
    assert_eq!(daemon.request("GET", "/v2/health/live", b"").0, 200);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_damaged_model_is_not_served() {
    let output = program("paradised").args(["serve", "--listen", "127.0.0.1:0", "--model", "/no/such"]).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).1.contains("/no/such"));
}
