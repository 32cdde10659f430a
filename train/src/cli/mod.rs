//! Command lines of the longer subcommands.

pub mod bundle;
pub mod environment;
pub mod evaluate;
pub mod hint;
pub mod ranks;
pub mod report;

mod values;

use anyhow::{Context, Result};
use std::path::PathBuf;

/// A data set by any name and its folder, as `--foreign` takes it.
fn named_folder(text: &String) -> Result<(String, PathBuf)> {
    let (name, path) = text.split_once('=').with_context(|| format!("--foreign {text}: not NAME=DIR"))?;
    Ok((name.to_string(), PathBuf::from(path)))
}
