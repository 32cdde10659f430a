//! Fashion-MNIST: the subset inside the program, and the full set from a folder.

use super::{Splits, idx};
use anyhow::{Context, Result};
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

fn splits(train: super::Dataset, calibration: super::Dataset, test: super::Dataset, source: String) -> Splits {
    Splits { train, calibration, test, labels: LABELS.map(String::from).to_vec(), source }
}

/// The embedded subset: 12,000 training, 1,000 calibration and 2,000 test images.
///
/// # Errors
/// If the program's own bytes were damaged.
pub fn subset() -> Result<Splits> {
    Ok(splits(part!("train")?, part!("calibration")?, part!("test")?, "Fashion-MNIST subset (embedded)".into()))
}

/// The full set from a folder of IDX files; 5,000 of the training images, chosen by a fixed seed, are set aside for
/// calibration.
///
/// # Errors
/// With the path of a missing or broken file.
pub fn full(folder: &Path) -> Result<Splits> {
    let train = idx::read(folder, "train", LABELS.len())?;
    let test = idx::read(folder, "t10k", LABELS.len())?;
    let (train, calibration) = train.hold_out(5000.min(train.len() / 10), 0)?;
    let source = format!("Fashion-MNIST full ({} training images)", train.len());
    Ok(splits(train, calibration, test, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subset_is_stratified() {
        let splits = subset().unwrap();
        for (set, each) in [(&splits.train, 1200), (&splits.calibration, 100), (&splits.test, 200)] {
            assert_eq!(set.len(), 10 * each);
            for class in 0..10 {
                assert_eq!(set.labels.iter().filter(|&&l| l == class).count(), each);
            }
        }
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = format!("{:#}", full(Path::new("/no/such/folder")).unwrap_err());
        assert!(error.contains("/no/such/folder"), "{error}");
    }
}
