//! Robustness evaluations that resume and shard: accuracy, clean and robust, always as the per-image worst case over all
//! attacks run; the checks that tell robustness from masked gradients; what confidence is worth; reports and figures.
//!
//! | module | what it holds |
//! |---|---|
//! | [`robust`] | a small robustness table in one call |
//! | [`evaluation`] | a whole evaluation of one model: units of work, checks, confidence, report |
//! | [`plan`], [`work`], [`radius`], [`points`] | what is evaluated; units, shards and resuming; figures of a radius; points found on other models |
//! | [`masking`] | the masking checks, each with its number, limit and verdict |
//! | [`prediction`], [`confidence`], [`selection`] | what models say of a set; what their confidence is worth; scores of mistakes |
//! | [`abstention`] | what abstaining is worth against attacks that know of it |
//! | [`report`], [`figure`] | JSON, Markdown, HTML, comparisons; pictures |
#![deny(missing_docs)]

pub mod abstention;
pub mod confidence;
pub mod evaluation;
pub mod figure;
pub mod masking;
pub mod plan;
pub mod points;
pub mod prediction;
pub mod radius;
pub mod report;
pub mod robust;
pub mod selection;
pub mod work;
