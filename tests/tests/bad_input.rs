//! Bad input at every entrance: a clear error that names the file and the limit, never a panic, never wild memory.

use paradise_engine::artifact::{KNOWN, MAGIC, VERSION};
use paradise_engine::container::{Tag, open, reseal, seal};
use paradise_engine::golden::Golden;
use paradise_engine::{FormatError, Model, Workspace, classify};
use paradise_engine_fuzz::Sequence;
use paradise_tests::{copy_of_shipped, program, shipped, text};
use std::fs;
use std::path::Path;

fn model_bytes() -> Vec<u8> {
    fs::read(shipped().join("model.pmq")).expect("the shipped model")
}

/// How many corruptions each test tries; `PARADISE_CORRUPTIONS=100000` for a longer hunt.
fn corruptions() -> usize {
    std::env::var("PARADISE_CORRUPTIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(1000)
}

/// Parses and, if that succeeds, runs a model; both must allocate nothing beyond the declared workspace.
fn parse_and_run(bytes: &[u8]) -> Result<(), FormatError> {
    let mut outcome = Ok(());
    let mut need = (0, 0, 0);
    let parsing = allocation_counter::measure(|| match Model::parse(bytes) {
        Ok(model) => {
            let h = model.header();
            need = (h.arena_bytes as usize, model.float_len(), h.input.len() as usize);
        }
        Err(error) => outcome = Err(error),
    });
    assert_eq!(parsing.count_total, 0, "parsing allocates nothing");
    if outcome.is_ok() {
        assert!(need.0 <= 256 << 20, "an arena of {} bytes", need.0);
        let (mut arena, mut floats, image) = (vec![0; need.0], vec![0.0; need.1], vec![200; need.2]);
        let model = Model::parse(bytes)?;
        let running = allocation_counter::measure(|| {
            let mut memory = Workspace { arena: &mut arena, floats: &mut floats };
            classify(&model, &image, &mut memory, &mut |_, _| {}).expect("a valid model runs");
        });
        assert_eq!(running.count_total, 0, "inference allocates nothing");
    }
    outcome
}

#[test]
fn the_untouched_model_parses_and_runs_without_allocating() {
    parse_and_run(&model_bytes()).unwrap();
}

#[test]
fn a_thousand_single_byte_corruptions_are_refused() {
    let good = model_bytes();
    let mut sequence = Sequence(1);
    for _ in 0..corruptions() {
        let mut bytes = good.clone();
        let at = sequence.below(bytes.len());
        bytes[at] ^= 1 + sequence.below(255) as u8;
        let error = parse_and_run(&bytes).expect_err("a hash over every byte");
        assert!(!error.to_string().is_empty());
    }
}

#[test]
fn a_thousand_resealed_corruptions_are_refused_or_harmless() {
    let good = model_bytes();
    let header = Model::parse(&good).unwrap().blob_offset();
    let mut sequence = Sequence(2);
    let (mut refused, mut harmless) = (0, 0);
    for i in 0..corruptions() {
        let mut bytes = good.clone();
        // Most of the meaning is in the header; every fourth change is among the tensors.
        let at = if i % 4 == 0 { sequence.below(bytes.len()) } else { sequence.below(header) };
        bytes[at] ^= 1 + sequence.below(255) as u8;
        reseal(&mut bytes);
        match parse_and_run(&bytes) {
            Ok(()) => harmless += 1,
            Err(_) => refused += 1,
        }
    }
    println!("{refused} refused, {harmless} harmless");
    assert!(refused > 100 && harmless > 100, "{refused} refused, {harmless} harmless");
}

#[test]
fn truncations_and_growth_are_refused() {
    let good = model_bytes();
    for len in (0..200).chain([good.len() / 2, good.len() - 1]) {
        assert!(matches!(parse_and_run(&good[..len]), Err(FormatError::Truncated { .. })), "{len}");
    }
    let mut longer = good.clone();
    longer.push(0);
    assert!(matches!(parse_and_run(&longer), Err(FormatError::Length { .. })));
    let mut golden = fs::read(shipped().join("selftest.bin")).unwrap();
    golden[100] ^= 1;
    assert_eq!(Golden::parse(&golden).unwrap_err(), FormatError::Hash);
}

#[test]
fn resealed_corruptions_of_the_self_test_are_refused_or_readable() {
    let good = fs::read(shipped().join("selftest.bin")).unwrap();
    let mut sequence = Sequence(3);
    let (mut refused, mut read) = (0, 0);
    for _ in 0..corruptions() {
        let mut bytes = good.clone();
        bytes[8 + sequence.below(2000)] ^= 1 + sequence.below(255) as u8;
        reseal(&mut bytes);
        let Ok(golden) = Golden::parse(&bytes) else {
            refused += 1;
            continue;
        };
        // Whatever parses can be read to its end.
        for case in golden.header().cases.iter() {
            assert_eq!(golden.bytes(case.image).len(), golden.header().image_bytes as usize);
            assert_eq!(golden.u32s(case.crc).len(), golden.header().layers as usize);
            assert_eq!(golden.f32s(case.int8_outputs).len(), golden.header().outputs as usize);
        }
        read += 1;
    }
    println!("{refused} refused, {read} read");
    assert!(refused > 0 && read > 0);
}

#[test]
fn later_sections_are_left_aside_and_what_must_be_known_is_refused() {
    let good = model_bytes();
    let sealed = open(&good, MAGIC, VERSION, KNOWN).unwrap();
    let with = |more: &[(Tag, &[u8])]| {
        let all: Vec<(Tag, &[u8])> = more.iter().copied().chain(sealed.sections()).collect();
        seal(MAGIC, VERSION, &all)
    };
    assert_eq!(with(&[]), good);
    let later = with(&[(*b"more", b"of a later version")]);
    let (old, new) = (Model::parse(&good).unwrap(), Model::parse(&later).unwrap());
    assert_eq!(old.header().layers.len(), new.header().layers.len());
    let refused = |bytes: &[u8], why: &str| {
        let error = Model::parse(bytes).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    };
    refused(&with(&[(*b"More", b"")]), "section More is not known to this build");
    refused(&with(&[(*b"LABL", b"a\nb")]), "section LABL stands twice");
    refused(&with(&[(*b"a b1", b"")]), "not four letters");
    let many: Vec<(Tag, &[u8])> = (0..40u8).map(|i| ([b'a', b'a', b'a' + i / 26, b'a' + i % 26], &b""[..])).collect();
    refused(&with(&many), "sections");
    let without: Vec<(Tag, &[u8])> = sealed.sections().filter(|(tag, _)| tag != b"LAYR").collect();
    refused(&seal(MAGIC, VERSION, &without), "section LAYR is missing");
}

#[test]
fn another_version_or_kind_is_named() {
    let mut bytes = model_bytes();
    bytes[8] = 9;
    reseal(&mut bytes);
    let error = Model::parse(&bytes).unwrap_err();
    assert_eq!(error, FormatError::Version { need: VERSION, got: 9 });
    assert!(error.to_string().contains("format 9") && error.to_string().contains(&format!("reads format {VERSION}")));
    assert_eq!(Golden::parse(&model_bytes()).unwrap_err(), FormatError::Magic);
}

/// Runs `paradised` and returns its exit code and error text.
fn paradised(arguments: &[&str], paths: &[&Path]) -> (Option<i32>, String) {
    let output = program("paradised").args(arguments).args(paths).output().expect("paradised runs");
    let (_, error) = text(&output);
    assert!(!error.contains("panicked"), "{error}");
    (output.status.code(), error)
}

fn classify_file(name: &str, bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    let (code, error) = paradised(&["classify", "--model", &shipped().to_string_lossy()], &[&path]);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains(name), "the message names the file: {error}");
    error
}

fn png(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let pixels = vec![90; (width * height) as usize];
    let encoder = image::codecs::png::PngEncoder::new(&mut bytes);
    image::ImageEncoder::write_image(encoder, &pixels, width, height, image::ExtendedColorType::L8).unwrap();
    bytes
}

/// A PNG whose header claims another size, with a right checksum.
fn claiming(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = png(4, 4);
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let crc = crc32fast::hash(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&crc.to_be_bytes());
    bytes
}

#[test]
fn pictures_that_are_none_are_named_with_their_limit() {
    assert!(classify_file("empty.png", b"").contains("empty (0 bytes)"));
    assert!(classify_file("text.png", b"just some text, not a picture").contains("not a readable picture"));
    let whole = png(28, 28);
    assert!(classify_file("cut.png", &whole[..whole.len() - 20]).contains("not a readable picture"));
    let error = classify_file("bomb.png", &claiming(100_000, 100_000));
    assert!(error.contains("100000 x 100000") && error.contains("limit of 8192"), "{error}");
}

#[test]
fn folders_missing_files_and_missing_models_are_named() {
    let model = shipped();
    let model = model.to_string_lossy();
    let folder = tempfile::tempdir().unwrap();
    let (code, error) = paradised(&["classify", "--model", &model], &[folder.path()]);
    assert!(code == Some(2) && error.contains("is a folder"), "{error}");
    let (code, error) = paradised(&["classify", "--model", &model], &[Path::new("/no/such.png")]);
    assert!(code == Some(2) && error.contains("/no/such.png"), "{error}");
    let (code, error) = paradised(&["inspect", "--model", "/no/such/bundle"], &[]);
    assert!(code == Some(2) && error.contains("/no/such/bundle"), "{error}");
    let (code, _) = paradised(&["classify", "--model", &model, "--min-posterior-p", "7"], &[Path::new("x.png")]);
    assert_eq!(code, Some(2));
    let (code, error) = paradised(&["classify", "--model", &model, "--gpio", "1,1,2"], &[Path::new("x.png")]);
    assert!(code == Some(2) && error.contains("--gpio"), "{error}");
}

#[test]
fn one_bad_picture_does_not_stop_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let (bad, good) = (folder.path().join("bad.png"), folder.path().join("good.png"));
    fs::write(&bad, b"no").unwrap();
    fs::write(&good, png(28, 28)).unwrap();
    let output =
        program("paradised").args(["classify", "--json", "--model"]).arg(shipped()).args([&bad, &good]).output();
    let output = output.unwrap();
    let (out, error) = text(&output);
    assert_eq!(output.status.code(), Some(2));
    assert!(error.contains("bad.png") && out.lines().count() == 1 && out.contains("good.png"), "{out}{error}");
}

#[test]
fn a_bundle_that_does_not_match_its_manifest_is_refused() {
    for (file, change) in [("model.pmq", "SHA-256"), ("encoder.onnx", "SHA-256"), ("card.toml", "size")] {
        let (_keep, bundle) = copy_of_shipped();
        let path = bundle.join(file);
        let mut bytes = fs::read(&path).unwrap();
        if change == "size" {
            bytes.push(b'#')
        } else {
            bytes[200] ^= 4
        }
        fs::write(&path, bytes).unwrap();
        let (code, error) = paradised(&["inspect", "--model", &bundle.to_string_lossy()], &[]);
        assert!(code == Some(2) && error.contains(file) && error.contains(change), "{error}");
        let (code, _) = paradised(&["selftest", "--model", &bundle.to_string_lossy()], &[]);
        assert_eq!(code, Some(1));
    }
    for manifest in [
        "",
        "{}",
        "[1]",
        r#"{"format":1,"name":"x","files":{}}"#,
        r#"{"format":2,"name":"x","files":{}}"#,
        r#"{"format":2,"name":"x","files":{"../x":{"sha256":"","bytes":0}}}"#,
    ] {
        let (_keep, bundle) = copy_of_shipped();
        fs::write(bundle.join("manifest.json"), manifest).unwrap();
        let (code, error) = paradised(&["inspect", "--model", &bundle.to_string_lossy()], &[]);
        assert!(code == Some(2) && error.contains("manifest.json"), "{manifest}: {error}");
    }
}

#[test]
fn the_training_program_names_its_bad_input() {
    let train = |arguments: &[&str]| {
        let output = program("train").args(arguments).output().expect("train runs");
        let (_, error) = text(&output);
        assert!(!error.contains("panicked"), "{error}");
        assert_eq!(output.status.code(), Some(2), "{error}");
        error
    };
    assert!(train(&["fit", "--config", "/no/such.toml"]).contains("/no/such.toml"));
    assert!(train(&["evaluate", "--run", "/no/such"]).contains("/no/such"));
    assert!(train(&["evaluate", "--run", "/no/such", "--eps", "8"]).contains("eps"));
    assert!(train(&["evaluate", "--run", "/no/such", "--eps", "-1"]).contains("eps"));
    assert!(train(&["evaluate", "--run", "/no/such", "--attacks", "magic"]).contains("magic"));
    assert!(train(&["export", "--run", "/no/such", "--out", "/tmp/x"]).contains("/no/such"));
}

/// A quiet stack is enough to load and run a ResNet-8.
#[test]
fn sixty_four_kibibytes_of_stack_are_enough() {
    let bytes =
        fs::read(paradise_tests::root().join("models/cifar10-resnet8-am/model.pmq")).expect("a committed model");
    let answered = move || {
        let mut int8 = paradise_runtime::int8::Int8::new(bytes).expect("a model");
        let image: Vec<u8> = (0..3072).map(|i| (i * 7 % 256) as u8).collect();
        let mut class = None;
        paradise_runtime::Backend::answer(&mut int8, &image, &mut |_, a| class = Some(a.class)).expect("runs");
        class
    };
    let thread = std::thread::Builder::new().stack_size(64 << 10).spawn(answered).expect("a thread");
    assert!(thread.join().expect("no overflow").is_some());
}

#[test]
fn standard_input_is_a_picture_and_icons_and_targas_are() {
    let folder = tempfile::tempdir().unwrap();
    let grey =
        image::DynamicImage::ImageLuma8(image::GrayImage::from_fn(28, 28, |x, y| image::Luma([(x * y) as u8])));
    let rgba = image::DynamicImage::ImageRgba8(grey.to_rgba8());
    let mut printed = Vec::new();
    for (name, picture) in [("a.png", &grey), ("a.tga", &grey), ("a.ico", &rgba), ("a.qoi", &rgba)] {
        let path = folder.path().join(name);
        picture.save(&path).unwrap();
        let bytes = fs::read(&path).unwrap();
        let mut child = program("paradised")
            .args(["classify", "--json", "--model"])
            .arg(shipped())
            .arg("-")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), &bytes).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{name}: {}", text(&output).1);
        let answer: serde_json::Value = serde_json::from_str(&text(&output).0).unwrap();
        assert_eq!(answer["image"], "-");
        printed.push(answer["probabilities"].clone());
    }
    assert!(printed.iter().all(|p| *p == printed[0]), "{printed:?}");
}

#[test]
fn a_damaged_manifest_is_named_as_such() {
    let (_keep, bundle) = copy_of_shipped();
    let path = bundle.join("manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    let at = text.find("sha256").unwrap() + 12;
    let mut bytes = text.into_bytes();
    bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
    fs::write(&path, bytes).unwrap();
    let (code, error) = paradised(&["inspect", "--model", &bundle.to_string_lossy()], &[]);
    assert!(code == Some(2) && error.contains("manifest.json") && error.contains("damaged: its own seal"), "{error}");
    let (code, error) = paradised(&["selftest", "--backend", "tract", "--model", "/no/such/bundle"], &[]);
    assert!(code == Some(2) && error.contains("/no/such/bundle: no such folder"), "{error}");
}
