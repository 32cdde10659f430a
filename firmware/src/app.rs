//! What the firmware does, as a state machine that a board's main loop steps.
//!
//! ```text
//!   Verify --model and golden file belong together--> Run(0) --> Run(1) --> ... --> Done
//!      \--else--> Fault                                 \--an output differs--> Fault
//! ```

use heapless::Vec;
use paradise_engine::golden::{Golden, MAX_CASES, crc32};
use paradise_engine::layer::MAX_LAYERS;
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
}

/// Where the application stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Before the hashes are checked.
    Verify,
    /// The next golden image to run.
    Run(usize),
    /// Every golden image was answered as on the host.
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
}

impl<'m> App<'m> {
    /// An application that has not begun.
    pub fn new(model: Model<'m>, golden: Golden<'m>) -> Self {
        Self { model, golden, state: State::Verify, outcomes: Vec::new() }
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// The model.
    pub fn model(&self) -> &Model<'m> {
        &self.model
    }

    /// Answers so far.
    pub fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }

    /// One step; the outcome of the golden image that it ran, if any.
    pub fn step(&mut self, memory: &mut Workspace) -> Option<Outcome> {
        match self.state {
            State::Verify => {
                let whole = self.model.is_intact() && self.golden.header().model == self.model.hash();
                self.state = if whole { State::Run(0) } else { State::Fault(Fault::Model) };
                None
            }
            State::Run(case) => match self.run(case, memory) {
                Ok(outcome) => {
                    // Never more cases than the golden file may hold.
                    let _ = self.outcomes.push(outcome);
                    let last = case + 1 == self.golden.header().cases.len();
                    self.state = if last { State::Done } else { State::Run(case + 1) };
                    Some(outcome)
                }
                Err(fault) => {
                    self.state = State::Fault(fault);
                    None
                }
            },
            State::Done | State::Fault(_) => None,
        }
    }

    fn run(&self, case: usize, memory: &mut Workspace) -> Result<Outcome, Fault> {
        let golden = &self.golden.header().cases[case];
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
    fn a_changed_model_is_a_fault_before_anything_runs() {
        let mut bytes = MODEL.to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        let good = Model::parse(MODEL).unwrap();
        let app = App::new(good.over_faulty_bytes(&bytes).unwrap(), Golden::parse(GOLDEN).unwrap());
        assert_eq!(run(app, 1 << 20), State::Fault(Fault::Model));
    }
}
