//! What the cross-crate tests share: the shipped bundle, the built programs, the Python referee, a small run.
#![deny(missing_docs)]

pub mod broker;
pub mod camera;
pub mod chip;
pub mod daemon;
mod patience;
pub mod random_network;

use paradise_data::{Splits, Training, embedded};
use paradise_engine::layer::Window;
use paradise_engine::{Model, Shape, Workspace, classify};
use paradise_runtime::Bundle;
use paradise_runtime::bundle::{self, MANIFEST};
use paradise_train::config::Config;
use paradise_train::export::int8_onnx;
use paradise_train::fit::{self, Fitted, RunFolder};
use paradise_train::objective::Kind;
pub use patience::{until, within};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
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

/// A copy of the committed bundle, to change.
pub fn copy_of_shipped() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let bundle = folder.path().join("bundle");
    std::fs::create_dir(&bundle).expect("a folder");
    for entry in std::fs::read_dir(shipped()).expect("the shipped bundle") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), bundle.join(entry.file_name())).expect("a copy");
    }
    (folder, bundle)
}

/// Every committed bundle, by name.
pub fn bundles() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(root().join("models"))
        .expect("models/")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    all.retain(|path| path.join("manifest.json").exists());
    all.sort();
    assert!(all.contains(&shipped()), "{all:?}");
    all
}

/// Those of which `firmware/build.sh` makes images: a model of at most a mebibyte, which a microcontroller's flash holds.
pub fn microcontroller_bundles() -> Vec<PathBuf> {
    let small = |bundle: &PathBuf| {
        let model = std::fs::metadata(bundle.join("model.pmq")).expect("a bundle has a model");
        model.len() <= 1 << 20
    };
    bundles().into_iter().filter(small).collect()
}

/// Whether a comma-separated list in the environment names `tool`.
fn listed(variable: &str, tool: &str) -> bool {
    std::env::var(variable).is_ok_and(|list| list.split(',').any(|t| t.trim() == tool))
}

/// Where Debian's faketime has the library that programs are given another clock by.
pub fn faketime() -> PathBuf {
    format!("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH).into()
}

/// What is missing of a tool that is installed beside Rust, and how it is had.
fn lacks(tool: &str) -> Option<&'static str> {
    let there = |path: &str| root().join(path).exists();
    let on_path = |program: &str| {
        std::env::var_os("PATH")
            .is_some_and(|all| std::env::split_paths(&all).any(|folder| folder.join(program).exists()))
    };
    match tool {
        "python" if !there(".venv/bin/python") || !there(".venv-clients/bin/python") => Some("make venv"),
        "firmware" if !there("firmware/target/images") || !on_path("qemu-system-arm") => Some("make firmware"),
        "systemd" if !on_path("systemd-analyze") => Some("apt install systemd"),
        "oci" if !there("target/oci/release/paradised") || !on_path("docker-registry") => Some("make oci"),
        "faketime" if !faketime().exists() => Some("apt install faketime"),
        "mosquitto" if !on_path("mosquitto") && !Path::new("/usr/sbin/mosquitto").exists() => {
            Some("apt install mosquitto")
        }
        "ffmpeg" if !on_path("ffmpeg") => Some("apt install ffmpeg"),
        "chromium" if !there("tests/page/node_modules") || !on_path("chromium") => Some("make page-tools"),
        "mpi"
            if !on_path("mpirun")
                || !text(&program("train").arg("--version").output().expect("train")).0.contains("MPI") =>
        {
            Some("make test")
        }
        // Its cluster is root's.
        "slurm" if !on_path("slurmctld") && !Path::new("/usr/sbin/slurmctld").exists() => {
            Some("apt install slurm-wlm munge")
        }
        "strace" if !on_path("strace") => Some("apt install strace"),
        "minisign" if !on_path("minisign") => Some("apt install minisign"),
        "aarch64"
            if !on_path("qemu-aarch64")
                || !there("target/aarch64/aarch64-unknown-linux-gnu/release/paradised")
                || deep() && !there("target/aarch64/aarch64-unknown-linux-gnu/device/paradised") =>
        {
            Some("make aarch64")
        }
        _ => None,
    }
}

/// Whether a test is left out, and then says so: the caller asked for it (`PARADISE_SKIP=python,firmware,aarch64,minisign,systemd,faketime,strace,mosquitto,ffmpeg,chromium,mpi`), or the tool
/// is not here and the caller did not insist on it (`PARADISE_REQUIRE`, as `make test` does).
pub fn skipped(tool: &str, test: &str) -> bool {
    if listed("PARADISE_SKIP", tool) {
        unrun(test, &format!("{tool}, which PARADISE_SKIP leaves out"));
        return true;
    }
    match lacks(tool) {
        Some(how) if !listed("PARADISE_REQUIRE", tool) => {
            unrun(test, &format!("{tool}: run `{how}`"));
            true
        }
        _ => false,
    }
}

/// Whether long lists are tried whole (`make test-all` sets `PARADISE_DEEP=1`) or by one case of each promise.
pub fn deep() -> bool {
    std::env::var_os("PARADISE_DEEP").is_some_and(|v| v != "0")
}

/// Every file of a bundle by its name.
///
/// # Panics
/// If it is none.
pub fn files(bundle: &Path) -> BTreeMap<String, Vec<u8>> {
    let bundle = Bundle::open(bundle).expect("a bundle");
    let bytes = |name: &str| bundle.file(name).expect("a file that it lists").to_vec();
    bundle.files().map(|(name, _)| (name.to_string(), bytes(name))).collect()
}

/// Says that a test was skipped for want of something.
pub fn unrun(test: &str, needs: &str) {
    // Straight to the terminal: a passing test's print! is captured, and unrun must not look like passed.
    let _ = writeln!(std::io::stderr(), "skipped: {test} needs {needs}");
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

/// Runs `train`, which must succeed.
///
/// # Panics
/// With the program's own words, if it fails.
pub fn train(arguments: &[&str]) {
    let output = program("train").args(arguments).output().expect("train starts");
    assert!(output.status.success(), "{arguments:?}: {}", text(&output).1);
}

/// Standard output and error of a finished process as text.
pub fn text(output: &Output) -> (String, String) {
    let lossy = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    (lossy(&output.stdout), lossy(&output.stderr))
}

/// Runs a script of `tests/golden/` in the virtual environment that `make venv` makes; what it prints.
///
/// # Panics
/// With the script's own words, if it fails or the environment is missing.
pub fn python(script: &str, arguments: &[&str]) -> String {
    let python = root().join(".venv/bin/python");
    assert!(python.exists(), "{} is missing: run `make venv`, or set PARADISE_SKIP=python", python.display());
    let path = root().join("tests/golden").join(script);
    let output = Command::new(python).arg(path).args(arguments).output().expect("python starts");
    let (out, err) = text(&output);
    assert!(output.status.success(), "{script} {arguments:?}:\n{out}\n{err}");
    out
}

/// Runs the referee.
///
/// # Panics
/// As [`python`].
pub fn referee(arguments: &[&str]) -> String {
    python("referee.py", arguments)
}

/// Makes a bundle's manifest agree with its files again.
///
/// # Panics
/// If a file cannot be read or written.
pub fn remake_manifest(bundle: &Path) {
    let names = std::fs::read_dir(bundle).expect("a bundle").map(|e| e.expect("an entry").file_name());
    let files: Vec<(String, Vec<u8>)> = names
        .map(|n| n.to_string_lossy().into_owned())
        .filter(|name| name != MANIFEST)
        .map(|name| (name.clone(), std::fs::read(bundle.join(name)).expect("readable")))
        .collect();
    let files: Vec<(&str, Vec<u8>)> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    bundle::write(bundle, "remade", &files).expect("writable");
}

/// A configuration that trains in a few seconds.
pub fn tiny(kind: Kind, epochs: u32) -> Config {
    let mut config = Config::demo(kind);
    config.encoder.channels = Some([6, 8]);
    config.encoder.hidden = Some(24);
    config.encoder.latent = Some(8);
    config.objective.samples = 4;
    config.objective.gamma = 1.0;
    config.fit.epochs = epochs;
    config.fit.batch = 32;
    config.fit.peak_rate = 4e-3;
    config.fit.select = paradise_train::config::Select::Clean;
    config
}

/// The embedded images with at most `train` of the training ones.
///
/// # Panics
/// If the embedded data is damaged.
pub fn splits(train: usize) -> Splits {
    let mut splits = embedded::subset().expect("embedded data");
    // Whoever asks for all of them gets them in the order in which a configuration reads them.
    if train < splits.train.len() {
        splits.train = Training::Memory(splits.train.head(train).expect("embedded data"));
    }
    splits
}

/// Trains `config` in `folder`.
///
/// # Panics
/// If training fails.
pub fn fitted(config: &Config, splits: &Splits, folder: &Path) -> Fitted {
    fit::fit(config, splits, &RunFolder::new(folder), false, &Default::default()).expect("training")
}

/// A square window.
pub fn window(kernel: u16, stride: u16, pad: u16) -> Window {
    Window { kernel: [kernel; 2], stride: [stride; 2], pad: [pad; 4] }
}

/// Little-endian bytes.
pub fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Writes what `referee.py int8` reads: the mirror and every tensor of the engine on these images.
///
/// # Panics
/// If the images do not fit or the folder is not writable.
pub fn write_case(model: &Model, images: &[Vec<u8>], folder: &Path) {
    let header = model.header();
    let (mut arena, mut floats) = (vec![0; header.arena_bytes as usize], vec![0.0; model.float_len()]);
    let mut tensors: Vec<Vec<u8>> = vec![Vec::new(); header.layers.len()];
    let (mut mu, mut s, mut logits) = (Vec::new(), Vec::new(), Vec::new());
    for image in images {
        let mut memory = Workspace { arena: &mut arena, floats: &mut floats };
        let mut keep = |layer: usize, out: &[i8]| tensors[layer].extend(out.iter().map(|&v| v as u8));
        let answer = classify(model, image, &mut memory, &mut keep).expect("runs");
        mu.extend_from_slice(answer.mu);
        logits.extend_from_slice(answer.logits);
        // The second vector of the float workspace is s, before its nonlinearity.
        let d = header.latent as usize;
        s.extend_from_slice(&floats[d..2 * d]);
    }
    let shape = |s: Shape| [s.h, s.w, s.c];
    let case = serde_json::json!({
        "n": images.len(), "input": shape(header.input),
        "activations": header.activations.iter().map(|a| shape(a.shape)).collect::<Vec<_>>(),
    });
    let put = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).expect("a writable folder");
    put("case.json", case.to_string().as_bytes());
    put("images.u8", &images.concat());
    put("model.onnx", &int8_onnx::encode(model).expect("a mirror"));
    for (i, tensor) in tensors.iter().enumerate() {
        put(&format!("a{}.i8", i + 1), tensor);
    }
    put("mu.f32", &f32_bytes(&mu));
    put("s.f32", &f32_bytes(&s));
    put("logits.f32", &f32_bytes(&logits));
}

/// The metrics of a run but for the seconds, a value a line.
///
/// # Panics
/// If they cannot be read.
pub fn metrics(run: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let line = |line: &str| {
        let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
        line.as_object_mut().unwrap().remove("seconds");
        line
    };
    text.lines().map(line).collect()
}
