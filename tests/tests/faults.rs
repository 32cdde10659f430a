//! What goes wrong around a service in the field: a full disk, a clock that jumps, no more files to open, bodies and pictures too large, a
//! stop under load, hours of load. Nothing is lost, nothing is wrong, and afterwards it serves.

use paradise_tests::daemon::Daemon;
use paradise_tests::{faketime, program, shipped, skipped, text, until};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const NAME: &str = "fashion-mnist-small";

fn picture() -> Vec<u8> {
    [&b"P5 28 28 255\n"[..], &(0..784u32).map(|i| (i * 31 % 251) as u8).collect::<Vec<u8>>()].concat()
}

/// Resident memory of a process, KiB.
fn resident(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A file system of a few pages, unmounted with its value; none where this user may not mount.
struct Tiny<'a>(&'a Path);

impl<'a> Tiny<'a> {
    fn mount(at: &'a Path, size: &str) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(at);
        let mounted = mount.stderr(Stdio::null()).status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(at))
    }
}

impl Drop for Tiny<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

fn deliver(models: &Path, version: &str) {
    let part = models.join(NAME).join(".part");
    fs::create_dir_all(&part).unwrap();
    for entry in fs::read_dir(shipped()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), part.join(entry.file_name())).unwrap();
    }
    fs::rename(part, models.join(NAME).join(version)).unwrap();
}

fn serving(daemon: &Daemon) -> String {
    daemon.request("POST", "/v2/repository/index", b"").1[0]["version"].as_str().unwrap_or_default().to_string()
}

#[test]
fn a_full_disk_keeps_what_serves_and_takes_the_new_version_when_there_is_room() {
    let (models, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let Some(_tiny) = Tiny::mount(state.path(), "32k") else {
        return println!("skipped: a_full_disk_keeps_what_serves needs to mount a file system");
    };
    deliver(models.path(), "1");
    let [root, remembered] = [models.path(), state.path()].map(|path| path.to_string_lossy().into_owned());
    let daemon = Daemon::start(&[], &["--models", &root, "--unsigned", "--state", &remembered]);
    assert_eq!(serving(&daemon), "1");
    let filler = state.path().join("filler");
    let _ = fs::write(&filler, vec![0; 1 << 20]);
    deliver(models.path(), "2");
    std::thread::sleep(Duration::from_secs(2));
    // Which version serves could not be remembered, so the new one does not.
    assert_eq!(serving(&daemon), "1");
    for _ in 0..20 {
        assert_eq!(daemon.request("POST", "/v1/classify", &picture()).0, 200);
    }
    assert_eq!(daemon.request("POST", "/v1/selftest", b"").0, 200);
    fs::remove_file(&filler).unwrap();
    let hangup = Command::new("kill").args(["-HUP", &daemon.id().to_string()]).status().unwrap();
    assert!(hangup.success());
    until("the new version", || serving(&daemon) == "2");
    // What the journal could not take is missing; what it has follows from what it had.
    assert_eq!(daemon.stop(), Some(0));
    let verified = program("paradised").arg("journal").arg(state.path().join("journal.jsonl")).output().unwrap();
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified).0);
}

#[test]
fn a_clock_that_jumps_neither_stops_the_service_nor_lets_an_expired_version_in() {
    let test = "a_clock_that_jumps_neither_stops_the_service_nor_lets_an_expired_version_in";
    if skipped("faketime", test) || skipped("minisign", test) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let clock = at("clock");
    let (models, public, secret) = (folder.path().join("models"), at("a.pub"), at("a.key"));
    let sign =
        |arguments: &[&str]| assert!(Command::new("minisign").args(arguments).output().unwrap().status.success());
    sign(&["-G", "-W", "-p", &public, "-s", &secret]);
    let signed = |version: &str, expires: &str| {
        let comment = format!("model={NAME} version={version} expires={expires}");
        deliver(&models, &format!(".{version}"));
        let from = models.join(NAME).join(format!(".{version}"));
        sign(&["-S", "-s", &secret, "-t", &comment, "-m", &from.join("manifest.json").to_string_lossy()]);
        fs::rename(from, models.join(NAME).join(version)).unwrap();
    };
    // A clock that is read anew each time, so that it can jump while the service runs.
    fs::write(&clock, "@2030-06-01 12:00:00").unwrap();
    signed("1", "2031-01-01");
    let child = program("paradised")
        .args(["serve", "--listen", "127.0.0.1:0", "--models"])
        .arg(&models)
        .args(["--key", &public, "--no-landlock"])
        .env("LD_PRELOAD", faketime())
        .env("FAKETIME_TIMESTAMP_FILE", &clock)
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let daemon = Daemon::of(child);
    assert_eq!(serving(&daemon), "1");
    let answers = || assert_eq!(daemon.request("POST", "/v1/classify", &picture()).0, 200);
    // What expired before the latest day that was seen stays out, though the clock has gone back behind it.
    fs::write(&clock, "@2001-01-01 12:00:00").unwrap();
    answers();
    signed("2", "2020-01-01");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(serving(&daemon), "1");
    // Ahead of what serves: it goes on, since nobody sends another; what is newer and valid then is taken.
    fs::write(&clock, "@2040-01-01 12:00:00").unwrap();
    answers();
    signed("3", "2039-12-31");
    signed("4", "2040-01-02");
    until("the valid one", || serving(&daemon) == "4");
    answers();
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn without_a_file_to_open_it_waits_and_goes_on() {
    let child = Command::new("prlimit")
        .arg("--nofile=48")
        .arg(program("paradised").get_program())
        .args(["serve", "--listen", "127.0.0.1:0", "--model"])
        .arg(shipped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let daemon = Daemon::of(child);
    let many: Vec<TcpStream> = (0..100).map(|_| daemon.connect()).collect();
    std::thread::sleep(Duration::from_millis(500));
    // There is none for another connection, nor to test the bundle; what is connected is answered.
    let mut first = &many[0];
    first.write_all(b"GET /v2/health/ready HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    let mut head = [0; 12];
    first.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    drop(many);
    for _ in 0..20 {
        assert_eq!(daemon.request("POST", "/v1/classify", &picture()).0, 200);
    }
    assert_eq!(daemon.request("POST", "/v1/selftest", b"").0, 200);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn large_bodies_and_bombs_take_no_memory() {
    let daemon = Daemon::start(&[&shipped()], &[]);
    assert_eq!(daemon.request("POST", "/v1/classify", &picture()).0, 200);
    let before = resident(daemon.id());
    // A hundred megabytes whose length nobody told.
    for _ in 0..4 {
        let mut stream = daemon.connect();
        stream.write_all(b"POST /v1/classify HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        let chunk = [&b"10000\r\n"[..], &vec![7; 0x10000], b"\r\n"].concat();
        // It may be taken whole or not; it is not kept.
        let _ = (0..1600).take_while(|_| stream.write_all(&chunk).is_ok()).count();
        assert_eq!(paradise_tests::daemon::answer(stream).0, 413);
    }
    // A picture of four hundred million pixels in a megabyte, and one of many passes.
    let mut bomb = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut bomb);
    image::ImageEncoder::write_image(encoder, &vec![0; 8000 * 8000], 8000, 8000, image::ExtendedColorType::L8)
        .unwrap();
    assert!(bomb.len() < 1 << 20);
    bomb[16..20].copy_from_slice(&60_000u32.to_be_bytes());
    let (status, refused) = daemon.request("POST", "/v1/classify", &bomb);
    assert_eq!(status, 422, "{refused}");
    let coded = base64_of(&bomb);
    let tensor = format!(r#"{{"inputs":[{{"name":"picture","datatype":"BYTES","shape":[1],"data":["{coded}"]}}]}}"#);
    assert!(daemon.request("POST", &format!("/v2/models/{NAME}/infer"), tensor.as_bytes()).0 >= 400);
    let grown = resident(daemon.id()).saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB more");
    assert_eq!(daemon.stop(), Some(0));
}

fn base64_of(bytes: &[u8]) -> String {
    let mut child = Command::new("base64").arg("-w0").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&bytes).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_stop_under_load_answers_whole_or_not_at_all() {
    let daemon = Daemon::start(&[&shipped()], &[]);
    let (stopping, answered, id) = (AtomicBool::new(false), AtomicU64::new(0), daemon.id());
    let body = picture();
    let head = format!("POST /v1/classify HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n", body.len());
    let request = [head.as_bytes(), &body].concat();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let mut stream = daemon.connect();
                loop {
                    let sent = stream.write_all(&request).is_ok();
                    match answer(&mut stream) {
                        Some(whole) => assert!(whole.starts_with("HTTP/1.1 200") && whole.ends_with('}'), "{whole}"),
                        // The connection ended between two answers, because the service stops.
                        None => return assert!(stopping.load(Ordering::SeqCst) || !sent),
                    }
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        until("load", || answered.load(Ordering::SeqCst) > 200);
        stopping.store(true, Ordering::SeqCst);
        assert!(Command::new("kill").args(["-TERM", &id.to_string()]).status().unwrap().success());
    });
    assert_eq!(daemon.stop(), Some(0));
}

/// One answer with its body; nothing if the connection ends before its first byte.
fn answer(stream: &mut TcpStream) -> Option<String> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let n = stream.read(&mut buffer).unwrap_or(0);
        if n == 0 {
            assert!(bytes.is_empty(), "cut off: {}", String::from_utf8_lossy(&bytes));
            return None;
        }
        bytes.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length =
            head.to_lowercase().lines().find_map(|l| l.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if Some(body.len()) == length {
            return Some(text.into_owned());
        }
    }
}

/// Seconds of load; `PARADISE_SOAK_SECONDS=1800` for half an hour.
fn soak() -> u64 {
    std::env::var("PARADISE_SOAK_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(60)
}

#[test]
fn under_load_for_long_memory_stays_as_it_is() {
    let state = tempfile::tempdir().unwrap();
    let state = state.path().to_string_lossy();
    let daemon = Daemon::start(&[&shipped()], &["--state", &state, "--lockstep", "50", "--round-seconds", "2"]);
    let (seconds, began, ended) = (soak(), Instant::now(), AtomicBool::new(false));
    let bodies: Vec<Vec<u8>> = (0..50u32)
        .map(|k| {
            [&b"P5 28 28 255\n"[..], &(0..784u32).map(|i| (i * (31 + k) % 251) as u8).collect::<Vec<u8>>()].concat()
        })
        .collect();
    std::thread::scope(|scope| {
        for which in 0..2 {
            let (daemon, bodies, ended) = (&daemon, &bodies, &ended);
            scope.spawn(move || {
                let mut stream = daemon.connect();
                let mut k = which;
                while !ended.load(Ordering::Relaxed) {
                    let (body, sent) = (&bodies[k % bodies.len()], Instant::now());
                    let head =
                        format!("POST /v1/classify HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n", body.len());
                    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
                    assert!(answer(&mut stream).is_some_and(|whole| whole.starts_with("HTTP/1.1 200")));
                    // Idle for three tenths of the time.
                    std::thread::sleep(sent.elapsed().mul_f64(3.0 / 7.0));
                    k += 1;
                    // New connections, too.
                    if k % 500 == 0 {
                        stream = daemon.connect();
                    }
                }
            });
        }
        // A model's own tests run beside the load.
        let tested = |until: u64, every: u64| {
            while began.elapsed().as_secs() < until {
                assert_eq!(daemon.request("POST", "/v1/selftest", b"").0, 200);
                let left = until.saturating_sub(began.elapsed().as_secs());
                std::thread::sleep(Duration::from_secs(every.min(left)));
            }
        };
        let settled = (seconds / 2).min(60);
        tested(settled, 1);
        let before = resident(daemon.id());
        tested(seconds, 15);
        let after = resident(daemon.id());
        ended.store(true, Ordering::Relaxed);
        println!("resident after {} s: {before} KiB, after {seconds} s: {after} KiB", settled);
        // Half a minute does not settle an allocator; a leak shows all the same.
        let most = if seconds >= 300 { 1.02 } else { 1.05 };
        assert!(after as f64 <= most * before as f64 + 256.0, "{before} KiB became {after}");
    });
    assert_eq!(daemon.request("GET", "/v1/faults", b"").1["faults"].as_array().map(Vec::len), Some(0));
    assert_eq!(daemon.stop(), Some(0));
}
