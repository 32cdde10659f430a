//! The self-test: passes on the shipped bundle, fails by name when something is wrong, and never calls unrun passed.

use paradise_runtime::BackendKind;
use paradise_runtime::selftest::{Options, Report, Status, run};
use paradise_tests::{bundles, copy_of_shipped, program, root, shipped, skipped, text};
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
    assert_eq!(
        (&report["format"], &report["verdict"], &report["exit_code"]),
        (&1.into(), &"passed".into(), &0.into())
    );
    let figures = |name: &str| {
        let checks = report["checks"].as_array().expect("checks");
        checks.iter().find(|check| check["name"] == name).map(|check| check["figures"].clone()).expect("the check")
    };
    let probes = figures("adversarial probes");
    assert!(
        probes["correct"].as_f64() >= probes["needed"].as_f64() && probes["eps_pixels"].as_f64() > Some(0.0),
        "{probes}"
    );
    assert!(figures("latency")["p99_ms"].as_f64() >= figures("latency")["p50_ms"].as_f64());
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

#[test]
fn reports_keep_to_their_schema() {
    if skipped("python", "reports_keep_to_their_schema") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken");
    std::fs::create_dir(&broken).unwrap();
    for entry in std::fs::read_dir(shipped()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), broken.join(entry.file_name())).unwrap();
    }
    std::fs::write(broken.join("model.pmq"), b"nothing").unwrap();
    let (whole, broken) = (shipped().to_string_lossy().into_owned(), broken.to_string_lossy().into_owned());
    let runs: [(&[&str], i32); 5] = [
        (&["--model", &whole], 0),
        (&["--model", &whole, "--backend", "tract"], 0),
        (&["--model", &whole, "--flip-weight-bit", "9"], 1),
        (&["--model", &whole, "--skip", "kernels", "--max-latency-ms", "1000"], 3),
        (&["--model", &broken], 1),
    ];
    for (arguments, code) in runs {
        let output = program("paradised").args(["selftest", "--json"]).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        let report = folder.path().join("report.json");
        std::fs::write(&report, &output.stdout).unwrap();
        let judged = std::process::Command::new(root().join(".venv-clients/bin/python"))
            .args(["-c", "import json, sys, jsonschema_rs; jsonschema_rs.validate(*[json.load(open(f)) for f in sys.argv[1:]])"])
            .args([&root().join("docs/selftest.schema.json"), &report])
            .output()
            .unwrap();
        assert!(judged.status.success(), "{arguments:?}: {}", text(&judged).1);
    }
}

#[test]
fn the_page_shows_every_probe_and_needs_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.html");
    let tested = |extra: &[&str]| {
        let arguments = ["selftest", "--html", &file.to_string_lossy(), "--model"].map(String::from);
        program("paradised").args(arguments).arg(shipped()).args(extra).output().unwrap().status.code()
    };
    assert_eq!(tested(&[]), Some(0));
    let page = std::fs::read_to_string(&file).unwrap();
    let golden = std::fs::read(shipped().join("selftest.bin")).unwrap();
    let golden = paradise_engine::golden::Golden::parse(&golden).unwrap();
    let probes: usize = golden.header().probes.iter().map(|set| usize::from(set.n)).sum();
    assert_eq!(page.matches("<img alt=\"a picture of the class ").count(), probes);
    assert!(page.contains("passed: all that applies") && page.contains("adversarial probes"));
    // Nothing is fetched and nothing runs.
    assert!(
        !page.contains("http:")
            && !page.contains("https:")
            && !page.contains("<script")
            && page.matches("src=\"data:").count() == probes
    );
    assert_eq!(tested(&["--flip-weight-bit", "77"]), Some(1));
    assert!(std::fs::read_to_string(&file).unwrap().contains(">FAILED<"));
    let nowhere = program("paradised")
        .args(["selftest", "--html", "/no/such/folder/x.html", "--model"])
        .arg(shipped())
        .output()
        .unwrap();
    assert!(nowhere.status.code() == Some(2) && text(&nowhere).1.contains("/no/such/folder/x.html"));
}
