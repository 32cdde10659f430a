//! A decision that one odd picture does not turn: k of the last n verdicts must agree, and an abstention is no vote.

/// Most verdicts that are looked back upon.
pub const MAX_VERDICTS: usize = 16;

/// A class, once k of the last n verdicts have accepted it.
///
/// ```
/// use paradise_engine::steady::Steady;
/// let mut steady = Steady::new(2, 3);
/// // A cat, an abstention, a cat; then dogs have to be two of three.
/// let seen = [Some((3, 0.9)), None, Some((3, 0.8)), Some((5, 0.9)), Some((5, 0.9))];
/// assert_eq!(seen.map(|verdict| steady.push(verdict)), [None, None, Some(3), Some(3), Some(5)]);
/// ```
#[derive(Debug, Clone)]
pub struct Steady {
    /// A ring, the next verdict at `at`.
    last: [Option<(u16, f32)>; MAX_VERDICTS],
    at: usize,
    need: usize,
    of: usize,
    sure: f32,
    current: Option<u16>,
}

impl Steady {
    /// `need` of the last `of` verdicts.
    ///
    /// # Panics
    /// Unless `1 <= need <= of <= MAX_VERDICTS`.
    pub fn new(need: usize, of: usize) -> Self {
        assert!(0 < need && need <= of && of <= MAX_VERDICTS, "{need} of {of}");
        Self { last: [None; MAX_VERDICTS], at: 0, need, of, sure: 0.0, current: None }
    }

    /// Another class takes the place of one that is steady only if the verdicts for it give it this probability on average.
    ///
    /// ```
    /// use paradise_engine::steady::Steady;
    /// let mut steady = Steady::new(1, 2).sure(0.7);
    /// let seen = [Some((3, 0.4)), Some((5, 0.5)), Some((5, 0.9))];
    /// assert_eq!(seen.map(|verdict| steady.push(verdict)), [Some(3), Some(3), Some(5)]);
    /// ```
    pub fn sure(self, sure: f32) -> Self {
        Self { sure, ..self }
    }

    /// Takes a verdict, a class with its probability or `None` for an abstention; the steady class. It is lost when none of the last
    /// verdicts speak for it.
    pub fn push(&mut self, accepted: Option<(u16, f32)>) -> Option<u16> {
        self.last[self.at] = accepted;
        self.at = (self.at + 1) % self.of;
        let votes = |class: u16| {
            let votes = self.last[..self.of].iter().flatten().filter(|(voted, _)| *voted == class);
            votes.fold((0, 0.0), |(count, sum), (_, probability)| (count + 1, sum + probability))
        };
        let lost = self.current.is_some_and(|class| votes(class).0 == 0);
        if let Some((class, _)) = accepted {
            let (count, sum) = votes(class);
            if count >= self.need && (self.current.is_none() || sum >= self.sure * count as f32) {
                self.current = Some(class);
                return self.current;
            }
        }
        if lost {
            self.current = None;
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
        let [one, two] = [1, 2].map(|class| Some((class, 0.9)));
        for verdict in [one, one, None, None, None, two] {
            assert_eq!(steady.push(verdict), None, "two votes are not three");
        }
        assert_eq!([two, two].map(|v| steady.push(v)), [None, Some(2)]);
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
