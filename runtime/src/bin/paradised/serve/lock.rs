//! Locks whose holders leave what they guard whole at every point, so that a panic elsewhere is none of theirs.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a mutex guards.
pub fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
