//! `paradised faults` and `paradised journal`: what a service that is stopped remembers.

use crate::arguments::{FaultsArguments, JournalArguments};
use anyhow::{Context, ensure};
use paradise_runtime::say;
use paradise_runtime::watch::{Fault, Journal, Latch};
use std::fmt::Write;

/// Shows faults, or ends one. 1 if there are any.
///
/// # Errors
/// If they cannot be read or written, or there is none to end.
pub fn faults(arguments: &FaultsArguments) -> anyhow::Result<u8> {
    let state = &arguments.state;
    ensure!(state.is_dir(), "{}: no such folder", state.display());
    let mut latch = Latch::open(Some(state))?;
    if let Some(model) = &arguments.clear {
        ensure!(latch.clear(model)?, "{}: model {model:?} has no fault", state.display());
        Journal::open(state)?.add(jiff::Timestamp::now(), "clear", model, "the fault was cleared")?;
        say!("{model}: the fault was cleared");
        return Ok(0);
    }
    let mut any = false;
    for (model, Fault { at, version, why }) in latch.all() {
        say!("{model} {version}, {at:.0}: {why}");
        any = true;
    }
    if !any {
        say!("no faults");
    }
    Ok(any.into())
}

/// Checks that every line of a journal follows from the one before. 1 if one does not.
///
/// # Errors
/// If a file cannot be read.
pub fn journal(arguments: &JournalArguments) -> anyhow::Result<u8> {
    let mut text = String::new();
    for path in &arguments.files {
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        write!(text, "{}", String::from_utf8_lossy(&bytes))?;
    }
    match Journal::verify(&text) {
        Ok((entries, torn, head)) => {
            say!("{entries} entries, {torn} lines cut short by the power; the last hash is {head}");
            Ok(0)
        }
        Err(broken) => {
            say!("BROKEN at {broken}");
            Ok(1)
        }
    }
}
