//! What a caller can give that would help. Libraries name the thing; a program names its own flag for it.

use anyhow::{Context, Result};
use paradise_data::settings::Source;

/// Something that was not given and would have helped. It is attached to an error as its context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// The folder in which the images lie now.
    Images,
    /// Going on from the checkpoint that is there.
    Resume,
    /// The run that a bundle was exported from.
    Run,
    /// An import that nothing confirms.
    Force,
}

impl Remedy {
    /// What reading images gave, with [`Remedy::Images`] where a folder would have helped: not where they were never in one.
    pub(crate) fn for_images<T>(read: Result<T>, source: Source) -> Result<T> {
        if source == Source::Own { read } else { read.context(Self::Images) }
    }
}

impl std::fmt::Display for Remedy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Images => "its images are not where they were",
            Self::Resume => "a checkpoint is there to go on from",
            Self::Run => "the run that it was exported from is needed",
            Self::Force => "what was read from it is not confirmed",
        })
    }
}

impl std::error::Error for Remedy {}
