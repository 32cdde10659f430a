//! The `[data]` table: which images, and how they are varied.

use super::in_range;
use crate::dataset::cifar::Release;
use crate::dataset::{HELD_OUT, Splits, celeba, cifar, embedded, folder};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

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
}

/// The `[data]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
            random_parts: false,
            attribute: "Smiling".into(),
            skip_corrupt: false,
            memory_mib: 4096,
            test_images: 10_000,
            workers: 2,
        }
    }
}

impl Data {
    /// Refuses what cannot be meant.
    ///
    /// # Errors
    /// With the key, its value and its range.
    pub(super) fn validate(&self) -> Result<()> {
        in_range("data.train_images", self.train_images, 0, 100_000_000)?;
        in_range("data.calibration", self.calibration, 1, 1_000_000)?;
        in_range("data.validation", self.validation, 1, 1_000_000)?;
        in_range("data.shift", self.shift, 0, 64)?;
        in_range("data.side", self.side.into(), 0, 1024)?;
        in_range("data.test_images", self.test_images, 1, 10_000_000)?;
        in_range("data.workers", self.workers, 1, 256)?;
        ensure!(
            !self.random_parts || self.source == Source::ImageFolder,
            "data.random_parts is for data.source = \"image-folder\""
        );
        Ok(())
    }

    /// Reads the images.
    ///
    /// # Errors
    /// With the path of a missing or broken file.
    pub fn load(&self) -> Result<Splits> {
        let mut splits = self.load_all()?;
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
            Source::FashionMnist => embedded::full(path, self.calibration),
            Source::Mnist => embedded::mnist(path, self.calibration),
            Source::Cifar10 => cifar::splits(Release::Ten, path, self.calibration),
            Source::Cifar100 => cifar::splits(Release::Hundred, path, self.calibration),
            Source::ImageFolder => {
                let settings = folder::Settings {
                    side: (self.side > 0).then_some(self.side),
                    channels: 3,
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
