//! Ranks that share every mini-batch, here threads: their runs are those of one process, to the byte.

use paradise_nn::exchange::on_threads;
use paradise_tests::{metrics, splits, tiny};
use paradise_train::config::Config;
use paradise_train::config::encoder::{Encoder, Kind as Network};
use paradise_train::fit::{RunFolder, fit, fit_among};
use paradise_train::objective::Kind;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

fn config(kind: Kind) -> Config {
    let mut config = tiny(kind, 2);
    config.encoder = Encoder { kind: Network::ResNet8, latent: Some(8), ..Encoder::default() };
    config.data.validation = 40;
    config.fit.batch = 32;
    config.fit.clip = 2.0;
    config.objective.adversary.steps = 2;
    config
}

/// A run of so many ranks in one folder; the errors of those that had one.
fn among(
    ranks: usize,
    configs: &[Config],
    images: usize,
    folder: &Path,
    resume: bool,
    stop: &AtomicBool,
) -> Vec<String> {
    let splits = splits(images);
    let folder = RunFolder::new(folder);
    let errors = on_threads(ranks, |exchange| {
        let config = &configs[exchange.rank() % configs.len()];
        fit_among(&exchange, config, &splits, &folder, resume, stop).err()
    });
    errors.into_iter().flatten().map(|e| format!("{e:#}")).collect()
}

/// Checkpoints, and metrics but for the seconds.
fn files(folder: &Path) -> (Vec<Vec<u8>>, Vec<serde_json::Value>) {
    let checkpoints = ["last.safetensors", "best.safetensors"].map(|file| fs::read(folder.join(file)).unwrap());
    (checkpoints.into(), metrics(folder))
}

#[test]
fn any_number_of_ranks_writes_the_files_of_one_process() {
    for kind in [Kind::Standard, Kind::ParadisePm, Kind::ParadiseAm, Kind::Trades] {
        let (config, go) = (config(kind), AtomicBool::new(false));
        let home = tempfile::tempdir().unwrap();
        let one = home.path().join("one");
        fit(&config, &splits(240), &RunFolder::new(&one), false, &go).unwrap();
        for ranks in [2, 4] {
            let shared = home.path().join(ranks.to_string());
            assert_eq!(among(ranks, std::slice::from_ref(&config), 240, &shared, false, &go), [""; 0]);
            assert!(files(&shared) == files(&one), "{kind:?} on {ranks} ranks");
        }
    }
}

#[test]
fn ranks_stop_together_and_any_number_resumes() {
    let (config, go) = (config(Kind::ParadisePm), AtomicBool::new(false));
    let home = tempfile::tempdir().unwrap();
    let [one, shared] = ["one", "shared"].map(|name| home.path().join(name));
    fit(&config, &splits(240), &RunFolder::new(&one), false, &go).unwrap();
    let told = among(2, std::slice::from_ref(&config), 240, &shared, false, &AtomicBool::new(true));
    assert!(told.len() == 2 && told.iter().all(|e| e.contains("holds a checkpoint")), "{told:?}");
    assert_eq!(among(4, std::slice::from_ref(&config), 240, &shared, true, &go), [""; 0]);
    assert!(files(&shared) == files(&one));
}

#[test]
fn ranks_that_differ_are_refused_with_both() {
    let go = AtomicBool::new(false);
    let home = tempfile::tempdir().unwrap();
    let other = Config { seed: 77, ..config(Kind::Standard) };
    let told = among(2, &[config(Kind::Standard), other], 240, home.path(), false, &go);
    assert!(
        told.len() == 2 && told.iter().all(|e| e.contains("the configuration differs") && e.contains("seed = 77")),
        "{told:?}"
    );
    let mut small = config(Kind::Standard);
    small.fit.batch = 24;
    let told = among(4, &[small], 240, home.path(), false, &go);
    assert!(told.len() == 4 && told[0].contains("24 images has 3 tasks of 8, too few for 4 ranks"), "{told:?}");
}
