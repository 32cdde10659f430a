//! Three output pins that tell the machine beside the device what to do: accept, abstain, fault.

use crate::pipeline::Verdict;
use embedded_hal::digital::OutputPin;

/// Exactly one pin is high after each call that succeeds; all are low before the first.
#[derive(Debug)]
pub struct DecisionPins<P> {
    accept: P,
    abstain: P,
    fault: P,
}

impl<P: OutputPin> DecisionPins<P> {
    /// Takes the pins and sets them low.
    ///
    /// # Errors
    /// The pin's own error.
    pub fn new(mut accept: P, mut abstain: P, mut fault: P) -> Result<Self, P::Error> {
        accept.set_low()?;
        abstain.set_low()?;
        fault.set_low()?;
        Ok(Self { accept, abstain, fault })
    }

    /// Shows a verdict, or a fault where there is none. The pins that fall do so before the one that rises, so no
    /// reader sees two.
    ///
    /// # Errors
    /// The pin's own error.
    pub fn show(&mut self, verdict: Option<&Verdict>) -> Result<(), P::Error> {
        let [high, low, other] = match verdict {
            Some(v) if v.is_accept() => [&mut self.accept, &mut self.abstain, &mut self.fault],
            Some(_) => [&mut self.abstain, &mut self.accept, &mut self.fault],
            None => [&mut self.fault, &mut self.accept, &mut self.abstain],
        };
        low.set_low()?;
        other.set_low()?;
        high.set_high()
    }

    /// Gives the pins back: accept, abstain, fault.
    pub fn release(self) -> [P; 3] {
        [self.accept, self.abstain, self.fault]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embedded_hal_mock::eh1::digital::{Mock, State, Transaction};
    use paradise_engine::Decision;
    use paradise_engine::decision::Reason;

    fn verdict(decision: Decision) -> Verdict {
        Verdict {
            label: String::new(),
            class: 0,
            score: 1.0,
            probabilities: vec![1.0],
            rate_nats: 0.0,
            posterior_entropy_nats: 0.0,
            predictive_entropy_nats: 0.0,
            p: paradise_engine::PValues::TYPICAL,
            decision,
        }
    }

    #[test]
    fn one_pin_is_high_and_the_others_fall_first() {
        let pin = |states: &[State]| Mock::new(&states.iter().map(|s| Transaction::set(*s)).collect::<Vec<_>>());
        use State::{High, Low};
        let accept = pin(&[Low, High, Low, Low]);
        let abstain = pin(&[Low, Low, High, Low]);
        let fault = pin(&[Low, Low, Low, High]);
        let mut pins = DecisionPins::new(accept, abstain, fault).unwrap();
        pins.show(Some(&verdict(Decision::Accept))).unwrap();
        pins.show(Some(&verdict(Decision::Abstain(Reason::UncertainClass)))).unwrap();
        pins.show(None).unwrap();
        // The mocks panic unless every expected transition happened.
        pins.release().each_mut().iter_mut().for_each(|p| p.done());
    }
}
