//! The self-test as a stepper that every device drives, a microcontroller's main loop as well as a daemon: golden images must
//! be answered as on the maker's machine, and labelled probes as well as they ask for.
//!
//! ```text
//!   Verify --model and file belong together--> Golden(0) --> ... --> Probe(0, 0) --> ... --> Done
//!      \--else--> Fault          an output differs, or a set of probes is answered too badly --> Fault
//! ```
//! A fault ends the test unless its driver goes on from another state ([`SelfTest::seek`]).

pub mod drift;
pub mod square;
pub mod trials;

use crate::artifact::Model;
use crate::decision::PValues;
use crate::error::RunError;
use crate::golden::{Golden, Probes, crc32};
use crate::inference::{Answer, Workspace, classify};
use crate::lowered::{Lowered, Memory};
use crate::tensor::Shape;
use crate::typicality::Distances;

/// Who is tested.
pub trait Subject {
    /// Why it gives no answer.
    type Error;

    /// Whether it answers the engine's bits; if not, it is held to the file's float outputs within their tolerance.
    fn is_exact(&self) -> bool;

    /// Whether its model is whole and has this hash.
    fn is_model(&self, hash: &[u8; 32]) -> bool;

    /// Extents of its images.
    fn shape(&self) -> Shape;

    /// Answers a u8 HWC image: `layers(layer, output)` sees the int8 output of every layer that can be seen, and `read` the
    /// answer. Returns how many layers there were to see.
    ///
    /// # Errors
    /// If it cannot.
    fn answer(
        &mut self,
        image: &[u8],
        layers: &mut dyn FnMut(usize, &[i8]),
        read: &mut dyn FnMut(&Answer),
    ) -> Result<usize, Self::Error>;
}

/// Who can be given an image that is made where it is read, so that no memory holds it beside.
pub trait Painter: Subject {
    /// Answers a u8 HWC image that `paint` writes in full; `read` sees the answer.
    ///
    /// # Errors
    /// If it cannot.
    #[cfg(not(feature = "alloc"))]
    fn answer_painted(
        &mut self,
        paint: &mut dyn FnMut(&mut [u8]),
        read: &mut dyn FnMut(&Answer),
    ) -> Result<(), Self::Error>;

    /// Answers a u8 HWC image that `paint` writes in full; `read` sees the answer. Who says nothing else paints into memory of its own.
    ///
    /// # Errors
    /// If it cannot.
    #[cfg(feature = "alloc")]
    fn answer_painted(
        &mut self,
        paint: &mut dyn FnMut(&mut [u8]),
        read: &mut dyn FnMut(&Answer),
    ) -> Result<(), Self::Error> {
        let mut image = alloc::vec![0; self.shape().len() as usize];
        paint(&mut image);
        self.answer(&image, &mut |_, _| {}, read).map(drop)
    }
}

/// The engine's own arithmetic over a model, in the caller's memory.
#[derive(Debug)]
pub struct Scalar<'a, 'm> {
    /// The model.
    pub model: &'a Model<'m>,
    /// Of the sizes that it states.
    pub memory: Workspace<'a>,
}

impl Subject for Scalar<'_, '_> {
    type Error = RunError;

    fn is_exact(&self) -> bool {
        true
    }

    fn is_model(&self, hash: &[u8; 32]) -> bool {
        self.model.is_intact() && self.model.hash() == *hash
    }

    fn shape(&self) -> Shape {
        self.model.header().input
    }

    fn answer(
        &mut self,
        image: &[u8],
        layers: &mut dyn FnMut(usize, &[i8]),
        read: &mut dyn FnMut(&Answer),
    ) -> Result<usize, RunError> {
        read(&classify(self.model, image, &mut self.memory, layers)?);
        Ok(self.model.header().layers.len())
    }
}

/// A chip's kernels over a lowered model, in the caller's memory.
#[derive(Debug)]
pub struct Chip<'a, 'm> {
    /// The lowered model.
    pub lowered: &'a Lowered<'m>,
    /// Of the sizes that it states.
    pub memory: Memory<'a>,
}

impl Subject for Chip<'_, '_> {
    type Error = RunError;

    fn is_exact(&self) -> bool {
        true
    }

    fn is_model(&self, hash: &[u8; 32]) -> bool {
        self.lowered.is_intact() && self.lowered.source() == *hash
    }

    fn shape(&self) -> Shape {
        self.lowered.model().header().input
    }

    fn answer(
        &mut self,
        image: &[u8],
        layers: &mut dyn FnMut(usize, &[i8]),
        read: &mut dyn FnMut(&Answer),
    ) -> Result<usize, RunError> {
        read(&self.lowered.classify(image, &mut self.memory, layers)?);
        Ok(self.lowered.steps().len())
    }
}

impl Painter for Chip<'_, '_> {
    fn answer_painted(
        &mut self,
        paint: &mut dyn FnMut(&mut [u8]),
        read: &mut dyn FnMut(&Answer),
    ) -> Result<(), RunError> {
        paint(self.lowered.input(self.memory.arena)?);
        read(&self.lowered.classify_placed(&mut self.memory, &mut |_, _| {})?);
        Ok(())
    }
}

/// The answer to one golden image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// Index of the golden image.
    pub case: usize,
    /// Class with the largest logit.
    pub class: usize,
    /// Rate, nats.
    pub rate_nats: f32,
    /// Posterior entropy, nats.
    pub posterior_entropy_nats: f32,
    /// Squared distances from the training images.
    pub distances: Distances,
    /// What calibration images say of all of these.
    pub p: PValues,
    /// Whether the device accepts.
    pub accept: bool,
    /// CRC-32 over the bits of mu, log sigma and logits.
    pub outputs_crc: u32,
    /// How far those are from the file's float outputs ([`Golden::float_gap`]); 0 for who is held to its bits.
    pub gap: f32,
}

/// How a set of labelled probes was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Index of the set.
    pub set: usize,
    /// Images answered.
    pub n: u16,
    /// Of them, those with the label's class.
    pub correct: u16,
    /// Of them, those that the device does not accept.
    pub abstained: u16,
}

/// What a step brought.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
    /// A golden image was answered as it should be.
    Golden(Outcome),
    /// A set of probes was answered, well enough or not.
    Probes(Tally),
}

/// Why a self-test stopped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault<E> {
    /// The file is of another model, or the model changed in memory.
    Model,
    /// There is no answer.
    Run(E),
    /// A layer's output differs from the golden one.
    Layer {
        /// The golden image.
        case: usize,
        /// The layer.
        layer: usize,
    },
    /// Posterior, rate or decision differ from the golden ones.
    Answer {
        /// The golden image.
        case: usize,
    },
    /// Float outputs are farther off than the file allows.
    Gap {
        /// The golden image.
        case: usize,
        /// [`Golden::float_gap`].
        gap: f32,
    },
    /// Fewer probes are right than the set asks for.
    Probes {
        /// The set.
        set: usize,
    },
}

/// Where a self-test stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum State<E> {
    /// Before the hashes are checked.
    Verify,
    /// The next golden image to run.
    Golden(usize),
    /// The next probe to run: the set's index, and the image's in it.
    Probe(usize, usize),
    /// Every golden image was answered as it should be, every set of probes as well as it asks for.
    Done,
    /// Stopped.
    Fault(Fault<E>),
}

/// A self-test under way.
///
/// ```
/// use paradise_engine::golden::Golden;
/// use paradise_engine::selftest::{Scalar, SelfTest, State};
/// use paradise_engine::{Model, Sizes, Workspace};
///
/// const MODEL: &[u8] = include_bytes!("../../models/fashion-mnist-small/model.pmq");
/// const SIZES: Sizes = Sizes::of(MODEL);
/// let model = Model::parse(MODEL)?;
/// let golden = Golden::parse(include_bytes!("../../models/fashion-mnist-small/selftest.bin"))?;
///
/// let (mut arena, mut floats) = ([0; SIZES.arena], [0.0; SIZES.floats]);
/// let mut device = Scalar { model: &model, memory: Workspace { arena: &mut arena, floats: &mut floats } };
/// let mut test = SelfTest::new(&golden);
/// while !test.is_over() {
///     if let Some(event) = test.step(&mut device) {
///         println!("{event:?}");
///     }
/// }
/// assert_eq!(test.state(), State::Done);
/// # Ok::<(), paradise_engine::FormatError>(())
/// ```
#[derive(Debug)]
pub struct SelfTest<'a, E> {
    golden: &'a Golden<'a>,
    state: State<E>,
    tally: Tally,
}

impl<'a, E: Copy> SelfTest<'a, E> {
    /// A test that has not begun.
    pub fn new(golden: &'a Golden<'a>) -> Self {
        Self { golden, state: State::Verify, tally: Tally::default() }
    }

    /// Where it stands.
    pub fn state(&self) -> State<E> {
        self.state
    }

    /// Whether nothing is left to do.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Done | State::Fault(_))
    }

    /// Goes on from `state`: past a fault, or with a part of the test alone.
    pub fn seek(&mut self, state: State<E>) {
        (self.state, self.tally) = (state, Tally::default());
    }

    /// The state that begins a set of probes, or ends all.
    pub fn set(&self, set: usize) -> State<E> {
        if set < self.golden.header().probes.len() { State::Probe(set, 0) } else { State::Done }
    }

    /// One step, which runs at most one image; what it brought, if anything.
    pub fn step(&mut self, subject: &mut dyn Subject<Error = E>) -> Option<Event> {
        let header = self.golden.header();
        let (event, next) = match self.state {
            State::Verify => {
                let belongs = subject.is_model(&header.model);
                (None, if belongs { State::Golden(0) } else { State::Fault(Fault::Model) })
            }
            State::Golden(case) => match golden(self.golden, case, subject) {
                Ok(outcome) => {
                    let last = case + 1 >= header.cases.len();
                    (Some(Event::Golden(outcome)), if last { self.set(0) } else { State::Golden(case + 1) })
                }
                Err(fault) => (None, State::Fault(fault)),
            },
            State::Probe(set, image) => match self.probe(set, image, subject) {
                Ok(probes) if image + 1 < usize::from(probes.n) => (None, State::Probe(set, image + 1)),
                Ok(probes) => {
                    let tally = core::mem::take(&mut self.tally);
                    let enough = tally.correct >= probes.min_correct;
                    let next = if enough { self.set(set + 1) } else { State::Fault(Fault::Probes { set }) };
                    (Some(Event::Probes(tally)), next)
                }
                Err(error) => (None, State::Fault(Fault::Run(error))),
            },
            ended @ (State::Done | State::Fault(_)) => (None, ended),
        };
        self.state = next;
        event
    }

    fn probe(&mut self, set: usize, image: usize, subject: &mut dyn Subject<Error = E>) -> Result<Probes, E> {
        let header = self.golden.header();
        let (probes, each) = (header.probes.at(set), header.image_bytes as usize);
        let pixels = &self.golden.bytes(probes.images)[image * each..][..each];
        let label = self.golden.u32s(probes.labels).at(image);
        let (mut right, mut abstained) = (false, false);
        subject.answer(pixels, &mut |_, _| {}, &mut |answer| {
            right = answer.class as u32 == label;
            abstained = !answer.decision.is_accept();
        })?;
        self.tally = Tally {
            set,
            n: self.tally.n + 1,
            correct: self.tally.correct + u16::from(right),
            abstained: self.tally.abstained + u16::from(abstained),
        };
        Ok(probes)
    }
}

/// Holds a subject's answer to golden image `case` to the file.
fn golden<E>(file: &Golden, case: usize, subject: &mut dyn Subject<Error = E>) -> Result<Outcome, Fault<E>> {
    let golden = file.header().cases.at(case);
    let (crcs, exact) = (file.u32s(golden.crc), subject.is_exact());
    let mut differs = None;
    let (mut layers, mut outcome) = (0, None);
    let mut look = |layer: usize, output: &[i8]| {
        layers += 1;
        if differs.is_none() && (layer >= crcs.len() || crc32(output) != crcs.at(layer)) {
            differs = Some(layer);
        }
    };
    let mut read = |answer: &Answer| outcome = Some(held(file, case, answer, exact));
    let due = subject.answer(file.bytes(golden.image), &mut look, &mut read).map_err(Fault::Run)?;
    let missing = (layers < due).then_some(layers);
    match (differs.or(missing), outcome) {
        (Some(layer), _) => Err(Fault::Layer { case, layer }),
        (None, Some(outcome)) => outcome,
        (None, None) => Err(Fault::Answer { case }),
    }
}

/// An answer against the file's: its bits, or its float outputs within the tolerance.
fn held<E>(file: &Golden, case: usize, answer: &Answer, exact: bool) -> Result<Outcome, Fault<E>> {
    let golden = file.header().cases.at(case);
    let got = || answer.mu.iter().chain(answer.log_sigma).chain(answer.logits).copied();
    let accept = answer.decision.is_accept();
    let mut gap = 0.0;
    if exact {
        let outputs = file.f32s(golden.int8_outputs);
        let same =
            outputs.len() == got().count() && outputs.iter().zip(got()).all(|(a, b)| a.to_bits() == b.to_bits());
        let decided = answer.class == golden.class as usize && accept == golden.accept;
        let bits = |rate: f32, d: Distances| [rate, d.posterior, d.spread, d.picture].map(f32::to_bits);
        let far = bits(answer.rate_nats, answer.distances) != bits(golden.rate_nats, golden.distances);
        if !same || !decided || far {
            return Err(Fault::Answer { case });
        }
    } else {
        gap = file.float_gap(&golden, got());
        if gap > file.header().float_tolerance {
            return Err(Fault::Gap { case, gap });
        }
    }
    // Chained four bytes at a time, so that no buffer bounds the number of outputs.
    let outputs_crc = got().fold(0u32, |crc, value| {
        let (a, b) = (crc.to_le_bytes(), value.to_le_bytes());
        crc32(&[a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]].map(|byte| byte as i8))
    });
    Ok(Outcome {
        case,
        class: answer.class,
        rate_nats: answer.rate_nats,
        posterior_entropy_nats: answer.posterior_entropy_nats,
        distances: answer.distances,
        p: answer.p,
        accept,
        outputs_crc,
        gap,
    })
}

#[cfg(test)]
mod tests;
