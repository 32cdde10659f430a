//! This device as the engine's self-test drives it: its back end as it answers, or the engine with every layer in sight.

use crate::int8::Int8;
use crate::pipeline::{Backend, BackendError, BackendKind};
use paradise_engine::golden::Golden;
use paradise_engine::selftest::{Event, Fault, Painter, SelfTest, State, Subject};
use paradise_engine::{Answer, Shape};

/// What runs the images of a self-test.
enum Runs<'a> {
    /// A back end as it answers.
    Answering(&'a mut dyn Backend),
    /// The engine, each layer written out on its own.
    Observed(&'a mut Int8),
}

/// A device under test.
pub(super) struct Device<'a> {
    runs: Runs<'a>,
    /// Why the last image had no answer.
    why: Option<BackendError>,
}

/// An image had no answer; [`Device::said`] has the reason.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct NoAnswer;

impl<'a> Device<'a> {
    /// A back end as it answers.
    pub fn answering(backend: &'a mut dyn Backend) -> Self {
        Self { runs: Runs::Answering(backend), why: None }
    }

    /// The engine, each layer written out on its own.
    pub fn observed(int8: &'a mut Int8) -> Self {
        Self { runs: Runs::Observed(int8), why: None }
    }

    /// Runs the golden images; the largest distance of float outputs, or the first fault.
    pub fn golden(&mut self, golden: &Golden) -> Result<f32, Fault<NoAnswer>> {
        let mut test = SelfTest::new(golden);
        test.seek(State::Golden(0));
        let mut gap = 0.0f32;
        loop {
            match (test.step(self), test.state()) {
                (Some(Event::Golden(outcome)), State::Golden(_)) => gap = gap.max(outcome.gap),
                (Some(Event::Golden(outcome)), _) => return Ok(gap.max(outcome.gap)),
                (_, State::Fault(fault)) => return Err(fault),
                _ => {}
            }
        }
    }

    /// Runs a set of probes; how many were right and abstained from, or why one had no answer.
    pub fn probes(&mut self, golden: &Golden, set: usize) -> Result<paradise_engine::selftest::Tally, String> {
        let mut test = SelfTest::new(golden);
        test.seek(test.set(set));
        loop {
            let event = test.step(self);
            if let Some(Event::Probes(tally)) = event {
                return Ok(tally);
            }
            if let State::Fault(fault) = test.state() {
                return Err(self.said(&fault));
            }
        }
    }

    /// A fault in words.
    pub fn said(&self, fault: &Fault<NoAnswer>) -> String {
        match fault {
            Fault::Model => "selftest.bin is of another model".into(),
            Fault::Run(NoAnswer) => self.why.as_ref().map_or("no answer".into(), ToString::to_string),
            Fault::Layer { case, layer } => {
                format!("golden image {case}: layer {layer} ({}) differs", self.layer(*layer))
            }
            Fault::Answer { case } => format!("golden image {case}: posterior, rate or decision differs"),
            Fault::Gap { case, gap } => format!("golden image {case}: off by {gap:.1e}"),
            Fault::Probes { set } => format!("probes {set}: fewer right than they ask for"),
        }
    }

    fn layer(&self, layer: usize) -> &'static str {
        match &self.runs {
            Runs::Observed(int8) => int8.model().header().layers.get(layer).map_or("?", |l| l.op.name()),
            Runs::Answering(_) => "?",
        }
    }
}

impl Subject for Device<'_> {
    type Error = NoAnswer;

    fn is_exact(&self) -> bool {
        match &self.runs {
            Runs::Answering(backend) => backend.kind() == BackendKind::Int8,
            Runs::Observed(_) => true,
        }
    }

    fn is_model(&self, hash: &[u8; 32]) -> bool {
        let mut same = false;
        match &self.runs {
            Runs::Answering(backend) => backend.with_model(&mut |model| same = model.hash() == *hash),
            Runs::Observed(int8) => same = int8.model().hash() == *hash,
        }
        same
    }

    fn shape(&self) -> Shape {
        let mut shape = Shape::new(0, 0, 0);
        match &self.runs {
            Runs::Answering(backend) => backend.with_model(&mut |model| shape = model.header().input),
            Runs::Observed(int8) => shape = int8.model().header().input,
        }
        shape
    }

    fn answer(
        &mut self,
        image: &[u8],
        layers: &mut dyn FnMut(usize, &[i8]),
        read: &mut dyn FnMut(&Answer),
    ) -> Result<usize, NoAnswer> {
        let (outcome, shown) = match &mut self.runs {
            Runs::Answering(backend) => (backend.answer(image, &mut |_, answer| read(answer)), 0),
            Runs::Observed(int8) => {
                let layers_there = int8.model().header().layers.len();
                (int8.observe(image, layers, &mut |_, answer| read(answer)), layers_there)
            }
        };
        outcome.map(|()| shown).map_err(|why| {
            self.why = Some(why);
            NoAnswer
        })
    }
}

impl Painter for Device<'_> {}
