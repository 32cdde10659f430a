//! MNIST and Fashion-MNIST: the subset inside the program, and the full sets from a folder of IDX files.

use super::{Calibration, Splits, Training, idx};
use anyhow::{Context, Result};
use paradise_engine::image::{Geometry, ImagePolicy, Polarity};
use std::path::Path;

/// Class names of Fashion-MNIST, in label order.
pub const LABELS: [&str; 10] =
    ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"];

/// Where Debian's `dataset-fashion-mnist` puts the full set.
pub const DEBIAN_FOLDER: &str = "/usr/share/datasets/fashion-mnist";

macro_rules! part {
    ($name:literal) => {
        idx::dataset(
            include_bytes!(concat!("../../data/fashion-mnist-subset/", $name, "-images-idx3-ubyte.gz")),
            include_bytes!(concat!("../../data/fashion-mnist-subset/", $name, "-labels-idx1-ubyte.gz")),
            LABELS.len(),
        )
        .context(concat!("embedded ", $name, " images"))
    };
}

/// How these sets were made: the whole object, its longer side filling the image, light on black.
pub const OBJECTS: ImagePolicy = ImagePolicy { geometry: Geometry::Letterbox, polarity: Polarity::LightOnDark };

/// The embedded subset: 12,000 training, 1,000 calibration and 2,000 test images.
///
/// ```
/// let splits = paradise_data::embedded::subset()?;
/// assert_eq!((splits.train.len(), splits.test.len(), &*splits.labels[9]), (12_000, 2_000, "ankle boot"));
/// # Ok::<(), anyhow::Error>(())
/// ```
///
/// # Errors
/// If the program's own bytes were damaged.
pub fn subset() -> Result<Splits> {
    let (train, calibration) = (Training::Memory(part!("train")?), part!("calibration")?);
    let source = |_| "Fashion-MNIST subset (embedded)".into();
    let splits = Splits::new(train, Calibration::Given(calibration), part!("test")?, names(), OBJECTS, source)?;
    // Any configuration reads the same.
    Ok(Splits { read: true, ..splits })
}

fn names() -> Vec<String> {
    LABELS.map(String::from).to_vec()
}

/// The full set from a folder of IDX files, of which at most `calibration` training images are set aside.
///
/// # Errors
/// With the path of a missing or broken file.
pub fn full(folder: &Path, calibration: usize) -> Result<Splits> {
    from_folder(folder, calibration, names(), "Fashion-MNIST full")
}

/// MNIST from a folder of IDX files, its classes the digits.
///
/// # Errors
/// With the path of a missing or broken file.
pub fn mnist(folder: &Path, calibration: usize) -> Result<Splits> {
    from_folder(folder, calibration, (0..10).map(|d| d.to_string()).collect(), "MNIST")
}

fn from_folder(folder: &Path, calibration: usize, labels: Vec<String>, source: &str) -> Result<Splits> {
    let train = Training::Memory(idx::read(folder, "train", labels.len())?);
    let test = idx::read(folder, "t10k", labels.len())?;
    Splits::new(train, Calibration::HeldOut(calibration), test, labels, OBJECTS, |n| {
        format!("{source} ({n} training images)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subset_is_stratified() {
        let splits = subset().unwrap();
        let labels = [splits.train.labels(), &splits.calibration.labels, &splits.test.labels];
        for (labels, each) in labels.into_iter().zip([1200, 100, 200]) {
            assert_eq!(labels.len(), 10 * each);
            for class in 0..10 {
                assert_eq!(labels.iter().filter(|&&l| l == class).count(), each);
            }
        }
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = format!("{:#}", full(Path::new("/no/such/folder"), 1).unwrap_err());
        assert!(error.contains("/no/such/folder"), "{error}");
    }
}
