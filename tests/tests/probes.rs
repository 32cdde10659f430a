//! `train probes`: a bundle's self-test made again, on pictures that its network draws or on test images.

use paradise_engine::golden::{Golden, Origin};
use paradise_runtime::Bundle;
use paradise_tests::{copy_of_shipped, files, program, shipped, text, tiny, train};
use paradise_train::export::card::Card;
use paradise_train::objective::Kind;
use std::fs;
use std::path::Path;

fn probes(bundle: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = program("train").arg("probes").arg(bundle).args(arguments).output().unwrap();
    (output.status.code(), text(&output).1)
}

#[test]
fn drawn_probes_pass_on_both_back_ends_and_test_images_return_to_the_bit() {
    let (_keep, bundle) = copy_of_shipped();
    let before = files(&bundle);
    assert_eq!(probes(&bundle, &[]), (Some(0), String::new()));
    let synthesised = files(&bundle);
    for (name, bytes) in &before {
        assert_eq!(bytes != &synthesised[name], ["selftest.bin", "card.toml"].contains(&name.as_str()), "{name}");
    }
    let card = Card::of(&Bundle::open(&bundle).unwrap()).unwrap();
    assert_eq!(card.probes, Origin::Synthesised);
    assert_eq!(card.sizes["selftest.bin"], synthesised["selftest.bin"].len());
    // The pictures are the network's own: none of them is one of the test images that were there, and the network finds
    // in nearly all of them the class that they were drawn for.
    let [old, new] = [&before, &synthesised].map(|files| Golden::parse(&files["selftest.bin"]).unwrap());
    let pictures = |golden: &Golden| {
        let each = golden.header().image_bytes as usize;
        let all = golden.header().probes.iter().flat_map(|p| golden.bytes(p.images).chunks_exact(each));
        all.map(<[u8]>::to_vec).collect::<Vec<_>>()
    };
    let were = pictures(&old);
    assert!(pictures(&new).iter().all(|picture| !were.contains(picture)));
    assert!(new.header().probes.at(0).min_correct > 50, "{:?}", new.header().probes.at(0));
    for back_end in ["int8", "tract"] {
        let output = program("paradised").args(["selftest", "--backend", back_end, "--model"]).arg(&bundle).output();
        let output = output.unwrap();
        let (out, error) = text(&output);
        assert_eq!(output.status.code(), Some(0), "{out}{error}");
        assert!(
            out.contains("synthesised pictures, not a sample of the world") && !out.contains("shows +-"),
            "{out}"
        );
    }
    // Again, they are the same; and the test images give the file that the export wrote.
    assert_eq!(probes(&bundle, &[]).0, Some(0));
    assert!(files(&bundle) == synthesised);
    assert_eq!(probes(&bundle, &["--probes", "data-set"]), (Some(0), String::new()));
    assert!(files(&bundle) == before);
}

#[test]
fn a_bundle_without_its_float_network_asks_for_the_run_and_knows_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    fs::write(at("run.toml"), tiny(Kind::ParadisePm, 1).to_toml().unwrap()).unwrap();
    train(&["fit", "--config", &at("run.toml"), "--out", &at("run")]);
    train(&["fit", "--config", &at("run.toml"), "--seed", "5", "--out", &at("other")]);
    let options = ["--n", "50", "--quantise", "min-max", "--no-checks", "--no-float", "--probes", "synthesised"];
    train(&[&["export", "--run", &at("run"), "--out", &at("model")][..], &options].concat());
    let bundle = folder.path().join("model");
    let exported = files(&bundle);
    assert_eq!(Golden::parse(&exported["selftest.bin"]).unwrap().header().origin, Origin::Synthesised);
    let (code, error) = probes(&bundle, &["--probes", "data-set"]);
    assert!(code == Some(2) && error.contains("--run") && error.contains("encoder.onnx"), "{error}");
    let (code, error) = probes(&bundle, &["--probes", "data-set", "--run", &at("other")]);
    assert!(code == Some(2) && error.contains("exported from another network"), "{error}");
    assert!(files(&bundle) == exported, "a refusal changed the bundle");
    assert_eq!(probes(&bundle, &["--probes", "data-set", "--run", &at("run")]), (Some(0), String::new()));
    assert_eq!(probes(&bundle, &["--run", &at("run")]), (Some(0), String::new()));
    assert!(files(&bundle) == exported);
}

#[test]
fn what_is_no_bundle_or_not_its_images_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (code, error) = probes(&folder.path().join("none"), &[]);
    assert!(code == Some(2) && error.contains("none: no such folder"), "{error}");
    let (code, error) = probes(&shipped(), &["--probes", "mine"]);
    assert!(code == Some(2) && error.contains("data-set"), "{error}");
    let (_keep, bundle) = copy_of_shipped();
    let mut damaged = fs::read(bundle.join("selftest.bin")).unwrap();
    damaged[4000] ^= 1;
    fs::write(bundle.join("selftest.bin"), damaged).unwrap();
    let (code, error) = probes(&bundle, &[]);
    assert!(code == Some(2) && error.contains("selftest.bin"), "{error}");
}
