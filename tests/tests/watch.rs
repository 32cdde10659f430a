//! What is watched while a model serves: bits that another process flips in the running service's memory, pictures that no camera makes,
//! faults that a restart does not end, the journal.

use paradise_tests::daemon::Daemon;
use paradise_tests::{program, shipped, skipped, text, until, within};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

const NAME: &str = "fashion-mnist-small";

fn start(state: &Path, extra: &[&str]) -> Daemon {
    let state = state.to_string_lossy();
    Daemon::start(&[&shipped()], &[&["--state", &state, "--round-seconds", "1"], extra].concat())
}

/// A picture of these values, twenty-eight rows and columns.
fn picture(value: impl Fn(usize) -> u8) -> Vec<u8> {
    let mut bytes = b"P5 28 28 255\n".to_vec();
    bytes.extend((0..784).map(value));
    bytes
}

fn noise(seed: usize) -> Vec<u8> {
    picture(|i| (((i * 31 + seed * 977) * 2_654_435) >> 7) as u8)
}

fn ready(daemon: &Daemon) -> bool {
    daemon.request("GET", &format!("/v2/models/{NAME}/ready"), b"").0 == 200
}

/// What is watched of the model.
fn watched(daemon: &Daemon) -> serde_json::Value {
    daemon.request("GET", "/v1/models", b"").1["models"][0]["watch"].clone()
}

/// Start, end and permissions of a process's memory that is its own or its program's.
fn maps(id: u32) -> Vec<(u64, u64, String, String)> {
    let maps = fs::read_to_string(format!("/proc/{id}/maps")).unwrap();
    let line = |line: &str| {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let hex = |text| u64::from_str_radix(text, 16).ok();
        let permissions = fields.next()?.to_string();
        Some((hex(start)?, hex(end)?, permissions, fields.nth(3).unwrap_or_default().to_string()))
    };
    maps.lines().filter_map(line).collect()
}

/// Flips a bit in another process.
fn flip(id: u32, address: u64, bit: u8) {
    let memory = File::options().read(true).write(true).open(format!("/proc/{id}/mem")).unwrap();
    let mut byte = [0];
    memory.read_exact_at(&mut byte, address).unwrap();
    memory.write_all_at(&[byte[0] ^ bit], address).unwrap();
}

/// Where the model's bytes lie in another process.
fn models(id: u32) -> Vec<u64> {
    let memory = File::open(format!("/proc/{id}/mem")).unwrap();
    let head = fs::read(shipped().join("model.pmq")).unwrap()[..64].to_vec();
    let mut found = Vec::new();
    for (start, end, ..) in maps(id).into_iter().filter(|(.., permissions, _)| permissions.starts_with("rw")) {
        let mut bytes = vec![0; (end - start) as usize];
        if memory.read_exact_at(&mut bytes, start).is_ok() {
            found.extend(bytes.windows(64).enumerate().filter(|(_, b)| *b == head).map(|(at, _)| start + at as u64));
        }
    }
    found
}

#[test]
fn a_flipped_bit_of_the_model_ends_its_service_until_somebody_has_looked() {
    let state = tempfile::tempdir().unwrap();
    let daemon = start(state.path(), &[]);
    until("a round", || watched(&daemon)["memory_rounds"].as_u64() >= Some(2));
    let copies = models(daemon.id());
    assert!(!copies.is_empty());
    copies.iter().for_each(|at| flip(daemon.id(), at + 20_000, 4));
    // Round, tick and this test's own waits, on a machine that has other work.
    println!("noticed after {:?}", within(Duration::from_secs(10), "it is noticed", || !ready(&daemon)));
    let (status, refused) = daemon.request("POST", "/v1/classify", &noise(1));
    assert!(status == 503 && refused["error"].to_string().contains("changed in memory"), "{status} {refused}");
    until("it is latched", || daemon.request("GET", "/v1/faults", b"").1["faults"][0]["model"] == NAME);
    assert_eq!(daemon.stop(), Some(0));

    // A restart does not end it.
    let daemon = start(state.path(), &[]);
    assert!(!ready(&daemon) && daemon.request("GET", "/v2/health/live", b"").0 == 200);
    let (_, refused) = daemon.request("POST", "/v1/classify", &noise(1));
    assert!(refused["error"].to_string().contains("fault latched at"), "{refused}");
    // Loading it by the repository's path does not either.
    assert_eq!(daemon.request("POST", &format!("/v2/repository/models/{NAME}/load"), b"").0, 503);
    let (status, cleared) = daemon.request("DELETE", &format!("/v1/faults?model={NAME}"), b"");
    assert_eq!((status, &cleared["serves"]), (200, &true.into()), "{cleared}");
    assert!(ready(&daemon) && daemon.request("POST", "/v1/classify", &noise(1)).0 == 200);
    assert_eq!(daemon.stop(), Some(0));

    let journal = state.path().join("journal.jsonl");
    let lines = fs::read_to_string(&journal).unwrap();
    let events: Vec<String> = lines
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["event"].as_str().unwrap().to_string())
        .collect();
    for event in ["start", "serves", "selftest", "fault", "stop", "clear"] {
        assert!(events.iter().any(|e| e == event), "{event}: {events:?}");
    }
    let verified = program("paradised").arg("journal").arg(&journal).output().unwrap();
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified).0);
    fs::write(&journal, lines.replacen("\"fault\"", "\"alarm\"", 1)).unwrap();
    let verified = program("paradised").arg("journal").arg(&journal).output().unwrap();
    assert!(verified.status.code() == Some(1) && text(&verified).0.contains("BROKEN at line"));
}

#[test]
fn a_fault_is_named_before_a_slow_disk_has_taken_it() {
    if skipped("strace", "a_fault_is_named_before_a_slow_disk_has_taken_it") {
        return;
    }
    let state = tempfile::tempdir().unwrap();
    let [kept, trace] = ["kept", "trace"].map(|name| state.path().join(name).to_string_lossy().into_owned());
    let slow = ["-e", "trace=fsync", "-e", "inject=fsync:delay_enter=2s", "-o", &trace];
    let daemon = Daemon::traced(&slow, &[&shipped()], &["--state", &kept, "--round-seconds", "1"]);
    until("a round", || watched(&daemon)["memory_rounds"].as_u64() >= Some(2));
    let copies = models(daemon.id());
    assert!(!copies.is_empty());
    copies.iter().for_each(|at| flip(daemon.id(), at + 20_000, 4));
    until("it is noticed", || !ready(&daemon));
    let (status, refused) = daemon.request("POST", "/v1/classify", &noise(1));
    assert!(status == 503 && refused["error"].to_string().contains("fault: the model changed"), "{status} {refused}");
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_flipped_bit_of_the_program_is_noticed_and_cleared_while_it_is_stopped() {
    let state = tempfile::tempdir().unwrap();
    let daemon = start(state.path(), &[]);
    until("a round", || watched(&daemon)["memory_rounds"].as_u64() >= Some(2));
    // A page of its code that is in memory; its last bytes are as a rule no function's.
    let code = maps(daemon.id())
        .into_iter()
        .find(|(.., permissions, path)| permissions.starts_with("r-x") && path.ends_with("/paradised"));
    let (start_of_code, end, ..) = code.unwrap();
    let pages = File::open(format!("/proc/{}/pagemap", daemon.id())).unwrap();
    let present = (start_of_code / 4096..end / 4096).filter(|page| {
        let mut entry = [0; 8];
        pages.read_exact_at(&mut entry, page * 8).is_ok() && entry[7] & 0x80 != 0
    });
    let int3 = present.filter_map(|page| {
        let memory = File::open(format!("/proc/{}/mem", daemon.id())).unwrap();
        let mut bytes = [0; 4096];
        memory.read_exact_at(&mut bytes, page * 4096).unwrap();
        // What fills the gaps between functions.
        bytes.windows(8).position(|b| b == [0xcc; 8]).map(|at| page * 4096 + at as u64 + 3)
    });
    let Some(at) = int3.into_iter().next() else {
        return println!("skipped: no gap between functions was found in this program's code");
    };
    flip(daemon.id(), at, 1);
    until("it is noticed", || !ready(&daemon));
    let faults = daemon.request("GET", "/v1/faults", b"").1;
    until("it is latched", || {
        daemon.request("GET", "/v1/faults", b"").1["faults"][0]["why"].to_string().contains("the program changed")
    });
    daemon.stop();
    let asked = |extra: &[&str]| {
        let output = program("paradised").args(["faults", "--state"]).arg(state.path()).args(extra).output().unwrap();
        (output.status.code(), text(&output))
    };
    let (code, (out, _)) = asked(&[]);
    assert!(code == Some(1) && out.contains("the program changed"), "{out} {faults}");
    assert_eq!(asked(&["--clear", "other"]).0, Some(2));
    assert_eq!(asked(&["--clear", NAME]).0, Some(0));
    assert_eq!(asked(&[]), (Some(0), ("no faults\n".into(), String::new())));
    assert!(ready(&start(state.path(), &[])));
}

#[test]
fn pictures_that_no_camera_makes_are_named_and_answers_are_checked() {
    let state = tempfile::tempdir().unwrap();
    let daemon = start(state.path(), &["--lockstep", "2", "--stale-seconds", "2"]);
    let sight = |what: &str| until(what, || watched(&daemon)["pictures"] == what);
    let ask = |picture: &[u8]| assert_eq!(daemon.request("POST", "/v1/classify", picture).0, 200);
    (0..10).for_each(|seed| ask(&noise(seed)));
    assert_eq!(watched(&daemon)["answers_checked"], 5);
    (0..12).for_each(|_| ask(&noise(7)));
    sight("frozen");
    ask(&picture(|i| (i % 9) as u8));
    sight("black");
    ask(&picture(|_| 255));
    sight("saturated");
    sight("stale");
    ask(&noise(3));
    sight("clear");
    // Five hundred answers to noise are not as over the calibration images.
    (0..500).for_each(|seed| ask(&noise(seed)));
    until("drift", || {
        let watched = watched(&daemon);
        let drift = watched["drift"].as_array().unwrap();
        drift.len() == 6 && drift.iter().any(|shift| shift["of"] == "picture" && shift["alarm"] == true)
    });
    assert_eq!(daemon.stop(), Some(0));
    let journal = fs::read_to_string(state.path().join("journal.jsonl")).unwrap();
    for news in ["pictures: frozen", "pictures: stale", "drift: picture is not as over the calibration images"] {
        assert!(journal.contains(news), "{news}: {journal}");
    }
}

#[test]
fn what_cannot_be_read_of_faults_is_no_clean_slate() {
    let state = tempfile::tempdir().unwrap();
    fs::write(state.path().join("faults.json"), "{\"format\":1,").unwrap();
    let output = program("paradised")
        .args(["serve", "--listen", "127.0.0.1:0", "--model"])
        .arg(shipped())
        .arg("--state")
        .arg(state.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).1.contains("faults.json"), "{}", text(&output).1);
}
