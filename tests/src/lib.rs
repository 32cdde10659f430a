//! What the cross-crate tests share: the shipped bundle, the built programs, the Python referee, a small run.
#![deny(missing_docs)]

use paradise_engine::layer::Window;
use paradise_train::config::Config;
use paradise_train::dataset::{Splits, embedded};
use paradise_train::fit::{self, Fitted, RunFolder};
use paradise_train::objective::Kind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository")
}

/// The committed bundle.
pub fn shipped() -> PathBuf {
    root().join("models/fashion-mnist-small")
}

/// Whether the caller asked to leave out what needs `tool` (`PARADISE_SKIP=python,firmware`); then says so.
pub fn skipped(tool: &str, test: &str) -> bool {
    let skip = std::env::var("PARADISE_SKIP").is_ok_and(|list| list.split(',').any(|t| t.trim() == tool));
    if skip {
        println!("skipped: {test} needs {tool}, which PARADISE_SKIP leaves out");
    }
    skip
}

/// A program of this workspace, built in the same profile as the test.
///
/// # Panics
/// If it is not built: `make test` builds it first.
pub fn program(name: &str) -> Command {
    let test = std::env::current_exe().expect("a test has a path");
    let profile = test.parent().and_then(Path::parent).expect("target/<profile>/deps");
    let path = profile.join(name);
    assert!(path.exists(), "{} is missing: run `make build` first", path.display());
    Command::new(path)
}

/// Standard output and error of a finished process as text.
pub fn text(output: &Output) -> (String, String) {
    let lossy = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    (lossy(&output.stdout), lossy(&output.stderr))
}

/// Runs `tests/golden/referee.py` in the virtual environment that `make venv` makes.
///
/// # Panics
/// With the script's own words, if it fails or the environment is missing.
pub fn referee(arguments: &[&str]) -> String {
    let python = root().join(".venv/bin/python");
    assert!(python.exists(), "{} is missing: run `make venv`, or set PARADISE_SKIP=python", python.display());
    let script = root().join("tests/golden/referee.py");
    let output = Command::new(python).arg(script).args(arguments).output().expect("python starts");
    let (out, err) = text(&output);
    assert!(output.status.success(), "referee {arguments:?}:\n{out}\n{err}");
    out
}

/// A configuration that trains in a few seconds.
pub fn tiny(kind: Kind, epochs: u32) -> Config {
    let mut config = Config::demo(kind);
    config.encoder.channels = [6, 8];
    config.encoder.hidden = 24;
    config.encoder.latent = 8;
    config.objective.samples = 4;
    config.fit.epochs = epochs;
    config.fit.select = paradise_train::config::Select::Clean;
    config
}

/// The embedded images with at most `train` of the training ones.
///
/// # Panics
/// If the embedded data is damaged.
pub fn splits(train: usize) -> Splits {
    let mut splits = embedded::subset().expect("embedded data");
    splits.train = splits.train.head(train);
    splits
}

/// Trains `config` in `folder`.
///
/// # Panics
/// If training fails.
pub fn fitted(config: &Config, splits: &Splits, folder: &Path) -> Fitted {
    fit::fit(config, splits, &RunFolder::new(folder), false).expect("training")
}

/// A square window.
pub fn window(kernel: u16, stride: u16, pad: u16) -> Window {
    Window { kernel: [kernel; 2], stride: [stride; 2], pad: [pad; 4] }
}
