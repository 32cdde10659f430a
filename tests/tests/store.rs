//! A folder of signed models under a running service, by the real minisign: what arrives in order serves, what does not is refused and
//! changes nothing, whatever happens meanwhile.

use paradise_runtime::bundle;
use paradise_runtime::store::Record;
use paradise_tests::daemon::Daemon;
use paradise_tests::{bundles, deep, files, program, shipped, skipped, text, until};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const NAME: &str = "fashion-mnist-small";

/// A folder of models and a key that signs them.
struct Shop {
    folder: tempfile::TempDir,
}

impl Shop {
    fn new() -> Self {
        let shop = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir_all(shop.models().join(NAME)).unwrap();
        shop.key("good");
        shop
    }

    fn models(&self) -> PathBuf {
        self.folder.path().join("models")
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    fn key(&self, name: &str) {
        let (public, secret) = (self.path(&format!("{name}.pub")), self.path(&format!("{name}.key")));
        let made = Command::new("minisign").args(["-G", "-W", "-p", &public, "-s", &secret]).output().unwrap();
        assert!(made.status.success(), "{}", text(&made).1);
    }

    /// A copy of the shipped bundle where nobody looks yet.
    fn part(&self) -> PathBuf {
        let part = self.models().join(NAME).join(".part");
        let _ = fs::remove_dir_all(&part);
        fs::create_dir(&part).unwrap();
        for entry in fs::read_dir(shipped()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), part.join(entry.file_name())).unwrap();
        }
        part
    }

    fn sign(&self, folder: &Path, key: &str, comment: &str) {
        let signed = Command::new("minisign")
            .args(["-S", "-s", &self.path(&format!("{key}.key")), "-t", comment, "-m"])
            .arg(folder.join("manifest.json"))
            .output()
            .unwrap();
        assert!(signed.status.success(), "{}", text(&signed).1);
    }

    /// Puts a version in its place, as whoever delivers it does.
    fn place(&self, part: &Path, version: &str) {
        fs::rename(part, self.models().join(NAME).join(version)).unwrap();
    }

    /// A good version.
    fn deliver(&self, version: &str) {
        let part = self.part();
        self.sign(&part, "good", &format!("model={NAME} version={version} expires=2999-01-01"));
        self.place(&part, version);
    }

    fn start(&self) -> Daemon {
        let (models, key) = (self.path("models"), self.path("good.pub"));
        Daemon::start(&[], &["--models", &models, "--key", &key])
    }

    fn record(&self) -> Record {
        Record::read(&self.models().join(".paradised").join(format!("{NAME}.json"))).unwrap()
    }

    fn remove(&self, version: &str) {
        fs::remove_dir_all(self.models().join(NAME).join(version)).unwrap();
    }
}

fn serving(daemon: &Daemon) -> String {
    let (_, index) = daemon.request("POST", "/v2/repository/index", b"");
    let entry = &index[0];
    assert_eq!((&entry["name"], &entry["state"]), (&json!(NAME), &json!("READY")), "{index}");
    entry["version"].as_str().unwrap_or("").to_string()
}

/// Waits until something holds.
fn picture() -> Vec<u8> {
    [&b"P5 28 28 255\n"[..], &(0..784u32).map(|i| (i * 31 % 251) as u8).collect::<Vec<u8>>()].concat()
}

/// The verdict, but for what differs from call to call.
fn ask(daemon: &Daemon) -> (u16, serde_json::Value) {
    let (status, mut verdict) = daemon.request("POST", "/v1/classify", &picture());
    verdict["latency_us"] = json!(0);
    (status, verdict)
}

#[test]
fn a_newer_version_takes_over_without_a_lost_request_and_no_other_does() {
    if skipped("minisign", "a_newer_version_takes_over_without_a_lost_request_and_no_other_does") {
        return;
    }
    let shop = Shop::new();
    shop.key("bad");
    shop.deliver("2");
    let daemon = shop.start();
    assert_eq!(serving(&daemon), "2");
    let expected = ask(&daemon);
    assert_eq!(expected.0, 200);
    let done = AtomicBool::new(false);
    let asked = std::thread::scope(|scope| {
        let askers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut asked = 0u32;
                    while !done.load(Ordering::Relaxed) {
                        assert_eq!(ask(&daemon), expected);
                        asked += 1;
                    }
                    asked
                })
            })
            .collect();
        shop.deliver("3");
        until("3 serves", || serving(&daemon) == "3");
        let good = |version: &str| format!("model={NAME} version={version} expires=2999-01-01");
        let cases: [(&str, &str, Option<String>, &str); 6] = [
            ("4", "good", None, "it is not signed"),
            ("5", "bad", Some(good("5")), "not of this manifest.json by any of the keys"),
            ("6", "good", Some(good("7")), "it is signed as model \"fashion-mnist-small\", version 7"),
            ("8", "good", Some("model=other version=8 expires=2999-01-01".into()), "signed as model \"other\""),
            ("9", "good", Some(format!("model={NAME} version=9")), "it says no expires"),
            ("10", "good", Some("hello".into()), "trusted comment must say"),
        ];
        for (version, key, comment, why) in cases {
            let part = shop.part();
            if let Some(comment) = comment {
                shop.sign(&part, key, &comment);
            }
            shop.place(&part, version);
            until(version, || shop.record().refused.values().any(|said| said.contains(why)));
        }
        // Signed before it was changed, and changed after it was signed.
        let part = shop.part();
        shop.sign(&part, "good", &good("11"));
        let manifest = part.join("manifest.json");
        fs::write(&manifest, fs::read_to_string(&manifest).unwrap() + "\n").unwrap();
        shop.place(&part, "11");
        until("11", || shop.record().refused.keys().any(|key| key.starts_with("11 ")));
        let part = shop.part();
        shop.sign(&part, "good", &good("12"));
        let mut weights = fs::read(part.join("model.pmq")).unwrap();
        let last = weights.len() - 200;
        weights[last] ^= 4;
        fs::write(part.join("model.pmq"), weights).unwrap();
        shop.place(&part, "12");
        // Expired; and older than what served.
        let part = shop.part();
        shop.sign(&part, "good", &format!("model={NAME} version=13 expires=2026-11-01"));
        shop.place(&part, "13");
        shop.deliver("1");
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(serving(&daemon), "3");
        // By a self-test of another network.
        let other = bundles().into_iter().find(|b| b.ends_with("fashion-mnist-resnet8-pm")).unwrap();
        let mut swapped = files(&shipped());
        swapped.insert("selftest.bin".into(), files(&other)["selftest.bin"].clone());
        let part = shop.models().join(NAME).join(".swapped");
        bundle::write(
            &part,
            NAME,
            &swapped.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect::<Vec<_>>(),
        )
        .unwrap();
        shop.sign(&part, "good", &good("14"));
        shop.place(&part, "14");
        until("14", || shop.record().refused.values().any(|said| said.contains("self-test")));
        assert_eq!(serving(&daemon), "3");
        // What was refused for its signature may come again, signed.
        shop.remove("4");
        shop.remove("14");
        shop.deliver("15");
        until("15 serves", || serving(&daemon) == "15");
        // Its folder is taken away: what serves goes on, and no older one in its place.
        shop.remove("15");
        std::thread::sleep(Duration::from_millis(600));
        assert_eq!(serving(&daemon), "15");
        done.store(true, Ordering::Relaxed);
        askers.into_iter().map(|asker| asker.join().unwrap()).sum::<u32>()
    });
    assert!(asked > 50, "{asked}");
    let record = shop.record();
    let said = [&record.current, &record.previous, &record.highest].map(|v| v.as_ref().map(ToString::to_string));
    assert_eq!(said.map(Option::unwrap_or_default), ["15", "3", "15"]);
    assert_eq!(daemon.stop(), Some(0));
    assert!(shop.record().proven);
}

#[test]
fn a_version_that_ends_the_process_twice_is_given_up() {
    if skipped("minisign", "a_version_that_ends_the_process_twice_is_given_up") {
        return;
    }
    let shop = Shop::new();
    shop.deliver("1");
    assert_eq!(shop.start().stop(), Some(0));
    shop.deliver("2");
    for _ in 0..2 {
        let daemon = shop.start();
        assert_eq!(serving(&daemon), "2");
        // As the kernel ends it when memory runs out.
        drop(daemon);
    }
    let daemon = shop.start();
    assert_eq!(serving(&daemon), "1");
    assert!(shop.record().refused.values().any(|why| why.contains("ended 2 times")), "{:?}", shop.record());
    assert_eq!(daemon.stop(), Some(0));
    // The one before is as good as it was, however often power fails.
    for _ in 0..4 {
        assert_eq!(serving(&shop.start()), "1");
    }
}

#[test]
fn killed_at_any_point_of_a_swap_one_of_both_serves() {
    if skipped("minisign", "killed_at_any_point_of_a_swap_one_of_both_serves") {
        return;
    }
    let shop = Shop::new();
    shop.deliver("1");
    let daemon = shop.start();
    let expected = ask(&daemon);
    assert_eq!(daemon.stop(), Some(0));
    let points = if deep() { 20 } else { 4 };
    for point in 0..points {
        let daemon = shop.start();
        let before = serving(&daemon);
        let next = (before.parse::<u32>().unwrap() + 1).to_string();
        shop.deliver(&next);
        // From before the folder is looked at until after the swap.
        std::thread::sleep(Duration::from_millis(100 + point * 500 / points));
        drop(daemon);
        let daemon = shop.start();
        let after = serving(&daemon);
        assert!(after == before || after == next, "{before} {after}");
        let (status, verdict) = ask(&daemon);
        assert_eq!((status, verdict), expected);
        assert_eq!(daemon.stop(), Some(0));
        let leftover = fs::read_dir(shop.models().join(".paradised")).unwrap().count();
        assert!(leftover <= 1 + point as usize + 1, "records are written whole");
    }
}

#[test]
fn a_signal_and_the_protocol_look_for_models_too() {
    if skipped("minisign", "a_signal_and_the_protocol_look_for_models_too") {
        return;
    }
    let shop = Shop::new();
    shop.deliver("1");
    let daemon = shop.start();
    assert_eq!(daemon.request("POST", &format!("/v2/repository/models/{NAME}/unload"), b"").0, 200);
    shop.deliver("2");
    std::thread::sleep(Duration::from_millis(600));
    // What an operator took away stays away until an operator says otherwise.
    assert_eq!(daemon.request("GET", "/v2/health/ready", b"").0, 503);
    assert_eq!(daemon.request("POST", &format!("/v2/repository/models/{NAME}/load"), b"").0, 200);
    assert_eq!(serving(&daemon), "2");
    let (status, metadata) = daemon.request("GET", &format!("/v2/models/{NAME}/versions/2"), b"");
    assert_eq!((status, &metadata["versions"]), (200, &json!(["2"])));
    // A model that is new.
    let part = shop.models().join(".cifar");
    fs::create_dir(&part).unwrap();
    let other = bundles().into_iter().find(|b| b.ends_with("cifar10-resnet8-pm")).unwrap();
    fs::create_dir(part.join("1")).unwrap();
    for entry in fs::read_dir(other).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), part.join("1").join(entry.file_name())).unwrap();
    }
    shop.sign(&part.join("1"), "good", "model=cifar10-resnet8-pm version=1 expires=2999-01-01");
    fs::rename(&part, shop.models().join("cifar10-resnet8-pm")).unwrap();
    until("the new model serves", || daemon.request("GET", "/v2/models/cifar10-resnet8-pm/ready", b"").0 == 200);
    // A signal: to a service of a folder that nobody watches, too.
    let hung_up = Command::new("kill").args(["-HUP", &daemon.id().to_string()]).status().unwrap();
    assert!(hung_up.success());
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(daemon.request("GET", "/v2/health/ready", b"").0, 200);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn keys_are_needed_unless_somebody_says_otherwise() {
    if skipped("minisign", "keys_are_needed_unless_somebody_says_otherwise") {
        return;
    }
    let shop = Shop::new();
    shop.place(&shop.part(), "1");
    let models = shop.path("models");
    let refused = |arguments: &[&str]| {
        let output =
            program("paradised").arg("serve").args(["--listen", "127.0.0.1:0"]).args(arguments).output().unwrap();
        (output.status.code(), text(&output).1)
    };
    let (code, why) = refused(&["--models", &models]);
    assert!(code == Some(2) && why.contains("--unsigned"), "{why}");
    let (code, why) = refused(&["--models", &models, "--key", "nonsense"]);
    assert!(code == Some(2) && why.contains("nonsense: not a public key of minisign"), "{why}");
    let (code, why) = refused(&["--models", &models, "--key", &shop.path("good.pub")]);
    assert!(code == Some(2) && why.contains("it is not signed"), "{why}");
    let (code, why) = refused(&["--models", &shop.path("nowhere"), "--unsigned"]);
    assert!(code == Some(2) && why.contains("nowhere"), "{why}");
    let (code, why) = refused(&["--models", &models, "--unsigned", "--state", &shop.path("good.pub")]);
    assert!(code == Some(2) && why.contains("good.pub"), "{why}");
    let daemon = Daemon::start(&[], &["--models", &models, "--unsigned", "--state", &shop.path("state")]);
    assert_eq!(serving(&daemon), "1");
    assert_eq!(daemon.stop(), Some(0));
    // The self-test says whom a bundle is from.
    let part = shop.part();
    shop.sign(&part, "good", &format!("model={NAME} version=2 expires=2999-01-01"));
    shop.key("bad");
    let tested = |key: &[&str]| {
        let output = program("paradised").args(["selftest", "--model"]).arg(&part).args(key).output().unwrap();
        (output.status.code(), text(&output).0)
    };
    let (code, table) = tested(&["--key", &shop.path("good.pub")]);
    assert!(
        code == Some(0) && table.contains("signed as fashion-mnist-small, version 2, until 2999-01-01"),
        "{table}"
    );
    let (code, table) = tested(&["--key", &shop.path("bad.pub")]);
    assert!(code == Some(1) && table.contains("by any of the keys"), "{table}");
    let (code, table) = tested(&["--key", &shop.path("bad.pub"), "--key", &shop.path("good.pub")]);
    assert_eq!(code, Some(0), "{table}");
    assert_eq!(tested(&[]).0, Some(3));
}
