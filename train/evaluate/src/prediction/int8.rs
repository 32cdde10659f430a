//! The int8 engine over a data set, in parallel: what a device would answer.

use super::{PredictedClasses, Prediction};
use anyhow::Result;
use paradise_data::Dataset;
use paradise_engine::{Memory, Model, Prepared, Watch};
use rayon::prelude::*;

/// The engine's prediction for every image of `set`.
///
/// # Errors
/// If the images do not fit the model.
pub fn predict(model: &Model, set: &Dataset) -> Result<Vec<Prediction>> {
    let prepared = Prepared::new(model);
    (0..set.len())
        .into_par_iter()
        .map_init(
            || Memory::new(&prepared),
            |memory, i| Ok(memory.classify(&prepared, set.image(i), Watch::Nobody)?.into()),
        )
        .collect()
}

/// The engine's classes on `set`.
///
/// # Errors
/// If the images do not fit the model.
pub fn classify(model: &Model, set: &Dataset) -> Result<PredictedClasses> {
    Ok(PredictedClasses::of(&predict(model, set)?, set))
}
