//! Ctrl-C, a stop and a hang-up: work that can be gone on with saves and stops, all other work ends at once; the exit code
//! is the same.

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// The exit code of a program that was interrupted.
pub const EXIT: u8 = 130;

/// Work was asked to stop; what it had done is kept.
#[derive(Debug)]
pub struct Interrupted(pub String);

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "interrupted; {}", self.0)
    }
}

impl std::error::Error for Interrupted {}

impl Interrupted {
    /// Whether this is why work ended.
    pub fn ended(error: &anyhow::Error) -> bool {
        error.chain().any(|e| e.is::<Self>())
    }
}

/// Whether the next signal ends the program.
static AT_ONCE: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// What asks for an end. `mpirun` passes SIGUSR1 on at once, and SIGTERM with a time limit after which it kills.
const SIGNALS: [i32; 4] = [SIGINT, SIGTERM, SIGHUP, SIGUSR1];

/// From now on a signal ends the program with [`EXIT`].
///
/// # Errors
/// If the handlers cannot be installed.
pub fn end_at_once() -> Result<()> {
    let at_once = AT_ONCE.get_or_init(|| Arc::new(AtomicBool::new(true)));
    for signal in SIGNALS {
        flag::register_conditional_shutdown(signal, EXIT.into(), at_once.clone()).context("cannot handle signals")?;
    }
    Ok(())
}

/// A flag that the first signal sets, for work that then saves and stops; the second ends the program.
///
/// # Errors
/// If the handlers cannot be installed.
pub fn flag() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let at_once = AT_ONCE.get_or_init(|| Arc::new(AtomicBool::new(true)));
    for signal in SIGNALS {
        // In this order: the first signal finds the other flag down, sets both and goes on.
        if let Err(error) = flag::register(signal, stop.clone()).and_then(|_| flag::register(signal, at_once.clone()))
        {
            return Err(error).context("cannot handle signals");
        }
    }
    at_once.store(false, Ordering::Relaxed);
    Ok(stop)
}
