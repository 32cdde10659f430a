//! `train verify-card`: every figure of a bundle's card computed again from the bundle's files, on images given by path.
//!
//! The float network is read back from `encoder.onnx`, the int8 model is `model.pmq` itself, so nothing of the run that made
//! them is needed. A bundle without the float network has its int8 model's figures repeated, and no others.

use crate::encoder::LogitModel;
use crate::encoder::Network;
use crate::export::CardSettings;
use crate::export::card::{self, Accuracy, Card, Int8Figures, Robust, Statement};
use crate::export::figures;
use crate::import;
use crate::interrupt::{self, Interrupted};
use anyhow::{Context, Result, ensure};
use paradise_attack::Victim;
use paradise_attack::suite;
use paradise_attack::threat::Norm;
use paradise_data::{Splits, foreign};
use paradise_engine::Model;
use paradise_engine::golden::Golden;
use paradise_evaluate::abstention::Abstention;
use paradise_evaluate::confidence::{Foreign, Scores};
use paradise_evaluate::plan::{Identity, Plan, Request};
use paradise_evaluate::work::Work;
use paradise_runtime::Bundle;
use paradise_runtime::bundle::SELFTEST;
use paradise_runtime::bundle::{ENCODER, MODEL};
use paradise_support::hex;
use paradise_support::statistics::Proportion;
use paradise_support::team::Shard;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// How far an accuracy over as many images may lie from the card's where gradients in float decide, in points: another
/// instruction set sums in another order, and an attack walks on from there.
const FLOAT_POINTS: f64 = 0.5;
/// How far another number may lie from the card's: the logarithms of an instruction set are the pinned ones, but sums over
/// a set may be reordered.
const ROUNDED: f64 = 1e-3;

/// What is repeated.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bundle folder.
    pub bundle: PathBuf,
    /// Folder of the data set; none for the embedded images.
    pub data: Option<PathBuf>,
    /// Other data sets: name and folder.
    pub foreign: Vec<(String, PathBuf)>,
    /// Test images under attack; none for as many as behind the card's figures.
    pub n: Option<usize>,
    /// Whether the masking checks are repeated, which take the longest.
    pub checks: bool,
    /// Folder for the work of the long evaluations, which are repeated where one is named.
    pub evaluations: Option<PathBuf>,
}

/// How a figure compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As the card has it.
    Same,
    /// Within what float rounding, or a smaller sample, explains.
    Close,
    /// Not what the card says.
    Differs,
    /// Not computed here.
    NotRepeated,
}

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Which.
    pub figure: String,
    /// What the card says.
    pub card: String,
    /// What was found, or why nothing was.
    pub here: String,
    /// How they compare.
    pub verdict: Verdict,
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verdict = match self.verdict {
            Verdict::Same => "same",
            Verdict::Close => "close",
            Verdict::Differs => "DIFFERS",
            Verdict::NotRepeated => "not repeated",
        };
        write!(f, "{:40} {:>42}  {:>42}  {verdict}", self.figure, self.card, self.here)
    }
}

/// Lines of a card that say how a model was judged elsewhere, or by which program, and that nothing in a bundle repeats.
pub const UNCHECKED: &str = "paradise (the version), false_abstain_promised_percent, imported, quantisation, and the masking \
    checks of whole evaluations";

/// How many figures came out how, in a line.
pub fn verdict(rows: &[Row]) -> String {
    let of = |verdict: Verdict| rows.iter().filter(|r| r.verdict == verdict).count();
    let [same, close, differs, left] =
        [Verdict::Same, Verdict::Close, Verdict::Differs, Verdict::NotRepeated].map(of);
    format!("{same} figures are the same, {close} close, {differs} differ, {left} were not repeated")
}

/// Compares figure by figure; `report` sees each row as it is known. Whether none differs.
///
/// # Errors
/// If the bundle is damaged, the images cannot be read or do not fit, or a repeated evaluation was interrupted.
pub fn verify(options: &Options, mut report: impl FnMut(&Row)) -> Result<bool> {
    let bundle = Bundle::open(&options.bundle)?;
    let at = |file: &str| format!("{}: {file}", options.bundle.display());
    let card = Card::of(&bundle)?;
    let bytes = bundle.file(MODEL)?;
    let model = Model::parse(bytes).with_context(|| at(MODEL))?;
    let read = |bytes: &[u8]| import::exported(bytes).with_context(|| at(ENCODER));
    let network = bundle.file(ENCODER).ok().map(read).transpose()?;
    let splits = card.load(options.data.as_deref())?;
    let home = (model.header().input, usize::from(model.header().classes));
    let float = network.as_ref().map(|n| (n.architecture.graph.input, n.architecture.classes));
    ensure!(float.is_none_or(|float| float == home), "{} and model.pmq disagree on their extents", at(ENCODER));
    ensure!(
        home == (splits.test.shape, splits.labels.len()),
        "the model takes images of {:?} in {} classes, the data's are of {:?} in {}",
        home.0,
        home.1,
        splits.test.shape,
        splits.labels.len()
    );
    let mut all = true;
    let mut tell = |row: Row| {
        all &= row.verdict != Verdict::Differs;
        report(&row);
    };
    described(&bundle, &card, &model, &mut tell)?;
    tell(exactly("training images, SHA-256", &card.train_sha256, &splits.train.digest()?));
    tell(exactly("test images, SHA-256", &card.test_sha256, &splits.test.digest()));
    let others = foreign::named(&options.foreign, splits.seen())?;
    let settings = settings(&card, options, splits.test.len())?;
    let left_out = |robust: &Robust, why: &str| {
        not_repeated(format!("float, {}", evaluation(robust)), robust.float.short(), why)
    };
    let Some(network) = network else {
        int8_figures(&card, &Int8Figures::of(&model, &splits, &others, card.seed)?, &mut tell);
        let here = format!("the bundle has no {ENCODER}");
        float_figures(&card.accuracy, Err(&here), &mut tell);
        abstention(&card, Err(&here), &mut tell);
        card.robust.iter().for_each(|robust| tell(left_out(robust, &here)));
        return Ok(all);
    };
    let served = LogitModel::new(&network)?;
    let found = figures::measure(&network, &served, bytes, &splits, &others, &settings, card.seed)?;
    int8_figures(&card, &found.int8, &mut tell);
    float_figures(&card.accuracy, Ok(&found.accuracy), &mut tell);
    abstention(&card, found.abstention.as_ref().ok_or(card::NOT_RUN), &mut tell);
    for robust in &card.robust {
        match &options.evaluations {
            None => tell(left_out(robust, "hours, and no folder is given to go on in")),
            Some(folder) => again(robust, &card, options.n, (&network, &served, &model), &splits, folder)?
                .into_iter()
                .for_each(&mut tell),
        }
    }
    Ok(all)
}

/// What the bundle's other files say, too.
fn described(bundle: &Bundle, card: &Card, model: &Model, tell: &mut impl FnMut(Row)) -> Result<()> {
    let header = model.header();
    tell(exactly("name", &card.name, header.name));
    let figure = "objective, seed and data, as sealed in model.pmq";
    let stated = hex(&Statement::on(card).digest()?);
    tell(match header.made {
        Some(made) => exactly(figure, &stated, &hex(&made)),
        None => not_repeated(figure.into(), stated, "model.pmq says nothing of it"),
    });
    let number = |figure: &str, card: usize, here: usize| exactly(figure, &card.to_string(), &here.to_string());
    tell(number("arena, bytes", card.arena_bytes as usize, header.arena_bytes as usize));
    tell(number("calibration images", card.calibration_images, header.calibrations.rate.n as usize));
    tell(exactly("pictures", &card.images.policy().to_string(), &header.policy.to_string()));
    let golden =
        Golden::parse(bundle.file(SELFTEST)?).with_context(|| bundle.path(SELFTEST).display().to_string())?;
    tell(exactly("self-test's images", card.probes.name(), golden.header().origin.name()));
    let listed = |name: &str| bundle.files().find(|(n, _)| *n == name).map(|(_, size)| size);
    let other = card.sizes.iter().find(|(name, size)| listed(name) != Some(**size));
    tell(match other {
        Some((name, size)) => {
            exactly(&format!("size of {name}"), &size.to_string(), &format!("{:?}", listed(name).unwrap_or(0)))
        }
        None => number("sizes of files", card.sizes.len(), card.sizes.len()),
    });
    Ok(())
}

fn settings(card: &Card, options: &Options, available: usize) -> Result<CardSettings> {
    let settings = CardSettings::of(card)?;
    let n = options.n.unwrap_or(card.accuracy.float_robust.n);
    ensure!((1..=available).contains(&n), "{n} test images were asked for, the test set has {available} images");
    let checked = if options.checks && card.accuracy.masking_checks != card::NOT_RUN { settings.checked } else { 0 };
    Ok(CardSettings { n, checked, ..settings })
}

/// What decides an accuracy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exactness {
    /// The engine's integers, on given images.
    Integer,
    /// Sums in float.
    Float,
}

fn exactly(figure: &str, card: &str, here: &str) -> Row {
    let verdict = if card == here { Verdict::Same } else { Verdict::Differs };
    let short = |s: &str| if s.len() == 64 { format!("{}...", &s[..16]) } else { s.to_string() };
    Row { figure: figure.into(), card: short(card), here: short(here), verdict }
}

fn share(figure: &str, card: &Proportion, here: &Proportion, exactness: Exactness) -> Row {
    let [a, b] = [card, here].map(|s| s.wilson_percent());
    let verdict = if (card.correct, card.n) == (here.correct, here.n) {
        Verdict::Same
    } else if card.n != here.n && a[0] <= b[1] && b[0] <= a[1]
        || card.n == here.n
            && exactness == Exactness::Float
            && (card.percent() - here.percent()).abs() <= FLOAT_POINTS
    {
        Verdict::Close
    } else {
        Verdict::Differs
    };
    Row { figure: figure.into(), card: card.short(), here: here.short(), verdict }
}

/// Numbers that follow from the engine's integers, a score each where there are four.
fn numbers(figure: &str, card: &[f64], here: &[f64]) -> Row {
    let near = |(a, b): (&f64, &f64)| (a - b).abs() <= ROUNDED;
    let verdict = if card == here {
        Verdict::Same
    } else if card.len() == here.len() && card.iter().zip(here).all(near) {
        Verdict::Close
    } else {
        Verdict::Differs
    };
    let text = |v: &[f64]| v.iter().map(f64::to_string).collect::<Vec<_>>().join(" / ");
    Row { figure: figure.into(), card: text(card), here: text(here), verdict }
}

/// What the int8 model's integers decide.
fn int8_figures(card: &Card, found: &Int8Figures, tell: &mut impl FnMut(Row)) {
    let clean = found.classes.correct_share();
    for (figure, then, now) in [
        ("int8, clean", &card.accuracy.int8_clean, &clean),
        ("abstained on test images", &card.false_abstain_test, &found.false_abstain_test),
        ("accuracy of what is accepted", &card.accepted_accuracy, &found.accepted_accuracy),
    ] {
        tell(share(figure, then, now, Exactness::Integer));
    }
    confidence(card, found, tell);
}

/// A share of a card.
type ShareOf = fn(&Accuracy) -> &Proportion;

/// What needs the float network: as it was found, or why it was not.
fn float_figures(asked: &Accuracy, found: Result<&Accuracy, &str>, tell: &mut impl FnMut(Row)) {
    let attack = format!("float, {} at {}/255", asked.attack, asked.eps_pixels);
    let shares: [(&str, ShareOf); 4] = [
        ("float, clean", |a| &a.float_clean),
        ("same class, float and int8", |a| &a.agreement),
        (&attack, |a| &a.float_robust),
        ("int8 on those images", |a| &a.int8_robust_transferred),
    ];
    for (figure, of) in shares {
        tell(match found {
            Ok(found) => share(figure, of(asked), of(found), Exactness::Float),
            Err(why) => not_repeated(figure.into(), of(asked).short(), why),
        });
    }
    let (figure, checks) = ("masking checks", &asked.masking_checks);
    tell(match found {
        Ok(found) if found.masking_checks != card::NOT_RUN => exactly(figure, checks, &found.masking_checks),
        Ok(_) => not_repeated(figure.into(), checks.clone(), card::NOT_RUN),
        Err(why) => not_repeated(figure.into(), checks.clone(), why),
    });
}

/// A share of what abstaining is worth.
type AbstentionShare = fn(&Abstention) -> &Proportion;

/// What is wrong and accepted under attack, where the card says it.
fn abstention(card: &Card, found: Result<&Abstention, &str>, tell: &mut impl FnMut(Row)) {
    let shares: [(&str, AbstentionShare); 2] =
        [("wrong and accepted, attacked", |a| &a.plain), ("wrong and accepted, attacked for it", |a| &a.adaptive)];
    for (asked, (figure, of)) in card.abstention.iter().flat_map(|a| shares.map(|share| (a, share))) {
        tell(match found {
            Ok(found) => share(figure, of(asked), of(found), Exactness::Float),
            Err(why) => not_repeated(figure.into(), of(asked).short(), why),
        });
    }
}

/// A figure that was not computed, and why.
fn not_repeated(figure: String, card: String, why: &str) -> Row {
    Row { figure, card, here: why.into(), verdict: Verdict::NotRepeated }
}

fn confidence(card: &Card, found: &Int8Figures, tell: &mut impl FnMut(Row)) {
    let (then, now) = (&card.confidence, &found.confidence);
    tell(numbers("expected calibration error, %", &[then.ece_percent], &[now.ece_percent]));
    let of = |scores: &Option<Scores>| scores.map_or_else(Vec::new, |s| s.values().to_vec());
    tell(numbers("AUROC of mistakes", &of(&then.mistakes_auroc), &of(&now.mistakes_auroc)));
    let figure = "mistakes abstained from";
    tell(share(figure, &then.mistakes_abstained, &now.mistakes_abstained, Exactness::Integer));
    tell(exactly("score that tells mistakes", then.trust.name(), now.trust.name()));
    let [then_accuracy, now_accuracy] = [then, now].map(|c| c.trusted_accuracy_percent);
    tell(numbers("accuracy of the four fifths it trusts, %", &[then_accuracy], &[now_accuracy]));
    for (k, then) in then.coverage.iter().enumerate() {
        let now = now.coverage.get(k).map_or_else(Vec::new, |c| c.accuracy_percent.values().to_vec());
        let figure = format!("accuracy at {} % coverage", then.covered_percent);
        tell(numbers(&figure, &then.accuracy_percent.values(), &now));
    }
    for then in &card.foreign {
        match found.foreign.iter().find(|f| f.name == then.name) {
            Some(now) if now.n == then.n => {
                tell(numbers(&format!("AUROC of {}", then.name), &then.auroc.values(), &now.auroc.values()));
                let figure = format!("abstained on {}", then.name);
                tell(share(&figure, &then.abstained, &now.abstained, Exactness::Integer));
            }
            other => tell(foreign_not_repeated(then, other)),
        }
    }
}

fn foreign_not_repeated(then: &Foreign, other: Option<&Foreign>) -> Row {
    let here = match other {
        Some(now) => format!("{} images there", now.n),
        None => format!("the folder of {:?} is not given", then.name),
    };
    let card = format!("{} images, AUROC of the rate {}", then.n, then.auroc.rate);
    not_repeated(format!("AUROC of {}", then.name), card, &here)
}

/// What a whole evaluation is called.
fn evaluation(robust: &Robust) -> String {
    let norm = robust.norm();
    let length = if norm == Norm::L2 { " in l2" } else { "" };
    format!("{} at {}{length}", robust.attacks, norm.radius(robust.eps))
}

/// Repeats a whole evaluation, in work that can be interrupted.
fn again(
    robust: &Robust,
    card: &Card,
    n: Option<usize>,
    (network, served, model): (&Network, &LogitModel, &Model),
    splits: &Splits,
    folder: &Path,
) -> Result<Vec<Row>> {
    let stop = interrupt::flag()?;
    let set = splits.test.head(n.unwrap_or(robust.float.n));
    let identity =
        Identity { name: format!("float {}, from its bundle", card.objective.kind.name()), sha256: served.digest() };
    let (norm, eps) = (robust.norm(), vec![robust.eps]);
    let request = Request { norm, eps, attacks: robust.attacks.clone(), seed: robust.seed, batch: robust.batch };
    let plan = Plan::new(identity, None, &splits.source, &set, request)?;
    let entries = suite::make(&suite::read(&plan.attacks)?, network.architecture.classes, None)?;
    let work = Work::open(&folder.join(plan.short_name()?), &plan, &entries)?;
    if !work.run(Victim::White(served), &set, Shard::WHOLE, &stop)? {
        return Err(Interrupted(format!("the same command goes on in {}", folder.display())).into());
    }
    let found = Robust::of(&work, 0, model, &set, robust.masking_checks.clone())?;
    let figure = evaluation(robust);
    Ok(vec![
        share(&format!("float, {figure}"), &robust.float, &found.float, Exactness::Float),
        share(
            &format!("int8 on those images, {figure}"),
            &robust.int8_transferred,
            &found.int8_transferred,
            Exactness::Float,
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use paradise_support::statistics::Proportion;

    #[test]
    fn integers_must_be_the_same_and_floats_nearly() {
        let of = |correct, n| Proportion { correct, n };
        let verdict = |a: (usize, usize), b: (usize, usize), e| share("x", &of(a.0, a.1), &of(b.0, b.1), e).verdict;
        assert_eq!(verdict((87, 100), (87, 100), Exactness::Integer), Verdict::Same);
        assert_eq!(verdict((870, 1000), (871, 1000), Exactness::Integer), Verdict::Differs);
        assert_eq!(verdict((870, 1000), (873, 1000), Exactness::Float), Verdict::Close);
        assert_eq!(verdict((870, 1000), (880, 1000), Exactness::Float), Verdict::Differs);
        // A smaller sample is held to the intervals.
        assert_eq!(verdict((870, 1000), (85, 100), Exactness::Integer), Verdict::Close);
        assert_eq!(verdict((870, 1000), (60, 100), Exactness::Float), Verdict::Differs);
    }

    #[test]
    fn masking_checks_that_nobody_ran_are_not_the_same_as_themselves() {
        let half = || Proportion { correct: 1, n: 2 };
        let mut accuracy = Accuracy {
            float_clean: half(),
            int8_clean: half(),
            agreement: half(),
            attack: "PGD-40 x 2".into(),
            norm: "l_inf".into(),
            eps_pixels: 8.0,
            float_robust: half(),
            int8_robust_transferred: half(),
            masking_checks: card::NOT_RUN.into(),
        };
        fn rows(accuracy: &Accuracy, found: Result<&Accuracy, &str>) -> Vec<Verdict> {
            let mut rows = Vec::new();
            float_figures(accuracy, found, &mut |row: Row| rows.push(row.verdict));
            rows
        }
        let [same, not] = [Verdict::Same, Verdict::NotRepeated];
        assert_eq!(rows(&accuracy, Ok(&accuracy)), [same, same, same, same, not]);
        assert_eq!(rows(&accuracy, Err("no float network")), [not; 5]);
        accuracy.masking_checks = "20 passed".into();
        assert_eq!(rows(&accuracy, Ok(&accuracy)), [same; 5]);
    }

    #[test]
    fn numbers_are_compared_one_by_one() {
        assert_eq!(numbers("x", &[0.9, 0.8], &[0.9, 0.8]).verdict, Verdict::Same);
        assert_eq!(numbers("x", &[0.9, 0.8], &[0.9, 0.8005]).verdict, Verdict::Close);
        assert_eq!(numbers("x", &[0.9, 0.8], &[0.9, 0.79]).verdict, Verdict::Differs);
        assert_eq!(numbers("x", &[0.9], &[]).verdict, Verdict::Differs);
        assert_eq!(numbers("x", &[0.9], &[f64::NAN]).verdict, Verdict::Differs);
    }
}
