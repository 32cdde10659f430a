//! Float ONNX classifiers from elsewhere become bundles that answer as ONNX Runtime does.

use paradise_attack::Classifier;
use paradise_engine_fuzz::Sequence;
use paradise_tests::{fitted, program, python, skipped, splits, text, tiny};
use paradise_train::encoder::LogitModel;
use paradise_train::encoder::Network;
use paradise_train::export::float_onnx;
use paradise_train::import::{Normalisation, network};
use paradise_train::objective::Kind;
use std::fs;
use std::path::Path;

fn f32s(path: &Path) -> Vec<f32> {
    let bytes = fs::read(path).expect("written by the script");
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// `[n, 3, 16, 16]` as `[n, 16, 16, 3]`.
fn to_nhwc(images: &[f32]) -> Vec<f32> {
    let at = |image: &[f32], i: usize| image[i % 3 * 256 + i / 3];
    images.chunks_exact(768).flat_map(|image| (0..768).map(move |i| at(image, i))).collect()
}

fn assert_close(ours: &[f32], theirs: &[f32]) {
    assert_eq!(ours.len(), theirs.len());
    for (a, b) in ours.iter().zip(theirs) {
        assert!((a - b).abs() <= 1e-4 * b.abs().max(1.0), "{a} {b}");
    }
}

fn logits(network: &Network, images: &[f32]) -> Vec<f32> {
    LogitModel::new(network).expect("served").logits(images).expect("runs")
}

#[test]
fn networks_of_other_tools_give_their_logits() {
    if skipped("python", "networks_of_other_tools_give_their_logits") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    python("foreign.py", &[&folder.path().to_string_lossy()]);
    let images = to_nhwc(&f32s(&folder.path().join("images.f32")));
    for (name, features, classes) in [("residual", 12, 5), ("plain", 16, 7)] {
        let bytes = fs::read(folder.path().join(format!("{name}.onnx"))).expect("written");
        let read = network(&bytes, &Normalisation::default()).unwrap_or_else(|e| panic!("{name}: {e:#}"));
        assert_eq!((read.architecture.latent, read.architecture.classes), (features, classes), "{name}");
        assert_close(&logits(&read, &images), &f32s(&folder.path().join(format!("{name}.f32"))));
        // Whether or not the first convolution has a border, normalising inside is the same as before.
        let (mean, std) = (vec![0.4, 0.5, 0.6], vec![0.2, 0.3, 0.25]);
        let before: Vec<f32> = images.iter().enumerate().map(|(i, v)| (v - mean[i % 3]) / std[i % 3]).collect();
        let normalisation = Normalisation { mean, std, ..Normalisation::default() };
        let within = network(&bytes, &normalisation).expect("reads");
        assert_close(&logits(&within, &images), &logits(&read, &before));
    }
}

#[test]
fn our_own_float_file_comes_back() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let splits = splits(2000);
    let run = fitted(&tiny(Kind::Paradise, 1), &splits, &folder.path().join("run"));
    let folded = run.network.folded().expect("folds");
    let read =
        network(&float_onnx::encode(&folded.frozen()).expect("encodes"), &Normalisation::default()).expect("reads");
    let set = splits.test.head(30);
    let pixels: Vec<f32> = set.images.iter().map(|p| f32::from(*p) / 255.0).collect();
    assert_close(&logits(&read, &pixels), &logits(&run.network, &pixels));
}

#[test]
fn a_picture_tree_and_a_file_become_a_bundle_that_tests_itself() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let splits = splits(2000);
    let run = fitted(&tiny(Kind::Standard, 1), &splits, &folder.path().join("run"));
    let folded = run.network.folded().expect("folds");
    let file = folder.path().join("elsewhere.onnx");
    fs::write(&file, float_onnx::encode(&folded.frozen()).expect("encodes")).expect("writable");
    for (part, set) in [("train", splits.train.head(400).expect("images")), ("test", splits.test.head(100))] {
        for i in 0..set.len() {
            let class = folder
                .path()
                .join("pictures")
                .join(part)
                .join(splits.labels[set.labels[i] as usize].replace('/', "-"));
            fs::create_dir_all(&class).expect("writable");
            let picture = image::GrayImage::from_raw(28, 28, set.image(i).to_vec()).expect("28 x 28");
            picture.save(class.join(format!("{i:04}.png"))).expect("writable");
        }
    }
    let bundle = folder.path().join("elsewhere");
    let import = |file: &Path, pictures: &Path| {
        let mut command = program("train");
        command.arg("import-onnx").arg(file).arg("--calibrate").arg(pictures).arg("--out").arg(&bundle);
        command.args(["--n", "50"]).output().expect("train starts")
    };
    let output = import(&file, &folder.path().join("pictures"));
    assert!(output.status.success(), "{:?}", text(&output));
    let card = fs::read_to_string(bundle.join("card.toml")).expect("a card");
    assert!(card.contains("no sigma head") && card.contains("elsewhere.onnx"), "{card}");
    assert!(card.contains("source = \"image-folder\""), "{card}");
    for backend in ["int8", "tract"] {
        let test = program("paradised").args(["selftest", "--backend", backend, "--model"]).arg(&bundle).output();
        let test = test.expect("paradised starts");
        assert!(test.status.success(), "{:?}", text(&test));
    }
    // What is wrong is named, and nothing is left behind.
    let refused = |output: std::process::Output, why: &str| {
        let (_, err) = text(&output);
        assert_eq!(output.status.code(), Some(2), "{err}");
        assert!(err.contains(why), "{err}");
    };
    let broken = folder.path().join("broken.onnx");
    fs::write(&broken, b"\x08\x07not a model at all").expect("writable");
    refused(import(&broken, &folder.path().join("pictures")), "broken.onnx");
    refused(import(&file, &folder.path().join("nowhere")), "nowhere");
    for part in ["train", "test"] {
        fs::remove_dir_all(folder.path().join("pictures").join(part).join(&splits.labels[8])).expect("a class");
    }
    refused(import(&file, &folder.path().join("pictures")), "9 classes, the model has 10");
}

#[test]
fn any_corruption_is_an_error_or_a_network() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = fitted(&tiny(Kind::Standard, 1), &splits(2000), &folder.path().join("run"));
    let good = float_onnx::encode(&run.network.folded().expect("folds").frozen()).expect("encodes");
    let mut sequence = Sequence(7);
    let mut next = |n: usize| sequence.below(n);
    let (mut refused, mut read) = (0, 0);
    for i in 0..400 {
        let mut bytes = good.clone();
        // Most of the structure is at the beginning, where the nodes are.
        let at = if i % 2 == 0 { next(1500.min(good.len())) } else { next(good.len()) };
        bytes[at] ^= 1 + next(255) as u8;
        if i % 7 == 0 {
            bytes.truncate(next(good.len()));
        }
        match network(&bytes, &Normalisation::default()) {
            Ok(_) => read += 1,
            Err(error) => {
                assert!(!format!("{error:#}").is_empty());
                refused += 1;
            }
        }
    }
    assert!(refused > 50 && read > 50, "{refused} refused, {read} read");
}
