//! The GPU's kernels, run on the CPU by a small emulation, against f64 from their definitions. Needs g++.

use std::fs;
use std::process::Command;

#[test]
fn the_gpus_kernels_equal_their_definitions() {
    if Command::new("g++").arg("--version").output().is_err() {
        paradise_tests::unrun("the_gpus_kernels_equal_their_definitions", "g++");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let source = fs::read_to_string(paradise_tests::root().join("train/nn/src/cuda/kernels.cu")).unwrap();
    // One block runs at a time, so that static memory is its threads' own; the dynamic one is the driver's.
    let source = source.replace("    extern __shared__ double logs[];\n", "").replace("__shared__", "static");
    assert!(!source.contains("__shared__"));
    let (kernels, program) = (folder.path().join("kernels.inc"), folder.path().join("emulate"));
    fs::write(&kernels, source).unwrap();
    let compiled = Command::new("g++")
        .args(["-std=c++20", "-O1", "-pthread", "-ffp-contract=off"])
        .arg(format!("-DKERNELS=\"{}\"", kernels.display()))
        .arg(paradise_tests::root().join("tests/cuda/emulate.cpp"))
        .arg("-o")
        .arg(&program)
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let run = Command::new(&program).output().unwrap();
    let report = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && report.lines().count() > 30, "{report}");
}
