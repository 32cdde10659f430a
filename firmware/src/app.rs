//! What the firmware does, as a state machine that a board's main loop steps.
//!
//! ```text
//!   Verify --model and golden file belong together--> Run(0) --> ... --> Probe(0, 0) --> ... --> Done
//!      \--else--> Fault             an output differs, or a set of probes is answered too badly --> Fault
//! ```

use heapless::Vec;
use paradise_engine::golden::{Golden, MAX_CASES, Probes, crc32};
use paradise_engine::layer::MAX_LAYERS;
use paradise_engine::record::Records;
use paradise_engine::{Model, RunError, Workspace, classify};

/// The device's answer to one golden image.
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
    /// Whether the device accepts.
    pub accept: bool,
    /// CRC-32 over the bits of mu, log sigma and logits.
    pub outputs_crc: u32,
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
    /// A golden image was answered as on the host.
    Golden(Outcome),
    /// A set of probes was answered as well as it asks for, or not.
    Probes(Tally),
}

/// Why the application stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The golden file is of another model, or the model changed in memory.
    Model,
    /// The engine refuses the workspace.
    Run(RunError),
    /// A layer's output differs from the golden one.
    Layer {
        /// The golden image.
        case: usize,
        /// The layer.
        layer: usize,
    },
    /// Posterior, rate or decision differ.
    Answer {
        /// The golden image.
        case: usize,
    },
    /// Fewer probes right than the set asks for.
    Probes {
        /// The set.
        set: usize,
    },
}

/// Where the application stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Before the hashes are checked.
    Verify,
    /// The next golden image to run.
    Run(usize),
    /// The next probe to run: the set's index, and the image's in it.
    Probe(usize, usize),
    /// Every golden image was answered as on the host, every set of probes as well as it asks for.
    Done,
    /// Stopped.
    Fault(Fault),
}

/// The application over a model and its golden file.
pub struct App<'m> {
    model: Model<'m>,
    golden: Golden<'m>,
    state: State,
    outcomes: Vec<Outcome, MAX_CASES>,
    tally: Tally,
}

impl<'m> App<'m> {
    /// An application that has not begun.
    pub fn new(model: Model<'m>, golden: Golden<'m>) -> Self {
        Self { model, golden, state: State::Verify, outcomes: Vec::new(), tally: Tally::default() }
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// The model.
    pub fn model(&self) -> &Model<'m> {
        &self.model
    }

    /// The sets of probes.
    pub fn probes(&self) -> Records<'m, Probes> {
        self.golden.header().probes
    }

    /// What the golden images and the probes are.
    pub fn images(&self) -> &'static str {
        self.golden.header().origin.name()
    }

    /// Answers so far.
    pub fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }

    /// One step, which runs at most one image; what it brought, if anything.
    pub fn step(&mut self, memory: &mut Workspace) -> Option<Event> {
        let (event, next) = match self.state {
            State::Verify => {
                let whole = self.model.is_intact() && self.golden.header().model == self.model.hash();
                (None, if whole { State::Run(0) } else { State::Fault(Fault::Model) })
            }
            State::Run(case) => match self.run(case, memory) {
                Ok(outcome) => {
                    // Never more cases than the golden file may hold.
                    let _ = self.outcomes.push(outcome);
                    let last = case + 1 == self.golden.header().cases.len();
                    (Some(Event::Golden(outcome)), if last { self.set(0) } else { State::Run(case + 1) })
                }
                Err(fault) => (None, State::Fault(fault)),
            },
            State::Probe(set, image) => match self.probe(set, image, memory) {
                Ok(probes) if image + 1 < usize::from(probes.n) => (None, State::Probe(set, image + 1)),
                Ok(probes) => {
                    let tally = core::mem::take(&mut self.tally);
                    let enough = tally.correct >= probes.min_correct;
                    let next = if enough { self.set(set + 1) } else { State::Fault(Fault::Probes { set }) };
                    (Some(Event::Probes(tally)), next)
                }
                Err(fault) => (None, State::Fault(fault)),
            },
            ended @ (State::Done | State::Fault(_)) => (None, ended),
        };
        self.state = next;
        event
    }

    /// The state that begins a set of probes, or ends all.
    fn set(&self, set: usize) -> State {
        if set < self.golden.header().probes.len() { State::Probe(set, 0) } else { State::Done }
    }

    fn probe(&mut self, set: usize, image: usize, memory: &mut Workspace) -> Result<Probes, Fault> {
        let header = self.golden.header();
        let (probes, each) = (header.probes.at(set), header.image_bytes as usize);
        let pixels = &self.golden.bytes(probes.images)[image * each..][..each];
        let answer = classify(&self.model, pixels, memory, &mut |_, _| {}).map_err(Fault::Run)?;
        let right = answer.class as u32 == self.golden.u32s(probes.labels).at(image);
        self.tally = Tally {
            set,
            n: self.tally.n + 1,
            correct: self.tally.correct + u16::from(right),
            abstained: self.tally.abstained + u16::from(!answer.decision.is_accept()),
        };
        Ok(probes)
    }

    fn run(&self, case: usize, memory: &mut Workspace) -> Result<Outcome, Fault> {
        let golden = self.golden.header().cases.at(case);
        let expected = self.golden.u32s(golden.crc);
        let mut seen: Vec<u32, MAX_LAYERS> = Vec::new();
        let image = self.golden.bytes(golden.image);
        let answer = classify(&self.model, image, memory, &mut |_, output| {
            let _ = seen.push(crc32(output));
        })
        .map_err(Fault::Run)?;
        if let Some(layer) = (0..expected.len()).find(|&l| seen.get(l) != Some(&expected.at(l))) {
            return Err(Fault::Layer { case, layer });
        }
        let outputs = self.golden.f32s(golden.int8_outputs);
        let got = || answer.mu.iter().chain(answer.log_sigma).chain(answer.logits);
        let same =
            outputs.len() == got().count() && outputs.iter().zip(got()).all(|(a, b)| a.to_bits() == b.to_bits());
        let accept = answer.decision.is_accept();
        let decided = answer.class == golden.class as usize && accept == golden.accept;
        if !same || !decided || answer.rate_nats.to_bits() != golden.rate_nats.to_bits() {
            return Err(Fault::Answer { case });
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
            accept,
            outputs_crc,
        })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use paradise_engine::container::{self, BLOB};
    use paradise_engine::golden::{KNOWN, MAGIC, VERSION};

    const MODEL: &[u8] = include_bytes!("../../models/fashion-mnist-small/model.pmq");
    const GOLDEN: &[u8] = include_bytes!("../../models/fashion-mnist-small/selftest.bin");

    fn run(mut app: App, arena: usize) -> State {
        let (mut arena, mut floats) = (std::vec![0; arena], std::vec![0.0; app.model().float_len()]);
        let mut memory = Workspace { arena: &mut arena, floats: &mut floats };
        while !matches!(app.state(), State::Done | State::Fault(_)) {
            app.step(&mut memory);
        }
        app.state()
    }

    #[test]
    fn every_golden_image_is_answered() {
        let app = || App::new(Model::parse(MODEL).unwrap(), Golden::parse(GOLDEN).unwrap());
        let arena = app().model().header().arena_bytes as usize;
        assert_eq!(run(app(), arena), State::Done);
        assert!(matches!(run(app(), arena - 1), State::Fault(Fault::Run(RunError::Arena { .. }))));
    }

    #[test]
    fn probes_are_counted_as_they_are_and_too_few_right_are_a_fault() {
        let model = || Model::parse(MODEL).unwrap();
        let good = Golden::parse(GOLDEN).unwrap();
        let (mut arena, mut floats) =
            (std::vec![0; model().header().arena_bytes as usize], std::vec![0.0; model().float_len()]);
        let mut memory = Workspace { arena: &mut arena, floats: &mut floats };
        let mut app = App::new(model(), Golden::parse(GOLDEN).unwrap());
        let mut tallies = std::vec::Vec::new();
        while !matches!(app.state(), State::Done | State::Fault(_)) {
            if let Some(Event::Probes(tally)) = app.step(&mut memory) {
                tallies.push(tally);
            }
        }
        assert_eq!(tallies.len(), good.header().probes.len());
        for (set, (tally, probes)) in tallies.iter().zip(good.header().probes.iter()).enumerate() {
            let each = good.header().image_bytes as usize;
            let right = good.bytes(probes.images).chunks_exact(each).enumerate().filter(|(i, image)| {
                let answer = classify(&model(), image, &mut memory, &mut |_, _| {}).unwrap();
                answer.class as u32 == good.u32s(probes.labels).at(*i)
            });
            assert_eq!((tally.set, tally.n, tally.correct), (set, probes.n, right.count() as u16));
        }

        let mut bytes = GOLDEN.to_vec();
        let blob = container::open(GOLDEN, MAGIC, VERSION, KNOWN).unwrap().offset(BLOB).unwrap();
        let labels = good.header().probes.at(1).labels;
        for label in bytes[blob + labels.offset as usize..][..labels.len as usize].chunks_exact_mut(4) {
            label[0] = label[0].wrapping_add(1);
        }
        let seal = container::digest(&bytes);
        bytes[32..64].copy_from_slice(&seal);
        let app = App::new(model(), Golden::parse(&bytes).unwrap());
        assert_eq!(run(app, arena.len()), State::Fault(Fault::Probes { set: 1 }));
    }

    #[test]
    fn a_changed_model_is_a_fault_before_anything_runs() {
        let mut bytes = MODEL.to_vec();
        let good = Model::parse(MODEL).unwrap();
        bytes[good.blob_offset()] ^= 1;
        let app = App::new(good.over_faulty_bytes(&bytes).unwrap(), Golden::parse(GOLDEN).unwrap());
        assert_eq!(run(app, 1 << 20), State::Fault(Fault::Model));
    }
}
