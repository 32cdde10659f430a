//! The self-test: passes on the shipped bundle, fails by name when something is wrong, and never calls unrun passed.

use paradise_runtime::BackendKind;
use paradise_runtime::selftest::{Options, Report, Status, run};
use paradise_tests::{bundles, copy_of_shipped, program, shipped, text};
use std::path::Path;

fn status(report: &Report, name: &str) -> Status {
    report.checks.iter().find(|c| c.name == name).unwrap_or_else(|| panic!("no check {name}")).status
}

fn tested(bundle: &Path, kind: BackendKind, options: &Options) -> Report {
    run(bundle, kind, options).expect("a bundle")
}

#[test]
fn the_shipped_bundle_passes_on_both_back_ends() {
    for kind in [BackendKind::Int8, BackendKind::Tract] {
        let report = tested(&shipped(), kind, &Options::default());
        assert_eq!(report.exit_code(), 0, "{report}");
        let own = ["resident weights", "golden checksums", "arena guard", "fault injection"];
        assert_eq!(status(&report, "encoded pictures"), Status::Passed, "{kind}");
        for name in own {
            let expected = if kind == BackendKind::Int8 { Status::Passed } else { Status::NotApplicable };
            assert_eq!(status(&report, name), expected, "{name} on {kind}");
        }
    }
}

#[test]
fn every_committed_bundle_passes_on_both_back_ends() {
    let mut total = 0;
    for bundle in bundles() {
        // A bundle that was exported without its float network has one back end.
        let float = bundle.join("encoder.onnx").exists().then_some(BackendKind::Tract);
        for kind in [Some(BackendKind::Int8), float].into_iter().flatten() {
            let report = tested(&bundle, kind, &Options::default());
            assert_eq!(report.exit_code(), 0, "{}: {report}", bundle.display());
        }
        let size = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().metadata().unwrap().len();
        total += std::fs::read_dir(&bundle).unwrap().map(size).sum::<u64>();
    }
    assert!(total <= 20_000_000, "models/ holds {total} bytes");
}

#[test]
fn one_flipped_bit_of_the_resident_weights_fails_by_name() {
    for bit in [0, 1, 7, 1000, 123_457, 1_999_999] {
        let report =
            tested(&shipped(), BackendKind::Int8, &Options { flip_weight_bit: Some(bit), ..Options::default() });
        assert_eq!(status(&report, "resident weights"), Status::Failed, "bit {bit}\n{report}");
        assert_eq!(report.exit_code(), 1);
        assert!(report.to_string().contains("memory changed since loading"));
    }
}

#[test]
fn what_did_not_run_is_not_passed() {
    let skip = Options { skip: vec!["noisy probes".into()], ..Options::default() };
    let report = tested(&shipped(), BackendKind::Int8, &skip);
    assert_eq!((status(&report, "noisy probes"), report.exit_code()), (Status::NotRun, 3));

    // Nothing to test is bad input, not a failed device.
    let missing = run(Path::new("/no/such/bundle"), BackendKind::Int8, &Options::default());
    assert!(missing.unwrap_err().to_string().contains("/no/such/bundle: no such folder"));
    let (_kept, damaged) = copy_of_shipped();
    std::fs::write(damaged.join("model.pmq"), b"short").expect("writable");
    let report = tested(&damaged, BackendKind::Int8, &Options::default());
    assert_eq!((status(&report, "manifest"), report.exit_code()), (Status::Failed, 1));
    assert_eq!(status(&report, "golden checksums"), Status::NotRun);
}

#[test]
fn a_latency_limit_is_judged() {
    let limited =
        |ms| tested(&shipped(), BackendKind::Int8, &Options { max_latency_ms: Some(ms), ..Options::default() });
    assert_eq!(status(&limited(1e9), "latency"), Status::Passed);
    assert_eq!(status(&limited(0.0), "latency"), Status::Failed);
    let free = tested(&shipped(), BackendKind::Int8, &Options::default());
    assert_eq!(status(&free, "latency"), Status::NotApplicable);
}

#[test]
fn the_program_reports_json_and_exit_codes() {
    let go = |extra: &[&str]| {
        let output = program("paradised").args(["selftest", "--json", "--model"]).arg(shipped()).args(extra).output();
        let output = output.expect("paradised runs");
        let (out, _) = text(&output);
        (output.status.code(), serde_json::from_str::<serde_json::Value>(&out).unwrap_or_default())
    };
    let (code, report) = go(&[]);
    assert_eq!((code, &report["name"]), (Some(0), &"fashion-mnist-small".into()));
    assert_eq!(go(&["--flip-weight-bit", "77"]).0, Some(1));
    assert_eq!(go(&["--skip", "latency"]).0, Some(3));
    assert_eq!(go(&["--skip", "no such check"]).0, Some(2));
    assert_eq!(go(&["--skip", "manifest"]).0, Some(2));
    assert_eq!(go(&["--flip-weight-bit", "99999999999"]).0, Some(2));
    for limit in ["0", "-1", "nan", "inf"] {
        assert_eq!(go(&[&format!("--max-latency-ms={limit}")]).0, Some(2), "{limit}");
    }
    assert_eq!(go(&["--backend", "tract"]).0, Some(0));
    assert_eq!(go(&["--backend", "gpu"]).0, Some(2));
    assert_eq!(go(&["--backend", "tract", "--flip-weight-bit", "1"]).0, Some(2));
}
