//! Command lines of the longer subcommands.

pub mod evaluate;
pub mod report;
