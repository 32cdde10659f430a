//! The `[data]` table: which images, and how they are varied.

use super::cifar::Release;
use super::{HELD_OUT, Splits, WHOLE, celeba, cifar, embedded, folder};
use anyhow::{Result, bail, ensure};
use paradise_engine::image::{self, ALL_PARTS, ImagePolicy};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Refuses a number outside `low..=high` by its name in a configuration.
///
/// ```
/// use paradise_data::settings::in_range;
/// assert_eq!(in_range("fit.batch", 1, 2, 65_536).unwrap_err().to_string(), "fit.batch = 1 is not in 2..=65536");
/// ```
///
/// # Errors
/// With the name, the number and the range.
pub fn in_range(name: &str, value: usize, low: usize, high: usize) -> Result<()> {
    ensure!((low..=high).contains(&value), "{name} = {value} is not in {low}..={high}");
    Ok(())
}

/// Which images are learned from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The subset inside the program.
    FashionMnistSubset,
    /// The full set from a folder of IDX files.
    FashionMnist,
    /// MNIST from a folder of IDX files.
    Mnist,
    /// The binary release.
    Cifar10,
    /// The binary release.
    Cifar100,
    /// `train/CLASS/*.jpg` and `test/` or `val/`.
    ImageFolder,
    /// Faces and their attributes.
    Celeba,
    /// Images that a caller of the library handed over, which no program finds again by itself.
    Own,
}

/// How a picture of another size or aspect ratio becomes an image, in training and on every device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Geometry {
    /// Each axis is scaled on its own.
    Stretch,
    /// The largest centred part of the right shape, or `data.crop_share` of it.
    Crop,
    /// The whole picture with black bars.
    Letterbox,
}

/// What is light and what is dark, in training and on every device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Polarity {
    /// As the pictures have it.
    AsTaken,
    /// The same, and objects are light on a dark ground: a device's pictures must be, too.
    LightOnDark,
    /// Values are inverted.
    Inverted,
}

/// The `[data]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Data {
    /// Which images are learned from.
    pub source: Source,
    /// Folder of the set; Debian's for Fashion-MNIST.
    pub folder: PathBuf,
    /// Training images that are used, validation included, the first of a stratified order; 0 for all.
    pub train_images: usize,
    /// Training images that are set aside for thresholds and int8 ranges, at most a tenth; for a set without its own.
    #[serde(skip_serializing_if = "is_usual")]
    pub calibration: usize,
    /// Training images held out to choose the best checkpoint.
    pub validation: usize,
    /// Largest random shift of a training image, pixels.
    pub shift: usize,
    /// Whether training images are mirrored at random.
    pub flip: bool,
    /// Rows and columns that pictures in a folder are brought to; 0 for their own.
    pub side: u16,
    /// 3 for colour, 1 for luma; of pictures in a folder.
    #[serde(skip_serializing_if = "is_colour")]
    pub channels: u16,
    /// Names of the folders of pictures in the order of the classes; empty for their own order, by number where all are
    /// numbers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// How pictures of other sizes become images, here and on devices. Unless set: `letterbox` for MNIST and Fashion-MNIST,
    /// which were made so, else `crop`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub geometry: Option<Geometry>,
    /// Share of a picture's largest centred part that `crop` keeps, in (0, 1]. Unless set: 0.8315 for CelebA (148 of 178
    /// pixels), 0.875 (224 of 256) where training sees random parts, else 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crop_share: Option<f64>,
    /// What is light and what is dark. Unless set: `light-on-dark` for MNIST and Fashion-MNIST, else `as-taken`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub polarity: Option<Polarity>,
    /// Whether training takes random parts of pictures in a folder (8 to 100 % of the area).
    pub random_parts: bool,
    /// The attribute that is a CelebA face's class.
    pub attribute: String,
    /// Whether broken pictures are named and left out instead of stopping the run.
    pub skip_corrupt: bool,
    /// Pictures are kept in memory up to this many MiB and read while training above.
    pub memory_mib: u64,
    /// Most test images that are kept of a folder of pictures.
    pub test_images: usize,
    /// Threads that make batches ahead of the step.
    pub workers: usize,
}

/// Cards and configurations from before there was a choice stay as they are.
fn is_usual(calibration: &usize) -> bool {
    *calibration == HELD_OUT
}

fn is_colour(channels: &u16) -> bool {
    *channels == 3
}

impl Default for Data {
    fn default() -> Self {
        Self {
            source: Source::FashionMnistSubset,
            folder: embedded::DEBIAN_FOLDER.into(),
            train_images: 0,
            calibration: HELD_OUT,
            validation: 1000,
            shift: 1,
            flip: true,
            side: 0,
            channels: 3,
            labels: Vec::new(),
            geometry: None,
            crop_share: None,
            polarity: None,
            random_parts: false,
            attribute: "Smiling".into(),
            skip_corrupt: false,
            memory_mib: 4096,
            test_images: 10_000,
            workers: 2,
        }
    }
}

/// A bundle's policy in the words of this table: geometry, the share that is cut, polarity.
fn spelled(policy: &ImagePolicy) -> (Geometry, Option<f64>, Polarity) {
    let (geometry, share) = match policy.geometry {
        image::Geometry::Stretch => (Geometry::Stretch, None),
        image::Geometry::Crop { parts } => (Geometry::Crop, Some(f64::from(parts) / f64::from(ALL_PARTS))),
        image::Geometry::Letterbox => (Geometry::Letterbox, None),
    };
    let polarity = match policy.polarity {
        image::Polarity::AsTaken => Polarity::AsTaken,
        image::Polarity::LightOnDark => Polarity::LightOnDark,
        image::Polarity::Inverted => Polarity::Inverted,
    };
    (geometry, share, polarity)
}

impl Data {
    /// Refuses what cannot be meant.
    ///
    /// # Errors
    /// With the key, its value and its range.
    pub fn validate(&self) -> Result<()> {
        in_range("data.train_images", self.train_images, 0, 100_000_000)?;
        in_range("data.calibration", self.calibration, 1, 1_000_000)?;
        in_range("data.validation", self.validation, 1, 1_000_000)?;
        in_range("data.shift", self.shift, 0, 64)?;
        in_range("data.side", self.side.into(), 0, 1024)?;
        if let Some(share) = self.crop_share {
            let crops = self.clone().resolved().geometry == Some(Geometry::Crop);
            ensure!(crops, "data.crop_share is for data.geometry = \"crop\"");
            ensure!((1e-4..=1.0).contains(&share), "data.crop_share = {share} is not in 0.0001..=1");
        }
        in_range("data.test_images", self.test_images, 1, 10_000_000)?;
        ensure!(matches!(self.channels, 1 | 3), "data.channels = {} is neither 1 nor 3", self.channels);
        ensure!(
            self.source == Source::ImageFolder || self.channels == 3 && self.labels.is_empty(),
            "data.channels and data.labels are for data.source = \"image-folder\""
        );
        in_range("data.workers", self.workers, 1, 256)?;
        ensure!(
            !self.random_parts || self.source == Source::ImageFolder,
            "data.random_parts is for data.source = \"image-folder\""
        );
        Ok(())
    }

    /// The same with every choice about pictures made, as a run's `config.toml` holds it.
    pub fn resolved(self) -> Self {
        let usual = match self.source {
            Source::FashionMnistSubset | Source::FashionMnist | Source::Mnist => embedded::OBJECTS,
            Source::Celeba => celeba::POLICY,
            Source::ImageFolder if self.random_parts => {
                ImagePolicy { geometry: image::Geometry::Crop { parts: 8750 }, ..WHOLE }
            }
            Source::Cifar10 | Source::Cifar100 | Source::ImageFolder | Source::Own => WHOLE,
        };
        let (geometry, share, polarity) = spelled(&usual);
        let geometry = self.geometry.unwrap_or(geometry);
        Self {
            geometry: Some(geometry),
            crop_share: (geometry == Geometry::Crop).then(|| self.crop_share.or(share).unwrap_or(1.0)),
            polarity: Some(self.polarity.unwrap_or(polarity)),
            ..self
        }
    }

    /// How pictures become images, as a bundle says it.
    pub fn policy(&self) -> ImagePolicy {
        let this = self.clone().resolved();
        let parts = this.crop_share.map_or(ALL_PARTS, |share| (share * f64::from(ALL_PARTS)).round() as u16);
        let geometry = match this.geometry {
            Some(Geometry::Stretch) => image::Geometry::Stretch,
            Some(Geometry::Letterbox) => image::Geometry::Letterbox,
            Some(Geometry::Crop) | None => image::Geometry::Crop { parts },
        };
        let polarity = match this.polarity {
            Some(Polarity::LightOnDark) => image::Polarity::LightOnDark,
            Some(Polarity::Inverted) => image::Polarity::Inverted,
            Some(Polarity::AsTaken) | None => image::Polarity::AsTaken,
        };
        ImagePolicy { geometry, polarity }
    }

    /// What a run says of the images that it learned from: these settings where they were read by them, else
    /// [`Source::Own`] with the policy that came with the images, and what only varies training.
    pub fn of(&self, splits: &Splits) -> Self {
        if splits.read {
            return self.clone();
        }
        let (geometry, crop_share, polarity) = spelled(&splits.policy);
        let Self { validation, shift, flip, workers, .. } = *self;
        let (geometry, polarity) = (Some(geometry), Some(polarity));
        let own = Self { source: Source::Own, folder: PathBuf::new(), ..Self::default() };
        Self { validation, shift, flip, workers, geometry, crop_share, polarity, ..own }
    }

    /// Reads the images.
    ///
    /// # Errors
    /// With the path of a missing or broken file.
    pub fn load(&self) -> Result<Splits> {
        let mut splits = self.load_all()?;
        (splits.policy, splits.read) = (self.policy(), true);
        let all = splits.train.len();
        ensure!(self.train_images <= all, "data.train_images = {} exceeds the {all} there are", self.train_images);
        if self.train_images > 0 && self.train_images < all {
            splits.train = splits.train.limit(self.train_images);
            splits.source = format!("{}, {} of them", splits.source, self.train_images);
        }
        Ok(splits)
    }

    fn load_all(&self) -> Result<Splits> {
        let memory = self.memory_mib.saturating_mul(1 << 20);
        let path: &Path = &self.folder;
        match self.source {
            Source::FashionMnistSubset => embedded::subset(),
            Source::Own => bail!(
                "its images were handed over by a program that uses the library (data.source = \"own\"), and only that program \
                 has them"
            ),
            Source::FashionMnist => embedded::full(path, self.calibration),
            Source::Mnist => embedded::mnist(path, self.calibration),
            Source::Cifar10 => cifar::splits(Release::Ten, path, self.calibration),
            Source::Cifar100 => cifar::splits(Release::Hundred, path, self.calibration),
            Source::ImageFolder => {
                let settings = folder::Settings {
                    side: (self.side > 0).then_some(self.side),
                    channels: self.channels,
                    policy: self.policy(),
                    labels: (!self.labels.is_empty()).then(|| self.labels.clone()),
                    random_parts: self.random_parts,
                    skip_corrupt: self.skip_corrupt,
                    memory,
                    calibration: self.calibration,
                    test_images: self.test_images,
                };
                folder::splits(path, &settings)
            }
            Source::Celeba => {
                let settings = celeba::Settings {
                    side: if self.side > 0 { self.side } else { 64 },
                    policy: self.policy(),
                    attribute: self.attribute.clone(),
                    skip_corrupt: self.skip_corrupt,
                    memory,
                    calibration: self.calibration,
                    test_images: self.test_images,
                };
                celeba::splits(path, &settings)
            }
        }
    }
}
