//! Who is evaluated: a run's float network as it is served, or the int8 engine of a bundle made from that run.

use crate::answer::Record;
use crate::answer::{float, int8};
use crate::attack::int8::{Int8, StraightThrough};
use crate::attack::model::Classifier;
use crate::attack::served::Served;
use crate::config::Config;
use crate::dataset::{Dataset, Splits, hex};
use crate::encoder::Network;
use crate::evaluate::plan::Identity;
use crate::fit::RunFolder;
use anyhow::{Context, Result, bail, ensure};
use candle_core::Device;
use paradise_engine::Model;
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
        let folder = RunFolder::new(run);
        let mut config = folder.read_config()?;
        if let Some(data) = data {
            config.data.folder = data.to_path_buf();
        }
        let named = || format!("{}: its images; --data names their folder if they lie elsewhere now", run.display());
        let splits = config.data.load().with_context(named)?;
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
            Some(n) if !(1..=available).contains(&n) => bail!("--n {n}: the test set has {available} images"),
            Some(n) => Ok(n),
            None => Ok(usual.min(available)),
        }
    }

    /// The network as attacks run it, where `device` is.
    ///
    /// # Errors
    /// If it has no classifier, or the device no room.
    pub fn served(&self, device: &Device) -> Result<Served> {
        Served::new(&self.network)?.on(device)
    }

    /// Which model a run's network is.
    pub fn identity(&self, served: &Served) -> Identity {
        Identity { name: format!("float {}", self.config.objective.kind.name()), sha256: served.digest() }
    }
}

/// Bytes of a bundle's model, fit for the run.
///
/// # Errors
/// With the path, if the bundle is damaged or of other images or classes than the run.
pub fn bundle_model(bundle: &Path, trained: &Trained) -> Result<Vec<u8>> {
    let opened = paradise_runtime::Bundle::open(bundle)?;
    let bytes = opened.file("model.pmq")?.to_vec();
    let model = Model::parse(&bytes).with_context(|| format!("{}: model.pmq", bundle.display()))?;
    let (header, test) = (model.header(), &trained.splits.test);
    ensure!(
        header.input == test.shape,
        "{}: takes images of {:?}, the run's are {:?}",
        bundle.display(),
        header.input,
        test.shape
    );
    ensure!(
        header.classes as usize == trained.splits.labels.len(),
        "{}: has {} classes, the run {}",
        bundle.display(),
        header.classes,
        trained.splits.labels.len()
    );
    Ok(bytes)
}

/// The int8 engine under attack: its own answers, its float twin's gradients.
pub fn int8_victim<'a>(engine: &'a Int8, twin: &'a Served) -> StraightThrough<'a> {
    StraightThrough { answers: engine, gradients: twin }
}

/// Which model a bundle's is.
pub fn int8_identity(model: &Model) -> Identity {
    Identity { name: format!("int8 {}", model.header().name), sha256: hex(&model.hash()) }
}

/// Who says what a device would say of each image.
pub enum Respondent<'a> {
    /// The engine.
    Int8(Model<'a>),
    /// The folded float network under confidence fitted to it.
    Float(&'a Network, Model<'a>),
}

impl Respondent<'_> {
    /// `int8` or `float`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Int8(_) => "int8",
            Self::Float(..) => "float",
        }
    }

    /// Its mixture, tables and thresholds.
    pub fn model(&self) -> &Model<'_> {
        match self {
            Self::Int8(model) | Self::Float(_, model) => model,
        }
    }

    /// Each image's record.
    ///
    /// # Errors
    /// If the images do not fit.
    pub fn records(&self, set: &Dataset) -> Result<Vec<Record>> {
        match self {
            Self::Int8(model) => int8::records(model, set),
            Self::Float(network, model) => float::records(&network.frozen(), model, set),
        }
    }
}

/// A model's shape and classes must be its surrogate's.
///
/// # Errors
/// If they are not.
pub fn check_surrogate(surrogate: &dyn Classifier, victim: &dyn Classifier) -> Result<()> {
    ensure!(
        surrogate.shape() == victim.shape() && surrogate.classes() == victim.classes(),
        "--surrogate: takes {:?} and {} classes, the model {:?} and {}",
        surrogate.shape(),
        surrogate.classes(),
        victim.shape(),
        victim.classes()
    );
    Ok(())
}
