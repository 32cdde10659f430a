//! The examples that teach run, and do what they say.

use image::GrayImage;
use paradise_data::embedded;
use paradise_tests::{program, root, shipped, text, train};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

/// Runs an example, which must succeed; what it prints.
fn runs(name: &str, arguments: &[&Path]) -> String {
    let output = program(&format!("examples/{name}")).args(arguments).output().expect("the example starts");
    assert!(output.status.success(), "{name}: {}", text(&output).1);
    text(&output).0
}

/// Test images of the embedded subset as PNG files in `folder/PART/CLASS`.
fn pictures(folder: &Path) {
    let splits = embedded::subset().expect("embedded images");
    let set = splits.test.head(200);
    for i in 0..set.len() {
        let part = folder.join(if i / 10 % 4 == 0 { "test" } else { "train" });
        let class = part.join(&splits.labels[usize::from(set.labels[i])]);
        std::fs::create_dir_all(&class).expect("a folder");
        let picture = GrayImage::from_raw(28, 28, set.image(i).to_vec()).expect("784 bytes");
        picture.save(class.join(format!("{i}.png"))).expect("a writable folder");
    }
}

#[test]
fn every_example_teaches_something_that_works() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    let (pictures_at, bundle) = (path("pictures"), shipped());
    pictures(&pictures_at);
    let picture = std::fs::read_dir(pictures_at.join("test/trouser")).expect("a folder").next().expect("a picture");

    let out = runs("classify", &[&bundle, &picture.expect("an entry").path()]);
    assert!(out.starts_with("trouser (") && out.contains("rate "), "{out}");
    let out = runs("classify_no_std", &[]);
    assert!(out.contains("nothing: abstained") && out.contains("7056 bytes of arena"), "{out}");
    let stream = std::fs::read(root().join("tests/golden/progressive-app14.jpg")).expect("a picture").repeat(9);
    let mut watching =
        program("examples/watch_camera").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
    watching.stdin.take().expect("a pipe").write_all(&stream).expect("reads");
    let out = text(&watching.wait_with_output().expect("ends")).0;
    // The first, and those that follow a change.
    assert!(out.ends_with("9 pictures, 6 worth a look\n"), "{out}");
    let out = runs("custom_source", &[&bundle]);
    assert_eq!(out.lines().count(), 3, "{out}");

    let out = runs("attack_a_closure", &[]);
    let kept: Vec<f64> = out.lines().map(|l| l.split_whitespace().nth(2).unwrap().parse().unwrap()).collect();
    assert!(kept[0] == 100.0 && kept.windows(2).all(|w| w[1] < w[0]), "{out}");
    let out = runs("add_an_attack", &[]);
    assert!(out.contains("broken") && out.contains("held"), "{out}");
    let out = runs("attack_a_network", &[]);
    assert!(out.starts_with("AutoAttack, l_inf 8/255:"), "{out}");

    let out = runs("import_onnx", &[&bundle.join("encoder.onnx"), &pictures_at, &path("imported")]);
    assert!(out.contains("bundle imported") && out.contains("same class on 100.0 %"), "{out}");
}

#[test]
fn a_run_on_images_of_ones_own_says_so_everywhere() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (out, run) = (folder.path().join("bars"), folder.path().join("bars.run"));
    let told = runs("train_and_export", &[&out]);
    let clean: f64 = told.lines().next().unwrap().split_whitespace().nth(2).unwrap().parse().unwrap();
    assert!(clean > 95.0, "{told}");
    for file in [run.join("config.toml"), out.join("card.toml")] {
        let said = std::fs::read_to_string(&file).expect("is there");
        assert!(said.contains("source = \"own\"") && !said.contains("fashion"), "{}: {said}", file.display());
    }
    let self_test = program("paradised").args(["selftest", "--model"]).arg(&out).output().expect("starts");
    assert_eq!(self_test.status.code(), Some(0), "{}", text(&self_test).0);
    // The program cannot find those images, and does not advise to delete the run.
    for arguments in [&["evaluate", "--run", &run.to_string_lossy()][..], &["verify-card", &out.to_string_lossy()]] {
        let output = program("train").args(arguments).output().expect("train starts");
        let error = text(&output).1;
        assert!(output.status.code() == Some(2) && error.contains("only that program has them"), "{error}");
        assert!(!error.contains("--data") && !error.contains("remove"), "{error}");
    }
    // What reads the bundle alone still works.
    train(&["probes", &out.to_string_lossy()]);
}
