//! Attacks: ball and box first, then success on an undefended model, then failure at eps = 0.

use paradise_tests::{fitted, splits, tiny};
use paradise_train::attack::apgd::Apgd;
use paradise_train::attack::gradient::Pgd;
use paradise_train::attack::loss::{Loss, descending};
use paradise_train::attack::model::Classifier;
use paradise_train::attack::threat::{Ball, Norm};
use paradise_train::attack::{Outcome, Sample};
use paradise_train::dataset::Dataset;
use paradise_train::encoder::Network;
use paradise_train::evaluate;
use paradise_train::objective::Kind;
use paradise_train::random::{self, Purpose};
use std::sync::LazyLock;

struct Victim {
    network: Network,
    set: Dataset,
}

/// An undefended model trained for a few seconds, and 300 test images.
static VICTIM: LazyLock<Victim> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let splits = splits(6000);
    let run = fitted(&tiny(Kind::Standard, 3), &splits, &folder.path().join("run"));
    Victim { network: run.network, set: splits.test.head(300) }
});

fn all() -> [Pgd; 4] {
    [Pgd::fgsm(), Pgd::sign(20, 2), Pgd::adam(20, 2), Pgd::sign(20, 1).strongest()]
}

fn run(attack: Pgd, set: &Dataset, eps: f32) -> Outcome {
    attack.run(&VICTIM.network.frozen(), set, eps, 5).expect("an attack")
}

#[test]
fn points_stay_in_ball_and_box_and_on_the_grid() {
    for attack in all() {
        for eps in [1.0 / 255.0, 8.0 / 255.0, 0.1] {
            let outcome = run(attack, &VICTIM.set, eps);
            for (x, &pixel) in outcome.points.iter().zip(&VICTIM.set.images) {
                let clean = f64::from(pixel) / 255.0;
                assert!((0.0..=1.0).contains(x), "{} left the box: {x}", attack.describe());
                assert!(
                    (f64::from(*x) - clean).abs() <= f64::from(eps) + 1e-7,
                    "{} left the ball",
                    attack.describe()
                );
            }
            let reach = (eps * 255.0 + 1e-3).floor() as u8;
            let grid = outcome.on_grid(&VICTIM.set);
            assert!(grid.images.iter().zip(&VICTIM.set.images).all(|(a, b)| a.abs_diff(*b) <= reach));
        }
    }
}

#[test]
fn broken_points_are_misclassified() {
    for attack in all() {
        let outcome = run(attack, &VICTIM.set, 8.0 / 255.0);
        let x = paradise_train::dataset::tensor(outcome.points.clone(), VICTIM.set.len(), VICTIM.set.shape).unwrap();
        let logits = VICTIM.network.frozen().logits(&x).unwrap().to_vec2::<f32>().unwrap();
        for (i, row) in logits.iter().enumerate() {
            let wrong = paradise_engine::classifier::argmax(row) != VICTIM.set.labels[i] as usize;
            assert_eq!(wrong, outcome.broken[i], "{} image {i}", attack.describe());
        }
    }
}

#[test]
fn an_undefended_model_falls_and_eps_zero_changes_nothing() {
    let clean = evaluate::clean(&VICTIM.network.frozen(), &VICTIM.set).unwrap().correct_share();
    assert!(clean.percent() > 70.0, "the victim learned nothing: {clean}");
    for attack in all() {
        assert_eq!(run(attack, &VICTIM.set, 0.0).robust_share(), clean, "{}", attack.describe());
    }
    for attack in [Pgd::sign(40, 1), Pgd::adam(40, 1)] {
        let robust = run(attack, &VICTIM.set, 0.3).robust_share();
        assert!(robust.percent() <= 1.0, "{}: {robust}", attack.describe());
    }
}

#[test]
fn iterations_beat_one_step_and_one_step_beats_noise() {
    let eps = 8.0 / 255.0;
    let noise = {
        let mut noisy = VICTIM.set.clone();
        let mut rng = random::stream(1, Purpose::Noise, 0, 0, 0);
        noisy.images.iter_mut().for_each(|p| {
            let step = random::below(&mut rng, 17) as i32 - 8;
            *p = (i32::from(*p) + step).clamp(0, 255) as u8;
        });
        evaluate::clean(&VICTIM.network.frozen(), &noisy).unwrap().correct_share()
    };
    let fgsm = run(Pgd::fgsm(), &VICTIM.set, eps).robust_share();
    for attack in [Pgd::sign(20, 2), Pgd::adam(20, 2)] {
        let iterated = run(attack, &VICTIM.set, eps).robust_share();
        assert!(iterated.correct <= fgsm.correct + 1, "{}: {iterated}, FGSM {fgsm}", attack.describe());
    }
    assert!(fgsm.correct < noise.correct, "FGSM {fgsm}, noise {noise}");
}

#[test]
fn outcomes_do_not_depend_on_the_batch() {
    for attack in all() {
        // 300 images make one full and one part batch; image i alone keeps its start only if starts are keyed by
        // position, so compare prefixes.
        let whole = run(attack, &VICTIM.set, 8.0 / 255.0);
        let prefix: Vec<usize> = (0..37).collect();
        let part = run(attack, &VICTIM.set.select(&prefix), 8.0 / 255.0);
        assert_eq!(part.broken, whole.broken[..37], "{}", attack.describe());
        let again = run(attack, &VICTIM.set, 8.0 / 255.0);
        assert_eq!(again.points, whole.points, "{}", attack.describe());
    }
}

#[test]
fn bad_radii_are_refused() {
    for eps in [-0.1, 1.5, f32::NAN, f32::INFINITY] {
        let error = Pgd::fgsm().run(&VICTIM.network.frozen(), &VICTIM.set, eps, 0).unwrap_err();
        assert!(error.to_string().contains("eps"), "{error}");
    }
    for list in ["", "magic", "pgd:0x1", "pgd:40", "pgd:ax2"] {
        assert!(evaluate::parse_attacks(list).is_err(), "{list}");
    }
}

#[test]
fn the_worst_case_is_per_image() {
    let eps = 6.0 / 255.0;
    let (report, worst) = evaluate::robust(&VICTIM.network.frozen(), &VICTIM.set, &all(), eps, 5).expect("a report");
    for (name, share) in &report.attacks {
        assert!(report.worst.correct <= share.correct && share.correct <= report.clean.correct, "{name}");
    }
    let union: Vec<bool> =
        (0..VICTIM.set.len()).map(|i| all().iter().any(|a| run(*a, &VICTIM.set, eps).broken[i])).take(3).collect();
    assert_eq!(union, worst.broken[..3]);
    assert_eq!(report.masking_checks, "not run");
}

#[test]
fn auto_pgd_is_at_least_as_strong_as_pgd_and_holds_its_ball() {
    let encoder = VICTIM.network.frozen();
    let clean: Vec<f32> = VICTIM.set.images.iter().map(|p| f32::from(*p) / 255.0).collect();
    let each = VICTIM.set.shape.len() as usize;
    let samples: Vec<Sample> = clean
        .chunks_exact(each)
        .zip(&VICTIM.set.labels)
        .enumerate()
        .map(|(i, (clean, label))| Sample { clean, label: usize::from(*label), key: i as u64 })
        .collect();
    let eps = 8.0 / 255.0;
    let pgd = 100.0 - run(Pgd::sign(40, 2), &VICTIM.set, eps).robust_share().percent();
    for (loss, targets) in [(Loss::CrossEntropy, 0), (Loss::Dlr, 0), (Loss::Dlr, 4)] {
        for (norm, eps) in [(Norm::Linf, eps), (Norm::L2, 0.5)] {
            let ball = Ball { norm, eps };
            let attack = Apgd { loss, iterations: 40, restarts: 1, targets };
            let found = attack.run(&encoder, ball, &samples, 5).unwrap();
            for (x, sample) in found.iter().zip(&samples) {
                let Some(x) = x else { continue };
                assert!(x.iter().all(|v| (0.0..=1.0).contains(v)));
                assert!(ball.distance(x, sample.clean) <= f64::from(eps) * (1.0 + 1e-6) + 6e-8);
                assert_ne!(descending(&Classifier::logits(&encoder, x).unwrap())[0], sample.label);
            }
            let broken = 100.0 * found.iter().flatten().count() as f64 / samples.len() as f64;
            if norm == Norm::Linf {
                assert!(broken >= pgd - 1.0, "{loss:?} {targets}: {broken} % against PGD's {pgd} %");
            }
            let none = attack.run(&encoder, Ball { eps: 0.0, ..ball }, &samples, 5).unwrap();
            let wrong = evaluate::clean(&encoder, &VICTIM.set).unwrap().correct_share().percent();
            assert!(
                (100.0 * none.iter().flatten().count() as f64 / samples.len() as f64 + wrong - 100.0).abs() < 1e-9
            );
        }
    }
}
