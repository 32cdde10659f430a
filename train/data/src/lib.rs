//! Labelled 8-bit images: data sets on disk and inside the program, their three parts, and how they are varied.

pub mod celeba;
pub mod cifar;
pub mod corruption;
pub mod embedded;
pub mod files;
pub mod folder;
pub mod foreign;
pub mod idx;
pub mod picture;
pub mod settings;
mod training;

pub use training::Training;

use anyhow::{Result, ensure};
use paradise_engine::Shape;
use paradise_engine::image::{ALL_PARTS, Geometry, ImagePolicy, Polarity};
use paradise_support::hex;
use paradise_support::random::{self, Purpose};
use sha2::{Digest, Sha256};

/// Images of one shape with their labels.
///
/// ```
/// use paradise_data::Dataset;
/// use paradise_engine::Shape;
/// let set = Dataset::new(Shape::new(1, 2, 1), vec![0, 1, 2, 3, 4, 5], vec![0, 1, 0])?;
/// assert_eq!((set.len(), set.image(1)), (3, &[2u8, 3][..]));
/// // Balanced by class, so a small part is a fair one.
/// assert_eq!(set.head(2).labels, [0, 1]);
/// # Ok::<(), anyhow::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// Rows, columns, channels of each image.
    pub shape: Shape,
    /// u8 `[n][h][w][c]`.
    pub images: Vec<u8>,
    /// Class of each image.
    pub labels: Vec<u16>,
}

/// Most training images that are set aside for calibration unless told otherwise.
pub const HELD_OUT: usize = 5000;

/// Where the calibration images of a data set come from.
#[derive(Debug)]
pub enum Calibration {
    /// The set has them.
    Given(Dataset),
    /// A tenth of the training images is set aside, at most this many and at least one, chosen by a fixed seed.
    HeldOut(usize),
}

/// The three parts of a data set, without overlap.
#[derive(Debug)]
pub struct Splits {
    /// What is learned from.
    pub train: Training,
    /// What thresholds are fitted on, and nothing else.
    pub calibration: Dataset,
    /// What figures are reported on, and nothing else.
    pub test: Dataset,
    /// Class names.
    pub labels: Vec<String>,
    /// Where the images came from, for run folders and cards.
    pub source: String,
    /// How any picture becomes an image like these, on a device as here.
    pub policy: ImagePolicy,
    /// Whether [`settings::Data`] read them, so that anyone can read them again; false for images of a caller's own.
    pub read: bool,
}

/// The largest centred part of a picture, as it was taken.
pub const WHOLE: ImagePolicy =
    ImagePolicy { geometry: Geometry::Crop { parts: ALL_PARTS }, polarity: Polarity::AsTaken };

impl Splits {
    /// The parts of a data set. `source` describes the set, given the number of training images.
    ///
    /// # Errors
    /// If sizes differ, or a picture is broken.
    pub fn new(
        train: Training,
        calibration: Calibration,
        test: Dataset,
        labels: Vec<String>,
        policy: ImagePolicy,
        source: impl Fn(usize) -> String,
    ) -> Result<Self> {
        let (train, calibration) = match calibration {
            Calibration::Given(calibration) => (train, calibration),
            Calibration::HeldOut(most) => train.hold_out((train.len() / 10).min(most).max(1), 0)?,
        };
        ensure!(
            train.shape() == test.shape && calibration.shape == test.shape,
            "training images are {:?}, test images {:?}",
            train.shape(),
            test.shape
        );
        let source = source(train.len());
        Ok(Self { train, calibration, test, labels, source, policy, read: false })
    }
}

impl Splits {
    /// How any picture becomes an image of this set.
    pub fn seen(&self) -> picture::Policy {
        picture::Policy { shape: self.test.shape, image: self.policy }
    }
}

/// The first `n` indices of a stratified order: classes take turns, so every prefix is balanced.
///
/// ```
/// assert_eq!(paradise_data::stratified(&[0, 0, 0, 1, 1], 4), [0, 3, 1, 4]);
/// ```
pub fn stratified(labels: &[u16], n: usize) -> Vec<usize> {
    let classes = labels.iter().max().map_or(0, |m| *m as usize + 1);
    let mut queues: Vec<Vec<usize>> = vec![Vec::new(); classes];
    for (i, label) in labels.iter().enumerate() {
        queues[*label as usize].push(i);
    }
    let mut order = Vec::with_capacity(n.min(labels.len()));
    let mut turn = 0;
    while order.len() < n.min(labels.len()) {
        order.extend(queues.iter().filter_map(|q| q.get(turn)).take(n - order.len()));
        turn += 1;
    }
    order
}

/// Splits `0..n` into what is kept and `held` that are not, chosen by `seed`; both in ascending order.
///
/// ```
/// let (kept, out) = paradise_data::held_out(10, 3, 0)?;
/// assert_eq!((kept.len(), out.len()), (7, 3));
/// assert!(paradise_data::held_out(10, 10, 0).is_err());
/// # Ok::<(), anyhow::Error>(())
/// ```
///
/// # Errors
/// If nothing would be left.
pub fn held_out(n: usize, held: usize, seed: u64) -> Result<(Vec<usize>, Vec<usize>)> {
    ensure!(held < n, "cannot hold out {held} of {n} images");
    let order = random::permutation(&mut random::stream(seed, Purpose::Validation, 0, 0, 0), n);
    let (out, kept) = order.split_at(held);
    let (mut out, mut kept) = (out.to_vec(), kept.to_vec());
    out.sort_unstable();
    kept.sort_unstable();
    Ok((kept, out))
}

impl Dataset {
    /// Checks that lengths agree.
    ///
    /// # Errors
    /// If they do not, or the set is empty.
    pub fn new(shape: Shape, images: Vec<u8>, labels: Vec<u16>) -> Result<Self> {
        let each = shape.len() as usize;
        ensure!(each > 0 && !labels.is_empty(), "an empty data set");
        ensure!(
            images.len() == each * labels.len(),
            "{} labels but {} bytes of {each}-byte images",
            labels.len(),
            images.len()
        );
        Ok(Self { shape, images, labels })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image; [`Dataset::new`] excludes it.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The bytes of image `i`.
    ///
    /// # Panics
    /// If `i >= len()`.
    pub fn image(&self, i: usize) -> &[u8] {
        let each = self.shape.len() as usize;
        &self.images[i * each..(i + 1) * each]
    }

    /// The images at `indices`, in that order.
    pub fn select(&self, indices: &[usize]) -> Self {
        Self {
            shape: self.shape,
            images: indices.iter().flat_map(|&i| self.image(i)).copied().collect(),
            labels: indices.iter().map(|&i| self.labels[i]).collect(),
        }
    }

    /// The first `n` images of a stratified order: classes take turns, so every prefix is balanced.
    pub fn head(&self, n: usize) -> Self {
        self.select(&stratified(&self.labels, n))
    }

    /// SHA-256 of shape, images and labels, in hexadecimal.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for side in [self.shape.h, self.shape.w, self.shape.c] {
            hash.update(side.to_le_bytes());
        }
        hash.update(&self.images);
        // Labels below 256 hash as single bytes.
        for label in &self.labels {
            match u8::try_from(*label) {
                Ok(label) => hash.update([label]),
                Err(_) => hash.update(label.to_le_bytes()),
            }
        }
        hex(&hash.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(n: usize) -> Dataset {
        let shape = Shape::new(1, 2, 1);
        Dataset::new(shape, (0..2 * n).map(|v| v as u8).collect(), (0..n).map(|i| (i % 3) as u16).collect()).unwrap()
    }

    #[test]
    fn heads_are_balanced() {
        let head = ramp(30).head(9);
        for class in 0..3 {
            assert_eq!(head.labels.iter().filter(|&&l| l == class).count(), 3);
        }
        assert_eq!(ramp(30).head(99).len(), 30);
    }

    #[test]
    fn held_out_images_are_not_kept() {
        let (kept, held) = Training::Memory(ramp(20)).hold_out(5, 3).unwrap();
        assert_eq!((kept.len(), held.len()), (15, 5));
        for i in 0..5 {
            assert!((0..15).all(|k| &*kept.image(k, 0, 0).unwrap().0 != held.image(i)));
        }
        assert!(Training::Memory(ramp(5)).hold_out(5, 0).is_err());
    }

    #[test]
    fn lengths_must_agree() {
        assert!(Dataset::new(Shape::new(1, 2, 1), vec![0; 3], vec![0, 1]).is_err());
        assert!(Dataset::new(Shape::new(1, 2, 1), vec![], vec![]).is_err());
    }
}
