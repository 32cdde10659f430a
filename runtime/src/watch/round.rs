//! Goes round what must not change in memory, a slice at a time.

use super::Code;
use crate::int8::Slices;
use crate::rule::Rule;
use std::time::Duration;

/// Shortest time between slices.
const SHORTEST: Duration = Duration::from_millis(1);

/// What is gone round.
#[derive(Debug)]
pub enum Area {
    /// A model: weights, biases, scales, tables, their packed copy, what was read of layers and thresholds.
    Model(Slices),
    /// The rule in force, and the sum of its numbers.
    Rule(Rule, u32),
    /// The program's code.
    Code(Code),
}

impl From<Rule> for Area {
    /// As it is now.
    fn from(rule: Rule) -> Self {
        let sum = rule.sum();
        Self::Rule(rule, sum)
    }
}

impl Area {
    fn len(&self) -> usize {
        match self {
            Self::Model(slices) => slices.len(),
            Self::Rule(..) => 1,
            Self::Code(code) => code.len(),
        }
    }

    fn holds(&self, slice: usize) -> bool {
        match self {
            Self::Model(slices) => slices.holds(slice),
            Self::Rule(rule, sum) => rule.sum() == *sum,
            Self::Code(code) => code.holds(slice),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Model(_) => "the model",
            Self::Rule(..) => "the thresholds",
            Self::Code(_) => "the program",
        }
    }
}

/// A slice is not as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed {
    /// What it is of.
    pub of: &'static str,
    /// Which.
    pub slice: usize,
}

impl std::fmt::Display for Changed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} changed in memory (slice {})", self.of, self.slice)
    }
}

/// A round over areas of memory.
#[derive(Debug)]
pub struct Round {
    areas: Vec<Area>,
    /// The area and its slice that are next.
    at: (usize, usize),
    rounds: u64,
}

impl Round {
    /// Of these, each as it is now.
    pub fn new(areas: Vec<Area>) -> Self {
        Self { areas, at: (0, 0), rounds: 0 }
    }

    /// How many slices there are.
    pub fn len(&self) -> usize {
        self.areas.iter().map(Area::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The time between slices for rounds of this time, and the time that a round takes then.
    pub fn pace(&self, round: Duration) -> [Duration; 2] {
        let slices = self.len().max(1) as u32;
        let between = (round / slices).max(SHORTEST);
        [between, between * slices]
    }

    /// Looks at the next slice: in well under a millisecond.
    ///
    /// # Errors
    /// If it is not as it was.
    pub fn step(&mut self) -> Result<(), Changed> {
        let (area, slice) = self.at;
        let Some(looked) = self.areas.get(area) else { return Ok(()) };
        let outcome = if looked.holds(slice) { Ok(()) } else { Err(Changed { of: looked.name(), slice }) };
        self.at = if slice + 1 < looked.len() { (area, slice + 1) } else { (area + 1, 0) };
        if self.at.0 == self.areas.len() {
            (self.at, self.rounds) = ((0, 0), self.rounds + 1);
        }
        outcome
    }

    /// Rounds that were ended.
    pub fn rounds(&self) -> u64 {
        self.rounds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::int8::Int8;
    use paradise_engine::Thresholds;

    #[test]
    fn a_round_is_every_slice_once_in_the_time_that_is_said() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/fashion-mnist-small/model.pmq");
        let model = Int8::new(std::fs::read(path).unwrap()).unwrap();
        let rule = Rule::of(model.model());
        let areas = || vec![Area::Model(model.slices()), rule.clone().into(), Area::Code(Code::new().unwrap())];
        let mut round = Round::new(areas());
        let slices = round.len();
        assert_eq!(slices, model.slices().len() + 1 + Code::new().unwrap().len());
        let [between, whole] = round.pace(Duration::from_secs(60));
        assert!(whole <= Duration::from_secs(60) && between * slices as u32 == whole);
        assert_eq!(round.pace(Duration::ZERO)[0], SHORTEST);
        for step in 0..2 * slices {
            assert_eq!(round.step(), Ok(()), "{step}");
        }
        assert_eq!(round.rounds(), 2);

        let mut faulty = areas();
        faulty[1] = Area::Rule(rule.clone().with(Thresholds::NEVER), rule.sum());
        let mut round = Round::new(faulty);
        let seen: Vec<_> = (0..slices).filter_map(|_| round.step().err()).collect();
        assert_eq!(seen, [Changed { of: "the thresholds", slice: 0 }]);
        assert!(Round::new(Vec::new()).step().is_ok() && Round::new(Vec::new()).is_empty());
    }
}
