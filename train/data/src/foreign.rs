//! Images of another kind: made from a test set, or by path, at the extents of the model's own: MNIST's or CIFAR's files, or any folder of
//! pictures.

use super::Dataset;
use super::cifar;
use super::folder;
use super::idx;
use super::picture::Policy;
use anyhow::{Context, Result, ensure};
use paradise_engine::image::{Layout, Pixels, fit};
use paradise_support::random::{self, Purpose, branch};
use std::path::{Path, PathBuf};

/// Images unlike the training ones, made from the test images.
///
/// `uniform noise` keeps nothing, `shuffled pixels` the histogram, `inverted` the shapes.
pub fn made(test: &Dataset, seed: u64) -> Vec<(&'static str, Dataset)> {
    let each = test.shape.len() as usize;
    let remake = |make: &dyn Fn(usize, &[u8]) -> Vec<u8>| {
        let images = test.images.chunks_exact(each).enumerate().flat_map(|(i, image)| make(i, image)).collect();
        Dataset { shape: test.shape, images, labels: test.labels.clone() }
    };
    let noise = |i: usize, _: &[u8]| {
        let mut rng = random::stream(seed, Purpose::Noise, branch::FOREIGN_NOISE, i as u64, 0);
        (0..each).map(|_| random::below(&mut rng, 256) as u8).collect()
    };
    let shuffled = |i: usize, image: &[u8]| {
        let mut rng = random::stream(seed, Purpose::Noise, branch::FOREIGN_SHUFFLE, i as u64, 0);
        random::permutation(&mut rng, each).into_iter().map(|p| image[p]).collect()
    };
    let inverted = |_: usize, image: &[u8]| image.iter().map(|p| 255 - p).collect();
    vec![("uniform noise", remake(&noise)), ("shuffled pixels", remake(&shuffled)), ("inverted", remake(&inverted))]
}

/// Images of another data set behind a figure, at most.
pub const MANY: usize = 2000;

/// Classes that an IDX label file may name; foreign labels are not used.
const ANY_CLASS: usize = 65_535;

/// At most [`MANY`] images of each named folder.
///
/// # Errors
/// As [`read`].
pub fn named(folders: &[(String, PathBuf)], policy: Policy) -> Result<Vec<(String, Dataset)>> {
    folders.iter().map(|(name, path)| Ok((name.clone(), read(path, policy, MANY)?))).collect()
}

/// At most `n` images of the set at `path`.
///
/// # Errors
/// With the path of what is missing or broken, or if there is no image.
pub fn read(path: &Path, policy: Policy, n: usize) -> Result<Dataset> {
    ensure!(path.is_dir(), "{}: not a folder", path.display());
    let has = |name: &str| path.join(name).exists();
    let set = if has("t10k-images-idx3-ubyte") || has("t10k-images-idx3-ubyte.gz") {
        idx::read(path, "t10k", ANY_CLASS)?
    } else if let Some((release, file)) = cifar::TEST_FILES.into_iter().find(|(_, file)| has(file)) {
        let file = path.join(file);
        let bytes = std::fs::read(&file).with_context(|| format!("{}: cannot read", file.display()))?;
        cifar::parse(release, &bytes).with_context(|| file.display().to_string())?
    } else {
        return pictures(path, policy, n);
    };
    let set = set.select(&(0..n.min(set.len())).collect::<Vec<_>>());
    brought_to(&set, policy)
}

fn pictures(path: &Path, policy: Policy, n: usize) -> Result<Dataset> {
    let files = folder::all_pictures(path, n)?;
    ensure!(!files.is_empty(), "{}: holds neither MNIST's nor CIFAR's test files nor a picture", path.display());
    let images = files.iter().map(|f| policy.seen(f)).collect::<Result<Vec<_>>>()?;
    Dataset::new(policy.shape, images.concat(), vec![0; files.len()])
}

/// The images as a device of the other model sees them.
fn brought_to(set: &Dataset, policy: Policy) -> Result<Dataset> {
    let layout = if set.shape.c == 1 { Layout::Luma } else { Layout::Rgb };
    let each = policy.shape.len() as usize;
    let mut images = vec![0; each * set.len()];
    for (i, to) in images.chunks_exact_mut(each).enumerate() {
        let pixels = Pixels::new(set.shape.w.into(), set.shape.h.into(), layout, set.image(i))?;
        fit(&pixels, &policy.image, policy.shape, to)?;
    }
    Dataset::new(policy.shape, images, set.labels.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WHOLE;
    use image::{ImageBuffer, Luma};
    use paradise_engine::Shape;

    fn policy(h: u16, w: u16, c: u16) -> Policy {
        Policy { shape: Shape::new(h, w, c), image: WHOLE }
    }

    #[test]
    fn pictures_and_sets_come_at_the_models_extents() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("a")).unwrap();
        for (k, name) in ["a/1.png", "2.png"].iter().enumerate() {
            let picture = ImageBuffer::from_fn(40, 30, |_, _| Luma([k as u8 * 100]));
            picture.save(folder.path().join(name)).unwrap();
        }
        let set = read(folder.path(), policy(8, 8, 3), 10).unwrap();
        assert_eq!((set.len(), set.shape), (2, Shape::new(8, 8, 3)));
        assert_eq!(read(folder.path(), policy(8, 8, 1), 1).unwrap().len(), 1);
        let empty = tempfile::tempdir().unwrap();
        assert!(read(empty.path(), policy(8, 8, 3), 5).unwrap_err().to_string().contains("neither"));
        assert!(read(&empty.path().join("no"), policy(8, 8, 3), 5).unwrap_err().to_string().contains("not a folder"));
    }

    #[test]
    fn colours_and_sides_change() {
        let set = Dataset::new(Shape::new(2, 2, 3), vec![255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9], vec![3]).unwrap();
        // BT.601, as the engine has it, and each quarter of the image in its own corner.
        let grey = brought_to(&set, policy(2, 2, 1)).unwrap();
        assert_eq!(grey.images, [77, 149, 29, 9]);
        let back = brought_to(&grey, policy(2, 2, 3)).unwrap();
        assert_eq!(back.images[..6], [77, 77, 77, 149, 149, 149]);
        assert_eq!(brought_to(&grey, policy(4, 4, 1)).unwrap().images[0], 77);
    }
}
