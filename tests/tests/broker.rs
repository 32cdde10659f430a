//! MQTT with Debian's mosquitto and a paho client: what is told, what is obeyed, what is never lost and never said twice.

use paradise_data::embedded;
use paradise_engine::Shape;
use paradise_runtime::{BackendKind, Bundle, load};
use paradise_tests::broker::{Mosquitto, Reader, requests, send};
use paradise_tests::camera::{Scene, Snapshots};
use paradise_tests::daemon::Daemon;
use paradise_tests::{deep, shipped, skipped, until};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn is_skipped(test: &str) -> bool {
    skipped("mosquitto", test) || skipped("python", test)
}

/// A service with tables in its file of settings.
fn serve(folder: &Path, tables: &str) -> Daemon {
    fs::create_dir_all(folder).unwrap();
    let path = folder.join("paradised.toml");
    fs::write(&path, tables).unwrap();
    Daemon::start(
        &[&shipped()],
        &["--config", path.to_str().unwrap(), "--state", folder.join("state").to_str().unwrap()],
    )
}

/// A scene of the test images.
fn scene(i: usize) -> Scene {
    Scene { pixels: embedded::subset().unwrap().test.image(i).to_vec(), width: 28, frozen: false }
}

/// Test images that the network accepts, of two classes, which stand beside them.
fn two() -> [(usize, usize); 2] {
    let test = embedded::subset().unwrap().test;
    let mut backend = load(&Bundle::open(&shipped()).unwrap(), BackendKind::Int8).unwrap();
    let mut sure = |i: usize| {
        let verdict = backend.verdict(test.image(i), None).unwrap();
        (verdict.is_accept() && verdict.score > 0.95 && verdict.p.combined > 0.3).then_some(verdict.class)
    };
    let first = (0..test.len()).find_map(|i| Some((i, sure(i)?))).unwrap();
    let second = (0..test.len()).find_map(|i| Some((i, sure(i).filter(|class| *class != first.1)?))).unwrap();
    [first, second]
}

#[test]
fn what_is_known_is_told_commands_are_obeyed_and_written_down() {
    if is_skipped("what_is_known_is_told_commands_are_obeyed_and_written_down") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start("");
    let camera = Snapshots::start(scene(two()[0].0));
    let daemon = serve(
        folder.path(),
        &format!(
            "[[camera]]\nname = 'door'\nsource = '{}'\ninterval_ms = 100\n[[camera]]\nname = 'post'\nsource = \
             'mqtt:yard/pictures'\n[mqtt]\nbroker = 'mqtt://127.0.0.1:{}'\ndevice = 'pi'\npictures = true\n",
            camera.url, broker.port
        ),
    );
    // Who comes late finds what is retained.
    until("label", || daemon.request("GET", "/v1/cameras/door", b"").1["state"] == "label");
    let reader = Reader::start(broker.port);
    let last = |topic: &str| reader.on(topic).last().cloned().unwrap_or(Value::Null);
    until("state", || last("paradise/pi/camera/door")["json"]["state"] == "label");
    let (_, now) = daemon.request("GET", "/v1/cameras/door", b"");
    let told = last("paradise/pi/camera/door");
    assert_eq!((&told["json"]["label"], &told["retain"]), (&now["label"], &json!(true)), "{told}");
    assert_eq!(last("paradise/pi/status")["text"], "online");
    assert_eq!(last("paradise/pi/update")["json"]["installed_version"], "1");
    until("picture", || last("paradise/pi/camera/door/picture")["bytes"].as_u64() > Some(100));

    discovered(&last("homeassistant/device/paradise_pi/config")["json"]);

    // A picture over the broker.
    let picture = paradise_picture::png(&scene(two()[0].0).pixels, Shape::new(28, 28, 1)).unwrap();
    fs::write(folder.path().join("picture.png"), picture).unwrap();
    send(broker.port, "yard/pictures", &format!("@{}", folder.path().join("picture.png").display()), "", "");
    until("its answer", || daemon.request("GET", "/v1/cameras/post", b"").1["classified"].as_u64() == Some(1));

    // Commands, with answers where they are expected.
    let command = |name: &str, payload: &str| {
        let correlation = format!("{name}-{payload}");
        send(broker.port, &format!("paradise/pi/command/{name}"), payload, "me/answers", &correlation);
        let answer = || reader.on("me/answers").into_iter().find(|answer| answer["correlation"] == *correlation);
        until(&correlation, || answer().is_some());
        answer().unwrap()["json"].clone()
    };
    assert_eq!(command("selftest", "press")["selftests"][0]["verdict"], "passed");
    assert_eq!(last("paradise/pi/selftest")["json"]["verdict"], "passed");
    assert_eq!(command("reload", "install")["models"][0]["version"], "1");
    let set = command("thresholds", "{\"thresholds\": {\"min_combined_p\": 0.25}}");
    assert_eq!(set["thresholds"]["combined_p_min"], json!(0.25));
    assert_eq!(daemon.request("GET", "/v1/thresholds", b"").1["thresholds"], set["thresholds"]);
    for (name, payload, why) in [
        ("thresholds", "{\"thresholds\": {\"min_combined_p\": 7}}", "out of range"),
        ("thresholds", "not JSON", "expected"),
        ("reboot", "", "no command"),
    ] {
        let refused = command(name, payload);
        assert!(refused["error"].as_str().unwrap().contains(why), "{refused}");
    }
    let journal = fs::read_to_string(folder.path().join("state/journal.jsonl")).unwrap();
    assert_eq!(journal.matches("over MQTT").count(), 6, "{journal}");

    // Home Assistant starts anew, and wants to hear it again.
    let before = reader.on("homeassistant/device/paradise_pi/config").len();
    send(broker.port, "homeassistant/status", "online", "", "");
    until("told again", || reader.on("homeassistant/device/paradise_pi/config").len() > before);

    // A device that dies is offline by its will.
    assert!(Command::new("kill").args(["-9", &daemon.id().to_string()]).status().unwrap().success());
    until("the will", || last("paradise/pi/status")["text"] == "offline");
}

/// What Home Assistant's release 2025.1 demands of a device's discovery (`DEVICE_DISCOVERY_SCHEMA` of its MQTT integration, and the schemas of
/// the platforms): keys that are needed, and no key that is not known.
fn discovered(message: &Value) {
    const ROOT: [&str; 7] =
        ["device", "origin", "components", "availability_topic", "payload_available", "payload_not_available", "qos"];
    const DEVICE: [&str; 5] = ["identifiers", "name", "manufacturer", "model", "sw_version"];
    const COMMON: [&str; 7] =
        ["platform", "unique_id", "name", "entity_category", "icon", "json_attributes_topic", "state_topic"];
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let known = |value: &Value, known: &[&[&str]]| {
        for key in keys(value) {
            assert!(known.concat().contains(&key.as_str()), "{key} in {value}");
        }
    };
    known(message, &[&ROOT]);
    known(&message["device"], &[&DEVICE]);
    known(&message["origin"], &[&["name", "sw_version", "support_url"]]);
    assert!(
        message["origin"]["name"].is_string() && !message["device"]["identifiers"][0].as_str().unwrap().is_empty()
    );
    let topic = |part: &Value, key: &str| {
        let topic = part[key].as_str().unwrap_or_else(|| panic!("{key} of {part}"));
        assert!(topic.starts_with("paradise/pi/") && !topic.contains(['+', '#']), "{topic}");
    };
    let mut platforms = Vec::new();
    for (id, part) in message["components"].as_object().unwrap() {
        assert_eq!(part["unique_id"], **id, "Home Assistant tells parts apart by it");
        match part["platform"].as_str().unwrap() {
            "sensor" => {
                known(part, &[&COMMON, &["value_template"]]);
                topic(part, "state_topic");
            }
            "image" => {
                known(part, &[&COMMON, &["image_topic", "content_type"]]);
                topic(part, "image_topic");
            }
            "update" => {
                known(part, &[&COMMON, &["command_topic", "payload_install"]]);
                topic(part, "state_topic");
                topic(part, "command_topic");
            }
            "button" => {
                known(part, &[&COMMON, &["command_topic", "payload_press"]]);
                topic(part, "command_topic");
            }
            other => panic!("{other}"),
        }
        let category = part["entity_category"].as_str().unwrap_or("config");
        assert!(["config", "diagnostic"].contains(&category), "{category}");
        platforms.push(part["platform"].as_str().unwrap().to_string());
    }
    platforms.sort();
    assert_eq!(platforms, ["button", "image", "image", "sensor", "sensor", "sensor", "update"]);
}

#[test]
fn while_the_broker_is_gone_events_wait_within_bounds_and_none_is_said_twice() {
    if is_skipped("while_the_broker_is_gone_events_wait_within_bounds_and_none_is_said_twice") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Mosquitto::start("");
    let two = two();
    let camera = Snapshots::start(scene(two[0].0));
    let events = folder.path().join("events.jsonl");
    let daemon = serve(
        folder.path(),
        &format!(
            "[[camera]]\nname = 'door'\nsource = '{}'\ninterval_ms = 50\nneed = 1\nof = 1\nsure = 0.0\nper_second = 20\n\
             per_second_pending = 20\n[mqtt]\nbroker = 'mqtt://127.0.0.1:{}'\ndevice = 'pi'\nwaiting = 4\n[events]\n\
             file = '{}'\n",
            camera.url,
            broker.port,
            events.display()
        ),
    );
    let reader = Reader::start(broker.port);
    let told = || {
        // Whoever asks anew is told what is retained, too.
        let live = reader.on("paradise/pi/camera/door").into_iter().filter(|told| told["retain"] == false);
        live.map(|told| told["json"]["id"].as_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    let all = || {
        let lines = fs::read_to_string(&events).unwrap_or_default();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    let written = || all().iter().map(|event| event["id"].as_str().unwrap().to_string()).collect::<Vec<_>>();
    let mut shown = 0;
    let mut changes = |count: usize| {
        for _ in 0..count {
            shown = 1 - shown;
            camera.show(scene(two[shown].0));
            until("a change", || all().last().is_some_and(|event| event["class"] == two[shown].1));
        }
    };
    changes(2);
    // What was retained when the reader came may be the second or third: from here on each is told.
    until("told", || told().last() == written().last());
    let before = told().len();
    let heard = written().len();
    // What the reader has not acknowledged yet, the broker itself would say again.
    std::thread::sleep(Duration::from_millis(500));
    broker.end();
    changes(9);
    broker.begin();
    until("told", || told().last() == written().last());
    changes(1);
    until("told", || told().last() == written().last());
    let (told, written) = (told()[before..].to_vec(), written()[heard..].to_vec());
    // Of those from between the last four waited, and one may have been on its way already.
    let kept = told.len() - 1;
    assert!((4..=5).contains(&kept), "{told:?} of {written:?}");
    assert!(told.ends_with(&written[written.len() - 5..]), "{told:?} of {written:?}");
    let mut once = told.clone();
    once.dedup();
    assert_eq!(once, told, "none twice");
    let metrics = daemon.text("/metrics");
    let dropped = metrics.lines().find_map(|line| line.strip_prefix("paradise_events_dropped{sink=\"mqtt\"} "));
    let dropped: usize = dropped.expect("counted").parse().unwrap();
    assert_eq!(dropped, written.len() - told.len(), "{told:?} of {written:?}");
}

#[test]
fn a_broker_with_tls_and_a_password_is_one_as_well() {
    if is_skipped("a_broker_with_tls_and_a_password_is_one_as_well") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
    let files = tempfile::tempdir().unwrap();
    fs::set_permissions(files.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (certificate, key, users) =
        (files.path().join("c.pem"), files.path().join("k.pem"), files.path().join("users"));
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let made = Command::new("mosquitto_passwd").args(["-c", "-b"]).arg(&users).args(["pi", "very secret"]).status();
    assert!(made.unwrap().success());
    for path in [&certificate, &key, &users] {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    }
    let broker = Mosquitto::start(&format!(
        "certfile {}\nkeyfile {}\npassword_file {}\nallow_anonymous false",
        certificate.display(),
        key.display(),
        users.display()
    ));
    let status = || {
        Command::new("mosquitto_sub")
            .args([
                "-h",
                "localhost",
                "-p",
                &broker.port.to_string(),
                "-t",
                "paradise/pi/status",
                "-C",
                "1",
                "-W",
                "2",
            ])
            .args(["-u", "pi", "-P", "very secret", "--cafile"])
            .arg(&certificate)
            .output()
            .unwrap()
            .stdout
    };
    fs::write(folder.path().join("right"), "very secret\n").unwrap();
    fs::write(folder.path().join("wrong"), "secret\n").unwrap();
    for (password, trusted, wanted) in [("wrong", true, ""), ("right", false, ""), ("right", true, "online\n")] {
        let ca = if trusted { format!("ca = '{}'\n", certificate.display()) } else { String::new() };
        let daemon = serve(
            folder.path(),
            &format!(
                "[mqtt]\nbroker = 'mqtts://localhost:{}'\ndevice = 'pi'\nuser = 'pi'\npassword_file = '{}'\n{ca}",
                broker.port,
                folder.path().join(password).display()
            ),
        );
        assert_eq!(String::from_utf8(status()).unwrap(), wanted, "{password}, trusted: {trusted}");
        drop(daemon);
    }
}

#[test]
fn a_group_answers_every_request_though_one_is_killed() {
    if is_skipped("a_group_answers_every_request_though_one_is_killed") {
        return;
    }
    let count = if deep() { 10_000 } else { 1500 };
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start("");
    let pictures = folder.path().join("pictures");
    fs::create_dir(&pictures).unwrap();
    let test = embedded::subset().unwrap().test;
    let mut backend = load(&Bundle::open(&shipped()).unwrap(), BackendKind::Int8).unwrap();
    let mut truth = Vec::new();
    for i in 0..20 {
        let png = paradise_picture::png(test.image(i), Shape::new(28, 28, 1)).unwrap();
        truth.push(backend.picture(&png, None).unwrap().class);
        fs::write(pictures.join(format!("{i:02}.png")), png).unwrap();
    }
    let start = |device: &str| {
        serve(
            &folder.path().join(device),
            &format!("[mqtt]\nbroker = 'mqtt://127.0.0.1:{}'\ndevice = '{device}'\nshare = 'fleet'\n", broker.port),
        )
    };
    let _stay = [start("one"), start("two")];
    let killed = start("three");
    let mut asking = requests(broker.port, "paradise", count, &pictures);
    let lines = BufReader::new(asking.stdout.take().unwrap()).lines().map_while(Result::ok);
    let (mut killed, mut back, mut last) = (Some(killed), None, Value::Null);
    for line in lines {
        last = serde_json::from_str(&line).unwrap();
        let Some(asked) = last["asked"].as_u64() else { continue };
        if asked as usize >= count / 3
            && let Some(daemon) = killed.take()
        {
            assert!(Command::new("kill").args(["-9", &daemon.id().to_string()]).status().unwrap().success());
        }
        if asked as usize >= count / 2 && back.is_none() {
            // Under its name the broker knows it again.
            back = Some(start("three"));
        }
    }
    assert!(asking.wait().unwrap().success());
    println!("{last}");
    assert_eq!((last["answered"].as_u64(), last["errors"].as_u64()), (Some(count as u64), Some(0)), "{last}");
    for (i, class) in truth.iter().enumerate() {
        assert_eq!(last["classes"][i.to_string()], *class, "{last}");
    }
    let devices: Vec<&String> = last["devices"].as_object().unwrap().keys().collect();
    assert_eq!(devices, ["one", "three", "two"]);
}

#[test]
fn a_request_that_comes_again_gets_the_answer_that_it_had_and_is_counted() {
    if is_skipped("a_request_that_comes_again_gets_the_answer_that_it_had_and_is_counted") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start("");
    let reader = Reader::start(broker.port);
    let daemon = serve(
        folder.path(),
        &format!("[mqtt]\nbroker = 'mqtt://127.0.0.1:{}'\ndevice = 'pi'\nshare = 'fleet'\n", broker.port),
    );
    until("online", || !reader.on("paradise/pi/status").is_empty());
    let picture = paradise_picture::png(&scene(0).pixels, Shape::new(28, 28, 1)).unwrap();
    fs::write(folder.path().join("picture.png"), picture).unwrap();
    let file = format!("@{}", folder.path().join("picture.png").display());
    for _ in 0..3 {
        send(broker.port, "paradise/requests", &file, "me/answers", "the same");
    }
    send(broker.port, "paradise/requests", "no picture", "me/answers", "another");
    until("answers", || reader.on("me/answers").len() == 4);
    let answers = reader.on("me/answers");
    assert!(answers[..3].iter().all(|one| one["json"] == answers[0]["json"] && one["json"]["device"] == "pi"));
    assert!(answers[3]["json"]["error"].is_string(), "{}", answers[3]);
    let metrics = daemon.text("/metrics");
    assert!(metrics.contains("paradise_requests_repeated 2"), "{metrics}");
    let counted = metrics.lines().find(|line| line.starts_with("nv_inference_request_success{")).unwrap();
    assert!(counted.ends_with(" 1"), "{counted}");
}
