//! What a user of `train` meets besides training: data that changed, sets that are small, signals, a closed pipe, a card that says
//! something else.

use image::{Rgb, RgbImage};
use paradise_tests::{program, remake_manifest, text, train, until};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Two classes of 8 x 8 pictures, and a configuration for them.
fn small_set(folder: &Path, epochs: u32) {
    for (part, each) in [("train", 40u8), ("test", 6)] {
        for (class, red) in [("dark", 20u8), ("light", 220)] {
            let at = folder.join("pictures").join(part).join(class);
            fs::create_dir_all(&at).expect("writable");
            for i in 0..each {
                RgbImage::from_pixel(8, 8, Rgb([red, i, 9])).save(at.join(format!("{i:03}.png"))).expect("writable");
            }
        }
    }
    let config = format!(
        "[data]\nsource = \"image-folder\"\nfolder = \"pictures\"\nvalidation = 8\ncalibration = 10\nshift = 0\nflip = false\n\
         [encoder]\nchannels = [4, 4]\nhidden = 8\nlatent = 2\n[objective]\nkind = \"standard\"\n\
         [fit]\nepochs = {epochs}\nbatch = 8\nselect = \"clean\"\n"
    );
    fs::write(folder.join("run.toml"), config).expect("writable");
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    program("train").current_dir(folder).args(arguments).output().expect("train starts")
}

fn refused(output: &Output, words: &[&str]) {
    let error = text(output).1;
    assert_eq!(output.status.code(), Some(2), "{error}");
    for word in words {
        assert!(error.contains(word), "{word:?} is not in {error}");
    }
}

#[test]
fn a_run_whose_images_changed_does_not_go_on() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    small_set(at, 3);
    let fit = ["fit", "--config", "run.toml", "--out", "run"];
    assert!(run(at, &fit).status.success());
    let longer = fs::read_to_string(at.join("run/config.toml")).expect("written");
    assert!(longer.contains("geometry = \"crop\"") && longer.contains("polarity = \"as-taken\""), "{longer}");
    let resume = [&fit[..], &["--resume"]].concat();
    assert!(run(at, &resume).status.success());
    // One more picture, one less, another picture of the same name, another name of a class.
    let pictures = at.join("pictures/train/dark");
    fs::copy(pictures.join("000.png"), pictures.join("999.png")).expect("copied");
    refused(&run(at, &resume), &["added or removed", "dark", "run.json"]);
    for command in
        [&["evaluate", "--run", "run"][..], &["export", "--run", "run", "--out", "b"], &["latent", "--run", "run"]]
    {
        refused(&run(at, command), &["added or removed"]);
    }
    fs::remove_file(pictures.join("999.png")).expect("removed");
    fs::copy(pictures.join("005.png"), at.join("kept.png")).expect("copied");
    RgbImage::from_pixel(8, 8, Rgb([1, 2, 3])).save(pictures.join("005.png")).expect("writable");
    let error = run(at, &resume);
    assert!(text(&error).1.contains("not those that the run began with"), "{}", text(&error).1);
    fs::copy(at.join("kept.png"), pictures.join("005.png")).expect("copied");
    fs::rename(at.join("pictures/train/dark"), at.join("pictures/train/dusk")).expect("renamed");
    fs::rename(at.join("pictures/test/dark"), at.join("pictures/test/dusk")).expect("renamed");
    refused(&run(at, &resume), &["the run's classes were dark, light; now they are dusk, light"]);
    fs::rename(at.join("pictures/train/dusk"), at.join("pictures/train/dark")).expect("renamed");
    fs::rename(at.join("pictures/test/dusk"), at.join("pictures/test/dark")).expect("renamed");
    assert!(run(at, &resume).status.success());
}

#[test]
fn what_fit_names_next_works_on_a_small_set_and_from_anywhere() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    small_set(at, 3);
    assert!(run(at, &["fit", "--config", "run.toml", "--out", "run"]).status.success());
    // Twelve test images, where the defaults want thousands; and the folder as it was typed lies elsewhere.
    let elsewhere = tempfile::tempdir().expect("a temporary folder");
    let run_folder = at.join("run").to_string_lossy().into_owned();
    for command in [
        &["evaluate", "--run", &run_folder, "--no-checks", "--no-confidence", "--attacks", "fgsm", "--out", "e"][..],
        &["export", "--run", &run_folder, "--out", "bundle", "--no-checks", "--quantise", "min-max"],
        &["latent", "--run", &run_folder, "--out", "latent.png"],
        &["certify", "--run", &run_folder, "--draws", "200", "--out", "c.json"],
    ] {
        let output = run(elsewhere.path(), command);
        assert!(output.status.success(), "{command:?}: {}", text(&output).1);
    }
    // What was asked for stays strict.
    refused(
        &run(elsewhere.path(), &["evaluate", "--run", &run_folder, "--n", "13"]),
        &["13 test images", "12 images"],
    );
    refused(&run(elsewhere.path(), &["latent", "--run", &run_folder, "--n", "13"]), &["13 test images", "12 images"]);
    // On another machine the images lie elsewhere, too.
    fs::rename(at.join("pictures"), at.join("moved")).expect("renamed");
    refused(&run(elsewhere.path(), &["latent", "--run", &run_folder]), &["--data"]);
    let moved = at.join("moved").to_string_lossy().into_owned();
    assert!(run(elsewhere.path(), &["latent", "--run", &run_folder, "--data", &moved]).status.success());
}

#[test]
fn a_signal_saves_and_ends_with_130() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    small_set(at, 100_000);
    for signal in ["INT", "TERM", "HUP"] {
        let out = format!("run-{signal}");
        let fit = ["fit", "--config", "run.toml", "--out", &out];
        let mut child = program("train").current_dir(at).args(fit).stderr(Stdio::piped()).spawn().expect("starts");
        let metrics = at.join(&out).join("best.safetensors");
        until("the end of an epoch", || metrics.exists());
        let sent = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
        let code = child.wait().expect("ends").code();
        let mut error = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut error).expect("text");
        assert_eq!(code, Some(130), "{signal}: {error}");
        assert!(error.contains("--resume"), "{signal}: {error}");
        assert!(at.join(&out).join("last.safetensors").exists());
    }
}

#[test]
fn a_changed_objective_is_noticed_though_the_manifest_agrees() {
    let (_keep, bundle) = paradise_tests::copy_of_shipped();
    let card = fs::read_to_string(bundle.join("card.toml")).expect("a card");
    let gamma = card.lines().find(|l| l.starts_with("gamma = ")).expect("a gamma");
    fs::write(bundle.join("card.toml"), card.replacen(gamma, "gamma = 9.75", 1)).expect("writable");
    remake_manifest(&bundle);
    let output = program("train").arg("verify-card").arg(&bundle).args(["--n", "20", "--no-checks"]).output();
    let output = output.expect("train starts");
    let (out, error) = text(&output);
    assert_eq!(output.status.code(), Some(1), "{out}{error}");
    let line = out.lines().find(|l| l.starts_with("objective, seed and data")).expect("a row");
    assert!(line.ends_with("DIFFERS") && out.contains(" 1 differ, "), "{out}");
    assert!(out.contains("nothing else was checked: "), "{out}");
}

#[test]
fn a_closed_or_full_output_is_no_panic() {
    for arguments in [&["--help"][..], &["evaluate", "--run", "/no/such"]] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        let output = program("train").args(arguments).stdout(full).stderr(Stdio::piped()).output().expect("starts");
        assert!(!text(&output).1.contains("panicked"), "{}", text(&output).1);
    }
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let inspect = || {
        let mut command = program("paradised");
        command.args(["inspect", "--model"]).arg(paradise_tests::shipped()).stderr(Stdio::piped());
        command
    };
    let output = inspect().stdout(full).output().expect("starts");
    assert_eq!(output.status.code(), Some(4), "{}", text(&output).1);
    let mut child = inspect().stdout(Stdio::piped()).spawn().expect("starts");
    drop(child.stdout.take());
    let mut error = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut error).expect("text");
    assert_eq!((child.wait().expect("ends").code(), error.as_str()), (Some(4), ""));
}

#[test]
fn a_model_near_chance_is_told() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    small_set(at, 1);
    // Test folders that were exchanged: nothing is right.
    assert!(run(at, &["fit", "--config", "run.toml", "--set", "fit.epochs=4", "--out", "run"]).status.success());
    for (from, to) in [("dark", "x"), ("light", "dark"), ("x", "light")] {
        fs::rename(at.join("pictures/test").join(from), at.join("pictures/test").join(to)).expect("renamed");
    }
    let output = run(at, &["export", "--run", "run", "--out", "bundle", "--no-checks", "--quantise", "min-max"]);
    let error = text(&output).1;
    assert!(output.status.success() && error.contains("chance is 50.0 %"), "{error}");
    train(&["--version"]);
}
