//! `train recalibrate`: a bundle's confidence fitted anew, its weights untouched.

use paradise_engine::Model;
use paradise_engine::golden::Golden;
use paradise_runtime::bundle::{MODEL, SELFTEST};
use paradise_tests::{copy_of_shipped, files, program, text};
use std::fs;
use std::path::Path;

fn recalibrate(bundle: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = program("train").arg("recalibrate").arg(bundle).args(arguments).output().unwrap();
    (output.status.code(), text(&output).1)
}

/// Where the float network answers by other instructions than the maker's, it differs from the integers by other roundings, and
/// numbers by a little; all else is the same bytes.
#[test]
fn on_the_images_of_its_card_a_bundle_becomes_itself() {
    let (_keep, bundle) = copy_of_shipped();
    let before = files(&bundle);
    let (code, error) = recalibrate(&bundle, &[]);
    assert_eq!(code, Some(0), "{error}");
    let once = files(&bundle);
    assert_eq!(recalibrate(&bundle, &[]).0, Some(0));
    assert!(files(&bundle) == once, "a second time, another bundle");
    for name in ["encoder.onnx", "encoder.int8.onnx"] {
        assert!(once[name] == before[name], "{name} changed");
    }
    let [old, new] = [&before, &once].map(|files| Model::parse(&files[MODEL]).unwrap());
    let (a, b) = (old.header(), new.header());
    assert!(a.layers == b.layers && a.activations == b.activations && a.made == b.made);
    let near = |a: f32, b: f32| (a - b).abs() <= 1e-2;
    assert!(near(a.thresholds.combined_p_min, b.thresholds.combined_p_min), "{:?} {:?}", a.thresholds, b.thresholds);
    let [old, new] = [&before, &once].map(|files| Golden::parse(&files[SELFTEST]).unwrap());
    for (a, b) in old.header().cases.iter().zip(new.header().cases.iter()) {
        assert!((a.distances.posterior / b.distances.posterior - 1.0).abs() <= 1e-2, "{a:?} {b:?}");
        assert_eq!((a.class, a.rate_nats), (b.class, b.rate_nats));
    }
}

#[test]
fn another_promise_moves_thresholds_alone_and_the_self_test_passes() {
    let (_keep, bundle) = copy_of_shipped();
    let out = bundle.with_file_name("stricter");
    let before = files(&bundle);
    let (code, error) = recalibrate(&bundle, &["--false-abstain", "0.2", "--out", &out.to_string_lossy()]);
    assert_eq!(code, Some(0), "{error}");
    assert!(files(&bundle) == before, "the bundle itself was touched");
    let after = files(&out);
    let [old, new] = [&before, &after].map(|files| Model::parse(&files[MODEL]).unwrap());
    assert_eq!((new.header().name, new.header().calibrations), ("stricter", old.header().calibrations));
    assert!(new.header().thresholds.combined_p_min > old.header().thresholds.combined_p_min);
    let card: toml::Table = toml::from_str(std::str::from_utf8(&after["card.toml"]).unwrap()).unwrap();
    let abstained = card["false_abstain_test"]["percent"].as_float().unwrap();
    assert!((15.0..25.0).contains(&abstained), "{abstained}");
    let output = program("paradised").args(["selftest", "--model"]).arg(&out).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output).0);
}

#[test]
fn other_images_and_damaged_bundles_are_refused_and_nothing_changes() {
    let (keep, bundle) = copy_of_shipped();
    let before = files(&bundle);
    let (code, error) = recalibrate(&bundle, &["--false-abstain", "1.5"]);
    assert!(code == Some(2) && error.contains("1.5"), "{error}");
    let (code, error) = recalibrate(&bundle, &["--foreign", "nothing=/no/such/folder"]);
    assert!(code == Some(2) && error.contains("/no/such/folder"), "{error}");
    assert!(files(&bundle) == before, "a refusal changed the bundle");
    let (code, error) = recalibrate(&keep.path().join("no-bundle"), &[]);
    assert!(code == Some(2) && error.contains("no-bundle"), "{error}");
    let path = bundle.join(MODEL);
    let mut bytes = fs::read(&path).unwrap();
    bytes[5000] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (code, error) = recalibrate(&bundle, &[]);
    assert!(code == Some(2) && error.contains(MODEL), "{error}");
}
