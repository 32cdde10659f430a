//! A place for one thing between two threads: what nobody took gives way to the next.

use crate::serve::lock::locked;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// The place.
pub struct Newest<T> {
    slot: Mutex<Option<T>>,
    came: Condvar,
}

impl<T> Default for Newest<T> {
    fn default() -> Self {
        Self { slot: Mutex::new(None), came: Condvar::new() }
    }
}

impl<T> Newest<T> {
    /// Puts something there.
    pub fn put(&self, next: T) {
        *locked(&self.slot) = Some(next);
        self.came.notify_one();
    }

    /// Waits for something at most so long.
    pub fn take(&self, wait: Duration) -> Option<T> {
        let waited = self.came.wait_timeout_while(locked(&self.slot), wait, |slot| slot.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.take()
    }
}
