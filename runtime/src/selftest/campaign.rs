//! A fault campaign: single-bit faults in a model's memory, one at a time, and which check notices each. Nothing but these proves that a
//! check can fail where it should.

use super::checks::checksums;
use super::{Status, checks};
use crate::bundle::{Bundle, BundleError, SELFTEST};
use crate::int8::Int8;
use crate::pipeline::{Backend, BackendError};
use crate::rule::Rule;
use paradise_engine::golden::Golden;
use paradise_engine::{Answer, Model, Op, Thresholds, Watch};
use serde::Serialize;

/// Probes of each set whose answers are compared, beside the golden images.
const PROBES: usize = 8;

/// Where faults are put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// i8 weights in the model's bytes.
    Weights,
    /// i32 biases.
    Biases,
    /// f32 scales, factors and summands.
    Scales,
    /// Classifier, mixture, covariances and calibration tables.
    Tables,
    /// The thresholds in force.
    Thresholds,
    /// The packed copy that fast kernels read.
    Packed,
    /// Activations, while an answer is computed: the one fault that passes.
    Arena,
}

impl Place {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Weights, Self::Biases, Self::Scales, Self::Tables, Self::Thresholds, Self::Packed, Self::Arena];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Weights => "weights",
            Self::Biases => "biases",
            Self::Scales => "scales",
            Self::Tables => "tables",
            Self::Thresholds => "thresholds",
            Self::Packed => "packed copy",
            Self::Arena => "arena",
        }
    }
}

/// What became of the faults of one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Where they were put.
    pub place: Place,
    /// How many.
    pub faults: u32,
    /// Of them, those that changed a bit of an answer to one of the images.
    pub changed: u32,
    /// Of them, those that changed a class or a decision.
    pub decided: u32,
    /// Faults that a round through memory notices.
    pub by_round: u32,
    /// Faults that golden images notice, by a layer's checksum or an answer.
    pub by_golden: u32,
    /// Faults that lockstep notices where it checks every answer: those that changed a bit.
    pub by_lockstep: u32,
    /// Of those that changed a class or a decision: the answer was not accepted.
    pub abstained: u32,
    /// Faults that changed an answer and that neither round nor golden images notice.
    pub missed: u32,
}

/// What a campaign found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Campaign {
    /// Of the bundle.
    pub name: String,
    /// The kernels that ran.
    pub kernel: &'static str,
    /// Seed of the faults.
    pub seed: u64,
    /// Images whose answers were compared.
    pub images: usize,
    /// A place each.
    pub rows: Vec<Row>,
}

impl Campaign {
    /// Whether every fault that stays and changed an answer is noticed by a round through memory.
    pub fn holds(&self) -> bool {
        self.rows.iter().all(|row| row.place == Place::Arena || row.missed == 0)
    }
}

impl std::fmt::Display for Campaign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let faults: u32 = self.rows.iter().map(|row| row.faults).sum();
        writeln!(
            f,
            "{faults} single-bit faults in {}, kernel {}, seed {}; answers to {} images compared",
            self.name, self.kernel, self.seed, self.images
        )?;
        writeln!(
            f,
            "  {:<12}{:>8}{:>10}{:>18}{:>10}{:>10}{:>14}{:>11}{:>8}",
            "place", "faults", "bits", "class, decision", "round", "golden", "lockstep, 1", "abstained", "missed"
        )?;
        for row in &self.rows {
            let Row { place, faults, changed, decided, by_round, by_golden, by_lockstep, abstained, missed } = row;
            writeln!(
                f,
                "  {:<12}{faults:>8}{changed:>10}{decided:>18}{by_round:>10}{by_golden:>10}{by_lockstep:>14}{abstained:>11}{missed:>8}",
                place.name()
            )?;
        }
        writeln!(
            f,
            "bits: an answer changed in some bit; class, decision: so that it matters; abstained: of those, not accepted."
        )?;
        writeln!(
            f,
            "Noticed by a round through memory, by golden images, by lockstep of every answer; one in N catches 1/N of what passes."
        )?;
        f.write_str(if self.holds() {
            "every fault that stays and changed an answer is noticed"
        } else {
            "FAULTS WERE MISSED"
        })
    }
}

/// What of an answer is compared.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    bits: Vec<u32>,
    decided: (usize, bool),
}

impl Seen {
    fn of(answer: &Answer, rule: &Rule) -> Self {
        let (p, decision) = rule.judge(answer);
        let p = [p.picture, p.posterior, p.spread, p.rate, p.entropy, p.predictive, p.combined];
        let bits = answer.numbers().chain(p).map(f32::to_bits).collect();
        Self { bits, decided: (answer.class, decision.is_accept()) }
    }
}

/// Where in the tensors' bytes each place lies: first bit and number of bits.
fn places(model: &Model) -> [Vec<(usize, usize)>; 4] {
    let header = model.header();
    let [mut weights, mut biases, mut scales] = [(); 3].map(|()| Vec::new());
    for layer in header.layers.iter() {
        match layer.op {
            Op::Conv { weight, bias, scale, .. } | Op::Dense { weight, bias, scale, .. } => {
                weights.push(weight);
                biases.push(bias);
                scales.push(scale);
            }
            Op::Affine { mul, add, .. } => scales.extend([mul, add]),
            _ => {}
        }
    }
    for head in [header.mu, header.sigma] {
        weights.push(head.weight);
        biases.push(head.bias);
        scales.push(head.scale);
    }
    let bits = |spans: Vec<paradise_engine::tensor::Span>| {
        let bits = spans.into_iter().map(|span| (8 * span.offset as usize, 8 * span.len as usize));
        bits.filter(|(_, n)| *n > 0).collect::<Vec<_>>()
    };
    let known = [bits(weights), bits(biases), bits(scales)];
    // What is none of these.
    let mut taken: Vec<(usize, usize)> = known.iter().flatten().copied().collect();
    taken.sort_unstable();
    let (mut tables, mut at) = (Vec::new(), 0);
    for (from, n) in taken.into_iter().chain([(8 * model.tensors().len(), 0)]) {
        if from > at {
            tables.push((at, from - at));
        }
        at = at.max(from + n);
    }
    let [weights, biases, scales] = known;
    [weights, biases, scales, tables]
}

/// A bit of these, each as likely as any other.
fn draw(rng: &mut fastrand::Rng, places: &[(usize, usize)]) -> Option<usize> {
    let all: usize = places.iter().map(|(_, n)| n).sum();
    let mut at = rng.usize(..all.max(1));
    for (from, n) in places {
        if at < *n {
            return Some(from + at);
        }
        at -= n;
    }
    None
}

fn flipped(thresholds: &Thresholds, rng: &mut fastrand::Rng) -> Thresholds {
    let mut other = *thresholds;
    let fields = [
        &mut other.picture_p_min,
        &mut other.posterior_p_min,
        &mut other.spread_p_min,
        &mut other.rate_p_min,
        &mut other.entropy_p_min,
        &mut other.combined_p_min,
        &mut other.predictive_entropy_max_nats,
    ];
    let which = rng.usize(..fields.len());
    if let Some(field) = fields.into_iter().nth(which) {
        *field = f32::from_bits(field.to_bits() ^ 1 << rng.u32(..32));
    }
    other
}

/// A model that is made faulty again and again.
struct Bench<'a> {
    int8: Int8,
    rule: Rule,
    golden: &'a Golden<'a>,
    images: Vec<&'a [u8]>,
    truth: Vec<Seen>,
}

impl Bench<'_> {
    fn answers(int8: &mut Int8, rule: &Rule, images: &[&[u8]]) -> Result<Vec<Seen>, BackendError> {
        let mut seen = Vec::with_capacity(images.len());
        for image in images {
            int8.answer(image, &mut |_, answer| seen.push(Seen::of(answer, rule)))?;
        }
        Ok(seen)
    }

    /// Adds what a fault that stays does and who notices it.
    fn stays(&mut self, row: &mut Row, mut faulty: Int8, rule: &Rule) -> Result<(), BackendError> {
        let seen = Self::answers(&mut faulty, rule, &self.images)?;
        let (changed, decided) = self.compared(&seen, row);
        let before = self.int8.slices();
        let by_round = !before.are_of(&faulty) || rule.sum() != self.rule.sum();
        let by_golden = checksums(&mut faulty, self.golden).status == Status::Failed
            || checks::outputs_of(&mut faulty, self.golden).status == Status::Failed;
        row.faults += 1;
        row.changed += u32::from(changed);
        row.decided += u32::from(decided);
        row.by_round += u32::from(by_round);
        row.by_golden += u32::from(by_golden);
        // The scalar copy lies elsewhere, so that all that changed an answer by the fast one differs from it.
        row.by_lockstep += u32::from(changed);
        row.missed += u32::from(changed && !by_round && !by_golden);
        Ok(())
    }

    /// Whether a bit changed, and whether a class or a decision did.
    fn compared(&self, seen: &[Seen], row: &mut Row) -> (bool, bool) {
        let changed = seen.iter().zip(&self.truth).any(|(a, b)| a != b);
        let mut others =
            seen.iter().zip(&self.truth).filter(|(a, b)| a.decided != b.decided).map(|(a, _)| a).peekable();
        let decided = others.peek().is_some();
        row.abstained += u32::from(decided && others.all(|seen| !seen.decided.1));
        (changed, decided)
    }

    /// Adds what a bit that flips in the activations, after some layers, does to one image's answer.
    fn passes(&mut self, row: &mut Row, rng: &mut fastrand::Rng) -> Result<(), BackendError> {
        let which = rng.usize(..self.images.len());
        let (layers, draw) = (self.int8.model().header().layers.len(), rng.usize(..));
        let after = rng.usize(..layers.max(1));
        let mut done = false;
        let mut flip = |group: std::ops::Range<usize>, memory: &mut [u8]| {
            if group.end > after && !done && !memory.is_empty() {
                done = true;
                let bit = draw % (8 * memory.len());
                memory[bit / 8] ^= 1 << (bit % 8);
            }
        };
        let mut seen = Vec::new();
        let rule = &self.rule;
        self.int8
            .run(self.images[which], Watch::Memory(&mut flip), &mut |_, answer| seen.push(Seen::of(answer, rule)))?;
        let truth = &self.truth[which];
        let changed = seen.first() != Some(truth);
        let decided = seen.first().is_some_and(|seen| seen.decided != truth.decided);
        row.faults += 1;
        row.changed += u32::from(changed);
        row.by_lockstep += u32::from(changed);
        row.decided += u32::from(decided);
        row.abstained += u32::from(decided && seen.first().is_some_and(|seen| !seen.decided.1));
        row.missed += u32::from(changed);
        Ok(())
    }
}

/// Puts `faults` single-bit faults into a bundle's model, one at a time, an equal number in each place; `progress(done)` is called
/// after each.
///
/// # Errors
/// If the bundle has no model or self-test, or the engine gives no answer.
pub fn campaign(
    bundle: &Bundle,
    faults: u32,
    seed: u64,
    progress: &mut dyn FnMut(u32),
) -> Result<Campaign, Box<dyn std::error::Error + Send + Sync>> {
    let mut int8 = Int8::load(bundle)?;
    let golden = Golden::parse(bundle.file(SELFTEST)?).map_err(|e| BundleError::Format(bundle.path(SELFTEST), e))?;
    let header = golden.header();
    let mut images: Vec<&[u8]> = header.cases.iter().map(|case| golden.bytes(case.image)).collect();
    for set in header.probes.iter() {
        images.extend(golden.bytes(set.images).chunks_exact(header.image_bytes as usize).take(PROBES));
    }
    let rule = Rule::of(int8.model());
    let truth = Bench::answers(&mut int8, &rule, &images)?;
    let places = places(int8.model());
    let (kernel, seen) = (int8.kernels(), images.len());
    let mut bench = Bench { int8, rule, golden: &golden, images, truth };
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut rows: Vec<Row> = Place::ALL
        .iter()
        .map(|place| Row {
            place: *place,
            faults: 0,
            changed: 0,
            decided: 0,
            by_round: 0,
            by_golden: 0,
            by_lockstep: 0,
            abstained: 0,
            missed: 0,
        })
        .collect();
    for done in 0..faults {
        let row = &mut rows[done as usize % Place::ALL.len()];
        let rule = bench.rule.clone();
        match row.place {
            Place::Arena => bench.passes(row, &mut rng)?,
            Place::Thresholds => {
                let thresholds = flipped(rule.thresholds(), &mut rng);
                bench.stays(row, bench.int8.beside(), &rule.with(thresholds))?;
            }
            Place::Packed if kernel == "scalar" => {}
            Place::Packed => {
                let bit = rng.usize(..8 * bench.int8.prepared().packed_len());
                bench.stays(row, bench.int8.with_fault(None, Some(bit)), &rule)?;
            }
            Place::Weights | Place::Biases | Place::Scales | Place::Tables => {
                let bit = draw(&mut rng, &places[row.place as usize]);
                bench.stays(row, bench.int8.with_fault(bit, None), &rule)?;
            }
        }
        progress(done + 1);
    }
    Ok(Campaign { name: bundle.name().into(), kernel, seed, images: seen, rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_that_stays_and_changes_an_answer_is_noticed() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/cifar10-resnet8-pm");
        let bundle = Bundle::open(&folder).unwrap();
        let mut last = 0;
        let found = campaign(&bundle, 210, 3, &mut |done| last = done).unwrap();
        assert_eq!(last, 210);
        assert!(found.holds(), "{found}");
        for row in &found.rows {
            assert!(
                row.decided <= row.changed && row.changed <= row.faults && row.abstained <= row.decided,
                "{row:?}"
            );
            // A round sees every bit; golden images see what they touch.
            let scalar = row.place == Place::Packed && found.kernel == "scalar";
            assert_eq!(row.faults, if scalar { 0 } else { 30 });
            assert!(row.place == Place::Arena || row.by_round == row.faults, "{row:?}");
        }
        let changed: u32 = found.rows.iter().map(|row| row.changed).sum();
        assert!(changed > 40, "{found}");
        assert_eq!(campaign(&bundle, 210, 3, &mut |_| {}).unwrap(), found);
    }

    #[test]
    fn places_are_the_whole_of_the_tensors() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/cifar10-resnet8-pm");
        let int8 = Int8::load(&Bundle::open(&folder).unwrap()).unwrap();
        let mut all: Vec<(usize, usize)> = places(int8.model()).concat();
        all.sort_unstable();
        assert!(all.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0));
        assert_eq!(all.iter().map(|(_, n)| n).sum::<usize>(), int8.weight_bits());
        let mut rng = fastrand::Rng::with_seed(1);
        assert!(
            (0..100).all(|_| draw(&mut rng, &[(8, 3), (100, 1)]).is_some_and(|bit| [8, 9, 10, 100].contains(&bit)))
        );
    }
}
