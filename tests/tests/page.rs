//! The page at `/`, in headless Chromium: live, by keyboard and mouse, light and dark, without a script; axe-core finds nothing serious.

use paradise_data::embedded;
use paradise_engine::Shape;
use paradise_tests::camera::{Scene, Snapshots};
use paradise_tests::daemon::Daemon;
use paradise_tests::{root, shipped, skipped, text, until};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::process::Command;
use std::time::Duration;

const TOKEN: &str = "0123456789abcdef-secret";

#[test]
fn a_person_sees_sets_and_tests_everything_from_the_page() {
    if skipped("chromium", "a_person_sees_sets_and_tests_everything_from_the_page") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let shots = root().join("target/page");
    fs::create_dir_all(&shots).unwrap();
    let test = embedded::subset().unwrap().test;
    // Two pictures side by side, of which one after the other is shown: many different ones, as over a day.
    let scene = |i: usize| {
        let (one, other) = (test.image(i % test.len()), test.image((i + 7) % test.len()));
        let rows = (0..28).flat_map(|row| [&one[28 * row..][..28], &other[28 * row..][..28]].concat());
        Scene { pixels: rows.collect(), width: 56, frozen: false }
    };
    let camera = std::sync::Arc::new(Snapshots::start(scene(0)));
    let (changing, tables) = (camera.clone(), folder.path().join("paradised.toml"));
    let scenes: Vec<Scene> = (0..600).map(scene).collect();
    std::thread::spawn(move || {
        for scene in scenes.into_iter().cycle() {
            changing.show(scene);
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    fs::write(
        &tables,
        format!(
            "[[camera]]\nname = 'shelf'\nsource = '{}'\ninterval_ms = 100\nregion = [0, 0, 28, 28]\n[samples]\nfolder = '{}'\n",
            camera.url,
            folder.path().join("kept").display()
        ),
    )
    .unwrap();
    let (token, picture) = (folder.path().join("token"), folder.path().join("picture.png"));
    fs::write(&token, TOKEN).unwrap();
    fs::write(&picture, paradise_picture::png(test.image(3), Shape::new(28, 28, 1)).unwrap()).unwrap();
    let path = |path: &std::path::Path| path.to_str().unwrap().to_string();
    let daemon = Daemon::start(
        &[&shipped()],
        &["--config", &path(&tables), "--state", &path(&folder.path().join("state")), "--token", &path(&token)],
    );
    until("ready", || camera.asked() > 3);

    let run = Command::new("node")
        .arg(root().join("tests/page/page.mjs"))
        .arg(format!("http://{}/", daemon.address))
        .args([&shots, &picture])
        .arg(TOKEN)
        .output()
        .unwrap();
    let (out, err) = text(&run);
    assert!(run.status.success(), "{out}{err}");
    let said: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    println!("{said:#}");
    assert_eq!(said["errors"], serde_json::json!([]));
    assert_eq!(said["elsewhere"], serde_json::json!([]), "nothing is loaded from elsewhere");
    for (page, violations) in said["violations"].as_object().unwrap() {
        assert_eq!(*violations, serde_json::json!([]), "axe-core: {page}");
    }
    assert_eq!(said["violations"].as_object().unwrap().len(), 4);
    assert_eq!(said["focused"], "set-region");
    let drawn: Vec<u64> = said["drawn"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).collect();
    assert!(drawn[0] <= 1 && drawn[1] <= 1 && (26..=29).contains(&drawn[2]) && drawn[3] >= 26, "{drawn:?}");
    let starts = |key: &str, with: &str| assert!(said[key].as_str().unwrap().contains(with), "{key}: {}", said[key]);
    starts("settled", "From now on the pictures of this place decide");
    starts("now", "pictures of this place decide");
    starts("tested", "fashion-mnist-small: passed");
    starts("dropped", "probability");
    starts("noscript", "The report");
    starts("report", "shelf");
    starts("report", "pictures of this site");
    assert!(said["selftest"]["pictures"].as_u64().unwrap() >= 10, "{}", said["selftest"]);
    // The site is remembered.
    let site = fs::read_to_string(folder.path().join("state/site-fashion-mnist-small.toml")).unwrap();
    assert!(site.contains("model = \"fashion-mnist-small\""));
}

/// Status and head of an answer.
fn head(daemon: &Daemon, request: &str) -> String {
    let mut stream = daemon.connect();
    stream.write_all(request.as_bytes()).unwrap();
    let mut all = String::new();
    let _ = stream.read_to_string(&mut all);
    all.split("\r\n\r\n").next().unwrap().to_lowercase()
}

#[test]
fn pages_of_others_change_nothing_and_a_browser_is_asked_for_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let open = Daemon::start(&[&shipped()], &[]);
    let host = open.address.clone();
    let ask = |daemon: &Daemon, method: &str, origin: &str| {
        let request = format!(
            "{method} /v1/selftest HTTP/1.1\r\nHost: {host}\r\n{origin}Content-Length: 0\r\nConnection: close\r\n\r\n"
        );
        head(daemon, &request)[9..12].to_string()
    };
    assert_eq!(ask(&open, "POST", ""), "200");
    assert_eq!(ask(&open, "POST", &format!("Origin: http://{host}\r\n")), "200");
    assert_eq!(ask(&open, "POST", "Origin: http://elsewhere.example\r\n"), "403");
    assert_eq!(ask(&open, "POST", "Origin: null\r\n"), "403");
    assert_eq!(ask(&open, "DELETE", "Origin: http://elsewhere.example\r\n"), "403");
    assert_eq!(ask(&open, "GET", "Origin: http://elsewhere.example\r\n"), "200");
    let named = Daemon::start(&[&shipped()], &["--cors", "http://elsewhere.example"]);
    assert_eq!(ask(&named, "POST", "Origin: http://elsewhere.example\r\n"), "200");
    assert_eq!(ask(&named, "POST", "Origin: http://another.example\r\n"), "403");

    let page = head(&open, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(page.contains("content-security-policy: default-src 'none'"), "{page}");

    let token = folder.path().join("token");
    fs::write(&token, TOKEN).unwrap();
    let closed = Daemon::start(&[&shipped()], &["--token", token.to_str().unwrap()]);
    let with = |credentials: &str| {
        head(&closed, &format!("GET / HTTP/1.1\r\nHost: x\r\n{credentials}Connection: close\r\n\r\n"))
    };
    let refused = with("");
    assert!(refused.starts_with("http/1.1 401") && refused.contains("www-authenticate: basic realm"), "{refused}");
    // By base64: `me:` and the token; `me:wrong`; no colon; no base64.
    assert!(with("Authorization: Basic bWU6MDEyMzQ1Njc4OWFiY2RlZi1zZWNyZXQ=\r\n").starts_with("http/1.1 200"));
    for wrong in ["bWU6d3Jvbmc=", "MDEyMzQ1Njc4OWFiY2RlZi1zZWNyZXQ=", "!!", ""] {
        assert!(with(&format!("Authorization: Basic {wrong}\r\n")).starts_with("http/1.1 401"), "{wrong}");
    }
}
