//! The images that are learned from: in memory, or files that are read while training.

use super::files::Files;
use super::{Dataset, held_out, stratified};
use anyhow::Result;
use paradise_engine::Shape;
use std::borrow::Cow;

/// What a run learns from.
#[derive(Debug)]
pub enum Training {
    /// In memory.
    Memory(Dataset),
    /// Read when needed.
    Files(Files),
}

impl Training {
    /// Extents of every image.
    pub fn shape(&self) -> Shape {
        match self {
            Self::Memory(set) => set.shape,
            Self::Files(files) => files.shape,
        }
    }

    /// Class of each image.
    pub fn labels(&self) -> &[u16] {
        match self {
            Self::Memory(set) => &set.labels,
            Self::Files(files) => &files.labels,
        }
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels().len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Image `i` as it is learned from in `epoch`, and its class.
    ///
    /// # Errors
    /// With the path of a broken picture.
    pub fn image(&self, i: usize, seed: u64, epoch: u32) -> Result<(Cow<'_, [u8]>, u16)> {
        Ok(match self {
            Self::Memory(set) => (Cow::Borrowed(set.image(i)), set.labels[i]),
            Self::Files(files) => {
                let (image, label) = files.image(i, seed, epoch)?;
                (Cow::Owned(image), label)
            }
        })
    }

    /// The first `n` images of a stratified order, in memory.
    ///
    /// # Errors
    /// With the path of a broken picture.
    pub fn head(&self, n: usize) -> Result<Dataset> {
        match self {
            Self::Memory(set) => Ok(set.head(n)),
            Self::Files(files) => files.select(&stratified(&files.labels, n)).read("images"),
        }
    }

    /// The first `n` images of a stratified order, where they are.
    pub fn limit(&self, n: usize) -> Self {
        match self {
            Self::Memory(set) => Self::Memory(set.head(n)),
            Self::Files(files) => Self::Files(files.select(&stratified(&files.labels, n))),
        }
    }

    /// All images where they are in memory, else at most `most` of a stratified order.
    ///
    /// # Errors
    /// With the path of a broken picture.
    pub fn sample(&self, most: usize) -> Result<Cow<'_, Dataset>> {
        match self {
            Self::Memory(set) => Ok(Cow::Borrowed(set)),
            Self::Files(_) => Ok(Cow::Owned(self.head(most)?)),
        }
    }

    /// Splits off `held` images chosen by `seed`: (the rest, the held-out ones in memory).
    ///
    /// # Errors
    /// If nothing would be left, or a picture is broken.
    pub fn hold_out(&self, held: usize, seed: u64) -> Result<(Self, Dataset)> {
        let (kept, out) = held_out(self.len(), held, seed)?;
        Ok(match self {
            Self::Memory(set) => (Self::Memory(set.select(&kept)), set.select(&out)),
            Self::Files(files) => (Self::Files(files.select(&kept)), files.select(&out).read("validation")?),
        })
    }

    /// SHA-256 that tells these images from others.
    ///
    /// # Errors
    /// With the path of a missing file.
    pub fn digest(&self) -> Result<String> {
        match self {
            Self::Memory(set) => Ok(set.digest()),
            Self::Files(files) => files.digest(),
        }
    }
}
