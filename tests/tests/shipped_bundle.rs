//! The committed bundle keeps its promises: the referee on all test images, the card's figures, both back ends.

use paradise_data::embedded;
use paradise_engine::Model;
use paradise_engine::golden::Golden;
use paradise_evaluate::prediction::int8;
use paradise_runtime::{Backend, BackendKind, Bundle, load};
use paradise_tests::{referee, shipped, skipped};
use paradise_train::export::card::Card;
use paradise_train::export::int8_onnx;
use std::fs;

fn bundle() -> Bundle {
    Bundle::open(&shipped()).expect("the shipped bundle")
}

fn card() -> Card {
    toml::from_str(&fs::read_to_string(shipped().join("card.toml")).unwrap()).expect("a card")
}

#[test]
fn both_onnx_files_pass_the_checker_and_the_classes_of_all_test_images_are_equal() {
    if skipped("python", "both_onnx_files_pass_the_checker") {
        return;
    }
    let file = |name: &str| shipped().join(name).to_string_lossy().into_owned();
    println!("{}", referee(&["check", &file("encoder.onnx"), &file("encoder.int8.onnx")]));
    let bundle = bundle();
    let model = Model::parse(bundle.file("model.pmq").unwrap()).unwrap();
    let test = embedded::subset().unwrap().test;
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    put("case.json", serde_json::json!({ "n": test.len(), "input": [28, 28, 1] }).to_string().as_bytes());
    put("images.u8", &test.images);
    let classes = int8::classify(&model, &test).unwrap().classes;
    put("classes.u8", &classes.iter().map(|c| *c as u8).collect::<Vec<_>>());
    let folder = folder.path().to_string_lossy().into_owned();
    println!("{}", referee(&["classes", &file("encoder.int8.onnx"), &folder]));
}

#[test]
fn every_tensor_of_the_golden_images_equals_onnx_runtime() {
    if skipped("python", "every_tensor_of_the_golden_images_equals_onnx_runtime") {
        return;
    }
    let bundle = bundle();
    let golden = Golden::parse(bundle.file("selftest.bin").unwrap()).unwrap();
    let images: Vec<Vec<u8>> = golden.header().cases.iter().map(|c| golden.bytes(c.image).to_vec()).collect();
    let model = Model::parse(bundle.file("model.pmq").unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    paradise_tests::write_case(&model, &images, folder.path());
    // The referee reads the file that ships, not one made now.
    fs::write(folder.path().join("model.onnx"), bundle.file("encoder.int8.onnx").unwrap()).unwrap();
    println!("{}", referee(&["int8", &folder.path().to_string_lossy()]));

    // The float file against what candle gave at export.
    let (mut mu, mut logs, mut logits) = (Vec::new(), Vec::new(), Vec::new());
    let d = model.header().latent as usize;
    for case in golden.header().cases.iter() {
        let all: Vec<f32> = golden.f32s(case.float_outputs).iter().collect();
        mu.extend_from_slice(&all[..d]);
        logs.extend_from_slice(&all[d..2 * d]);
        logits.extend_from_slice(&all[2 * d..]);
    }
    for (name, values) in [("mu.f32", mu), ("log_sigma.f32", logs), ("logits.f32", logits)] {
        fs::write(folder.path().join(name), paradise_tests::f32_bytes(&values)).unwrap();
    }
    fs::write(folder.path().join("model.onnx"), bundle.file("encoder.onnx").unwrap()).unwrap();
    println!("{}", referee(&["float", &folder.path().to_string_lossy()]));
}

#[test]
fn the_mirror_that_ships_is_made_from_the_model_that_ships() {
    let bundle = bundle();
    let model = Model::parse(bundle.file("model.pmq").unwrap()).unwrap();
    assert_eq!(int8_onnx::encode(&model).unwrap(), bundle.file("encoder.int8.onnx").unwrap());
}

#[test]
fn the_card_is_true_of_the_files() {
    let (card, bundle) = (card(), bundle());
    let splits = embedded::subset().unwrap();
    assert_eq!(card.test_sha256, splits.test.digest());
    assert_eq!(card.train_sha256, splits.train.digest().unwrap());
    for (name, size) in &card.sizes {
        assert_eq!(bundle.file(name).unwrap().len(), *size, "{name}");
    }
    let model = Model::parse(bundle.file("model.pmq").unwrap()).unwrap();
    let records = int8::predict(&model, &splits.test).unwrap();
    let correct = records.iter().zip(&splits.test.labels).filter(|(r, l)| r.class == **l).count();
    assert_eq!(correct, card.accuracy.int8_clean.correct);
    assert_eq!(records.iter().filter(|r| !r.accept).count(), card.false_abstain_test.correct);
    assert!(card.accuracy.masking_checks.contains(" 0 flagged, 2 not run"), "{}", card.accuracy.masking_checks);
}

#[test]
fn the_promises_of_the_small_bundle_hold() {
    let a = card().accuracy;
    assert_eq!((a.float_clean.n, a.float_robust.n, a.eps_pixels), (2000, 2000, 8.0));
    assert!(a.float_clean.percent() >= 86.5, "{}", a.float_clean.percent());
    assert!(a.float_robust.percent() >= 72.0, "{}", a.float_robust.percent());
    assert!(a.agreement.percent() >= 99.5, "{}", a.agreement.percent());
    assert!((a.float_robust.percent() - a.int8_robust_transferred.percent()).abs() <= 2.0);
}

#[test]
fn tract_agrees_with_the_engine() {
    let bundle = bundle();
    let mut tract = load(&bundle, BackendKind::Tract).unwrap();
    let mut engine = load(&bundle, BackendKind::Int8).unwrap();
    let test = embedded::subset().unwrap().test;
    let class = |backend: &mut dyn Backend, i: usize| backend.verdict(test.image(i), None).unwrap().class;
    let same = (0..test.len()).filter(|&i| class(tract.as_mut(), i) == class(engine.as_mut(), i)).count();
    println!("{same} of {} classes equal", test.len());
    assert!(same * 100 >= test.len() * 99, "{same} of {}", test.len());
}
