//! The checks themselves, in the order in which they run.

use super::device::Device;
use super::{Figures, Options, Status};
use crate::int8::Int8;
use crate::load::Loaded;
use crate::pipeline::Backend;
use crate::rule::Rule;
use crate::site::Site;
use paradise_engine::golden::{Golden, Origin, ProbeKind, crc32, crc32_bytes};
use paradise_engine::selftest::drift::Reference;
use paradise_engine::selftest::trials::{self, Plan, Trials};
use paradise_engine::selftest::{Fault, Subject as _, Tally};
use paradise_engine::{Answer, Model, Thresholds};
use std::time::Instant;

/// What the checks look at.
pub(super) struct Subject<'a> {
    pub loaded: &'a mut Loaded,
    pub golden: &'a Golden<'a>,
    pub options: &'a Options,
}

/// How a check ended.
pub(super) struct Outcome {
    pub status: Status,
    /// In words.
    pub detail: String,
    /// In numbers.
    pub figures: Figures,
}

impl Outcome {
    fn new(status: Status, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), figures: Figures::new() }
    }

    /// With a number that was found, or was needed.
    fn with(mut self, name: &'static str, value: impl Into<f64>) -> Self {
        self.figures.insert(name, value.into());
        self
    }

    /// With a count.
    fn count(self, name: &'static str, n: usize) -> Self {
        // Counts here are far below 2^53.
        self.with(name, n as f64)
    }
}

type Run = fn(&mut Subject) -> Outcome;

/// Names and checks.
pub(super) const ALL: &[(&str, Run)] = &[
    ("floating point", floating_point),
    ("resident weights", resident_weights),
    ("golden checksums", golden_checksums),
    ("golden outputs", golden_outputs),
    ("encoded pictures", encoded_pictures),
    ("thresholds", thresholds),
    ("repeatability", repeatability),
    ("kernels", kernels),
    ("arena guard", arena_guard),
    ("clean probes", |s| probes(s, ProbeKind::Clean)),
    ("noisy probes", |s| probes(s, ProbeKind::Noisy)),
    ("adversarial probes", |s| probes(s, ProbeKind::Adversarial)),
    ("black-box attack", black_box),
    ("fresh noise", fresh_noise),
    ("latency", latency),
    ("fault injection", fault_injection),
];

/// Those that come before the first answer; the others take longer.
pub(super) const BRIEF: &[&str] =
    &["floating point", "resident weights", "golden checksums", "golden outputs", "thresholds"];

fn judge(holds: bool, detail: impl Into<String>) -> Outcome {
    Outcome::new(if holds { Status::Passed } else { Status::Failed }, detail)
}

fn int8_only(subject: &mut Subject, check: impl FnOnce(&mut Int8, &Golden) -> Outcome) -> Outcome {
    let golden = subject.golden;
    match subject.loaded.int8() {
        Some(int8) => check(int8, golden),
        None => Outcome::new(Status::NotApplicable, "the int8 back end's own"),
    }
}

fn floating_point(_: &mut Subject) -> Outcome {
    let holds = paradise_engine::float::is_ieee();
    judge(holds, if holds { "to the nearest, ties to even, subnormal numbers kept" } else { "another mode is set" })
}

fn resident_weights(subject: &mut Subject) -> Outcome {
    int8_only(subject, |int8, _| {
        let holds = int8.is_intact();
        let size = int8.size();
        let detail =
            if holds { format!("{size} bytes hash as loaded") } else { "memory changed since loading".into() };
        judge(holds, detail).count("bytes", size)
    })
}

pub(super) fn checksums(int8: &mut Int8, golden: &Golden) -> Outcome {
    let mut device = Device::observed(int8);
    if !device.is_model(&golden.header().model) {
        return judge(false, device.said(&Fault::Model));
    }
    match device.golden(golden) {
        Ok(_) => {
            let (cases, layers) = (golden.header().cases.len(), golden.header().layers);
            judge(true, format!("{cases} images x {layers} layers equal bit for bit"))
                .count("images", cases)
                .with("layers", layers)
        }
        Err(fault) => judge(false, device.said(&fault)),
    }
}

fn golden_checksums(subject: &mut Subject) -> Outcome {
    int8_only(subject, checksums)
}

/// mu, log sigma and logits of a golden image, with what else the golden file knows: class, accept, rate.
fn outputs(backend: &mut dyn Backend, image: &[u8]) -> Result<(Vec<f32>, usize, bool, f32), String> {
    let mut seen = None;
    backend
        .answer(image, &mut |_, a| {
            let all = [a.mu, a.log_sigma, a.logits].concat();
            seen = Some((all, a.class, a.decision.is_accept(), a.rate_nats));
        })
        .map_err(|e| e.to_string())?;
    seen.ok_or_else(|| "no answer".into())
}

fn golden_outputs(subject: &mut Subject) -> Outcome {
    outputs_of(subject.loaded.backend(), subject.golden)
}

/// Whether a back end answers the golden images as it should.
pub(super) fn outputs_of(backend: &mut dyn Backend, golden: &Golden) -> Outcome {
    let tolerance = golden.header().float_tolerance;
    let mut device = Device::answering(backend);
    match device.golden(golden) {
        Ok(_) if device.is_exact() => judge(true, "equal bit for bit").count("images", golden.header().cases.len()),
        Ok(gap) => judge(true, format!("within {gap:.1e}, allowed {tolerance:.0e}"))
            .count("images", golden.header().cases.len())
            .with("largest_difference", gap)
            .with("allowed_difference", tolerance),
        Err(fault @ Fault::Gap { .. }) => judge(false, format!("{}, allowed {tolerance:.0e}", device.said(&fault))),
        Err(fault) => judge(false, device.said(&fault)),
    }
}

/// Pictures as files: what a decoder, an orientation, a transparency or a resize of another kind would change.
fn encoded_pictures(subject: &mut Subject) -> Outcome {
    let golden = subject.golden;
    let exact = subject.loaded.int8().is_some();
    if golden.header().encoded.is_empty() {
        return Outcome::new(Status::NotApplicable, "the bundle has none");
    }
    for (i, picture) in golden.header().encoded.iter().enumerate() {
        let backend = subject.loaded.backend();
        let input = match backend.input(golden.bytes(picture.file)) {
            Ok(input) => input,
            Err(error) => return judge(false, format!("picture {i}: {error}")),
        };
        if crc32_bytes(&input) != picture.input_crc {
            return judge(false, format!("picture {i}: becomes another input than on the maker's machine"));
        }
        match outputs(backend, &input) {
            Ok((_, class, accept, rate)) => {
                let same = class == picture.class as usize
                    && accept == picture.accept
                    && rate.to_bits() == picture.rate_nats.to_bits();
                if exact && !same {
                    return judge(false, format!("picture {i}: class, rate or decision differs"));
                }
            }
            Err(error) => return judge(false, format!("picture {i}: {error}")),
        }
    }
    let what =
        if exact { "from bytes to answer, equal bit for bit" } else { "from bytes to input, equal bit for bit" };
    let files = golden.header().encoded.len();
    judge(true, format!("{files} files {what}")).count("files", files)
}

/// Pictures of noise that the thresholds in force are tried on.
const NOISE: usize = 50;

/// Whose thresholds are in force, and that a site's belong to this model and abstain from as much noise as the maker's.
fn thresholds(subject: &mut Subject) -> Outcome {
    let backend = subject.loaded.backend();
    let (mut maker, mut site, mut len) = (Rule::from(Thresholds::NEVER), Ok(None), 0);
    backend.with_model(&mut |model| {
        (maker, len) = (Rule::of(model), model.header().input.len() as usize);
        site = subject.options.site.as_deref().map(|path| Site::read(path, model)).transpose();
    });
    let site = match site {
        Ok(site) => site.map(Rule::from),
        Err(error) => return judge(false, error.to_string()),
    };
    let mut rng = fastrand::Rng::with_seed(1);
    let (mut by_maker, mut in_force) = (0, 0);
    for _ in 0..NOISE {
        let noise: Vec<u8> = (0..len).map(|_| rng.u8(..)).collect();
        let seen = backend.answer(&noise, &mut |_, answer| {
            let abstains = |rule: &Rule| usize::from(!rule.judge(answer).1.is_accept());
            by_maker += abstains(&maker);
            in_force += abstains(site.as_ref().unwrap_or(&maker));
        });
        if let Err(error) = seen {
            return judge(false, error.to_string());
        }
    }
    let whose = site.as_ref().and_then(Rule::site).map_or("the maker's".into(), ToString::to_string);
    judge(in_force >= by_maker, format!("{whose}; noise: abstained from {in_force} of {NOISE}"))
        .count("noise", NOISE)
        .count("abstained", in_force)
        .count("abstained_by_maker", by_maker)
}

fn repeatability(subject: &mut Subject) -> Outcome {
    let image = subject.golden.bytes(subject.golden.header().cases.at(0).image);
    let mut run =
        || outputs(subject.loaded.backend(), image).map(|o| o.0.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
    let first = run();
    let holds = first.is_ok() && (0..3).all(|_| run() == first);
    judge(holds, "four runs of one image").count("runs", 4)
}

/// Every layer of the golden images and of images at the ends of the range, by this CPU's kernels and by the scalar ones.
fn kernels(subject: &mut Subject) -> Outcome {
    int8_only(subject, |int8, golden| {
        let mut every = int8.with_every_kernel();
        let Some((mut scalar, faster)) = every.pop().map(|s| (s, every)) else {
            return judge(false, "no kernels");
        };
        if faster.is_empty() {
            return Outcome::new(Status::NotApplicable, "this CPU runs the scalar kernels");
        }
        let size = int8.model().header().input.len() as usize;
        let mut images: Vec<Vec<u8>> = golden.header().cases.iter().map(|c| golden.bytes(c.image).to_vec()).collect();
        images.extend([0u8, 127, 128, 255].map(|v| vec![v; size]));
        images.push((0..size).map(|i| if i % 2 == 0 { 0 } else { 255 }).collect());
        let names: Vec<&str> = faster.iter().map(Int8::kernels).collect();
        for mut set in faster {
            for (i, image) in images.iter().enumerate() {
                match (layer_checksums(&mut set, image), layer_checksums(&mut scalar, image)) {
                    (Ok(ours), Ok(truth)) if ours == truth => {}
                    (Ok(_), Ok(_)) => {
                        return judge(false, format!("image {i}: {} differs from scalar", set.kernels()));
                    }
                    (Err(error), _) | (_, Err(error)) => return judge(false, format!("image {i}: {error}")),
                }
            }
        }
        judge(true, format!("{} equal scalar on {} images, every layer and output", names.join(", "), images.len()))
            .count("kernels", names.len())
            .count("images", images.len())
    })
}

/// A checksum of every layer's output, and the bits of mu, log sigma, logits and rate: with each layer on its own, and
/// with layers run in one go, as answers are given.
fn layer_checksums(int8: &mut Int8, image: &[u8]) -> Result<Vec<u32>, String> {
    let (mut layers, mut outputs) = (Vec::new(), Vec::new());
    let mut read = |_: &Model, a: &Answer| {
        outputs.extend(a.numbers().map(f32::to_bits));
    };
    int8.observe(image, &mut |_, output| layers.push(crc32(output)), &mut read).map_err(|e| e.to_string())?;
    int8.answer(image, &mut read).map_err(|e| e.to_string())?;
    layers.extend(outputs);
    Ok(layers)
}

fn arena_guard(subject: &mut Subject) -> Outcome {
    int8_only(subject, |int8, _| {
        let bytes = int8.model().header().arena_bytes;
        judge(int8.guard_holds(), format!("{bytes} bytes of arena, the guard behind it untouched"))
            .with("arena_bytes", bytes)
    })
}

fn probes(subject: &mut Subject, kind: ProbeKind) -> Outcome {
    let golden = subject.golden;
    let Some((set, probe)) = golden.header().probes.iter().enumerate().find(|(_, p)| p.kind == kind) else {
        return Outcome::new(Status::NotApplicable, "the bundle has none");
    };
    let Tally { correct, abstained, .. } = match Device::answering(subject.loaded.backend()).probes(golden, set) {
        Ok(tally) => tally,
        Err(why) => return judge(false, why),
    };
    let (n, need) = (probe.n, probe.min_correct);
    let eps = if probe.eps_pixels > 0.0 { format!(", {:.1}/255", probe.eps_pixels) } else { String::new() };
    let worth = match golden.header().origin {
        // What few images can show: half the width of the binomial's 95 % interval at its widest.
        Origin::DataSet => format!("N = {n} shows +-{:.0} points", 98.0 / f64::from(n).sqrt()),
        origin @ Origin::Synthesised => format!("{}, not a sample of the world", origin.name()),
    };
    judge(correct >= need, format!("{correct} of {n} right (need {need}), {abstained} abstained{eps}; {worth}"))
        .with("images", n)
        .with("correct", correct)
        .with("needed", need)
        .with("abstained", abstained)
        .with("eps_pixels", probe.eps_pixels)
}

/// What the maker found by attacking and disturbing the first set of probes.
fn by_maker(golden: &Golden) -> Result<Trials, Outcome> {
    match golden.trials() {
        Ok(Some(trials)) => Ok(trials),
        Ok(None) => Err(Outcome::new(Status::NotApplicable, "the bundle has no figures (`train trials` adds them)")),
        Err(error) => Err(judge(false, error.to_string())),
    }
}

/// More or fewer images that a float back end, whose logits are not the maker's bits, may lose.
const FLOAT_BROKEN: u16 = 2;

/// Square Attack within a budget of queries, on this device's own answers.
fn black_box(subject: &mut Subject) -> Outcome {
    let golden = subject.golden;
    let Trials { plan, eps, broken: expected, .. } = match by_maker(golden) {
        Ok(trials) => trials,
        Err(outcome) => return outcome,
    };
    let exact = subject.loaded.int8().is_some();
    let mut device = Device::answering(subject.loaded.backend());
    let broken = match trials::broken_of(&mut device, golden, plan, eps) {
        Ok(broken) => broken,
        Err(why) => return judge(false, device.said(&Fault::Run(why))),
    };
    let allowed = if exact { 0 } else { FLOAT_BROKEN };
    let Plan { attacked, queries, .. } = plan;
    let detail =
        format!("{broken} of {attacked} broken by {queries} queries within {eps}/255, by the maker {expected}");
    judge(broken.abs_diff(expected) <= allowed, detail)
        .with("images", attacked)
        .with("queries", queries)
        .with("eps_pixels", eps)
        .with("broken", broken)
        .with("broken_by_maker", expected)
}

/// How far noise that was never seen before moves posteriors, on average.
fn fresh_noise(subject: &mut Subject) -> Outcome {
    let golden = subject.golden;
    if subject.loaded.int8().is_none() {
        return Outcome::new(Status::NotApplicable, "the maker's figure is of the int8 network's posteriors");
    }
    let Trials { plan, drift, .. } = match by_maker(golden) {
        Ok(trials) => trials,
        Err(outcome) => return outcome,
    };
    let seed = subject.options.noise_seed.unwrap_or_else(|| fastrand::u32(..));
    let mut device = Device::answering(subject.loaded.backend());
    let mean = match trials::drift_of(&mut device, golden, plan.disturbed, seed) {
        Ok(mean) => mean,
        Err(why) => return judge(false, device.said(&Fault::Run(why))),
    };
    let detail = format!(
        "seed {seed}: mean distance {mean:.3}, by the maker {:.3} +- {:.3} ({} standard deviations allowed)",
        drift.mean,
        drift.std,
        Reference::TOLERANCE
    );
    judge(drift.agrees(mean), detail)
        .with("images", plan.disturbed)
        .with("seed", seed)
        .with("mean_distance", mean)
        .with("mean_distance_by_maker", drift.mean)
        .with("standard_deviation", drift.std)
}

fn latency(subject: &mut Subject) -> Outcome {
    const RUNS: usize = 200;
    let image = subject.golden.bytes(subject.golden.header().cases.at(0).image);
    let mut times = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        let began = Instant::now();
        if let Err(error) = subject.loaded.backend().answer(image, &mut |_, _| {}) {
            return judge(false, error.to_string());
        }
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let (p50, p99) = (times[RUNS / 2], times[RUNS * 99 / 100]);
    let detail = format!("p50 {p50:.3} ms, p99 {p99:.3} ms");
    let outcome = match subject.options.max_latency_ms {
        Some(limit) => judge(p99 <= limit, format!("{detail}, limit {limit} ms")).with("limit_ms", limit),
        None => Outcome::new(Status::NotApplicable, format!("{detail}; no limit was given")),
    };
    outcome.with("p50_ms", p50).with("p99_ms", p99).count("runs", RUNS)
}

fn fault_injection(subject: &mut Subject) -> Outcome {
    int8_only(subject, |int8, golden| {
        // High bits of two weights of the first layer.
        let mut seen = 0;
        for bit in [6, 8 * 64 + 6] {
            let mut faulty = int8.with_flipped_bit(bit);
            if !faulty.model().is_intact() && checksums(&mut faulty, golden).status == Status::Failed {
                seen += 1;
            }
        }
        judge(seen == 2, format!("{seen} of 2 flipped weight bits were noticed by hash and by checksum"))
            .with("flipped", 2)
            .with("noticed", seen)
    })
}
