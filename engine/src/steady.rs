//! A decision that one odd picture does not turn: k of the last n verdicts must agree, and an abstention is no vote.

/// Most verdicts that are looked back upon.
pub const MAX_VERDICTS: usize = 16;

/// A class, once k of the last n verdicts have accepted it.
///
/// ```
/// use paradise_engine::steady::Steady;
/// let mut steady = Steady::new(2, 3);
/// // A cat, an abstention, a cat; then dogs have to be two of three.
/// let seen = [Some(3), None, Some(3), Some(5), Some(5)];
/// assert_eq!(seen.map(|verdict| steady.push(verdict)), [None, None, Some(3), Some(3), Some(5)]);
/// ```
#[derive(Debug, Clone)]
pub struct Steady {
    /// A ring, the next verdict at `at`.
    last: [Option<u16>; MAX_VERDICTS],
    at: usize,
    need: usize,
    of: usize,
    current: Option<u16>,
}

impl Steady {
    /// `need` of the last `of` verdicts.
    ///
    /// # Panics
    /// Unless `1 <= need <= of <= MAX_VERDICTS`.
    pub fn new(need: usize, of: usize) -> Self {
        assert!(0 < need && need <= of && of <= MAX_VERDICTS, "{need} of {of}");
        Self { last: [None; MAX_VERDICTS], at: 0, need, of, current: None }
    }

    /// Takes a verdict, `None` for an abstention; the steady class. It is lost when none of the last verdicts speak for it.
    pub fn push(&mut self, accepted: Option<u16>) -> Option<u16> {
        self.last[self.at] = accepted;
        self.at = (self.at + 1) % self.of;
        let votes = |class: u16| self.last[..self.of].iter().filter(|v| **v == Some(class)).count();
        match accepted {
            Some(class) if votes(class) >= self.need => self.current = Some(class),
            _ if self.current.is_some_and(|class| votes(class) == 0) => self.current = None,
            _ => {}
        }
        self.current
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abstentions_are_no_votes_and_a_class_that_nobody_sees_is_lost() {
        let mut steady = Steady::new(3, 5);
        for verdict in [Some(1), Some(1), None, None, None, Some(2)] {
            assert_eq!(steady.push(verdict), None, "two votes are not three");
        }
        assert_eq!([Some(2), Some(2)].map(|v| steady.push(v)), [None, Some(2)]);
        assert_eq!(
            [None, None, None, None, None].map(|v| steady.push(v)),
            [Some(2), Some(2), Some(2), Some(2), None]
        );
    }

    #[test]
    #[should_panic(expected = "0 of 3")]
    fn no_votes_are_no_decision() {
        Steady::new(0, 3);
    }
}
