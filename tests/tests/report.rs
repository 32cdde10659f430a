//! `train report` makes every table and figure of the supplement from run folders, and `train certify` its certificates.

use paradise_tests::{fitted, program, splits, text, tiny};
use paradise_train::config::Config;
use paradise_train::objective::Kind;
use std::path::{Path, PathBuf};
use std::process::Output;

/// Runs on the embedded images: two seeds of `standard`, one of `dvib`, one that reconstructs.
fn runs(folder: &Path) -> [PathBuf; 4] {
    let splits = splits(12_000);
    let train = |name: &str, config: Config| {
        let path = folder.join(name);
        fitted(&config, &splits, &path);
        path
    };
    let seeded = |seed| Config { seed, ..tiny(Kind::Standard, 1) };
    let mut unsupervised = tiny(Kind::ParadiseUnsupervised, 1);
    unsupervised.encoder = Config::default().encoder;
    unsupervised.encoder.kind = paradise_train::config::encoder::Kind::Mlp1000;
    unsupervised.encoder.latent = Some(4);
    unsupervised.fit.batch = 128;
    [
        train("standard-0", seeded(0)),
        train("standard-1", seeded(1)),
        train("dvib", tiny(Kind::Dvib, 1)),
        train("unsupervised", unsupervised),
    ]
}

fn report(target: &str, runs: &[&PathBuf], extra: &[&str]) -> Output {
    program("train").args(["report", target]).args(runs).args(extra).output().expect("train starts")
}

#[test]
fn every_table_and_figure_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, dvib, unsupervised] = &runs(folder.path());
    let out = |name: &str| folder.path().join(name).display().to_string();
    let done = |output: Output| {
        assert!(output.status.success(), "{:?}", text(&output));
        text(&output).0
    };

    let table = done(report("table2", &[a, b, dvib], &["--out", &out("2.md")]));
    assert!(table.contains("(2 seeds)") && table.contains("dvib, alpha"), "{table}");
    assert!(folder.path().join("2.md").exists() && folder.path().join("2.json").exists());
    let table = done(report("table3", &[a, dvib], &["--out", &out("3.md"), "--per-class", "20"]));
    assert!(table.contains("200 test images") && table.contains("top-5"), "{table}");
    let standard = a.display().to_string();
    let table = done(report("table4", &[b, dvib], &["--surrogate", &standard, "--out", &out("4.md")]));
    assert!(table.matches("mask").count() >= 2 && table.contains("black-box"), "{table}");

    for (target, runs, extra) in [
        ("figure1", vec![unsupervised], vec![]),
        ("figure2", vec![unsupervised], vec!["--classes", "trouser,dress"]),
        ("figure3", vec![a, dvib], vec!["--per-class", "5"]),
        ("figure4", vec![a, dvib], vec!["--eps", "16/255"]),
        ("figure6", vec![a, dvib], vec!["--eps", "0.2"]),
        ("figure7", vec![a, dvib], vec![]),
    ] {
        let file = out(&format!("{target}.png"));
        done(report(target, &runs, &[&extra[..], &["--out", &file]].concat()));
        let picture = image::open(&file).unwrap().to_rgb8();
        let inked = picture.pixels().filter(|p| p.0 != [255, 255, 255]).count();
        assert!(picture.width() > 500 && inked > 10_000, "{target}: {inked}");
        if let Ok(keep) = std::env::var("PARADISE_KEEP_PICTURES") {
            std::fs::copy(&file, Path::new(&keep).join(format!("{target}.png"))).unwrap();
        }
    }

    for (target, runs, extra, word) in [
        ("table4", vec![a], vec![], "--surrogate"),
        ("figure1", vec![a], vec![], "reconstructs no images"),
        ("figure1", vec![unsupervised, a], vec![], "one run"),
        ("figure2", vec![unsupervised], vec!["--classes", "trouser,hat"], "hat"),
        ("figure3", vec![a], vec![], "two runs"),
        ("figure7", vec![unsupervised], vec![], "is not served"),
        ("table2", vec![a, a], vec![], "comes twice"),
        ("table2", vec![a], vec!["--per-class", "100000"], "class 0"),
    ] {
        let output = report(target, &runs, &[&extra[..], &["--out", &out("bad")]].concat());
        let (stdout, stderr) = text(&output);
        assert_eq!(output.status.code(), Some(2), "{target}: {stdout} {stderr}");
        assert!(stderr.contains(word), "{target}: {stderr}");
    }

    let certify = |extra: &[&str]| {
        let file = out("certificates.json");
        let mut command = program("train");
        command
            .args(["certify", "--run"])
            .arg(a)
            .args(["--n", "4", "--draws", "500", "--choose", "50", "--out", &file]);
        command.args(extra).output().unwrap()
    };
    let first = done(certify(&[]));
    assert!(first.contains("certified at l_2 radius 0.000"), "{first}");
    assert_eq!(first, done(certify(&[])), "what is there is not done again");
    assert_eq!(certify(&["--sigma", "0.5"]).status.code(), Some(2));
    assert_eq!(certify(&["--sigma", "-1"]).status.code(), Some(2));
}
