//! Picture files with their classes: read into memory, or one by one while training.

use super::Dataset;
use super::picture::Policy;
use anyhow::{Context, Result, ensure};
use paradise_engine::Shape;
use paradise_support::hex;
use paradise_support::progress;
use paradise_support::random::{self, Purpose};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Picture files, their classes and how they become images.
#[derive(Debug)]
pub struct Files {
    /// Extents of every image.
    pub shape: Shape,
    /// One path an image.
    pub paths: Vec<PathBuf>,
    /// Class of each image.
    pub labels: Vec<u16>,
    /// How a picture becomes an image.
    pub policy: Policy,
    /// Whether training takes random parts instead of the middle.
    pub random_parts: bool,
    /// Whether a broken picture is replaced by the next one instead of stopping the run.
    pub skip_corrupt: bool,
    /// Broken pictures that were named already.
    named: Mutex<Vec<PathBuf>>,
}

impl Files {
    /// Pictures of one data set.
    ///
    /// # Errors
    /// If there is none, or lengths differ.
    pub fn new(paths: Vec<PathBuf>, labels: Vec<u16>, policy: Policy, skip_corrupt: bool) -> Result<Self> {
        ensure!(
            !paths.is_empty() && paths.len() == labels.len(),
            "{} pictures, {} labels",
            paths.len(),
            labels.len()
        );
        let shape = policy.shape;
        let named = Mutex::default();
        Ok(Self { shape, paths, labels, policy, random_parts: false, skip_corrupt, named })
    }

    /// The pictures at `indices`, in that order.
    pub fn select(&self, indices: &[usize]) -> Self {
        Self {
            paths: indices.iter().map(|&i| self.paths[i].clone()).collect(),
            labels: indices.iter().map(|&i| self.labels[i]).collect(),
            named: Mutex::default(),
            ..*self
        }
    }

    /// Bytes that all images take in memory.
    pub fn bytes(&self) -> u64 {
        self.shape.len() * self.paths.len() as u64
    }

    /// Every image, read by all threads.
    ///
    /// # Errors
    /// With the path of a broken picture, unless those are skipped.
    pub fn read(&self, name: &str) -> Result<Dataset> {
        let bar = progress::bar(self.paths.len() as u64, name);
        let one = |path: &PathBuf| {
            let image = self.policy.seen(path);
            bar.inc(1);
            match image {
                Err(error) if self.skip_corrupt => {
                    self.name(path, &error);
                    Ok(None)
                }
                image => image.map(Some),
            }
        };
        let images: Vec<Option<Vec<u8>>> = self.paths.par_iter().map(one).collect::<Result<_>>()?;
        bar.finish_and_clear();
        let labels = images.iter().zip(&self.labels).filter(|(i, _)| i.is_some()).map(|(_, l)| *l).collect();
        Dataset::new(self.shape, images.into_iter().flatten().flatten().collect(), labels)
    }

    /// Image `i` for training in `epoch`, and its class.
    ///
    /// # Errors
    /// With the path of a broken picture, unless those are skipped: then the next readable one takes its place.
    pub fn image(&self, i: usize, seed: u64, epoch: u32) -> Result<(Vec<u8>, u16)> {
        for k in 0..self.paths.len() {
            let at = (i + k) % self.paths.len();
            let path = &self.paths[at];
            let image = if self.random_parts {
                self.policy.random_part(path, &mut random::stream(seed, Purpose::Part, epoch, at as u64, 0))
            } else {
                self.policy.seen(path)
            };
            match image {
                Ok(image) => return Ok((image, self.labels[at])),
                Err(error) if self.skip_corrupt => self.name(path, &error),
                Err(error) => return Err(error.context("data.skip_corrupt = true leaves such pictures out")),
            }
        }
        anyhow::bail!("none of {} pictures can be read", self.paths.len())
    }

    /// Refuses a set of which a class has no readable picture, where broken ones are left out while training.
    ///
    /// # Errors
    /// With the class's folder.
    pub fn one_of_each(&self, labels: &[String], folder: &Path) -> Result<()> {
        if !self.skip_corrupt {
            return Ok(());
        }
        for (class, name) in labels.iter().enumerate() {
            let mut own = self.paths.iter().zip(&self.labels).filter(|(_, l)| usize::from(**l) == class);
            let readable = own.any(|(path, _)| self.policy.seen(path).is_ok());
            ensure!(readable, "{}: no picture of this class can be read", folder.join(name).display());
        }
        Ok(())
    }

    /// Says once that a picture is left out.
    fn name(&self, path: &Path, error: &anyhow::Error) {
        let mut named = self.named.lock().unwrap_or_else(|e| e.into_inner());
        if !named.iter().any(|p| p == path) {
            tracing::warn!("skipped: {error:#}");
            named.push(path.to_path_buf());
        }
    }

    /// SHA-256 of every file's last two path parts, length and class, in hexadecimal: names, not contents, which would
    /// take as long as an epoch.
    ///
    /// # Errors
    /// With the path of a missing file.
    pub fn digest(&self) -> Result<String> {
        let mut hash = Sha256::new();
        for (path, label) in self.paths.iter().zip(&self.labels) {
            let about = path.metadata().with_context(|| format!("{}: cannot read", path.display()))?;
            let parts: Vec<_> = path.components().rev().take(2).collect();
            for part in parts.iter().rev() {
                hash.update(part.as_os_str().as_encoded_bytes());
                hash.update([0]);
            }
            hash.update(about.len().to_le_bytes());
            hash.update(label.to_le_bytes());
        }
        Ok(hex(&hash.finalize()))
    }
}
