//! The int8 engine over a data set, in parallel: what a device would answer.

use super::{Predictions, Record};
use crate::dataset::Dataset;
use anyhow::Result;
use paradise_engine::{Model, Prepared, Watch, Workspace};
use rayon::prelude::*;

/// The engine's answer to every image of `set`.
///
/// # Errors
/// If the images do not fit the model.
pub fn records(model: &Model, set: &Dataset) -> Result<Vec<Record>> {
    let prepared = Prepared::new(model);
    let memory = || {
        let arena = vec![0i8; model.header().arena_bytes as usize];
        (arena, vec![0.0f32; model.float_len()], vec![0u8; prepared.scratch_len()])
    };
    (0..set.len())
        .into_par_iter()
        .map_init(memory, |(arena, floats, scratch), i| {
            let mut workspace = Workspace { arena, floats };
            let a = prepared.classify(set.image(i), &mut workspace, scratch, Watch::Nobody)?;
            Ok(Record::from(a))
        })
        .collect()
}

/// The classes of records of `set`, against its labels.
pub fn classes(records: &[Record], set: &Dataset) -> Predictions {
    Predictions::new(records.iter().map(|r| r.class).collect(), set.labels.clone())
}

/// The engine's classes on `set`.
///
/// # Errors
/// If the images do not fit the model.
pub fn predictions(model: &Model, set: &Dataset) -> Result<Predictions> {
    Ok(classes(&records(model, set)?, set))
}
