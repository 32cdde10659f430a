//! Where a decoder's panic ends: it becomes an error, and nothing is printed.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Whether this thread is inside a decoder.
    static DECODING: Cell<bool> = const { Cell::new(false) };
}

static QUIET: Once = Once::new();

/// Runs a decoder; `None` if it panics. What it had allocated is freed, what it had borrowed is not looked at again.
pub(crate) fn contained<T>(decode: impl FnOnce() -> T) -> Option<T> {
    // The hook of before is called for every panic but a decoder's.
    QUIET.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            if !DECODING.get() {
                before(panic);
            }
        }));
    });
    DECODING.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(decode));
    DECODING.set(false);
    outcome.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_none_and_the_next_decoder_runs() {
        assert_eq!(contained(|| -> u8 { panic!("a decoder's own fault") }), None);
        assert_eq!(contained(|| 7), Some(7));
    }
}
