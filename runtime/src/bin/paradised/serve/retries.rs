//! Tries again after longer and longer waits, and says the same fault once.

use std::time::Duration;

/// Tries that failed in a row.
pub struct Retries {
    bounds: [Duration; 2],
    wait: Duration,
    said: Option<String>,
}

impl Retries {
    /// None yet. The wait after the first failure, and the longest: each is twice the one before.
    pub const fn new(bounds: [Duration; 2]) -> Self {
        Self { bounds, wait: bounds[0], said: None }
    }

    /// One went well: what fails from now on is new.
    pub fn end(&mut self) {
        *self = Self::new(self.bounds);
    }

    /// Whether this fault is another than the last one, and hence worth a line of the log.
    pub fn is_news(&mut self, why: &str) -> bool {
        let news = self.said.as_deref() != Some(why);
        self.said = Some(why.to_string());
        news
    }

    /// How long to wait now that one failed.
    pub fn next_wait(&mut self) -> Duration {
        let wait = self.wait;
        self.wait = (2 * wait).min(self.bounds[1]);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_a_fault_is_news_once() {
        let mut retries = Retries::new([Duration::from_secs(1), Duration::from_secs(5)]);
        let waits = |retries: &mut Retries| [(); 5].map(|()| retries.next_wait().as_secs());
        assert_eq!(waits(&mut retries), [1, 2, 4, 5, 5]);
        assert_eq!(["gone", "gone", "refused", "gone"].map(|why| retries.is_news(why)), [true, false, true, true]);
        retries.end();
        assert!(retries.is_news("gone"));
        assert_eq!(waits(&mut retries), [1, 2, 4, 5, 5]);
    }
}
