//! What an operator relies on: settings from flags, environment and a file; a token; systemd's notifications; the unit.

use paradise_tests::daemon::{Daemon, answer};
use paradise_tests::{copy_of_shipped, program, root, shipped, skipped, text, until};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What `check-config` says: exit code, settings with their sources, errors.
fn checked(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let output =
        program("paradised").arg("check-config").args(arguments).envs(variables.iter().copied()).output().unwrap();
    let (out, errors) = text(&output);
    (output.status.code(), out, errors)
}

/// Value and source of a setting.
fn setting(table: &str, name: &str) -> Option<(String, String)> {
    let line = table.lines().find(|line| line.split_whitespace().next() == Some(name))?;
    let (value, source) = line[name.len()..].trim().rsplit_once("  ").unwrap_or(("", line));
    Some((value.trim().to_string(), source.trim().to_string()))
}

#[test]
fn flags_come_before_the_environment_and_that_before_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("paradised.toml");
    let model = shipped().to_string_lossy().into_owned();
    fs::write(
        &file,
        format!("model = {model:?}\nlisten = \"127.0.0.1:7001\"\nqueue = 5\nmin-picture-p = 0.25\nopen = true\n"),
    )
    .unwrap();
    let file = file.to_string_lossy().into_owned();
    let is = |table: &str, name: &str, value: &str, source: &str| {
        assert_eq!(setting(table, name), Some((value.to_string(), source.to_string())), "{table}");
    };
    let (code, table, errors) = checked(&["--config", &file], &[]);
    assert_eq!(code, Some(0), "{errors}");
    is(&table, "listen", "127.0.0.1:7001", "file");
    is(&table, "queue", "5", "file");
    is(&table, "max-body", "16777216", "default");
    is(&table, "min-picture-p", "0.25", "file");
    is(&table, "open", "true", "file");
    assert!(table.ends_with("the settings are in order\n"), "{table}");
    let (_, table, _) = checked(&[], &[("PARADISE_CONFIG", &file), ("PARADISE_LISTEN", "127.0.0.1:7002")]);
    is(&table, "listen", "127.0.0.1:7002", "environment");
    let (_, table, _) = checked(
        &["--listen", "127.0.0.1:7003", "--queue=9"],
        &[("PARADISE_CONFIG", &file), ("PARADISE_LISTEN", "127.0.0.1:7002")],
    );
    is(&table, "listen", "127.0.0.1:7003", "command line");
    is(&table, "queue", "9", "command line");
    is(&table, "model", &model, "file");
    // It is what serves, too.
    let daemon = Daemon::start(&[], &["--config", &file, "--listen", "127.0.0.1:0"]);
    assert_eq!(daemon.request("GET", "/v2/models/fashion-mnist-small/ready", b"").0, 200);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn wrong_settings_are_told_with_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.toml");
    let at = file.to_string_lossy().into_owned();
    let model = format!("model = {:?}\n", shipped().to_string_lossy());
    let cases: [(String, &str); 12] = [
        ("listen = ".into(), "x.toml"),
        (format!("{model}lissen = \"a\"\n"), "no setting \"lissen\""),
        (format!("{model}config = \"a\"\n"), "no setting \"config\""),
        (format!("{model}queue = [1, 2]\n"), "queue: takes one value"),
        (format!("{model}queue = true\n"), "queue: true is not a value of it"),
        (format!("{model}queue = 0\n"), "--queue"),
        (format!("{model}[queue]\na = 1\n"), "queue"),
        (format!("{model}min-picture-p = 2.0\nlisten = \"127.0.0.1:1\"\n"), ""),
        (format!("{model}listen = \"0.0.0.0:80\"\n"), "other machines can ask there; give a --token, or say --open"),
        ("listen = \"127.0.0.1:1\"\n".into(), "what is to be served?"),
        ("model = \"/no/such\"\n".into(), "/no/such: no such folder"),
        ("models = \"/no/such\"\nunsigned = true\n".into(), "/no/such"),
    ];
    for (settings, why) in cases {
        fs::write(&file, &settings).unwrap();
        let (code, _, errors) = checked(&["--config", &at], &[]);
        if why.is_empty() {
            continue;
        }
        assert!(code == Some(2) && errors.contains(why), "{settings}: {errors}");
    }
    let (code, _, errors) = checked(&["--config", "/no/such/file.toml"], &[]);
    assert!(code == Some(2) && errors.contains("/no/such/file.toml"), "{errors}");
    fs::write(&file, "#".repeat(2 << 20)).unwrap();
    let (code, _, errors) = checked(&["--config", &at], &[]);
    assert!(code == Some(2) && errors.contains("exceed the limit"), "{errors}");
    let mut state = 3u64;
    for _ in 0..200 {
        let bytes: Vec<u8> = (0..60)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                b"abkeyq=\"[]{}#\n.1-_\xff"[(state >> 33) as usize % 19]
            })
            .collect();
        fs::write(&file, bytes).unwrap();
        assert!(checked(&["--config", &at], &[]).0.is_some_and(|code| code == 0 || code == 2));
    }
}

#[test]
fn a_token_is_asked_of_everybody() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "0123456789abcdef-secret\n").unwrap();
    let daemon = Daemon::start(&[&shipped()], &["--token", &file.to_string_lossy()]);
    let asked = |path: &str, authorization: &str| {
        let mut stream = daemon.connect();
        let head = format!("GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{authorization}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        answer(stream)
    };
    assert_eq!(asked("/v2/health/live", "").0, 200);
    assert_eq!(asked("/v2/health/ready", "").0, 200);
    for wrong in [
        "",
        "Authorization: Bearer wrong\r\n",
        "Authorization: Basic 0123456789abcdef-secret\r\n",
        "Authorization: Bearer 0123456789abcdef-secre\r\n",
    ] {
        let (status, body) = asked("/v2/models/fashion-mnist-small", wrong);
        assert!(
            status == 401 && body["error"].as_str().is_some_and(|e| e.contains("token")),
            "{wrong} {status} {body}"
        );
    }
    assert_eq!(daemon.request("POST", "/v1/classify", b"x").0, 401);
    assert_eq!(asked("/v2/models/fashion-mnist-small", "Authorization: Bearer 0123456789abcdef-secret\r\n").0, 200);
    assert_eq!(daemon.stop(), Some(0));
    for (token, why) in
        [("short\n", "at least 16 bytes"), ("0123456789 abcdef\n", "visible ASCII"), ("", "at least 16 bytes")]
    {
        fs::write(&file, token).unwrap();
        let output = program("paradised")
            .args(["serve", "--listen", "127.0.0.1:0", "--token", &file.to_string_lossy(), "--model"])
            .arg(shipped())
            .output()
            .unwrap();
        assert!(output.status.code() == Some(2) && text(&output).1.contains(why), "{}", text(&output).1);
    }
}

#[test]
fn the_self_test_runs_while_it_serves_on_demand_and_on_a_schedule() {
    let (_folder, bundle) = copy_of_shipped();
    let daemon = Daemon::start(&[&bundle], &["--selftest-hours", "0.001"]);
    let (status, report) = daemon.request("POST", "/v1/selftest", b"");
    assert_eq!((status, &report["verdict"], &report["exit_code"]), (200, &"passed".into(), &0.into()), "{report}");
    let (status, last) = daemon.request("GET", "/v1/selftest?model=fashion-mnist-small", b"");
    assert_eq!((status, &last["verdict"]), (200, &"passed".into()));
    assert_eq!(daemon.request("GET", "/v1/selftest?model=other", b"").0, 404);
    // What lies there is no longer what serves: not run, and what serves goes on.
    fs::write(bundle.join("card.toml"), b"another").unwrap();
    let (status, why) = daemon.request("POST", "/v1/selftest", b"");
    assert!(status == 500 && why["error"].as_str().is_some_and(|why| why.contains("card.toml")), "{why}");
    assert_eq!(daemon.request("GET", "/v2/health/ready", b"").0, 200);
    assert_eq!(daemon.stop(), Some(0));
    // One follows the start, more come by themselves.
    let daemon = Daemon::start(&[&shipped()], &["--selftest-hours", "0.001"]);
    let passed = "paradise_selftests{model=\"fashion-mnist-small\",verdict=\"passed\"} 3";
    until("scheduled tests", || daemon.text("/metrics").contains(passed));
    assert_eq!(daemon.stop(), Some(0));
}

/// The next notification that holds a text.
fn told(socket: &UnixDatagram, what: &str) -> String {
    let mut buffer = [0; 4096];
    loop {
        let n = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("no {what}: {e}"));
        let said = String::from_utf8_lossy(&buffer[..n]).into_owned();
        if said.contains(what) {
            return said;
        }
    }
}

#[test]
fn systemd_is_told_of_start_reload_health_and_stop() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("notify");
    let socket = UnixDatagram::bind(&at).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut child = program("paradised")
        .args(["serve", "--listen", "127.0.0.1:0", "--model"])
        .arg(shipped())
        .env("NOTIFY_SOCKET", &at)
        .env("WATCHDOG_USEC", "400000")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert!(told(&socket, "READY=1").contains("STATUS=serving fashion-mnist-small 1"));
    told(&socket, "WATCHDOG=1");
    told(&socket, "WATCHDOG=1");
    let signal = |name: &str| {
        let sent = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    };
    signal("-HUP");
    assert!(told(&socket, "RELOADING=1").contains("MONOTONIC_USEC="));
    told(&socket, "READY=1");
    signal("-TERM");
    told(&socket, "STOPPING=1");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn the_unit_is_in_order_and_hardened() {
    if skipped("systemd", "the_unit_is_in_order_and_hardened") {
        return;
    }
    // The program is not installed here; everything else is as it is shipped.
    let unit = fs::read_to_string(root().join("runtime/package/debian/paradised.service")).unwrap();
    assert!(unit.contains("ExecStart=/usr/bin/paradised serve --config /etc/paradised/paradised.toml"));
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("paradised.service");
    fs::write(&copy, unit.replace("/usr/bin/paradised", "/bin/true")).unwrap();
    let analyze = |arguments: &[&str], file: &Path| {
        let output = Command::new("systemd-analyze").args(arguments).arg(file).output().unwrap();
        (output.status.success(), text(&output))
    };
    let (fine, (out, errors)) = analyze(&["verify"], &copy);
    assert!(fine && out.is_empty() && errors.is_empty(), "{out}{errors}");
    let (_, (out, errors)) = analyze(&["security", "--offline=true", "--no-pager"], &copy);
    let exposure = out.lines().find_map(|line| line.split("Overall exposure level for paradised.service: ").nth(1));
    let exposure: f64 =
        exposure.and_then(|said| said.split(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("{out}{errors}"));
    assert!(exposure <= 2.0, "{exposure}");
}

/// The system calls of a filter's word: a call, or a group with all that it has.
fn calls(word: &str, of: &mut BTreeSet<String>) {
    if !word.starts_with('@') {
        of.insert(word.to_string());
        return;
    }
    let output = Command::new("systemd-analyze").args(["syscall-filter", "--no-pager", word]).output().unwrap();
    let listed = text(&output).0;
    let inside = listed.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    inside.for_each(|word| calls(word, of));
}

#[test]
fn the_unit_allows_every_system_call_that_the_service_makes() {
    let test = "the_unit_allows_every_system_call_that_the_service_makes";
    if skipped("systemd", test) || skipped("strace", test) {
        return;
    }
    let unit = fs::read_to_string(root().join("runtime/package/debian/paradised.service")).unwrap();
    let mut allowed = BTreeSet::new();
    for words in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        match words.strip_prefix('~') {
            None => words.split(' ').for_each(|word| calls(word, &mut allowed)),
            Some(words) => {
                let mut denied = BTreeSet::new();
                words.split(' ').for_each(|word| calls(word, &mut denied));
                allowed.retain(|call| !denied.contains(call));
            }
        }
    }
    assert!(allowed.len() > 200 && !allowed.contains("mount"), "{allowed:?}");
    let folder = tempfile::tempdir().unwrap();
    let (trace, state) = (folder.path().join("trace"), folder.path().join("state"));
    let (_keep, bundle) = copy_of_shipped();
    let [to, kept] = [&trace, &state].map(|path| path.to_string_lossy().into_owned());
    let daemon = Daemon::traced(&["-o", &to], &[&bundle], &["--round-seconds", "1", "--state", &kept]);
    let picture = [&b"P5 28 28 255\n"[..], &[7; 784]].concat();
    assert_eq!(daemon.request("POST", "/v1/classify", &picture).0, 200);
    assert_eq!(daemon.request("POST", "/v1/selftest", b"").0, 200);
    assert_eq!(daemon.request("POST", "/v2/repository/models/fashion-mnist-small/load", b"").0, 200);
    std::thread::sleep(Duration::from_millis(1500));
    assert!(Command::new("kill").args(["-HUP", &daemon.id().to_string()]).status().unwrap().success());
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(daemon.stop(), Some(0));
    let trace = fs::read_to_string(&trace).unwrap();
    let made: BTreeSet<&str> = trace
        .lines()
        .filter_map(|line| line.split_once(' ')?.1.trim_start().split_once('('))
        .map(|(call, _)| call)
        .filter(|call| call.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
        .collect();
    assert!(made.contains("execve") && made.contains("inotify_init1") || made.len() > 20, "{made:?}");
    let missing: Vec<&&str> = made.iter().filter(|call| !allowed.contains(**call)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
