//! The supplement's tables and figures from run folders: `train report`.

pub mod accuracy;
pub mod black_box;
pub mod generation;
pub mod gradients;
pub mod surface;
pub mod targeted;

use crate::encoder::LogitModel;
use crate::trained::Trained;
use anyhow::{Context, Result, ensure};
use paradise_attack::Differentiable;
use paradise_attack::diagnosis;
use paradise_data::Dataset;
use paradise_nn::device::Choice;
use paradise_support::random::{self, Purpose};
use std::path::Path;

/// Images drawn per class, as the supplement draws its subsets; ascending by class, each class by a stream of its own.
///
/// # Errors
/// If a class has fewer.
pub fn per_class(set: &Dataset, each: usize, seed: u64) -> Result<Dataset> {
    let classes = set.labels.iter().max().map_or(0, |m| usize::from(*m) + 1);
    let mut chosen = Vec::with_capacity(each * classes);
    for class in 0..classes {
        let own: Vec<usize> = (0..set.len()).filter(|i| usize::from(set.labels[*i]) == class).collect();
        ensure!(own.is_empty() || own.len() >= each, "class {class} has {} images, not {each}", own.len());
        let order = random::permutation(&mut random::stream(seed, Purpose::Subset, 0, class as u64, 0), own.len());
        chosen.extend(order.into_iter().take(each).map(|k| own[k]));
    }
    Ok(set.select(&chosen))
}

/// A run with its name in tables and figures.
pub struct Model {
    /// Its objective, and the folder's name.
    pub name: String,
    /// As attacks run it.
    pub served: LogitModel,
    /// The run.
    pub trained: Trained,
}

/// Opens runs of classifiers over the same images.
///
/// # Errors
/// With the path, if one is missing or its images are others.
pub fn open(runs: &[impl AsRef<Path>]) -> Result<Vec<Model>> {
    let device = Choice::Auto.open()?;
    let mut models: Vec<Model> = Vec::new();
    for run in runs {
        let run = run.as_ref();
        let trained = Trained::open(run, None)?;
        let served = trained.logit_model(&device).with_context(|| run.display().to_string())?;
        if let Some(first) = models.first() {
            ensure!(
                first.trained.splits.test.digest() == trained.splits.test.digest(),
                "{}: has other test images than the first run",
                run.display()
            );
        }
        let folder = run.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        let kind = trained.config.objective.kind.name();
        let name = if folder.is_empty() || folder == kind { kind.into() } else { format!("{kind} ({folder})") };
        models.push(Model { name, served, trained });
    }
    Ok(models)
}

/// The cross-entropy's gradient at each image, f32 `[n][h][w][c]`.
fn gradients(model: &dyn Differentiable, set: &Dataset) -> Result<Vec<f32>> {
    let pixels = paradise_attack::pixels(set);
    Ok(diagnosis::gradients(model, &paradise_attack::samples(set, &pixels))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use paradise_data::embedded;

    #[test]
    fn subsets_are_drawn_per_class() {
        let test = embedded::subset().unwrap().test;
        let two = per_class(&test, 2, 1).unwrap();
        assert_eq!(two.labels, (0..10).flat_map(|c| [c, c]).collect::<Vec<u16>>());
        assert_eq!(two, per_class(&test, 2, 1).unwrap());
        assert_ne!(two, per_class(&test, 2, 2).unwrap());
        assert!(per_class(&test, 10_000, 1).unwrap_err().to_string().contains("class 0"));
    }
}
