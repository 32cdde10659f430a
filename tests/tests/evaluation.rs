//! Evaluations: masked gradients are flagged and healthy ones are not; interrupted, sharded and merged work ends in the
//! same report; what cannot be meant is refused by name.

use candle_core::Device;
use paradise_attack::Ball;
use paradise_attack::evasion::evade;
use paradise_attack::int8::{Int8, StraightThrough};
use paradise_attack::suite::{self, Surrogate};
use paradise_attack::{Classifier, Differentiable, Function, Result};
use paradise_attack::{Outcome, Victim, pixels, samples};
use paradise_data::{Dataset, Splits};
use paradise_engine::{Model, Shape};
use paradise_evaluate::masking::{self, Checks, Verdict};
use paradise_evaluate::plan::{Identity, Plan, Request};
use paradise_evaluate::work::{Work, inspect};
use paradise_support::team::Shard;
use paradise_tests::{fitted, program, splits, text, tiny, until};
use paradise_train::confidence;
use paradise_train::encoder::Network;
use paradise_train::encoder::{LogitModel, abstaining};
use paradise_train::export::{self, CardSettings};
use paradise_train::objective::Kind;
use paradise_train::prediction;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock};

struct Trained {
    _folder: tempfile::TempDir,
    network: Network,
    served: LogitModel,
    splits: Splits,
}

fn train(kind: Kind, epochs: u32) -> Trained {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let splits = splits(6000);
    let mut config = tiny(kind, epochs);
    config.data.shift = 0;
    config.objective.adversary.eps_pixels = 12.0;
    let network = fitted(&config, &splits, &folder.path().join("run")).network;
    let served = LogitModel::new(&network).expect("a served network");
    Trained { _folder: folder, network, served, splits }
}

/// An undefended model.
static STANDARD: LazyLock<Trained> = LazyLock::new(|| train(Kind::Standard, 3));
/// An adversarially trained one.
static HARDENED: LazyLock<Trained> = LazyLock::new(|| train(Kind::PgdAt, 4));

fn surrogate() -> Surrogate {
    Arc::new(STANDARD.served.clone())
}

const EPS: f32 = 8.0 / 255.0;

fn checks(model: &dyn Differentiable, set: &Dataset) -> Checks {
    masking::checks(Victim::White(model), Some(&surrogate()), Ball::linf(EPS), set, 3).expect("checks")
}

fn verdict(checks: &Checks, name: &str) -> Verdict {
    checks.checks.iter().find(|c| c.name == name).unwrap_or_else(|| panic!("no check {name:?}")).verdict
}

/// A model behind a softmax temperature so low that f32 has no gradient left.
struct Saturated<'a>(&'a LogitModel, f32);

impl Classifier for Saturated<'_> {
    fn shape(&self) -> Shape {
        self.0.shape()
    }

    fn classes(&self) -> usize {
        self.0.classes()
    }

    fn logits(&self, images: &[f32]) -> Result<Vec<f32>> {
        Ok(self.0.logits(images)?.iter().map(|z| z * self.1).collect())
    }
}

impl Differentiable for Saturated<'_> {
    fn pull(
        &self,
        images: &[f32],
        weigh: &mut dyn FnMut(&[f32]) -> Result<Vec<f32>>,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let mut scaled = Vec::new();
        let (_, gradient) = self.0.pull(images, &mut |logits| {
            scaled = logits.iter().map(|z| z * self.1).collect();
            Ok(weigh(&scaled)?.iter().map(|w| w * self.1).collect())
        })?;
        Ok((scaled, gradient))
    }
}

/// A model behind a quantiser of its input, whose derivative is zero nearly everywhere.
struct Quantised<'a>(&'a LogitModel);

impl Quantised<'_> {
    fn rounded(images: &[f32]) -> Vec<f32> {
        images.iter().map(|v| (v * 16.0).round() / 16.0).collect()
    }
}

impl Classifier for Quantised<'_> {
    fn shape(&self) -> Shape {
        self.0.shape()
    }

    fn classes(&self) -> usize {
        self.0.classes()
    }

    fn logits(&self, images: &[f32]) -> Result<Vec<f32>> {
        self.0.logits(&Self::rounded(images))
    }
}

impl Differentiable for Quantised<'_> {
    fn pull(
        &self,
        images: &[f32],
        weigh: &mut dyn FnMut(&[f32]) -> Result<Vec<f32>>,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let logits = self.logits(images)?;
        weigh(&logits)?;
        Ok((logits, vec![0.0; images.len()]))
    }
}

#[test]
fn masked_gradients_are_flagged() {
    let set = STANDARD.splits.test.head(120);
    let saturated = checks(&Saturated(&STANDARD.served, 3e4), &set);
    assert_eq!(verdict(&saturated, "zero gradients"), Verdict::Flagged, "{saturated:#?}");
    assert_eq!(verdict(&saturated, "losses agree"), Verdict::Flagged, "{saturated:#?}");
    let quantised = checks(&Quantised(&STANDARD.served), &set);
    for name in ["zero gradients", "gradients on the way", "half the box", "unbounded", "gradient-free", "transfer"] {
        assert_eq!(verdict(&quantised, name), Verdict::Flagged, "{name}: {quantised:#?}");
    }
    assert!(quantised.verdict().contains("flagged (") && quantised.flagged());
}

#[test]
fn healthy_models_are_not_flagged() {
    for (name, model) in [("standard", &*STANDARD), ("pgd-at", &*HARDENED)] {
        let checks = checks(&model.served, &model.splits.test.head(200));
        assert!(!checks.flagged(), "{name}: {checks:#?}");
        assert!(checks.checks.iter().all(|c| c.verdict == Verdict::Passed), "{name}: {checks:#?}");
    }
}

#[test]
fn softmax_and_randomness_are_warned_of() {
    let set = STANDARD.splits.test.head(30);
    let softmax = |x: &[f32]| {
        let logits = STANDARD.served.logits(x)?;
        let one = |z: &[f32]| {
            let sum: f32 = z.iter().map(|v| v.exp()).sum();
            z.iter().map(|v| v.exp() / sum).collect::<Vec<f32>>()
        };
        Ok(logits.chunks_exact(10).flat_map(one).collect())
    };
    let model = Function { shape: set.shape, classes: 10, logits: softmax };
    let warned = masking::checks(Victim::Black(&model), None, Ball::linf(EPS), &set, 0).unwrap();
    assert_eq!(verdict(&warned, "softmax in the model"), Verdict::Flagged);
    assert_eq!(verdict(&warned, "gradients"), Verdict::NotRun);
    assert_eq!(verdict(&warned, "transfer"), Verdict::NotRun);
    let calls = std::sync::atomic::AtomicU32::new(0);
    let restless = |x: &[f32]| {
        let shift = calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) as f32;
        let mut logits = STANDARD.served.logits(x)?;
        logits.iter_mut().step_by(2).for_each(|z| *z += 1e-3 * shift);
        Ok(logits)
    };
    let model = Function { shape: set.shape, classes: 10, logits: restless };
    let warned = masking::checks(Victim::Black(&model), None, Ball::linf(EPS), &set, 0).unwrap();
    assert_eq!(verdict(&warned, "randomised model"), Verdict::Flagged);
}

fn plan(set: &Dataset, attacks: &str) -> Plan {
    let model = Identity { name: "float".into(), sha256: STANDARD.served.digest() };
    let request = Request {
        norm: paradise_attack::threat::Norm::Linf,
        eps: vec![EPS, 0.02],
        attacks: attacks.into(),
        seed: 5,
        batch: 16,
    };
    Plan::new(model, None, "test", set, request).expect("a plan")
}

#[test]
fn units_resume_and_cascades_see_survivors() {
    let set = STANDARD.splits.test.head(40);
    let list = "pgd:5x1,autoattack-rand";
    let plan = plan(&set, list);
    let entries = suite::parse(list, 10, None).unwrap();
    let victim = Victim::White(&STANDARD.served);
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let whole = Work::open(one.path(), &plan, &entries).unwrap();
    let go = AtomicBool::new(false);
    assert!(whole.run(victim, &set, Shard::WHOLE, &go).unwrap());
    // In two shards and another order, with an interruption before anything is done.
    let parts = Work::open(two.path(), &plan, &entries).unwrap();
    assert!(!parts.run(victim, &set, Shard::WHOLE, &AtomicBool::new(true)).unwrap());
    assert_eq!(parts.missing(), 3 * 3 * 2);
    assert!(parts.run(victim, &set, Shard::parse("2/2").unwrap(), &go).unwrap());
    assert_eq!(parts.missing(), 2 * 3 * 2);
    assert!(parts.run(victim, &set, Shard::WHOLE, &go).unwrap());
    for eps in 0..2 {
        for batch in 0..3 {
            let units: Vec<_> = (0..3).map(|a| whole.unit(eps, a, batch).unwrap()).collect();
            for (a, unit) in units.iter().enumerate() {
                assert_eq!(*unit, parts.unit(eps, a, batch).unwrap());
            }
            let held = |a: usize| units[a].iter().filter(|(_, f)| *f == paradise_evaluate::work::Fate::Held).count();
            assert_eq!(units[0].len(), plan.range(batch).len());
            assert_eq!(units[1].len(), plan.range(batch).len());
            assert_eq!(units[2].len(), held(1), "the second of a cascade sees what the first left");
        }
    }
    let damaged = two.path().join("work/eps-0-attack-1-batch-00001.safetensors");
    std::fs::write(&damaged, b"short").unwrap();
    let error = format!("{:#}", parts.run(victim, &set, Shard::WHOLE, &go).unwrap_err());
    assert!(error.contains("batch-00001") && error.contains("damaged"), "{error}");
}

#[test]
fn models_that_cannot_be_evaluated_are_named() {
    let set = STANDARD.splits.test.head(20);
    let (shape, classes) = (set.shape, 10);
    let flat = Function { shape, classes, logits: |x: &[f32]| Ok(vec![0.5; x.len() / 784 * 10]) };
    assert!(inspect(&flat, &set).unwrap_err().to_string().contains("same logits"));
    let nan = Function { shape, classes, logits: |x: &[f32]| Ok(vec![f32::NAN; x.len() / 784 * 10]) };
    assert!(inspect(&nan, &set).unwrap_err().to_string().contains("not finite"));
    let small = Function { shape: Shape::new(8, 8, 1), classes, logits: |_: &[f32]| Ok(vec![]) };
    assert!(inspect(&small, &set).unwrap_err().to_string().contains("the model takes"));
    inspect(&STANDARD.served, &set).unwrap();
}

#[test]
fn the_int8_engine_is_attacked_itself() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("tiny");
    let settings = CardSettings { n: 50, checked: 20, ..CardSettings::default() };
    export::export(&STANDARD.network, &tiny(Kind::Standard, 3), &STANDARD.splits, &out, &settings).unwrap();
    let bytes = std::fs::read(out.join("model.pmq")).unwrap();
    let model = Model::parse(&bytes).unwrap();
    let engine = Int8::new(&model);
    let through = StraightThrough { answers: &engine, gradients: &STANDARD.served };
    let set = STANDARD.splits.test.head(60);
    let clean =
        Outcome::of(&*suite::single("noise:1", 10, None).unwrap(), Victim::Black(&engine), Ball::linf(0.0), &set, 0);
    let clean = clean.unwrap().robust_share();
    let logits = engine.logits(&pixels(&set)).unwrap();
    assert_eq!(logits, through.logits(&pixels(&set)).unwrap());
    for (name, victim) in [
        ("square:300", Victim::Black(&engine)),
        ("hop-skip-jump:500", Victim::Black(&engine)),
        ("apgd-ce:20x1", Victim::White(&through)),
    ] {
        let ball = Ball::linf(EPS);
        let outcome = Outcome::of(&*suite::single(name, 10, None).unwrap(), victim, ball, &set, 1).unwrap();
        assert!(outcome.robust_share().correct < clean.correct, "{name}");
        // What broke the engine breaks it as a picture too: it rounds to the grid itself.
        let grid = engine.logits(&pixels(&outcome.on_grid(&set))).unwrap();
        for (i, z) in grid.chunks_exact(10).enumerate() {
            let wrong = paradise_attack::loss::descending(z)[0] != usize::from(set.labels[i]);
            assert_eq!(wrong, outcome.broken[i], "{name} image {i}");
        }
    }
}

#[test]
fn the_adaptive_attack_gets_more_wrong_answers_accepted() {
    let folded = STANDARD.network.folded().unwrap();
    let bytes = confidence::fit_float(&folded, &STANDARD.splits, 0.2).unwrap();
    let model = Model::parse(&bytes).unwrap();
    let abstaining = abstaining(&STANDARD.network, &model, &Device::Cpu).unwrap();
    let set = STANDARD.splits.test.head(60);
    let x = pixels(&set);
    let all = samples(&set, &x);
    let fooled = |set: &Dataset| -> Vec<bool> {
        let records = prediction::predict(&folded.frozen(), &model, set).unwrap();
        records.iter().zip(&set.labels).map(|(r, l)| r.accept && r.class != *l).collect()
    };
    let count = |flags: &[bool]| flags.iter().filter(|f| **f).count();
    let clean = fooled(&set);
    let none = evade(&abstaining, Ball::linf(0.0), &all, 20, 1).unwrap();
    assert_eq!(none.iter().filter(|a| a.broken).count(), count(&clean));
    let ball = Ball::linf(16.0 / 255.0);
    let attempts = evade(&abstaining, ball, &all, 40, 1).unwrap();
    for (attempt, sample) in attempts.iter().zip(&all) {
        assert!(ball.holds(&attempt.point, sample.clean));
    }
    assert_eq!(attempts[7..30], evade(&abstaining, ball, &all[7..30], 40, 1).unwrap());
    let adaptive = count(&fooled(&Outcome::from_attempts(ball, attempts).on_grid(&set)));
    let pgd = suite::single("apgd-ce:40x1", 10, None).unwrap();
    let plain = Outcome::of(&*pgd, Victim::White(&STANDARD.served), ball, &set, 1).unwrap();
    let plain = count(&fooled(&plain.on_grid(&set)));
    assert!(
        adaptive > plain && adaptive > count(&clean),
        "adaptive {adaptive}, plain {plain}, clean {}",
        count(&clean)
    );
}

/// A run on disk, for the program.
fn run_folder() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = folder.path().join("run");
    let output = program("train")
        .args(["fit", "--config"])
        .arg(paradise_tests::root().join("train/configs/fashion-mnist-standard.toml"))
        .args([
            "--set",
            "data.source=fashion-mnist-subset",
            "--set",
            "encoder.channels=[6,8]",
            "--set",
            "encoder.hidden=24",
        ])
        .args(["--set", "encoder.latent=8", "--set", "fit.epochs=1", "--out"])
        .arg(&run)
        .output()
        .expect("train starts");
    assert!(output.status.success(), "{:?}", text(&output));
    (folder, run)
}

fn evaluate(run: &Path, extra: &[&str]) -> std::process::Command {
    let mut command = program("train");
    command.args([
        "evaluate",
        "--attacks",
        "pgd:10x1,square:100",
        "--n",
        "120",
        "--batch",
        "20",
        "--eps",
        "8/255,4/255",
    ]);
    command.arg("--run").arg(run).args(extra).stdin(Stdio::null());
    command
}

#[test]
fn killed_and_sharded_evaluations_end_in_the_same_report() {
    let (folder, run) = run_folder();
    let at = |name: &str| folder.path().join(name);
    let path = |name: &str| at(name).display().to_string();
    let done = |output: std::process::Output| assert!(output.status.success(), "{:?}", text(&output));
    done(evaluate(&run, &["--out", &path("whole")]).output().unwrap());
    for name in ["report.json", "report.md", "report.html"] {
        assert!(at("whole").join(name).exists(), "{name}");
    }
    let report = std::fs::read(at("whole/report.json")).unwrap();

    let mut child =
        evaluate(&run, &["--out", &path("killed")]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let units = || std::fs::read_dir(at("killed/work")).map_or(0, Iterator::count);
    until("some units", || units() >= 3);
    child.kill().unwrap();
    child.wait().unwrap();
    done(evaluate(&run, &["--out", &path("killed")]).output().unwrap());
    assert_eq!(std::fs::read(at("killed/report.json")).unwrap(), report);

    for shard in ["1/3", "2/3", "3/3"] {
        let out = path(&format!("shard-{}", &shard[..1]));
        let output = evaluate(&run, &["--out", &out, "--shard", shard]).output().unwrap();
        assert!(output.status.success() && text(&output).0.contains("missing"), "{:?}", text(&output));
    }
    let merge = |shards: &[&str]| {
        let mut command = program("train");
        command.arg("merge").args(shards.iter().map(|s| at(s))).arg("--run").arg(&run).arg("--out").arg(at("merged"));
        command.output().unwrap()
    };
    let output = merge(&["shard-1", "shard-2"]);
    assert!(text(&output).0.contains("missing"), "{:?}", text(&output));
    done(merge(&["shard-1", "shard-2", "shard-3"]));
    assert_eq!(std::fs::read(at("merged/report.json")).unwrap(), report);

    let page = std::fs::read_to_string(at("whole/report.html")).unwrap();
    assert!(page.contains("data:image/png;base64,") && page.contains("Masking checks"));
    assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("<script"), "self-contained");
    let other = evaluate(&run, &["--out", &path("whole"), "--seed", "9"]).output().unwrap();
    assert!(other.status.code() == Some(2) && text(&other).1.contains("its seed is"), "{:?}", text(&other));

    // One weak attack and the points of the whole evaluation: what was broken there is broken again.
    let weak = ["evaluate", "--attacks", "noise:1", "--eps", "8/255", "--no-checks", "--no-confidence"];
    let with_points = |out: &str, points: &str, more: &[&str]| {
        let mut command = program("train");
        command.args(weak).arg("--run").arg(&run).args(["--out", &path(out), "--points", &path(points)]).args(more);
        command.output().unwrap()
    };
    done(with_points("known", "whole", &["--n", "120"]));
    let held = |name: &str| {
        let report: serde_json::Value = serde_json::from_slice(&std::fs::read(at(name)).unwrap()).unwrap();
        report["radii"][0]["held"].as_str().unwrap().as_bytes().to_vec()
    };
    let (whole, known) = (held("whole/report.json"), held("known/report.json"));
    assert!(whole.contains(&b'0') && whole.iter().zip(&known).all(|(w, k)| *w == b'1' || *k == b'0'));
    let report = std::fs::read_to_string(at("known/report.md")).unwrap();
    assert!(report.contains("noise:1, points found on float standard"), "{report}");
    for (points, more, word) in [
        ("whole", vec!["--n", "60"], "other images"),
        ("nowhere", vec!["--n", "120"], "cannot read"),
        ("empty", vec!["--n", "120"], "no image has been broken"),
    ] {
        std::fs::create_dir_all(at("empty/work")).unwrap();
        std::fs::copy(at("whole/evaluation.json"), at("empty/evaluation.json")).unwrap();
        let output = with_points("bad", points, &more);
        assert!(output.status.code() == Some(2) && text(&output).1.contains(word), "{points}: {:?}", text(&output));
    }

    for (extra, word) in [
        (vec!["--n", "3000"], "the test set has 2000"),
        (vec!["--eps", "-0.1"], "0..=1"),
        (vec!["--eps", "1.5"], "0..=1"),
        (vec!["--eps", "0.1,0.1"], "twice"),
        (vec!["--attacks", "magic"], "magic"),
        (vec!["--attacks", "transfer-fgsm"], "--surrogate"),
        (vec!["--shard", "3/2"], "1..=2"),
        (vec!["--bundle", "no/such"], "no/such"),
        (vec!["--surrogate", "no/such"], "no/such"),
        (vec!["--foreign", "x"], "NAME=DIR"),
    ] {
        // Later values of an option replace earlier ones only where clap is told so: build the command afresh.
        let mut command = program("train");
        command.arg("evaluate").arg("--run").arg(&run).args(&extra).args(["--out", &path("bad")]);
        let output = command.output().unwrap();
        let (out, err) = text(&output);
        assert_eq!(output.status.code(), Some(2), "{extra:?}: {out} {err}");
        assert!(err.contains(word), "{extra:?}: {err}");
    }
}
