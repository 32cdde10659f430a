//! What an operator sets about the network and the log: TLS by a real client, other origins, lines a request, journald, and the files that
//! the process gives up.

use paradise_tests::{copy_of_shipped, program, shipped, text, until};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A service with its log in a file.
struct Running {
    child: Child,
    url: String,
    log: PathBuf,
}

impl Running {
    fn start(folder: &Path, model: &Path, extra: &[&str]) -> Self {
        let log = folder.join("log");
        let mut child = program("paradised")
            .args(["serve", "--listen", "127.0.0.1:0", "--model"])
            .arg(model)
            .args(extra)
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line
            .trim()
            .strip_prefix("listening on ")
            .unwrap_or_else(|| panic!("{}", fs::read_to_string(&log).unwrap()));
        Self { child, url: url.to_string(), log }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Head and body of what curl gets, or nothing if it gets none.
    fn curl(&self, path: &str, extra: &[&str]) -> Option<String> {
        let output = Command::new("curl")
            .args(["-s", "-i", "-m", "20"])
            .args(extra)
            .arg(format!("{}{path}", self.url))
            .output()
            .unwrap();
        output.status.success().then(|| text(&output).0)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Files of a new certificate for this machine, and of its key.
fn certificate(folder: &Path, name: &str) -> [String; 2] {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
    [(".pem", cert.pem()), (".key", signing_key.serialize_pem())].map(|(end, pem)| {
        let path = folder.join(format!("{name}{end}"));
        fs::write(&path, pem).unwrap();
        path.to_string_lossy().into_owned()
    })
}

#[test]
fn curl_speaks_tls_and_a_new_certificate_comes_with_sighup() {
    let folder = tempfile::tempdir().unwrap();
    let [own, key] = certificate(folder.path(), "own");
    let extra = ["--tls-certificate", &own, "--tls-key", &key];
    let service = Running::start(folder.path(), &shipped(), &extra);
    assert!(service.url.starts_with("https://"));
    let ready = |certificate: &str| service.curl("/v2/health/ready", &["--cacert", certificate]);
    assert!(ready(&own).is_some_and(|answer| answer.starts_with("HTTP/1.1 200")));
    // Nobody else's, not in the clear, and not for ever.
    let [other, other_key] = certificate(folder.path(), "other");
    assert!(ready(&other).is_none());
    let mut plain = std::net::TcpStream::connect(service.url.trim_start_matches("https://")).unwrap();
    plain.write_all(b"GET /v2/health/ready HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
    // Renewed in place, as such files are.
    fs::rename(&other, &own).unwrap();
    fs::rename(&other_key, &key).unwrap();
    service.signal("-HUP");
    until("the new certificate", || ready(&own).is_some());
    // What is none leaves it as it is.
    fs::write(&key, "no key").unwrap();
    service.signal("-HUP");
    until("the refusal", || service.log().contains("the certificate stays as it was"));
    assert!(ready(&own).is_some());
}

#[test]
fn a_certificate_that_is_none_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let [own, key] = certificate(folder.path(), "own");
    let [_, other] = certificate(folder.path(), "other");
    let empty = folder.path().join("empty");
    fs::write(&empty, "").unwrap();
    let empty = empty.to_string_lossy();
    let cases: [(&[&str], &str); 7] = [
        (&["--tls-certificate", &own], "both or neither"),
        (&["--tls-certificate", &own, "--tls-key", &own], "--tls-key"),
        (&["--tls-certificate", &own, "--tls-key", &other], "own.pem"),
        (&["--tls-certificate", &empty, "--tls-key", &key], "no certificate in it"),
        (&["--tls-certificate", "/no/such", "--tls-key", &key], "/no/such"),
        (&["--cors", "panel.example"], "an origin is SCHEME://HOST[:PORT]"),
        (&["--log", "loud"], "--log"),
    ];
    for command in ["serve", "check-config"] {
        for (extra, why) in cases {
            let output =
                program("paradised").arg(command).arg("--model").arg(shipped()).args(extra).output().unwrap();
            assert!(
                output.status.code() == Some(2) && text(&output).1.contains(why),
                "{extra:?}: {}",
                text(&output).1
            );
        }
    }
}

#[test]
fn other_origins_may_ask_if_they_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let ask = |service: &Running, origin: &str| {
        let origin = format!("Origin: {origin}");
        let preflight = ["-X", "OPTIONS", "-H", &origin, "-H", "Access-Control-Request-Method: POST"];
        let [asked, answered] =
            [&preflight[..], &["-H", &origin]].map(|extra| service.curl("/v1/models", extra).unwrap().to_lowercase());
        [asked, answered].map(|answer| answer.contains("access-control-allow-origin: "))
    };
    let closed = Running::start(folder.path(), &shipped(), &[]);
    assert_eq!(ask(&closed, "https://panel.example"), [false; 2]);
    let token = folder.path().join("token");
    fs::write(&token, "0123456789abcdef\n").unwrap();
    let token = token.to_string_lossy();
    let open = Running::start(folder.path(), &shipped(), &["--cors", "https://panel.example", "--token", &token]);
    assert_eq!(ask(&open, "https://panel.example"), [true; 2]);
    assert_eq!(ask(&open, "https://other.example"), [false; 2]);
    assert!(open.curl("/v1/models", &["-H", "Origin: https://panel.example"]).unwrap().starts_with("HTTP/1.1 401"));
}

#[test]
fn the_log_is_as_loud_as_was_asked() {
    let folder = tempfile::tempdir().unwrap();
    let quiet = Running::start(folder.path(), &shipped(), &["--log", "error"]);
    quiet.curl("/v1/models", &[]).unwrap();
    assert_eq!(quiet.log(), "");
    let lines = Running::start(folder.path(), &shipped(), &["--log", "error", "--log-requests"]);
    lines.curl("/v1/models", &[]).unwrap();
    lines.curl("/nowhere?with=secrets", &[]).unwrap();
    let log = lines.log();
    assert!(log.contains("method=GET path=\"/v1/models\" status=200 took_us="), "{log}");
    assert!(log.contains("path=\"/nowhere\" status=404") && !log.contains("secrets"), "{log}");
    assert_eq!(log.lines().count(), 2, "{log}");
}

#[test]
fn journald_gets_fields() {
    let socket = Path::new("/run/systemd/journal/socket");
    if socket.exists() || fs::create_dir_all("/run/systemd/journal").is_err() {
        return println!("skipped: journald_gets_fields needs to stand where journald listens");
    }
    let Ok(journal) = UnixDatagram::bind(socket) else {
        return println!("skipped: journald_gets_fields needs to stand where journald listens");
    };
    journal.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let service = Running::start(folder.path(), &shipped(), &["--log-to", "journald"]);
    let mut seen = String::new();
    let mut buffer = [0; 65536];
    while !seen.contains("version 1 serves") {
        let n = journal.recv(&mut buffer).unwrap();
        seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    drop(service);
    fs::remove_file(socket).unwrap();
    assert!(seen.contains("SYSLOG_IDENTIFIER") && seen.contains("PRIORITY"), "{seen:?}");
}

/// Whether this kernel enforces Landlock.
fn has_landlock() -> bool {
    let folder = tempfile::tempdir().unwrap();
    Running::start(folder.path(), &shipped(), &[]).log().contains("confined by Landlock")
}

#[test]
fn files_that_no_setting_names_are_given_up() {
    if !has_landlock() {
        return println!("skipped: files_that_no_setting_names_are_given_up needs a kernel with Landlock");
    }
    // The same bytes by a link out of the folder: only who may read there can test the bundle anew.
    let (_keep, bundle) = copy_of_shipped();
    let outside = tempfile::tempdir().unwrap();
    let card = outside.path().join("card.toml");
    fs::rename(bundle.join("card.toml"), &card).unwrap();
    fs::copy(&card, bundle.join("card.toml")).unwrap();
    for (extra, status) in [(&["--no-landlock"][..], "HTTP/1.1 200"), (&[], "HTTP/1.1 500")] {
        let folder = tempfile::tempdir().unwrap();
        let service = Running::start(folder.path(), &bundle, extra);
        // The test that follows the start reads the bundle, too.
        assert!(service.curl("/v1/selftest", &["-X", "POST"]).unwrap().starts_with("HTTP/1.1 200"));
        fs::remove_file(bundle.join("card.toml")).unwrap();
        std::os::unix::fs::symlink(&card, bundle.join("card.toml")).unwrap();
        let answer = service.curl("/v1/selftest", &["-X", "POST"]).unwrap();
        assert!(answer.starts_with(status), "{extra:?}: {answer}");
        fs::remove_file(bundle.join("card.toml")).unwrap();
        fs::copy(&card, bundle.join("card.toml")).unwrap();
        assert!(!service.log().contains("not watched"), "{}", service.log());
    }
}
