//! Steadied decisions on made noisy sequences, with a committed network: against "three in a row", which is what people use.

use paradise_data::embedded;
use paradise_engine::Decision;
use paradise_runtime::camera::standing::{Standing, Steadied, Terms};
use paradise_runtime::{Backend, BackendKind, Bundle, Verdict, load};
use paradise_tests::root;
use std::time::Instant;

const SIDE: usize = 28;
/// Frames of a scene, and of an occlusion that lasts.
const SCENE: usize = 60;
const COVERED: std::ops::Range<usize> = 40..55;

/// What passes between a scene and the lens for some frames.
#[derive(Clone, Copy, PartialEq)]
enum Trouble {
    Nothing,
    Blur(usize),
    Noise(f32),
    /// Something passes: so many columns from here on are of this grey.
    Passes(usize, usize, u8),
}

struct Sequence {
    rng: fastrand::Rng,
    trouble: Trouble,
    left: usize,
}

impl Sequence {
    fn gaussian(&mut self) -> f32 {
        (0..6).map(|_| self.rng.f32() - 0.5).sum::<f32>() * std::f32::consts::SQRT_2
    }

    /// A frame of a scene.
    fn frame(&mut self, scene: &[u8], covered: bool) -> Vec<u8> {
        if self.left == 0 {
            // Each lasts less than n frames, and two clear ones follow it at least.
            (self.trouble, self.left) = if self.trouble != Trouble::Nothing {
                (Trouble::Nothing, self.rng.usize(2..10))
            } else {
                let trouble = match self.rng.u32(..3) {
                    0 => Trouble::Blur(self.rng.usize(3..8)),
                    1 => Trouble::Noise(40.0 + 40.0 * self.rng.f32()),
                    _ => Trouble::Passes(self.rng.usize(..20), self.rng.usize(6..14), self.rng.u8(..)),
                };
                (trouble, self.rng.usize(1..5))
            };
        }
        self.left -= 1;
        // Mains lamps and automatic exposure.
        let light = 1.0 + 0.12 * (self.rng.f32() - 0.5);
        let [dx, dy] = [self.rng.usize(..3), self.rng.usize(..3)];
        let at = |y: usize, x: usize| {
            let (y, x) = ((y + dy).saturating_sub(1).min(SIDE - 1), (x + dx).saturating_sub(1).min(SIDE - 1));
            f32::from(scene[y * SIDE + x])
        };
        let mut frame = Vec::with_capacity(SIDE * SIDE);
        for y in 0..SIDE {
            for x in 0..SIDE {
                let mut value = match self.trouble {
                    Trouble::Blur(width) => {
                        (0..width).map(|k| at(y, (x + k).saturating_sub(width / 2).min(SIDE - 1))).sum::<f32>()
                            / width as f32
                    }
                    _ => at(y, x),
                } * light;
                if let Trouble::Passes(from, width, grey) = self.trouble
                    && (from..from + width).contains(&x)
                {
                    value = grey.into();
                }
                if covered {
                    // A hand before the lens: dim, and without edges.
                    value = 60.0 + 2.0 * y as f32;
                }
                let noise = if let Trouble::Noise(sd) = self.trouble { sd } else { 5.0 };
                frame.push((value + noise * self.gaussian()).clamp(0.0, 255.0) as u8);
            }
        }
        frame
    }
}

/// What is counted of a rule.
#[derive(Debug, Default)]
struct Judged {
    shown: Option<usize>,
    false_labels: usize,
    false_unknowns: usize,
    delays: Vec<usize>,
    never: usize,
    /// Frames from an occlusion on until it was said; where it was not, none.
    occlusions: Vec<Option<usize>>,
}

impl Judged {
    fn false_changes(&self) -> usize {
        self.false_labels + self.false_unknowns
    }
    fn delay(&self) -> usize {
        let mut delays = self.delays.clone();
        delays.sort_unstable();
        delays[delays.len() / 2]
    }
}

fn judge(verdicts: &[(usize, Vec<Verdict>)], mut rule: impl FnMut(&Verdict) -> Option<usize>) -> Judged {
    let mut judged = Judged::default();
    for (truth, frames) in verdicts {
        let (mut delay, mut said) = (None, None);
        for (f, verdict) in frames.iter().enumerate() {
            let now = rule(verdict);
            let covered = COVERED.contains(&f);
            if now == Some(*truth) && delay.is_none() {
                delay = Some(f);
            }
            if covered && now.is_none() && said.is_none() {
                said = Some(f - COVERED.start);
            }
            if now != judged.shown {
                match now {
                    Some(label) if label != *truth => judged.false_labels += 1,
                    // At the beginning of a scene nothing can be known yet, nor through a hand.
                    None if !covered && f >= 5 && f != COVERED.end => judged.false_unknowns += 1,
                    _ => {}
                }
                judged.shown = now;
            }
        }
        judged.never += usize::from(delay.is_none());
        judged.delays.push(delay.unwrap_or(SCENE));
        judged.occlusions.push(said);
    }
    judged
}

/// Verdicts on every frame of scenes that the network knows when nothing is between.
fn sequences(backend: &mut dyn Backend, scenes: usize, seed: u64) -> Vec<(usize, Vec<Verdict>)> {
    let test = embedded::subset().unwrap().test;
    let mut sequence = Sequence { rng: fastrand::Rng::with_seed(seed), trouble: Trouble::Nothing, left: 0 };
    let mut all: Vec<(usize, Vec<Verdict>)> = Vec::new();
    while all.len() < scenes {
        let i = sequence.rng.usize(..test.len());
        let truth = usize::from(test.labels[i]);
        let plain = backend.verdict(test.image(i), None).unwrap();
        if plain.class != truth || !plain.is_accept() || all.last().is_some_and(|(before, _)| *before == truth) {
            continue;
        }
        let frames = (0..SCENE).map(|f| sequence.frame(test.image(i), COVERED.contains(&f)));
        let verdicts = frames.map(|frame| backend.verdict(&frame, None).unwrap()).collect();
        all.push((truth, verdicts));
    }
    all
}

/// "Three in a row": a class that the network names in three frames one after the other. Here it may name it with any probability;
/// `least` leaves out frames below one.
fn three_in_a_row(verdicts: &[(usize, Vec<Verdict>)], least: f32) -> Judged {
    let (mut run, mut last, mut shown) = (0, None, None);
    judge(verdicts, |verdict| {
        let seen = (verdict.score >= least).then_some(verdict.class);
        run = if seen == last { run + 1 } else { 1 };
        last = seen;
        if run >= 3 && seen.is_some() {
            shown = seen;
        }
        shown
    })
}

#[test]
fn it_flaps_a_third_as_often_as_three_in_a_row_and_says_when_the_lens_is_covered() {
    for name in ["fashion-mnist-resnet8-am", "fashion-mnist-resnet8-pm", "fashion-mnist-small"] {
        let mut backend = load(&Bundle::open(&root().join("models").join(name)).unwrap(), BackendKind::Int8).unwrap();
        let verdicts = sequences(backend.as_mut(), 300, 1);
        let [naive, choosy] = [0.0, 0.7].map(|least| three_in_a_row(&verdicts, least));
        let (now, terms) = (Instant::now(), Terms::default());
        let mut camera = Steadied::new(terms, now).unwrap();
        let ours = judge(&verdicts, |verdict| {
            let answer = match verdict.decision {
                Decision::Accept => Ok((verdict.class, verdict.score)),
                Decision::Abstain(why) => Err(why),
            };
            camera.saw(answer, now);
            if let Standing::Label(class) = camera.now() { Some(class) } else { None }
        });
        for (rule, judged) in [("three in a row", &naive), ("three in a row of 0.7", &choosy), ("ours", &ours)] {
            let Judged { false_labels, false_unknowns, never, .. } = judged;
            let delay = judged.delay();
            println!("{name}: {rule}: {false_labels} + {false_unknowns} false, delay {delay}, never {never}");
        }
        assert!(3 * ours.false_changes() <= naive.false_changes(), "{name}");
        assert!(ours.delay() <= naive.delay(), "{name}");
        let late = ours.occlusions.iter().filter(|said| said.is_none_or(|frames| frames >= terms.of)).count();
        assert_eq!(late, 0, "{name}: of {} occlusions", ours.occlusions.len());
    }
}
