//! The only place where a served answer is computed twice: one in so many, by the scalar kernels over a copy of the model of their
//! own, before it is sent.

use crate::int8::Int8;
use crate::pipeline::{Backend, BackendError, BackendKind};
use paradise_engine::{Answer, Model, PValues, Team, float};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A back end of which one answer in so many is checked. Several share the count and the scalar copy.
#[derive(Debug)]
pub struct Lockstep {
    fast: Int8,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    every: u64,
    answers: AtomicU64,
    checked: AtomicU64,
    scalar: Mutex<Int8>,
}

impl Lockstep {
    /// Checks one in `every` answers: 1 checks each, and then an answer takes as long as the scalar kernels.
    ///
    /// # Panics
    /// If `every` is 0.
    pub fn new(fast: Int8, every: u32) -> Self {
        assert!(every > 0, "one in none is none");
        let scalar = Mutex::new(fast.scalar());
        let (answers, checked) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { fast, shared: Arc::new(Shared { every: every.into(), answers, checked, scalar }) }
    }

    /// Another of the same model in memory, the same count and the same scalar copy.
    pub fn beside(&self) -> Self {
        Self { fast: self.fast.beside(), shared: self.shared.clone() }
    }

    /// The same, whose fast inferences a team shares.
    #[must_use]
    pub fn with_team(self, team: Team) -> Self {
        Self { fast: self.fast.with_team(team), ..self }
    }

    /// The engine that answers.
    pub fn fast(&self) -> &Int8 {
        &self.fast
    }

    /// Answers that were checked.
    pub fn checked(&self) -> u64 {
        self.shared.checked.load(Ordering::Relaxed)
    }
}

/// What of an answer must be the same bits.
#[derive(PartialEq, Eq)]
struct Bits {
    numbers: Vec<u32>,
    p: [u32; 7],
    class: usize,
}

impl Bits {
    fn of(answer: &Answer) -> Self {
        let PValues { picture, posterior, spread, rate, entropy, predictive, combined } = answer.p;
        let p = [picture, posterior, spread, rate, entropy, predictive, combined].map(f32::to_bits);
        Self { numbers: answer.numbers().map(f32::to_bits).collect(), p, class: answer.class }
    }
}

impl Backend for Lockstep {
    fn kind(&self) -> BackendKind {
        BackendKind::Int8
    }

    fn with_model(&self, read: &mut dyn FnMut(&Model)) {
        self.fast.with_model(read);
    }

    fn answer(&mut self, input: &[u8], read: &mut dyn FnMut(&Model, &Answer)) -> Result<(), BackendError> {
        if !float::is_ieee() {
            let why = "this thread does not round to the nearest, or takes subnormal numbers for 0";
            return Err(BackendError::Fault(why.into()));
        }
        let number = self.shared.answers.fetch_add(1, Ordering::Relaxed);
        if !number.is_multiple_of(self.shared.every) {
            return self.fast.answer(input, read);
        }
        let mut truth = None;
        let mut scalar = self.shared.scalar.lock().unwrap_or_else(PoisonError::into_inner);
        scalar.answer(input, &mut |_, answer| truth = Some(Bits::of(answer)))?;
        drop(scalar);
        let mut same = false;
        self.fast.answer(input, &mut |model, answer| {
            same = truth.as_ref() == Some(&Bits::of(answer));
            if same {
                read(model, answer);
            }
        })?;
        self.shared.checked.fetch_add(1, Ordering::Relaxed);
        if same {
            return Ok(());
        }
        Err(BackendError::Fault(format!("{} and scalar kernels differ on the same picture", self.fast.kernels())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Int8 {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/fashion-mnist-small/model.pmq");
        Int8::new(std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn one_in_so_many_is_checked_whoever_answers() {
        let mut one = Lockstep::new(small(), 3);
        let mut other = one.beside();
        let mut bits = Vec::new();
        for i in 0..9u8 {
            let worker = if i % 2 == 0 { &mut one } else { &mut other };
            worker.answer(&[i; 784], &mut |_, answer| bits.push(answer.rate_nats.to_bits())).unwrap();
        }
        assert_eq!((one.checked(), other.checked(), bits.len()), (3, 3, 9));
        let mut plain = small();
        let mut unchecked = Vec::new();
        for i in 0..9u8 {
            plain.answer(&[i; 784], &mut |_, answer| unchecked.push(answer.rate_nats.to_bits())).unwrap();
        }
        assert_eq!(bits, unchecked);
    }

    #[test]
    fn a_changed_answer_is_not_sent() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/cifar10-resnet8-pm/model.pmq");
        let good = Int8::new(std::fs::read(path).unwrap()).unwrap();
        if good.kernels() == "scalar" {
            return println!("skipped: a_changed_answer_is_not_sent needs kernels beside the scalar ones");
        }
        let mut caught = 0;
        for bit in 0..64 {
            // The copy is made of the right bytes: the fault is in the packed numbers alone.
            let mut faulty = Lockstep::new(good.with_fault(None, Some(bit * 8 * 64 + 6)), 1);
            let (mut sent, mut truth) = (None, None);
            good.beside().answer(&[77; 3072], &mut |_, answer| truth = Some(Bits::of(answer))).unwrap();
            match faulty.answer(&[77; 3072], &mut |_, answer| sent = Some(Bits::of(answer))) {
                Ok(()) => assert!(sent == truth),
                Err(BackendError::Fault(_)) => caught += usize::from(sent.is_none()),
                Err(other) => panic!("{other}"),
            }
        }
        assert!(caught > 10, "{caught} of 64");
    }
}
