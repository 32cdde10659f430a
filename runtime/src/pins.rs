//! Three output pins that tell the machine beside the device what to do: accept, abstain, fault.

use crate::pipeline::Verdict;
use embedded_hal::digital::{OutputPin, StatefulOutputPin};

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

/// What the lines of a camera say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// A class is known.
    Accept,
    /// Nothing is known.
    Abstain,
    /// There is no camera, or no model.
    Fault,
}

/// Why lines do not say what they should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinError<E> {
    /// A line cannot be set or read.
    Line(E),
    /// A line is not as it was set: something else holds it.
    Stuck {
        /// `accept`, `abstain` or `fault`.
        line: &'static str,
        /// As which it was set.
        high: bool,
    },
}

impl<E: core::fmt::Debug> core::fmt::Display for PinError<E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Line(error) => write!(f, "{error:?}"),
            Self::Stuck { line, high } => {
                write!(f, "the {line} line is not {}, as it was set", if *high { "high" } else { "low" })
            }
        }
    }
}

/// Accept, abstain and fault lines that are read back: exactly one is high.
#[derive(Debug)]
pub struct CheckedPins<P>([P; 3]);

/// Their names.
const LINES: [&str; 3] = ["accept", "abstain", "fault"];

impl<P: StatefulOutputPin> CheckedPins<P> {
    /// Takes the lines, accept, abstain and fault; the fault line is high until something is known.
    ///
    /// # Errors
    /// If one cannot be set, or is not as it was set.
    pub fn new(lines: [P; 3]) -> Result<Self, PinError<P::Error>> {
        let mut pins = Self(lines);
        pins.show(Shown::Fault).map(|()| pins)
    }

    /// Shows it: lines fall before one rises, then each is read.
    ///
    /// # Errors
    /// If a line cannot be set or read, or is not as it was set.
    pub fn show(&mut self, shown: Shown) -> Result<(), PinError<P::Error>> {
        let high = shown as usize;
        for (_, line) in self.0.iter_mut().enumerate().filter(|(i, _)| *i != high) {
            line.set_low().map_err(PinError::Line)?;
        }
        self.0[high].set_high().map_err(PinError::Line)?;
        for (i, line) in self.0.iter_mut().enumerate() {
            if line.is_set_high().map_err(PinError::Line)? != (i == high) {
                return Err(PinError::Stuck { line: LINES[i], high: i == high });
            }
        }
        Ok(())
    }

    /// Gives the lines back.
    pub fn release(self) -> [P; 3] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_back_and_one_that_is_held_is_named() {
        use State::{High, Low};
        let set = Transaction::set;
        let is = Transaction::get_state;
        let accept = Mock::new(&[set(Low), is(Low), set(High), is(High), set(Low), is(Low)]);
        let abstain = Mock::new(&[set(Low), is(Low), set(Low), is(Low), set(High), is(Low)]);
        let fault = Mock::new(&[set(High), is(High), set(Low), is(Low), set(Low)]);
        let mut pins = CheckedPins::new([accept, abstain, fault]).unwrap();
        pins.show(Shown::Accept).unwrap();
        let stuck = pins.show(Shown::Abstain).unwrap_err();
        assert_eq!(stuck, PinError::Stuck { line: "abstain", high: true });
        assert_eq!(stuck.to_string(), "the abstain line is not high, as it was set");
        pins.release().iter_mut().for_each(|pin| pin.done());
    }
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
