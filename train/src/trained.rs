//! A run that has been trained: its configuration, its images, its best network.

use crate::config::Config;
use crate::encoder::{LogitModel, Network};
use crate::fit::RunFolder;
use crate::remedy::Remedy;
use anyhow::{Context, Result, bail};
use candle_core::Device;
use paradise_data::Splits;
use paradise_evaluate::plan::Identity;
use std::path::Path;

/// A run on disk.
pub struct Trained {
    /// Its configuration.
    pub config: Config,
    /// Its images.
    pub splits: Splits,
    /// Its best network.
    pub network: Network,
}

impl Trained {
    /// A run with its images, which lie in `data` where that is named, else where they lay when it was trained.
    ///
    /// # Errors
    /// With the path of what is missing, or if the images are not the run's.
    pub fn open(run: &Path, data: Option<&Path>) -> Result<Self> {
        let mut config = RunFolder::new(run).read_config()?;
        if let Some(data) = data {
            config.data.folder = data.to_path_buf();
        }
        let read = config.data.load().with_context(|| run.display().to_string());
        let splits = Remedy::for_images(read, config.data.source)?;
        Self::over(run, config, splits)
    }

    /// A run that was trained through this library on images of its caller's own, which are handed over again.
    ///
    /// # Errors
    /// With the path of what is missing, or if the images are not the run's.
    pub fn with(run: &Path, splits: Splits) -> Result<Self> {
        Self::over(run, RunFolder::new(run).read_config()?, splits)
    }

    fn over(run: &Path, config: Config, splits: Splits) -> Result<Self> {
        let folder = RunFolder::new(run);
        folder.check_images(&splits)?;
        let (network, _) = folder.best_network(&config, &splits)?;
        Ok(Self { config, splits, network })
    }

    /// How many test images are measured: as many as were asked for, which must be there; else the usual number, or all.
    ///
    /// # Errors
    /// If more were asked for than there are.
    pub fn count(&self, asked: Option<usize>, usual: usize) -> Result<usize> {
        let available = self.splits.test.len();
        match asked {
            Some(n) if !(1..=available).contains(&n) => {
                bail!("{n} test images were asked for, the test set has {available} images")
            }
            Some(n) => Ok(n),
            None => Ok(usual.min(available)),
        }
    }

    /// The network as attacks run it, where `device` is.
    ///
    /// # Errors
    /// If it has no classifier, or the device no room.
    pub fn logit_model(&self, device: &Device) -> Result<LogitModel> {
        LogitModel::new(&self.network)?.on(device)
    }

    /// Which model a run's network is.
    pub fn identity(&self, model: &LogitModel) -> Identity {
        Identity { name: format!("float {}", self.config.objective.kind.name()), sha256: model.digest() }
    }
}
