//! `train verify-card`: a card's figures again, from the bundle's files alone.

use paradise_support::statistics::Proportion;
use paradise_tests::{copy_of_shipped, program, remake_manifest, shipped, text, tiny, train};
use paradise_train::objective::Kind;
use std::fs;
use std::path::{Path, PathBuf};

fn verify(bundle: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = program("train").arg("verify-card").arg(bundle).args(arguments).output().unwrap();
    let (out, error) = text(&output);
    (output.status.code(), out, error)
}

/// A copy of the shipped bundle whose card says something else, its manifest agreeing.
fn changed(change: impl Fn(&str) -> String) -> (tempfile::TempDir, PathBuf) {
    let (folder, bundle) = copy_of_shipped();
    let card = fs::read_to_string(bundle.join("card.toml")).unwrap();
    let changed = change(&card);
    assert_ne!(card, changed, "nothing was changed");
    fs::write(bundle.join("card.toml"), &changed).unwrap();
    remake_manifest(&bundle);
    (folder, bundle)
}

#[test]
fn the_shipped_card_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("rows.json");
    let (code, out, error) = verify(&shipped(), &["--json", &json.to_string_lossy()]);
    assert_eq!(code, Some(0), "{out}{error}");
    assert!(out.contains(" 0 differ, 0 were not repeated"), "{out}");
    let rows: serde_json::Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let of = |figure: &str| rows.as_array().unwrap().iter().find(|r| r["figure"] == figure).unwrap().clone();
    // Integers are the same on every machine; the attack follows gradients in float.
    for figure in ["test images, SHA-256", "int8, clean", "abstained on test images", "AUROC of inverted"] {
        assert_eq!(of(figure)["verdict"], "same", "{}", of(figure));
    }
    assert!(["same", "close"].contains(&of("float, PGD-40 x 2 at 8/255")["verdict"].as_str().unwrap()));
}

#[test]
fn a_whole_evaluation_enters_the_card_and_is_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    fs::write(at("run.toml"), tiny(Kind::ParadisePm, 1).to_toml().unwrap()).unwrap();
    train(&["fit", "--config", &at("run.toml"), "--out", &at("run")]);
    let attacks = ["--attacks", "fgsm,pgd:5x1", "--eps", "4/255,8/255", "--n", "40"];
    let quick = ["--no-confidence", "--no-checks", "--out"];
    train(&[&["evaluate", "--run", &at("run")][..], &attacks, &quick, &[&at("evaluation")]].concat());
    let export = ["export", "--run", &at("run"), "--out", &at("model"), "--n", "50", "--quantise", "min-max"];
    train(&[&export[..], &["--evaluation", &at("evaluation")]].concat());
    let bundle = folder.path().join("model");
    let (code, out, error) = verify(&bundle, &["--no-checks"]);
    assert!(code == Some(0) && out.contains(" 0 differ, 5 were not repeated"), "{out}{error}");
    let (code, out, error) = verify(&bundle, &["--no-checks", "--evaluations", &at("again")]);
    assert!(code == Some(0) && out.contains(" 0 differ, 3 were not repeated"), "{out}{error}");
    assert!(out.contains("int8 on those images, fgsm,pgd:5x1 at 8/255"), "{out}");
    // Without the float network the integers alone are repeated, and its back end says what it lacks.
    let small = ["export", "--run", &at("run"), "--out", &at("small"), "--n", "50", "--quantise", "min-max"];
    train(&[&small[..], &["--no-float", "--no-checks", "--evaluation", &at("evaluation")]].concat());
    let small = folder.path().join("small");
    assert!(!small.join("encoder.onnx").exists());
    let (code, out, error) = verify(&small, &[]);
    assert!(code == Some(0) && out.contains(" 0 differ, 7 were not repeated"), "{out}{error}");
    let verdict = |out: &str, figure: &str| {
        let line = out.lines().find(|l| l.starts_with(figure)).unwrap().to_string();
        line.rsplit("  ").next().unwrap().to_string()
    };
    assert_eq!(verdict(&out, "int8, clean"), "same");
    assert_eq!(verdict(&out, "float, clean"), "not repeated");
    assert!(out.contains("the bundle has no encoder.onnx"), "{out}");
    let selftest = |backend: &str| {
        let output = program("paradised").args(["selftest", "--backend", backend, "--model"]).arg(&small).output();
        let output = output.unwrap();
        (output.status.code(), text(&output).0)
    };
    assert_eq!(selftest("int8").0, Some(0));
    let (code, out) = selftest("tract");
    assert_eq!((code, out), (Some(2), String::new()));
    // Another run's evaluation is refused.
    train(&["fit", "--config", &at("run.toml"), "--seed", "5", "--out", &at("other")]);
    let output = program("train")
        .args(["export", "--run", &at("other"), "--out", &at("b"), "--n", "50", "--evaluation", &at("evaluation")])
        .output()
        .unwrap();
    let error = text(&output).1;
    assert!(output.status.code() == Some(2) && error.contains("another network"), "{error}");
}

#[test]
fn a_card_that_promises_more_is_caught() {
    let better = |card: &str| {
        let at = card.find("[accuracy.int8_clean]").unwrap();
        let (before, after) = card.split_at(at);
        let end = after[1..].find("\n[").unwrap() + 2;
        let (table, rest) = after.split_at(end);
        let there: toml::Table = table.parse().unwrap();
        let was: Proportion = there["accuracy"]["int8_clean"].clone().try_into().unwrap();
        let more = Proportion { correct: was.correct + 30, ..was };
        format!("{before}[accuracy.int8_clean]\n{}\n{rest}", toml::to_string(&more).unwrap())
    };
    let (_keep, bundle) = changed(better);
    let (code, out, _) = verify(&bundle, &["--n", "50", "--no-checks"]);
    assert_eq!(code, Some(1), "{out}");
    let line = out.lines().find(|l| l.starts_with("int8, clean")).unwrap();
    assert!(line.ends_with("DIFFERS") && out.contains(" 1 differ, "), "{out}");
    // A share that its own counts do not give is no share.
    let (_keep, bundle) = changed(|card| card.replacen("percent = 8", "percent = 9", 1));
    let (code, _, error) = verify(&bundle, &["--no-checks"]);
    assert!(code == Some(2) && error.contains("card.toml") && error.contains(" is not what "), "{error}");
}

#[test]
fn what_cannot_be_verified_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, error) = verify(&folder.path().join("none"), &[]);
    assert!(code == Some(2) && error.contains("none"), "{error}");
    let elsewhere = |card: &str| card.replace("source = \"fashion-mnist-subset\"", "source = \"cifar10\"");
    let (_keep, bundle) = changed(elsewhere);
    let (code, _, error) = verify(&bundle, &["--data", &folder.path().to_string_lossy()]);
    assert!(code == Some(2) && error.contains("--data DIR names their folder"), "{error}");
    let (code, _, error) = verify(&shipped(), &["--foreign", "x"]);
    assert!(code == Some(2) && error.contains("NAME=DIR"), "{error}");
    let (code, _, error) = verify(&shipped(), &["--n", "100000"]);
    assert!(code == Some(2) && error.contains("100000 test images"), "{error}");
}
