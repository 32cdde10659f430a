//! The self-test of a chip, one small step at a time: what each check is, how far it is, what it found.
//!
//! Checks of the chip itself are the board's ([`Hardware`]); images run through the engine's own steppers, which the daemon
//! uses too. Each check can be [spoiled](Checks::spoil), which must make it fail: a check that cannot fail proves nothing.

use crate::latch::{BITE_DUE, BITE_MISSED, BITE_PROVEN, Record};
use paradise_engine::golden::Golden;
use paradise_engine::selftest::drift::{Drift, Reference};
use paradise_engine::selftest::square::Square;
use paradise_engine::selftest::{Event, Painter, SelfTest, State, Subject};
use paradise_engine::{Answer, RunError};

/// What the chip itself can be asked; `None` where it has no such thing. `spoil` makes the outcome wrong.
pub trait Hardware {
    /// Whether the program in flash has the checksum that was written behind it.
    fn program_is_whole(&mut self, spoil: bool) -> Option<bool>;
    /// Whether the core's registers hold what is written to them.
    fn registers_hold(&mut self, spoil: bool) -> Option<bool>;
    /// Whether the FPU's registers hold what is written to them, and it rounds to the nearest and keeps small numbers.
    fn fpu_is_right(&mut self, spoil: bool) -> Option<bool>;
    /// How far two clocks are apart, in thousandths.
    fn clocks_differ(&mut self, spoil: bool) -> Option<u32>;
    /// Bytes of stack that were used at most, and that there are.
    fn stack(&mut self, spoil: bool) -> Option<[u32; 2]>;
    /// Whether the words around the model's memory are untouched.
    fn memory_is_bounded(&mut self, spoil: bool) -> bool;
    /// A number that nobody knows before.
    fn noise(&mut self) -> u32;
}

/// The checks, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Check {
    Program,
    Model,
    Ram,
    Registers,
    Fpu,
    Clocks,
    Stack,
    Bounds,
    Golden,
    Watchdog,
    Probes,
    Attack,
    Drift,
}

impl Check {
    /// All of them; those after [`Check::Watchdog`] take long and are left out when the chip starts.
    pub const ALL: [Self; 13] = [
        Self::Program,
        Self::Model,
        Self::Ram,
        Self::Registers,
        Self::Fpu,
        Self::Clocks,
        Self::Stack,
        Self::Bounds,
        Self::Golden,
        Self::Watchdog,
        Self::Probes,
        Self::Attack,
        Self::Drift,
    ];

    /// As logs and the link name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Program => "program in flash",
            Self::Model => "model in flash",
            Self::Ram => "RAM, march C- before start",
            Self::Registers => "core registers",
            Self::Fpu => "FPU registers and rounding",
            Self::Clocks => "two clocks, thousandths apart",
            Self::Stack => "stack, bytes used",
            Self::Bounds => "words around the arena",
            Self::Golden => "golden images, bit for bit",
            Self::Watchdog => "watchdog bites",
            Self::Probes => "labelled probes, right ones",
            Self::Attack => "black-box attack, images broken",
            Self::Drift => "drift under fresh noise, thousandths",
        }
    }
}

/// What the maker's machine found with the chip's model and images, embedded while the firmware is built.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    /// Images that are attacked, radius, queries for each, and how many are broken.
    pub attack: [u16; 4],
    /// Images of the drift check.
    pub drift_images: u16,
    /// Their mean under noise.
    pub drift: Reference,
}

/// How a check ended: whether it passed (`None`: not run), what it found and what it was held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Whether it passed.
    pub passed: Option<bool>,
    /// What it found, and what that was held to.
    pub found: [u32; 2],
}

/// Largest difference of two clocks, in thousandths.
const CLOCKS: u32 = 100;

/// The self-test.
#[derive(Debug)]
pub struct Checks<'a> {
    golden: &'a Golden<'a>,
    expected: Expected,
    outcomes: [Outcome; Check::ALL.len()],
    /// The check that runs, and where those end that are to be run.
    at: usize,
    end: usize,
    images: SelfTest<'a, RunError>,
    attack: Option<Square<'a>>,
    image: u16,
    count: u32,
    drift: Drift,
    seed: u32,
    spoiled: Option<Check>,
}

impl<'a> Checks<'a> {
    /// Checks that are not under way.
    pub fn new(golden: &'a Golden<'a>, expected: Expected) -> Self {
        let outcomes = [Outcome::default(); Check::ALL.len()];
        let (images, drift) = (SelfTest::new(golden), Drift::default());
        let (at, end) = (0, 0);
        Self {
            golden,
            expected,
            outcomes,
            at,
            end,
            images,
            attack: None,
            image: 0,
            count: 0,
            drift,
            seed: 0,
            spoiled: None,
        }
    }

    /// Begins: all checks, or those of a start alone.
    pub fn begin(&mut self, all: bool) {
        self.outcomes = [Outcome::default(); Check::ALL.len()];
        (self.at, self.end) = (0, if all { Check::ALL.len() } else { Check::Watchdog as usize + 1 });
        self.enter();
    }

    /// Whether a check is under way.
    pub fn is_running(&self) -> bool {
        self.at < self.end
    }

    /// How a check ended.
    pub fn outcome(&self, check: usize) -> Option<(Check, Outcome)> {
        Some((*Check::ALL.get(check)?, *self.outcomes.get(check)?))
    }

    /// The first check that failed.
    pub fn failed(&self) -> Option<Check> {
        Check::ALL.iter().zip(&self.outcomes).find(|(_, outcome)| outcome.passed == Some(false)).map(|(c, _)| *c)
    }

    /// Makes a check fail when it runs next; `None` undoes that.
    pub fn spoil(&mut self, check: Option<Check>) {
        self.spoiled = check;
    }

    fn enter(&mut self) {
        (self.image, self.count, self.attack, self.drift) = (0, 0, None, Drift::default());
        self.images = SelfTest::new(self.golden);
        match Check::ALL.get(self.at) {
            Some(Check::Golden) => self.images.seek(State::Golden(0)),
            Some(Check::Probes) => self.images.seek(self.images.set(0)),
            _ => {}
        }
    }

    /// One step, which runs at most one image. The check that ended with it.
    pub fn step<D>(&mut self, device: &mut D, hardware: &mut dyn Hardware, record: &Record) -> Option<Check>
    where
        D: Painter<Error = RunError>,
    {
        let check = *Check::ALL.get(self.at).filter(|_| self.at < self.end)?;
        let spoil = self.spoiled == Some(check);
        let outcome = self.run(check, device, hardware, record, spoil)?;
        self.outcomes[self.at] = outcome;
        if spoil {
            self.spoiled = None;
        }
        self.at += 1;
        self.enter();
        Some(check)
    }

    fn run<D>(
        &mut self,
        check: Check,
        device: &mut D,
        hardware: &mut dyn Hardware,
        record: &Record,
        spoil: bool,
    ) -> Option<Outcome>
    where
        D: Painter<Error = RunError>,
    {
        let of = |passed: Option<bool>| Outcome { passed, found: [u32::from(passed == Some(true)), 1] };
        Some(match check {
            Check::Program => of(hardware.program_is_whole(spoil)),
            Check::Model => {
                let mut hash = self.golden.header().model;
                hash[0] ^= u8::from(spoil);
                of(Some(device.is_model(&hash)))
            }
            Check::Ram => {
                // 0: the board runs none. What was found is the address of the first bad word.
                let found = if spoil { 2 } else { record.ram };
                Outcome { passed: (found != 0).then_some(found == 1), found: [found, 1] }
            }
            Check::Registers => of(hardware.registers_hold(spoil)),
            Check::Fpu => of(hardware.fpu_is_right(spoil)),
            Check::Clocks => match hardware.clocks_differ(spoil) {
                Some(apart) => Outcome { passed: Some(apart <= CLOCKS), found: [apart, CLOCKS] },
                None => Outcome::default(),
            },
            Check::Stack => match hardware.stack(spoil) {
                Some([used, size]) => Outcome { passed: Some(used < size), found: [used, size] },
                None => Outcome::default(),
            },
            Check::Bounds => of(Some(hardware.memory_is_bounded(spoil))),
            Check::Golden => return self.golden(device, spoil),
            Check::Watchdog => match (record.bite, spoil) {
                (BITE_PROVEN, false) => Outcome { passed: Some(true), found: [1, 1] },
                (BITE_DUE | BITE_MISSED, _) | (_, true) => Outcome { passed: Some(false), found: [0, 1] },
                _ => Outcome::default(),
            },
            Check::Probes => return self.probes(device, spoil),
            Check::Attack => return self.attack(device, spoil),
            Check::Drift => return self.drift(device, hardware, spoil),
        })
    }

    fn golden<D: Painter<Error = RunError>>(&mut self, device: &mut D, spoil: bool) -> Option<Outcome> {
        let need = self.golden.header().cases.len() as u32;
        let event = if spoil { self.images.step(&mut Flipped(device)) } else { self.images.step(device) };
        self.count += u32::from(matches!(event, Some(Event::Golden(_))));
        let done = self.count == need;
        let over = done || self.images.is_over();
        over.then_some(Outcome { passed: Some(done), found: [self.count, need] })
    }

    fn probes<D: Painter<Error = RunError>>(&mut self, device: &mut D, spoil: bool) -> Option<Outcome> {
        let event = if spoil { self.images.step(&mut Flipped(device)) } else { self.images.step(device) };
        if let Some(Event::Probes(tally)) = event {
            self.count += u32::from(tally.correct);
        }
        let need = self.golden.header().probes.iter().map(|set| u32::from(set.min_correct)).sum();
        let passed = match self.images.state() {
            State::Done => true,
            State::Fault(_) => false,
            _ => return None,
        };
        Some(Outcome { passed: Some(passed), found: [self.count, need] })
    }

    /// Image `self.image` of the first set of probes, and its label.
    fn probe(&self) -> Option<(&'a [u8], usize)> {
        let set = self.golden.header().probes.get(0)?;
        let (each, at) = (self.golden.header().image_bytes as usize, usize::from(self.image));
        let image = self.golden.bytes(set.images).get(at * each..(at + 1) * each)?;
        Some((image, self.golden.u32s(set.labels).at(at) as usize))
    }

    fn attack<D: Painter<Error = RunError>>(&mut self, device: &mut D, spoil: bool) -> Option<Outcome> {
        let [images, eps, queries, broken] = self.expected.attack;
        let end = |count: u32| Outcome { passed: Some(count == broken.into()), found: [count, broken.into()] };
        let Some((image, label)) = self.probe().filter(|_| self.image < images) else {
            return Some(if images == 0 { Outcome::default() } else { end(self.count) });
        };
        let shape = device.shape();
        // Its label is wrong, so that it is broken at once.
        let label = if spoil { label ^ 1 } else { label };
        let attack = self.attack.get_or_insert_with(|| Square::new((image, shape), label, eps as u8, queries, SEED));
        match attack.step(device) {
            Ok(None) => return None,
            Ok(Some(broken)) => self.count += u32::from(broken),
            Err(_) => return Some(Outcome { passed: Some(false), found: [self.count, broken.into()] }),
        }
        self.attack = None;
        self.image += 1;
        None
    }

    fn drift<D>(&mut self, device: &mut D, hardware: &mut dyn Hardware, spoil: bool) -> Option<Outcome>
    where
        D: Painter<Error = RunError>,
    {
        let Expected { drift_images, drift, .. } = self.expected;
        let Some((image, _)) = self.probe().filter(|_| self.image < drift_images) else {
            if drift_images == 0 {
                return Some(Outcome::default());
            }
            let mean = if spoil { 2.0 * self.drift.mean() + 1.0 } else { self.drift.mean() };
            let found = [mean, drift.mean].map(|distance| (1000.0 * distance) as u32);
            return Some(Outcome { passed: Some(drift.agrees(mean)), found });
        };
        if self.image == 0 {
            self.seed = hardware.noise();
        }
        if self.drift.step(device, image, self.seed.wrapping_add(self.image.into())).is_err() {
            return Some(Outcome { passed: Some(false), found: [0; 2] });
        }
        self.image += 1;
        None
    }
}

pub use paradise_engine::selftest::trials::SEED;

/// A device that sees every image with its first value changed, and labels' classes swapped by it: what a broken memory does.
struct Flipped<'d, D>(&'d mut D);

impl<D: Subject> Subject for Flipped<'_, D> {
    type Error = D::Error;

    fn is_exact(&self) -> bool {
        self.0.is_exact()
    }

    fn is_model(&self, hash: &[u8; 32]) -> bool {
        self.0.is_model(hash)
    }

    fn shape(&self) -> paradise_engine::Shape {
        self.0.shape()
    }

    fn answer(
        &mut self,
        image: &[u8],
        layers: &mut dyn FnMut(usize, &[i8]),
        read: &mut dyn FnMut(&Answer),
    ) -> Result<usize, D::Error> {
        self.0.answer(image, layers, &mut |answer| {
            let class = (answer.class + 1) % answer.logits.len().max(1);
            read(&Answer { class, ..*answer });
        })
    }
}
