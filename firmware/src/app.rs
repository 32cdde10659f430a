//! What the firmware does, as a state machine that a board's main loop steps: the engine's self-test, and what came of it.

use heapless::Vec;
use paradise_engine::RunError;
use paradise_engine::golden::{Golden, MAX_CASES};
use paradise_engine::selftest::{Event, Outcome, Scalar, SelfTest, State};

/// The self-test of a bundle on this chip.
pub struct App<'a, 'm> {
    device: Scalar<'a, 'm>,
    test: SelfTest<'a, RunError>,
    outcomes: Vec<Outcome, MAX_CASES>,
}

impl<'a, 'm> App<'a, 'm> {
    /// An application that has not begun.
    pub fn new(device: Scalar<'a, 'm>, golden: &'a Golden<'a>) -> Self {
        Self { device, test: SelfTest::new(golden), outcomes: Vec::new() }
    }

    /// Where it stands.
    pub fn state(&self) -> State<RunError> {
        self.test.state()
    }

    /// Answers to golden images so far.
    pub fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }

    /// One step, which runs at most one image; what it brought, if anything.
    pub fn step(&mut self) -> Option<Event> {
        let event = self.test.step(&mut self.device);
        if let Some(Event::Golden(outcome)) = event {
            // Never more cases than a self-test file may hold.
            let _ = self.outcomes.push(outcome);
        }
        event
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use paradise_engine::{Model, Sizes, Workspace};

    const MODEL: &[u8] = include_bytes!("../../models/fashion-mnist-small/model.pmq");
    const GOLDEN: &[u8] = include_bytes!("../../models/fashion-mnist-small/selftest.bin");
    const SIZES: Sizes = Sizes::of(MODEL);

    #[test]
    fn the_shipped_bundle_passes_and_its_answers_are_kept() {
        let (model, golden) = (Model::parse(MODEL).unwrap(), Golden::parse(GOLDEN).unwrap());
        let (mut arena, mut floats) = ([0; SIZES.arena], [0.0; SIZES.floats]);
        let memory = Workspace { arena: &mut arena, floats: &mut floats };
        let mut app = App::new(Scalar { model: &model, memory }, &golden);
        while !matches!(app.state(), State::Done | State::Fault(_)) {
            app.step();
        }
        assert_eq!(app.state(), State::Done);
        assert_eq!(app.outcomes().len(), golden.header().cases.len());
    }
}
