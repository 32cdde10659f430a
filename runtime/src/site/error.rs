//! Why there is no site.

use super::{MAX_SITE, report::Count};
use crate::tables::TableError;
use std::path::PathBuf;

/// Why there is no site.
#[derive(Debug)]
pub enum SiteError {
    /// A file, and what is wrong with it.
    At(PathBuf, Box<SiteError>),
    /// It cannot be read or written.
    Io(std::io::Error),
    /// It is larger than [`MAX_SITE`].
    TooLarge,
    /// It is no site file.
    Text(String),
    /// It has another format.
    Version {
        /// What this build reads.
        need: u32,
        /// What it has.
        got: u32,
    },
    /// A table is not one.
    Table(TableError),
    /// It was made with another model.
    OtherModel {
        /// That model's name.
        name: String,
        /// Its SHA-256.
        need: String,
        /// This model's.
        got: String,
    },
    /// The promised share is not one.
    Promise(f64),
    /// Too few pictures for the promise.
    TooFew {
        /// How many it takes.
        need: usize,
        /// How many there are.
        got: usize,
    },
    /// The model abstains from too many of the pictures.
    Unlike {
        /// How many, by the maker's thresholds.
        abstained: Count,
        /// The largest share that is allowed.
        limit: f64,
    },
    /// What the maker's thresholds abstain from would pass.
    Loose {
        /// Which foreign pictures.
        kind: &'static str,
        /// How many of them would be abstained from.
        abstained: Count,
    },
    /// The model gave no answer.
    Backend(crate::pipeline::BackendError),
}

impl std::fmt::Display for SiteError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::At(path, why) => write!(f, "{}: {why}", path.display()),
            Self::Io(error) => write!(f, "{error}"),
            Self::TooLarge => write!(f, "larger than a site file may be ({MAX_SITE} bytes)"),
            Self::Text(why) => write!(f, "not a site file: {why}"),
            Self::Version { need, got } => {
                write!(f, "site format {got}, this version reads {need}; run `paradised calibrate` again")
            }
            Self::Table(why) => write!(f, "not a site file: {why}"),
            Self::OtherModel { name, need, got } => write!(
                f,
                "made with another model ({name}, SHA-256 {}..., here {}...); run `paradised calibrate` again",
                head(need),
                head(got)
            ),
            Self::Promise(share) => {
                write!(f, "a promise of {} %: not above 0 and at most 50 %", 100.0 * share)
            }
            Self::TooFew { need, got } => write!(
                f,
                "{got} different pictures are too few: this promise takes at least {need} (200, and 10 divided by the promise)"
            ),
            Self::Unlike { abstained, limit } => write!(
                f,
                "the model abstains from {abstained} of these pictures, more than {} %: they are not what it was made for. \
                 Train or choose another model, or look for what is wrong with the pictures",
                100.0 * limit
            ),
            Self::Loose { kind, abstained } => write!(
                f,
                "with these pictures only {abstained} of {kind} would be abstained from: too many of them are like it"
            ),
            Self::Backend(error) => write!(f, "{error}"),
        }
    }
}

/// The beginning of a hash; of whatever a file has in its place.
fn head(hash: &str) -> String {
    hash.chars().take(8).collect()
}

impl std::error::Error for SiteError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::At(_, why) => why.source(),
            Self::Io(error) => error.source(),
            Self::Backend(error) => error.source(),
            _ => None,
        }
    }
}
