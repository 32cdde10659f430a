//! Cameras of a running service: what they show becomes what is known, whatever happens to them; by ffmpeg as a real peer where it streams.

use paradise_data::embedded;
use paradise_runtime::{BackendKind, Bundle, load};
use paradise_tests::camera::{Hook, Scene, Snapshots};
use paradise_tests::daemon::Daemon;
use paradise_tests::{program, root, skipped, text, until, within};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn bundle() -> std::path::PathBuf {
    root().join("models/fashion-mnist-resnet8-am")
}

/// Scenes of two classes that the network is sure of, with their names.
fn scenes() -> [(String, Scene); 2] {
    let (test, mut found) = (embedded::subset().unwrap().test, Vec::<(String, Scene)>::new());
    let mut backend = load(&Bundle::open(&bundle()).unwrap(), BackendKind::Int8).unwrap();
    for i in 0..test.len() {
        let verdict = backend.verdict(test.image(i), None).unwrap();
        let sure = verdict.is_accept() && verdict.score > 0.9 && verdict.p.combined > 0.3;
        if sure && found.iter().all(|(label, _)| *label != verdict.label) {
            found.push((verdict.label, Scene { pixels: test.image(i).to_vec(), width: 28, frozen: false }));
        }
        if let [one, other] = &found[..] {
            return [one.clone(), other.clone()];
        }
    }
    panic!("no two classes that are sure")
}

/// A service with tables in its file of settings.
fn serve(folder: &Path, tables: &str) -> Daemon {
    let path = folder.join("paradised.toml");
    fs::write(&path, tables).unwrap();
    Daemon::start(
        &[&bundle()],
        &["--config", path.to_str().unwrap(), "--state", folder.join("state").to_str().unwrap()],
    )
}

fn state(daemon: &Daemon, camera: &str) -> [String; 2] {
    let (status, now) = daemon.request("GET", &format!("/v1/cameras/{camera}"), b"");
    assert_eq!(status, 200, "{now}");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let what = if now["label"].is_string() { &now["label"] } else { &now["reason"] };
    [text(&now["state"]), text(what)]
}

fn becomes(daemon: &Daemon, camera: &str, most: Duration, wanted: [&str; 2]) -> Duration {
    println!("wanted {wanted:?}, now {:?}", state(daemon, camera));
    within(most, &format!("{wanted:?}"), || state(daemon, camera) == wanted)
}

#[test]
fn a_camera_is_known_unknown_and_unavailable_as_it_is_and_everybody_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let [(first, one), (second, other)] = scenes();
    let camera = Snapshots::start(one.clone());
    let hook = Hook::start(2);
    let daemon = serve(
        folder.path(),
        &format!(
            "[[camera]]\nname = 'door'\nsource = '{}'\ninterval_ms = 100\nper_second = 10\nper_second_pending = 20\n\
             [[webhook]]\nurl = '{}'\n[events]\nfile = '{}'\n",
            camera.url,
            hook.url,
            folder.path().join("events.jsonl").display()
        ),
    );
    becomes(&daemon, "door", 5 * SECOND, ["label", &first]);
    camera.show(other.clone());
    becomes(&daemon, "door", 5 * SECOND, ["label", &second]);
    // A hand before the lens.
    camera.show(Scene { pixels: (0..28 * 28u32).map(|i| 60 + (i / 28) as u8).collect(), ..one.clone() });
    becomes(&daemon, "door", 3 * SECOND, ["unknown", "obstructed"]);
    camera.show(one.clone());
    becomes(&daemon, "door", 5 * SECOND, ["label", &first]);
    camera.show(Scene { frozen: true, ..one.clone() });
    becomes(&daemon, "door", 3 * SECOND, ["unavailable", "frozen"]);
    camera.show(one);
    becomes(&daemon, "door", 5 * SECOND, ["label", &first]);
    camera.falls_silent(true);
    becomes(&daemon, "door", 2 * SECOND, ["unavailable", "gone"]);
    camera.falls_silent(false);
    becomes(&daemon, "door", 5 * SECOND, ["label", &first]);
    let (_, now) = daemon.request("GET", "/v1/cameras/door", b"");
    assert_eq!(now["last"]["label"], *first, "{now}");
    assert_eq!(daemon.stop(), Some(0));

    let lines = fs::read_to_string(folder.path().join("events.jsonl")).unwrap();
    let events: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut ids: Vec<&str> = events.iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert_eq!(hook.taken(), events, "a file and an address hear the same");
    ids.dedup();
    assert_eq!(ids.len(), events.len());
    let states: Vec<&Value> = events.iter().map(|event| &event["state"]).collect();
    assert!(
        events.windows(2).all(|pair| pair[0]["state"] != pair[1]["state"]
            || pair[0]["reason"] != pair[1]["reason"]
            || pair[0]["label"] != pair[1]["label"]),
        "{states:?}"
    );
}

/// ffmpeg with a made film.
fn ffmpeg(rate: u32, output: &[&str]) -> Command {
    let mut command = Command::new("ffmpeg");
    let source = format!("testsrc=size=640x480:rate={rate}");
    command.args(["-loglevel", "error", "-re", "-f", "lavfi", "-i", &source]).args(output);
    command
}

/// A child that ends with its value.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_program_that_is_killed_is_gone_within_two_intervals_and_back_within_five_seconds() {
    if skipped("ffmpeg", "a_program_that_is_killed_is_gone_within_two_intervals_and_back_within_five_seconds") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // A name of its own, by which it can be found.
    let mark = format!("paradise-test-{}", std::process::id());
    let daemon = serve(
        folder.path(),
        &format!(
            "[[camera]]\nname = 'film'\ninterval_ms = 200\nregion = [0, 0, 320, 240]\ncommand = ['ffmpeg', '-loglevel', \
             'error', '-re', '-f', 'lavfi', '-i', 'testsrc=size=640x480:rate=10', '-metadata', 'title={mark}', '-f', \
             'mjpeg', '-q:v', '5', '-']\n"
        ),
    );
    let there = || state(&daemon, "film")[0] != "unavailable";
    within(10 * SECOND, "pictures", there);
    let send = |signal| Command::new("pkill").args([signal, "-f", &mark]).status().unwrap().success();
    let mut killed = 0;
    for signal in ["-STOP", "-KILL"] {
        // Two intervals, and the time to look: of several times the shortest, since this machine has other work.
        let mut times = (0..5).map(|_| {
            assert!(send(signal));
            let gone = until("unavailable", || !there());
            match signal {
                "-STOP" => assert!(send("-CONT")),
                _ => killed += 1,
            }
            println!("{signal}: gone after {gone:?}, back after {:?}", within(5 * SECOND, "back", there));
            gone
        });
        assert!(times.any(|gone| gone < Duration::from_millis(700)), "{signal}");
    }
    let (_, now) = daemon.request("GET", "/v1/cameras/film", b"");
    assert_eq!((&now["size"], now["reopened"].as_u64()), (&serde_json::json!([640, 480]), Some(killed)), "{now}");
    assert_eq!(daemon.stop(), Some(0));
    let left = Command::new("pgrep").args(["-f", &format!("title={mark}")]).output().unwrap();
    assert!(left.stdout.is_empty(), "the program outlived the service");
}

#[test]
fn a_stream_over_http_is_read_as_ffmpeg_sends_it() {
    if skipped("ffmpeg", "a_stream_over_http_is_read_as_ffmpeg_sends_it") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}/film");
    let daemon =
        serve(folder.path(), &format!("[[camera]]\nname = 'film'\nsource = 'mjpeg+{url}'\ninterval_ms = 500\n"));
    within(5 * SECOND, "no camera yet", || state(&daemon, "film") == ["unavailable", "gone"]);
    for _ in 0..2 {
        let output = ["-f", "mpjpeg", "-listen", "1", &url];
        let camera = Ends(ffmpeg(10, &output).stdin(Stdio::null()).spawn().unwrap());
        within(8 * SECOND, "pictures", || state(&daemon, "film")[0] != "unavailable");
        drop(camera);
        within(2 * SECOND, "gone", || state(&daemon, "film")[0] == "unavailable");
    }
}

#[test]
fn a_picture_is_classified_when_it_is_asked_for_and_the_region_moves() {
    let folder = tempfile::tempdir().unwrap();
    let [(first, one), (second, other)] = scenes();
    // Both side by side, in grey of which the border is.
    let mut pixels = Vec::new();
    for row in 0..28 {
        pixels.extend_from_slice(&one.pixels[28 * row..][..28]);
        pixels.extend_from_slice(&other.pixels[28 * row..][..28]);
    }
    let camera = Snapshots::start(Scene { pixels, width: 56, frozen: false });
    let daemon = serve(
        folder.path(),
        &format!(
            "[[camera]]\nname = 'shelf'\nsource = '{}'\ninterval_ms = 50\ntrigger = 'never'\nneed = 1\nof = 1\n\
             region = [0, 0, 28, 28]\nexpires_ms = 60000\n",
            camera.url
        ),
    );
    within(5 * SECOND, "pictures", || camera.asked() > 5);
    let count = || daemon.request("GET", "/v1/cameras/shelf", b"").1["classified"].as_u64().unwrap();
    assert_eq!(count(), 0);
    assert_eq!(daemon.request("POST", "/v1/cameras/shelf/classify", b"").0, 202);
    becomes(&daemon, "shelf", 3 * SECOND, ["label", &first]);
    let put = |body: &str| daemon.request("PUT", "/v1/cameras/shelf/region", body.as_bytes());
    let (status, said) = put("{\"region\": [28, 0, 29, 28]}");
    assert!(status == 400 && said["error"].as_str().unwrap().contains("not inside"), "{said}");
    for wrong in ["{\"region\": [1, 2, 3]}", "{\"region\": [0, 0, 3, 3]}", "{\"regoin\": null}", "", "[4294967295]"] {
        assert_eq!(put(wrong).0, 400, "{wrong}");
    }
    assert_eq!(put("{\"region\": [28, 0, 28, 28]}").0, 200);
    assert_eq!(daemon.request("POST", "/v1/cameras/shelf/classify", b"").0, 202);
    becomes(&daemon, "shelf", 3 * SECOND, ["label", &second]);
    assert_eq!(count(), 2);
    let (_, answers) = daemon.request("GET", "/v1/cameras/shelf/answers", b"");
    let labels: Vec<&Value> = answers["answers"].as_array().unwrap().iter().map(|a| &a["label"]).collect();
    assert_eq!(labels, [&first, &second]);
    assert_eq!(daemon.request("GET", "/v1/cameras/nobody", b"").0, 404);
    let picture = {
        let mut stream = daemon.connect();
        stream.write_all(b"GET /v1/cameras/shelf/picture HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut all = Vec::new();
        std::io::Read::read_to_end(&mut stream, &mut all).unwrap();
        all
    };
    assert!(picture.windows(8).any(|part| part == b"\x89PNG\r\n\x1a\n"));
}

#[test]
fn thresholds_change_while_it_serves_and_outlive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let [(label, one), _] = scenes();
    let picture = paradise_picture::png(&one.pixels, paradise_engine::Shape::new(28, 28, 1)).unwrap();
    let decision = |daemon: &Daemon| daemon.request("POST", "/v1/classify", &picture).1["decision"].clone();
    let daemon = serve(folder.path(), "");
    let (_, before) = daemon.request("GET", "/v1/thresholds", b"");
    assert_eq!(decision(&daemon), "accept");
    let put = |daemon: &Daemon, body: &str| daemon.request("PUT", "/v1/thresholds", body.as_bytes());
    for wrong in ["{\"min_combined_p\": 2}", "{\"min_combined\": 0.5}", "{\"min_combined_p\": \"x\"}", "0.5", ""] {
        assert_eq!(put(&daemon, wrong).0, 400, "{wrong}");
    }
    assert_eq!(daemon.request("PUT", "/v1/thresholds?model=none", b"{}").0, 404);
    let (status, now) = put(&daemon, "{\"min_combined_p\": 1.0}");
    assert_eq!((status, &now["thresholds"]["combined_p_min"]), (200, &serde_json::json!(1.0)), "{now}");
    assert_eq!(decision(&daemon), "abstain", "{label}");
    assert_eq!(daemon.stop(), Some(0));
    let daemon = serve(folder.path(), "");
    assert_eq!(decision(&daemon), "abstain");
    // Nothing said is nothing changed.
    assert_eq!(put(&daemon, "{}").1["thresholds"], before["thresholds"]);
    assert_eq!(decision(&daemon), "accept");
    let journal = fs::read_to_string(folder.path().join("state/journal.jsonl")).unwrap();
    assert_eq!(journal.matches("\"event\":\"thresholds\"").count(), 2, "{journal}");
}

#[test]
fn tables_that_say_nothing_possible_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let (path, model) = (folder.path().join("paradised.toml"), bundle());
    let camera = |rest: &str| format!("[[camera]]\nname = 'a'\n{rest}\n");
    let snapshot = "source = 'http://localhost/x.jpg'";
    for (tables, why) in [
        (camera(""), "where from"),
        (camera("source = 'rtsp://camera'"), "mjpeg+http"),
        (camera("source = 'http://'"), "mjpeg+http"),
        (camera(&format!("{snapshot}\ncommand = ['true']")), "one or the other"),
        (camera("source = 'mqtt:a/#'"), "mqtt:TOPIC"),
        (camera("source = 'mqtt:a/b'"), "there is no [mqtt]"),
        (camera(&format!("{snapshot}\ninterval_ms = 1")), "interval_ms 1"),
        (camera(&format!("{snapshot}\nneed = 6")), "need 6, of 5"),
        (camera(&format!("{snapshot}\nsure = 1.0")), "sure 1"),
        (camera(&format!("{snapshot}\nper_second = 0.0")), "per_second 0"),
        (camera(&format!("{snapshot}\nregion = [0, 0, 2, 2]")), "at least 8"),
        (camera(&format!("{snapshot}\nregion = [4294967295, 0, 20, 20]")), "beyond any picture"),
        (camera(&format!("{snapshot}\nspeed = 3")), "speed"),
        (camera(&format!("{snapshot}\ntrigger = 'sound'")), "sound"),
        (camera(&format!("{snapshot}\nca = '/nowhere.pem'")), "/nowhere.pem"),
        (format!("{0}{0}", camera(snapshot)), "two of that name"),
        (camera("source = 'v4l2:/dev/video0'"), "--features camera"),
        (camera(&format!("{snapshot}\ntrigger_line = 'NO_SUCH_LINE'")), "NO_SUCH_LINE"),
        ("[pins]\naccept = 'NOT_A'\nabstain = 'NOT_B'\nfault = 'NOT_C'".into(), "NOT_A"),
        ("[pins]\ncamera = 'b'\naccept = 'A'\nabstain = 'B'\nfault = 'C'".into(), "none of that name"),
        ("[samples]\nfolder = '/tmp/x'\nbytes = 3".into(), "bytes 3"),
        ("[[folder]]\npath = '/nowhere'".into(), "/nowhere: not a folder"),
        ("[[camera]]\nname = 'a b'\nsource = 'http://x'".into(), "letters, digits"),
        ("[[webhook]]\nurl = 'ftp://x'".into(), "http://"),
        ("[events]\nfile = '/nowhere/at/all'".into(), "/nowhere/at/all"),
        ("[mqtt]\nbroker = 'http://x'".into(), "mqtt://"),
        ("[mqtt]\nbroker = 'mqtt://x:port'".into(), "port"),
        ("[mqtt]\nbroker = 'mqtt://x'\nbase = 'a/+'".into(), "base"),
        ("[mqtt]\nbroker = 'mqtts://x'\nca = '/nowhere.pem'".into(), "/nowhere.pem"),
    ] {
        fs::write(&path, &tables).unwrap();
        let run = program("paradised")
            .args(["serve", "--listen", "127.0.0.1:0", "--config", path.to_str().unwrap(), "--model"])
            .arg(&model)
            .output()
            .unwrap();
        let (out, err) = text(&run);
        assert_eq!(run.status.code(), Some(2), "{tables}: {out}{err}");
        assert!(err.contains(why), "{tables}: {err}");
    }
}
