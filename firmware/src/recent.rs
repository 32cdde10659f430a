//! How many of the last verdicts were abstentions: a share that rises says that the world has changed.

/// Verdicts that are looked back upon.
pub const WINDOW: u16 = 128;

/// The last verdicts, a bit each.
#[derive(Debug, Clone, Default)]
pub struct Recent {
    bits: u128,
    n: u16,
}

impl Recent {
    /// Takes a verdict.
    pub fn push(&mut self, abstained: bool) {
        self.bits = self.bits << 1 | u128::from(abstained);
        self.n = (self.n + 1).min(WINDOW);
    }

    /// Verdicts, at most [`WINDOW`], and abstentions among them.
    pub fn counts(&self) -> [u16; 2] {
        [self.n, self.bits.count_ones() as u16]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_count() {
        let mut recent = Recent::default();
        (0..10).for_each(|i| recent.push(i < 3));
        assert_eq!(recent.counts(), [10, 3]);
        (0..WINDOW).for_each(|i| recent.push(i % 4 == 0));
        assert_eq!(recent.counts(), [WINDOW, WINDOW / 4]);
    }
}
