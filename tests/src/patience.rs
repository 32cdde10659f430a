//! Waiting for what another program does.

use std::time::{Duration, Instant};

/// Longest that anything is waited for of which no speed is promised: tests run on machines that have other work.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until something is so; how long that took.
///
/// # Panics
/// If it does not become so.
pub fn until(what: &str, is_so: impl FnMut() -> bool) -> Duration {
    within(PATIENCE, what, is_so)
}

/// [`until`], where it is promised to be so soon.
///
/// # Panics
/// If it does not become so in this time.
pub fn within(most: Duration, what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < most, "{what}: not within {most:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    began.elapsed()
}
