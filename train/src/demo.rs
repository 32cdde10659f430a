//! `train demo`: the main job, the whole way on the embedded images.

use crate::config::Config;
use crate::encoder::LogitModel;
use paradise_attack::Ball;
use paradise_attack::gradient::Pgd;
use paradise_attack::{Outcome, Victim};
use paradise_data::{Dataset, Splits, embedded, foreign};
use paradise_evaluate::prediction::{self, int8};
use paradise_evaluate::robust;
use paradise_runtime::bundle::MODEL;

use crate::export::card::Card;
use crate::export::figures::masking_verdict;
use crate::export::{self, CardSettings};
use crate::fit::{self, Fitted, RunFolder};
use crate::interrupt;
use crate::objective::Kind;
use anyhow::{Context, Result};
use image::{ExtendedColorType, ImageEncoder};
use paradise_engine::Model;
use paradise_evaluate::figure::summary::{self, Curve, Sample};
use paradise_runtime::say;
use paradise_runtime::{BackendKind, Bundle, load, selftest};
use paradise_support::files;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// Radii of the curves, 1/255.
const CURVE_EPS: [f32; 7] = [0.0, 2.0, 4.0, 8.0, 12.0, 16.0, 25.5];
/// Images behind each point of the curves.
const CURVE_IMAGES: usize = 500;
/// Radius of the table, 1/255.
const TABLE_EPS: f32 = 8.0;
/// Name of the exported bundle.
const BUNDLE: &str = "fashion-mnist-small";

/// Runs the demo in `out`; 0, or 1 if a self-test fails.
///
/// # Errors
/// If a file cannot be written or a step fails.
pub fn run(out: &Path) -> Result<u8> {
    let began = Instant::now();
    files::create_folder(out)?;
    let splits = embedded::subset()?;
    say!(
        "paradise demo: {}, {} training, {} calibration, {} test images\n",
        splits.source,
        splits.train.len(),
        splits.calibration.len(),
        splits.test.len()
    );
    say!("1. Train (deterministic from seed 0; interrupt and run again to resume)");
    let stop = interrupt::flag()?;
    let standard = train(&splits, out, Kind::Standard, &stop)?;
    let robust = train(&splits, out, Kind::ParadisePm, &stop)?;

    say!("\n2. Quantise and export, {} test images", splits.test.len());
    let bundle_folder = out.join(BUNDLE);
    let config = Config::demo(Kind::ParadisePm);
    let card = export::export(&robust.network, &config, &splits, &bundle_folder, &CardSettings::default())?;
    say!("{card}");

    say!("\n3. Attack: {} test images, l_inf, per-image worst case, intervals Wilson 95 %", splits.test.len());
    table(&standard, &card, &splits)?;
    let head = splits.test.head(CURVE_IMAGES);
    let (standard_curve, standard_points) = curve("standard", &standard, &head)?;
    let (robust_curve, robust_points) = curve("paradise-pm", &robust, &head)?;

    say!("\n4. Self-test");
    let mut code = 0;
    for kind in [BackendKind::Int8, BackendKind::Tract] {
        let report = selftest::run(&bundle_folder, kind, &selftest::Options::default())?;
        say!("{report}\n");
        code = code.max(u8::from(report.exit_code() != 0));
    }

    say!("5. Classify three held-out images and one of noise");
    classify(&splits, out, &bundle_folder)?;

    let path = out.join("report.png");
    let samples = samples(&head, [(&standard, &standard_points), (&robust, &robust_points)])?;
    let distances = distances(&bundle_folder, &splits)?;
    let note = format!(
        "Curves: {} x 1, l_inf, {CURVE_IMAGES} test images, per-image worst case, bars Wilson 95 %; masking checks: {}",
        "PGD-20", card.accuracy.masking_checks
    );
    files::write(
        &path,
        &summary::draw(&[standard_curve, robust_curve], &samples, &distances, &splits.labels, &note)?,
    )?;
    say!("\n6. Report: {}", path.display());
    next(&bundle_folder, out, began.elapsed().as_secs_f64());
    Ok(code)
}

fn train(splits: &Splits, out: &Path, kind: Kind, stop: &AtomicBool) -> Result<Fitted> {
    let config = Config::demo(kind);
    let fitted = fit::fit(&config, splits, &RunFolder::new(&out.join(kind.name())), true, stop)?;
    say!(
        "  {:<12} {} epochs in {:.0} s, best epoch {} on {} validation images",
        kind.name(),
        config.fit.epochs,
        fitted.seconds,
        fitted.progress.best_epoch,
        config.data.validation
    );
    Ok(fitted)
}

fn table(standard: &Fitted, card: &Card, splits: &Splits) -> Result<()> {
    let settings = CardSettings::default();
    let served = LogitModel::new(&standard.network)?;
    let (report, _) =
        robust::measure(Victim::White(&served), &splits.test, &[&settings.attack], Ball::linf(settings.eps), 0)?;
    let robust_name = format!("{} at {TABLE_EPS:.0}/255", card.accuracy.attack);
    say!("  {:<14}{:<26}{robust_name}", "", "clean");
    for (name, clean, robust) in [
        ("standard", report.clean, report.worst),
        ("paradise-pm", card.accuracy.float_clean, card.accuracy.float_robust),
    ] {
        say!("  {name:<14}{:<26}{robust}", clean.to_string());
    }
    let checks = masking_verdict(&served, Ball::linf(settings.eps), &splits.test, settings.checked, 0)?;
    say!("  masking checks, standard:    {checks}\n  masking checks, paradise-pm: {}", card.accuracy.masking_checks);
    Ok(())
}

/// Robust accuracy at every radius, and the adversarial points of the table's radius.
fn curve(name: &str, fitted: &Fitted, set: &Dataset) -> Result<(Curve, Outcome)> {
    let served = LogitModel::new(&fitted.network)?;
    let mut points = Vec::new();
    let mut kept = None;
    for eps in CURVE_EPS {
        let ball = Ball::linf(eps / 255.0);
        let outcome = Outcome::of(&Pgd::sign(20, 1), Victim::White(&served), ball, set, 0)?;
        points.push((eps, outcome.robust_share()));
        if eps == TABLE_EPS {
            kept = Some(outcome);
        }
    }
    let kept = kept.context("the table's radius is on the curve")?;
    Ok((Curve { name: name.into(), points }, kept))
}

/// Test images with what each model was shown and said.
fn samples(set: &Dataset, models: [(&Fitted, &Outcome); 2]) -> Result<Vec<Sample>> {
    const COUNT: usize = 8;
    let first = set.head(COUNT);
    let mut samples: Vec<Sample> = (0..COUNT)
        .map(|i| Sample {
            clean: first.image(i).to_vec(),
            shape: set.shape,
            label: first.labels[i],
            shown: Vec::new(),
        })
        .collect();
    for (fitted, outcome) in models {
        let adversarial = outcome.on_grid(set).head(COUNT);
        let classes = prediction::classify(&fitted.network.frozen(), &adversarial)?.classes;
        for (i, sample) in samples.iter_mut().enumerate() {
            sample.shown.push((adversarial.image(i).to_vec(), classes[i]));
        }
    }
    Ok(samples)
}

/// How far the posteriors of test images and of each kind of foreign image are from the nearest class, by the int8 engine.
fn distances(bundle: &Path, splits: &Splits) -> Result<Vec<(String, Vec<f32>)>> {
    let bundle = Bundle::open(bundle)?;
    let model = Model::parse(bundle.file(MODEL)?)?;
    let of = |set: &Dataset| -> Result<Vec<f32>> {
        Ok(int8::predict(&model, set)?.into_iter().map(|p| p.distances.posterior.sqrt()).collect())
    };
    let mut all = vec![("test images".to_string(), of(&splits.test)?)];
    for (name, set) in foreign::made(&splits.test, 0)? {
        all.push((name.to_string(), of(&set)?));
    }
    Ok(all)
}

fn png(pixels: &[u8], set: &Dataset) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let (w, h) = (set.shape.w.into(), set.shape.h.into());
    image::codecs::png::PngEncoder::new(&mut bytes).write_image(pixels, w, h, ExtendedColorType::L8)?;
    Ok(bytes)
}

fn classify(splits: &Splits, out: &Path, bundle: &Path) -> Result<()> {
    let folder = out.join("samples");
    files::create_folder(&folder)?;
    let bundle = Bundle::open(bundle)?;
    let mut backend = load(&bundle, BackendKind::Int8)?;
    let noise = foreign::made(&splits.test.head(1), 0)?.swap_remove(0).1;
    let three = splits.test.head(3);
    let mut pictures: Vec<(String, Vec<u8>)> = (0..3)
        .map(|i| Ok((splits.labels[three.labels[i] as usize].replace(' ', "-"), png(three.image(i), &three)?)))
        .collect::<Result<_>>()?;
    pictures.push(("noise".into(), png(noise.image(0), &noise)?));
    for (name, bytes) in &pictures {
        let path = folder.join(format!("{name}.png"));
        files::write(&path, bytes)?;
        let v = backend.picture(&paradise_picture::read(&path)?, None)?;
        say!(
            "  {:<40} {:<12}{:5.1} %  {:<8}p of picture {:.3}, posterior {:.3}, class {:.3}, all {:.3}{}",
            path.display(),
            v.label,
            100.0 * v.score,
            v.decision.name(),
            v.p.picture,
            v.p.posterior,
            v.p.predictive,
            v.p.combined,
            v.decision.reason().map(|r| format!("  ({r})")).unwrap_or_default()
        );
    }
    Ok(())
}

fn next(bundle: &Path, out: &Path, seconds: f64) {
    let (bundle, out) = (bundle.display(), out.display());
    say!("\nDone in {seconds:.0} s. Next:");
    say!("  cargo run --release --bin paradised -- classify --model {bundle} {out}/samples/noise.png");
    say!("  cargo run --release --bin paradised -- serve --model {bundle} --listen 127.0.0.1:8080");
    say!("  curl --data-binary @{out}/samples/noise.png http://127.0.0.1:8080/v1/classify");
    say!(
        "  cargo run --release --bin train -- evaluate --run {out}/paradise-pm --surrogate {out}/standard --attacks autoattack --n 500"
    );
}
