//! What a model's confidence is worth: how well each score tells foreign images and mistakes apart, what accuracy
//! abstaining buys, how honest the probabilities are.

use crate::prediction::Prediction;
use crate::selection::{Selection, Trust, covered, right};
use anyhow::Result;
use paradise_data::Dataset;
use paradise_data::corruption::{self, LEVELS};
use paradise_data::foreign::made;
use paradise_support::statistics::{Proportion, auroc};
use serde::{Deserialize, Serialize};

/// A number a score, each "the larger, the more suspicious".
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// By rate.
    pub rate: f64,
    /// By the squared distance of the whole posterior (posterior typicality).
    pub posterior: f64,
    /// By that of log sigma alone (spread typicality).
    pub spread: f64,
    /// By that of the picture's appearance (picture typicality).
    pub picture: f64,
    /// By how far the posterior entropy is from typical, to either side.
    pub posterior_entropy: f64,
    /// By predictive entropy.
    pub predictive_entropy: f64,
    /// By the rate less that against one Gaussian for all classes.
    pub relative_rate: f64,
    /// By predictive entropy and relative rate together.
    pub combination: f64,
}

/// The scores' names, in their order.
pub const SCORES: [&str; 8] = [
    "rate",
    "posterior",
    "spread",
    "picture",
    "posterior entropy",
    "predictive entropy",
    "relative rate",
    "combination",
];

/// A record's scores, in that order.
type Scored = [f32; SCORES.len()];

fn scores(selection: &Selection, r: &Prediction) -> Scored {
    let d = &r.distances;
    let [relative, both] = [Trust::RelativeRate, Trust::Combination].map(|trust| selection.score(trust, r) as f32);
    [r.rate_nats, d.posterior, d.spread, d.picture, -r.p.entropy, r.predictive_entropy_nats, relative, both]
}

impl Trust {
    /// Where it stands among [`SCORES`].
    fn place(self) -> usize {
        SCORES.iter().position(|name| *name == self.name()).unwrap_or_default()
    }
}

impl Scores {
    /// To `digits` decimals.
    fn rounded(self, digits: i32) -> Self {
        Self::each(|k| round(self.values()[k], digits))
    }

    fn each(f: impl Fn(usize) -> f64) -> Self {
        Self {
            rate: f(0),
            posterior: f(1),
            spread: f(2),
            picture: f(3),
            posterior_entropy: f(4),
            predictive_entropy: f(5),
            relative_rate: f(6),
            combination: f(7),
        }
    }

    /// The numbers in the order of [`SCORES`].
    pub fn values(&self) -> [f64; SCORES.len()] {
        [
            self.rate,
            self.posterior,
            self.spread,
            self.picture,
            self.posterior_entropy,
            self.predictive_entropy,
            self.relative_rate,
            self.combination,
        ]
    }

    /// AUROC of each score for telling `positives` from `negatives`.
    fn auroc(negatives: &[Scored], positives: &[Scored]) -> Self {
        let of = |scored: &[Scored], k: usize| scored.iter().map(|s| s[k]).collect::<Vec<f32>>();
        Self::each(|k| auroc(&of(negatives, k), &of(positives, k)))
    }
}

/// Images that are not the model's business.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Foreign {
    /// Which.
    pub name: String,
    /// How many.
    pub n: usize,
    /// Telling them from test images: area under the ROC curve.
    pub auroc: Scores,
    /// Proportion on which the device abstains.
    pub abstained: Proportion,
}

/// Test images under one corruption.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Corrupted {
    /// Which.
    pub name: String,
    /// 1 to 5.
    pub level: usize,
    /// Accuracy over all.
    pub accuracy: Proportion,
    /// Accuracy of those that are accepted.
    pub accepted_accuracy: Proportion,
    /// Proportion on which the device abstains.
    pub abstained: Proportion,
    /// Telling them from clean ones.
    pub auroc: Scores,
}

/// Accuracy of the share of images that a score trusts most.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    /// Proportion of the images that are answered, per cent.
    pub covered_percent: f64,
    /// Accuracy on them by each score, per cent.
    pub accuracy_percent: Scores,
}

/// Images whose class has a probability in one fifteenth of [0, 1].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// How many.
    pub n: usize,
    /// Mean probability of the given class.
    pub probability: f64,
    /// Proportion that is right.
    pub accuracy: f64,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Test images.
    pub n: usize,
    /// Promised share of abstentions on images like the calibration ones, per cent.
    pub promised_percent: f64,
    /// Proportion of the test images on which the device abstains.
    pub abstained: Proportion,
    /// Accuracy of those it accepts.
    pub accepted_accuracy: Proportion,
    /// Telling misclassified test images from others: AUROC; none where no image, or every one, is misclassified.
    pub mistakes: Option<Scores>,
    /// Proportion of the misclassified test images on which the device abstains.
    pub mistakes_abstained: Proportion,
    /// The score by which mistakes should be told: the best on calibration images.
    pub trust: Trust,
    /// Accuracy of the four fifths of the test images that this score trusts most, per cent.
    pub trusted_accuracy_percent: f64,
    /// Risk-coverage curves, from everything answered down to a half.
    pub coverage: Vec<Coverage>,
    /// Mean accuracy over all coverages, per cent.
    pub mean_covered_accuracy_percent: Scores,
    /// Expected calibration error over 15 bins (Guo et al., 2017), per cent.
    pub ece_percent: f64,
    /// The bins.
    pub reliability: Vec<Bin>,
    /// By kind of foreign image.
    pub foreign: Vec<Foreign>,
    /// By corruption and level.
    pub corruptions: Vec<Corrupted>,
}

impl Quality {
    /// Areas to four decimals, percentages to two: as cards have them.
    pub fn rounded(mut self) -> Self {
        self.mistakes = self.mistakes.map(|s| s.rounded(4));
        self.ece_percent = round(self.ece_percent, 2);
        self.trusted_accuracy_percent = round(self.trusted_accuracy_percent, 2);
        self.foreign.iter_mut().for_each(|f| f.auroc = f.auroc.rounded(4));
        self.coverage.iter_mut().for_each(|c| c.accuracy_percent = c.accuracy_percent.rounded(2));
        self
    }
}

fn round(v: f64, digits: i32) -> f64 {
    let unit = 10f64.powi(digits);
    (v * unit).round() / unit
}

/// Who answers: each image's record.
pub type Answers<'a> = &'a dyn Fn(&Dataset) -> Result<Vec<Prediction>>;

/// Proportion of calibration images that may be abstained for any reason.
pub const FALSE_ABSTAIN: f64 = 0.05;

/// Measures confidence on test images `set`, whose records are `home`, on foreign ones ([`made`] of them, and `others`), and on
/// every corruption of the first `corrupted` test images, if any; `selection` is fitted to calibration images.
///
/// # Errors
/// If the model fails.
pub fn measure(
    answers: Answers,
    set: &Dataset,
    home: &[Prediction],
    selection: &Selection,
    others: &[(String, Dataset)],
    corrupted: usize,
    seed: u64,
) -> Result<Quality> {
    let correct = right(home, set);
    let scored = |records: &[Prediction]| records.iter().map(|r| scores(selection, r)).collect::<Vec<Scored>>();
    let all = scored(home);
    let pick = |wanted: bool| -> Vec<Scored> {
        all.iter().zip(&correct).filter(|(_, c)| **c == wanted).map(|(s, _)| *s).collect()
    };
    let (good, bad) = (pick(true), pick(false));
    let mistakes = (!good.is_empty() && !bad.is_empty()).then(|| Scores::auroc(&good, &bad));

    let mut foreign = Vec::new();
    let named = made(set, seed)?.into_iter().map(|(n, s)| (n.to_string(), s));
    for (name, set) in named.chain(others.iter().cloned()) {
        let records = answers(&set)?;
        foreign.push(Foreign {
            name,
            n: set.len(),
            auroc: Scores::auroc(&all, &scored(&records)),
            abstained: Proportion::of(records.iter().map(|r| !r.accept)),
        });
    }
    let few = set.head(corrupted);
    let clean = scored(&answers(&few)?);
    let mut corruptions = Vec::new();
    let kinds = if corrupted > 0 { &corruption::ALL[..] } else { &[] };
    for kind in kinds {
        for level in 1..=LEVELS {
            let set = kind.apply(&few, level, seed)?;
            let records = answers(&set)?;
            let correct = right(&records, &set);
            corruptions.push(Corrupted {
                name: kind.name().into(),
                level,
                accuracy: Proportion::of(correct.iter().copied()),
                accepted_accuracy: accepted(&records, &correct),
                abstained: Proportion::of(records.iter().map(|r| !r.accept)),
                auroc: Scores::auroc(&clean, &scored(&records)),
            });
        }
    }
    let column = |k: usize| all.iter().map(|s| f64::from(s[k])).collect::<Vec<f64>>();
    let curves: [Vec<f64>; SCORES.len()] = std::array::from_fn(|k| covered(&column(k), &correct));
    let at = |covered: f64| {
        let n = ((covered / 100.0 * set.len() as f64).round() as usize).clamp(1, set.len());
        Coverage { covered_percent: covered, accuracy_percent: Scores::each(|k| curves[k][n - 1]) }
    };
    let wrong = home.iter().zip(&correct).filter(|(_, c)| !**c);
    let (ece_percent, reliability) = calibration(home, &correct);
    Ok(Quality {
        n: set.len(),
        promised_percent: 100.0 * FALSE_ABSTAIN,
        abstained: Proportion::of(home.iter().map(|r| !r.accept)),
        accepted_accuracy: accepted(home, &correct),
        mistakes,
        mistakes_abstained: Proportion::of(wrong.map(|(r, _)| !r.accept)),
        trust: selection.chosen,
        trusted_accuracy_percent: at(80.0).accuracy_percent.values()[selection.chosen.place()],
        coverage: (0..=10).map(|k| at(100.0 - 5.0 * f64::from(k))).collect(),
        mean_covered_accuracy_percent: Scores::each(|k| curves[k].iter().sum::<f64>() / set.len() as f64),
        ece_percent,
        reliability,
        foreign,
        corruptions,
    })
}

fn accepted(records: &[Prediction], correct: &[bool]) -> Proportion {
    Proportion::of(records.iter().zip(correct).filter(|(r, _)| r.accept).map(|(_, c)| *c))
}

/// Expected calibration error, per cent, and its bins.
fn calibration(records: &[Prediction], correct: &[bool]) -> (f64, Vec<Bin>) {
    const BINS: usize = 15;
    let mut sums = [(0usize, 0.0f64, 0.0f64); BINS];
    for (r, c) in records.iter().zip(correct) {
        let bin = &mut sums[((r.probability * BINS as f32) as usize).min(BINS - 1)];
        *bin = (bin.0 + 1, bin.1 + f64::from(r.probability), bin.2 + f64::from(u8::from(*c)));
    }
    let n = records.len() as f64;
    let ece = sums.iter().map(|(_, p, c)| (p - c).abs() / n).sum::<f64>();
    let bin = |(n, p, c): &(usize, f64, f64)| Bin { n: *n, probability: p / *n as f64, accuracy: c / *n as f64 };
    (100.0 * ece, sums.iter().filter(|s| s.0 > 0).map(bin).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use paradise_engine::PValues;
    use paradise_engine::typicality::Distances;

    fn record(class: u16, probability: f32, rate_nats: f32) -> Prediction {
        Prediction {
            class,
            probability,
            mu: vec![],
            sigma: vec![],
            log_sigma: vec![],
            rate_nats,
            posterior_entropy_nats: 0.0,
            predictive_entropy_nats: 0.0,
            distances: Distances { posterior: -rate_nats, spread: 0.0, picture: 0.0 },
            p: PValues::TYPICAL,
            accept: rate_nats < 3.0,
        }
    }

    #[test]
    fn coverage_and_calibration_equal_counting() {
        let records = [record(0, 0.9, 1.0), record(0, 0.8, 4.0), record(0, 0.7, 2.0), record(0, 0.95, 2.0)];
        let correct = [true, false, true, false];
        let rates: Vec<f64> = records.iter().map(|r| f64::from(r.rate_nats)).collect();
        let by_rate = covered(&rates, &correct);
        // First the sure one; then two tied of which one is right; then the last, wrong.
        let want = [100.0, 75.0, 200.0 / 3.0, 50.0];
        assert!(by_rate.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-9), "{by_rate:?}");
        assert_eq!(accepted(&records, &correct), Proportion { correct: 2, n: 3 });
        let (ece, bins) = calibration(&records, &correct);
        // Bins of a fifteenth: 0.7 alone; 0.8 alone; 0.9 alone; 0.95 alone.
        let want = 100.0 * (0.3 + 0.8 + 0.1 + 0.95) / 4.0;
        assert!((ece - want).abs() < 1e-4 && bins.len() == 4, "{ece} {want}");
    }

    #[test]
    fn scores_that_tell_apart_have_an_area_of_one() {
        let shape = paradise_engine::Shape::new(4, 4, 1);
        let set = Dataset::new(shape, (0..160).map(|v| v as u8).collect(), vec![0; 10]).unwrap();
        // The rate is how bright an image is: foreign ones are all brighter here.
        let answers = |set: &Dataset| {
            let bright = |i: usize| set.image(i).iter().map(|b| f32::from(*b)).sum::<f32>() / 16.0;
            Ok((0..set.len()).map(|i| record(u16::from(bright(i) > 100.0), 0.9, bright(i))).collect())
        };
        let white = Dataset::new(shape, vec![255; 64], vec![0; 4]).unwrap();
        let home = answers(&set).unwrap();
        let q =
            measure(&answers, &set, &home, &Selection::fit(&home, &set), &[("white".into(), white)], 4, 1).unwrap();
        let last = q.foreign.last().unwrap();
        assert_eq!((last.n, last.auroc.rate, last.abstained.percent()), (4, 1.0, 100.0));
        assert_eq!((last.auroc.posterior_entropy, last.auroc.posterior), (0.5, 0.0));
        assert_eq!((q.corruptions.len(), q.coverage.len(), q.foreign.len()), (75, 11, 7));
        assert_eq!(q.mistakes.unwrap().rate, 1.0);
    }
}
