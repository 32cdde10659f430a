//! Waiting for what another program does.

use std::time::{Duration, Instant};

/// Longest that anything is waited for. No promise of speed: tests run on machines that have other work.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something is so; how long that took.
///
/// # Panics
/// If it does not become so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    began.elapsed()
}
