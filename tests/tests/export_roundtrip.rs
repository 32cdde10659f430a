//! train -> export -> both back ends, and runs that resume bit for bit.

use paradise_attack::gradient::Pgd;
use paradise_data::settings::Source;
use paradise_engine::{Model, Shape};
use paradise_runtime::selftest::{self, Options};
use paradise_runtime::{BackendKind, Bundle};
use paradise_tests::{fitted, program, splits, text, tiny, until};
use paradise_train::config::Config;
use paradise_train::config::encoder::{Encoder, Kind as Network};
use paradise_train::export::{CardSettings, card::Card, export};
use paradise_train::objective::Kind;
use std::fs;
use std::path::Path;
use std::process::Stdio;

#[test]
fn every_objective_trains_exports_and_self_tests() {
    let splits = splits(4000);
    for kind in [Kind::Standard, Kind::Dvib, Kind::DvibPm, Kind::Paradise, Kind::ParadisePm] {
        let folder = tempfile::tempdir().unwrap();
        let config = tiny(kind, 2);
        let run = fitted(&config, &splits, &folder.path().join("run"));
        let out = folder.path().join("tiny-model");
        let settings = CardSettings { n: 100, attack: Pgd::sign(5, 1), checked: 20, ..CardSettings::default() };
        let card = export(&run.network, &config, &splits, &out, &settings).unwrap();
        assert!(card.accuracy.float_clean.percent() > 60.0, "{kind:?} learned nothing: {card:?}");
        assert!(card.accuracy.agreement.percent() > 97.0, "{kind:?}");
        for back_end in [BackendKind::Int8, BackendKind::Tract] {
            let report = selftest::run(&out, back_end, &Options::default()).expect("a bundle");
            assert_eq!(report.exit_code(), 0, "{report}");
        }
        let bundle = Bundle::open(&out).unwrap();
        let model = Model::parse(bundle.file("model.pmq").unwrap()).unwrap();
        assert_eq!((model.header().name, model.label(9)), ("tiny-model", "ankle boot"));
        let read: Card = toml::from_str(std::str::from_utf8(bundle.file("card.toml").unwrap()).unwrap()).unwrap();
        assert_eq!(read, card);
        // Exporting again replaces the bundle; a stranger's folder stays.
        export(&run.network, &config, &splits, &out, &settings).unwrap();
        let stranger = folder.path().join("stranger");
        fs::create_dir(&stranger).unwrap();
        fs::write(stranger.join("thesis.txt"), "years of work").unwrap();
        assert!(export(&run.network, &config, &splits, &stranger, &settings).is_err());
        assert_eq!(fs::read(stranger.join("thesis.txt")).unwrap(), b"years of work");
    }
}

#[test]
fn a_residual_network_exports_and_self_tests() {
    let splits = splits(3000);
    let folder = tempfile::tempdir().unwrap();
    let mut config = tiny(Kind::ParadisePm, 2);
    config.encoder = Encoder { kind: Network::ResNet8, latent: Some(16), ..Encoder::default() };
    config.fit.peak_rate = 5e-3;
    let run = fitted(&config, &splits, &folder.path().join("run"));
    let out = folder.path().join("residual");
    let settings = CardSettings { n: 100, attack: Pgd::sign(5, 1), checked: 20, ..CardSettings::default() };
    let card = export(&run.network, &config, &splits, &out, &settings).unwrap();
    assert!(card.accuracy.float_clean.percent() > 60.0, "{card:?}");
    assert!(card.accuracy.agreement.percent() > 96.0, "{card:?}");
    for back_end in [BackendKind::Int8, BackendKind::Tract] {
        let report = selftest::run(&out, back_end, &Options::default()).expect("a bundle");
        assert_eq!(report.exit_code(), 0, "{report}");
    }
}

fn run_fit(config: &Path, out: &Path, resume: bool) -> std::process::Command {
    let mut command = program("train");
    command.args(["fit", "--config"]).arg(config).arg("--out").arg(out);
    if resume {
        command.arg("--resume");
    }
    command.stdout(Stdio::null());
    command
}

fn write_config(folder: &Path, epochs: u32) -> std::path::PathBuf {
    let path = folder.join("tiny.toml");
    fs::write(&path, tiny(Kind::ParadisePm, epochs).to_toml().unwrap()).unwrap();
    path
}

#[test]
fn a_killed_run_resumes_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), 4);
    let (straight, killed) = (folder.path().join("straight"), folder.path().join("killed"));
    assert!(run_fit(&config, &straight, false).status().unwrap().success());

    let mut child = run_fit(&config, &killed, false).spawn().unwrap();
    until("a checkpoint", || killed.join("last.safetensors").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    let lines = |run: &Path| fs::read_to_string(run.join("metrics.jsonl")).unwrap().lines().count();
    assert!(lines(&killed) < 4, "the run was over before it was killed");

    assert!(run_fit(&config, &killed, true).status().unwrap().success());
    for file in ["last.safetensors", "best.safetensors", "config.toml"] {
        assert!(fs::read(straight.join(file)).unwrap() == fs::read(killed.join(file)).unwrap(), "{file} differs");
    }
    assert_eq!((lines(&straight), lines(&killed)), (4, 4));
}

#[test]
fn a_run_folder_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), 1);
    let run = folder.path().join("run");
    assert!(run_fit(&config, &run, false).status().unwrap().success());
    let again = run_fit(&config, &run, false).output().unwrap();
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again).1.contains("--resume"));
    let mut other = tiny(Kind::ParadisePm, 1);
    other.seed = 9;
    fs::write(&config, other.to_toml().unwrap()).unwrap();
    let refused = run_fit(&config, &run, true).output().unwrap();
    assert!(text(&refused).1.contains("another configuration"), "{}", text(&refused).1);
}

#[test]
fn every_shipped_configuration_is_valid_and_its_network_fits_its_images() {
    let configs = paradise_tests::root().join("train/configs");
    let mut seen = 0;
    let folders = [configs.clone(), configs.join("short"), configs.join("models")];
    for entry in folders.iter().flat_map(|f| fs::read_dir(f).unwrap()) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let config = Config::read(&path, &[]).unwrap();
        let side = match config.data.source {
            Source::Celeba | Source::ImageFolder if config.data.side > 0 => config.data.side,
            Source::FashionMnistSubset | Source::FashionMnist | Source::Mnist => 28,
            _ => 32,
        };
        let channels = if side == 28 { 1 } else { 3 };
        let architecture = config.architecture(Shape::new(side, side, channels), 10).unwrap();
        assert!(architecture.macs().unwrap() > 0, "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 20);
}

#[test]
fn evaluate_and_export_run_from_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), 1);
    let run = folder.path().join("run");
    assert!(run_fit(&config, &run, false).status().unwrap().success());
    let json = folder.path().join("figures.json");
    let output = program("train")
        .args(["evaluate", "--attacks", "fgsm,pgd:5x1,adam-pgd:5x1", "--eps", "4/255", "--n", "100", "--run"])
        .arg(&run)
        .arg("--json")
        .arg(&json)
        .output()
        .unwrap();
    let (out, error) = text(&output);
    assert!(output.status.success(), "{error}");
    for word in ["worst case per image", "eps 4.00/255", "flagged", "100 images", "PGD-5 x 1", "report.html"] {
        assert!(out.contains(word), "{word} in {out}");
    }
    let figures: serde_json::Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let worst = &figures["radii"][0]["worst"];
    assert_eq!((&figures["plan"]["images"]["n"], &worst["n"]), (&100.into(), &100.into()));
    assert_eq!(worst["wilson_95_percent"].as_array().map(Vec::len), Some(2));
    let out_folder = folder.path().join("model");
    let output =
        program("train").args(["export", "--n", "50", "--run"]).arg(&run).arg("--out").arg(&out_folder).output();
    assert!(output.unwrap().status.success());
    assert!(out_folder.join("manifest.json").exists());
}
