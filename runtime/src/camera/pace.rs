//! How often a camera's frames may be classified: now and then, and quicker while it is not known what a change means.

use std::time::{Duration, Instant};

/// Least times between two frames that are classified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    usual: Duration,
    hurried: Duration,
    last: Option<Instant>,
}

impl Pace {
    /// At most so many frames a second, and so many while a decision is pending.
    ///
    /// ```
    /// use paradise_runtime::camera::pace::Pace;
    /// use std::time::{Duration, Instant};
    /// let (mut pace, now) = (Pace::new(1.0, 10.0), Instant::now());
    /// let soon = now + Duration::from_millis(200);
    /// assert!(pace.may(now, false));
    /// assert!(!pace.may(soon, false));
    /// assert!(pace.may(soon, true));
    /// ```
    ///
    /// # Panics
    /// If a number is not above 0.
    pub fn new(usual: f64, hurried: f64) -> Self {
        // A frame that comes a little early is the frame that was meant.
        let between = |per_second: f64| Duration::from_secs_f64(0.9 / per_second);
        let (usual, hurried) = (between(usual), between(hurried));
        Self { usual, hurried: hurried.min(usual), last: None }
    }

    /// Whether a frame may be classified now; if so, it counts as classified.
    pub fn may(&mut self, now: Instant, pending: bool) -> bool {
        let least = if pending { self.hurried } else { self.usual };
        let may = self.last.is_none_or(|last| now.saturating_duration_since(last) >= least);
        if may {
            self.last = Some(now);
        }
        may
    }
}
