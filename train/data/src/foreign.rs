//! Images of another kind: made from a test set, or by path, at the extents of the model's own: MNIST's or CIFAR's files, or any folder of
//! pictures.

use super::Dataset;
use super::cifar;
use super::folder;
use super::idx;
use super::picture::Policy;
use anyhow::{Context, Result, ensure};
use paradise_engine::Shape;
use paradise_engine::image::{Geometry, ImagePolicy, Layout, Pixels, Polarity, fit};
use paradise_support::random::{self, Purpose, branch};
use std::path::{Path, PathBuf};

/// Images unlike the training ones, made from the test images: as many of each kind.
///
/// `uniform noise` and `gaussian noise` (mean 1/2, deviation 1/4) keep nothing, `shuffled pixels` the histogram, `inverted` the
/// shapes, `flat colour` one value a channel, `blurred` four by four points.
///
/// # Errors
/// If the images have no extents that can be resized.
pub fn made(test: &Dataset, seed: u64) -> Result<Vec<(&'static str, Dataset)>> {
    let (shape, each) = (test.shape, test.shape.len() as usize);
    let stream = |branch: u32, i: usize| random::stream(seed, Purpose::Noise, branch, i as u64, 0);
    let remake = |make: Made| -> Result<Dataset> {
        let images: Vec<Vec<u8>> = (0..test.len()).map(|i| make(i, test.image(i))).collect::<Result<_>>()?;
        Ok(Dataset { shape, images: images.concat(), labels: test.labels.clone() })
    };
    let noise = |i: usize, _: &[u8]| {
        let mut rng = stream(branch::FOREIGN_NOISE, i);
        Ok((0..each).map(|_| random::below(&mut rng, 256) as u8).collect())
    };
    let shuffled = |i: usize, image: &[u8]| {
        let mut rng = stream(branch::FOREIGN_SHUFFLE, i);
        Ok(random::permutation(&mut rng, each).into_iter().map(|p| image[p]).collect())
    };
    let inverted = |_: usize, image: &[u8]| Ok(image.iter().map(|p| 255 - p).collect());
    let gaussian = |i: usize, _: &[u8]| {
        let mut rng = stream(branch::FOREIGN_GAUSSIAN, i);
        Ok((0..each)
            .map(|_| (255.0 * (0.5 + 0.25 * random::normal(&mut rng))).round().clamp(0.0, 255.0) as u8)
            .collect())
    };
    let flat = |i: usize, _: &[u8]| {
        let mut rng = stream(branch::FOREIGN_FLAT, i);
        let colour: Vec<u8> = (0..shape.c).map(|_| random::below(&mut rng, 256) as u8).collect();
        Ok(colour.repeat(each / colour.len()))
    };
    let stretch = ImagePolicy { geometry: Geometry::Stretch, polarity: Polarity::AsTaken };
    let blurred = |_: usize, image: &[u8]| {
        let few = Shape::new(shape.h.min(4), shape.w.min(4), shape.c);
        let (mut small, mut blurred) = (vec![0; few.len() as usize], vec![0; each]);
        resized(image, shape, &stretch, few, &mut small)?;
        resized(&small, few, &stretch, shape, &mut blurred)?;
        Ok(blurred)
    };
    Ok(vec![
        ("uniform noise", remake(&noise)?),
        ("shuffled pixels", remake(&shuffled)?),
        ("inverted", remake(&inverted)?),
        ("gaussian noise", remake(&gaussian)?),
        ("flat colour", remake(&flat)?),
        ("blurred", remake(&blurred)?),
    ])
}

/// An image made of the one of this number.
type Made<'a> = &'a dyn Fn(usize, &[u8]) -> Result<Vec<u8>>;

/// How many kinds [`made`] makes.
pub const MADE: usize = 6;

/// An image at other extents.
fn resized(image: &[u8], from: Shape, policy: &ImagePolicy, shape: Shape, to: &mut [u8]) -> Result<()> {
    let layout = if from.c == 1 { Layout::Luma } else { Layout::Rgb };
    Ok(fit(&Pixels::new(from.w.into(), from.h.into(), layout, image)?, policy, shape, to)?)
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
    let each = policy.shape.len() as usize;
    let mut images = vec![0; each * set.len()];
    for (i, to) in images.chunks_exact_mut(each).enumerate() {
        resized(set.image(i), set.shape, &policy.image, policy.shape, to)?;
    }
    Dataset::new(policy.shape, images, set.labels.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WHOLE;
    use image::{ImageBuffer, Luma};

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
    fn made_images_are_what_their_names_say() {
        let shape = Shape::new(9, 8, 3);
        let images = (0..2 * shape.len()).map(|k| (k * 37 % 256) as u8).collect();
        let test = Dataset::new(shape, images, vec![0, 1]).unwrap();
        let all = made(&test, 1).unwrap();
        assert_eq!(all.len(), MADE);
        let of = |name: &str| &all.iter().find(|(n, _)| *n == name).unwrap().1;
        let sorted = |image: &[u8]| {
            let mut sorted = image.to_vec();
            sorted.sort_unstable();
            sorted
        };
        assert_eq!(sorted(of("shuffled pixels").image(1)), sorted(test.image(1)));
        assert!(of("flat colour").image(0).chunks_exact(3).all(|p| p == &of("flat colour").image(0)[..3]));
        assert_ne!(of("flat colour").image(0), of("flat colour").image(1));
        assert!(of("inverted").image(0).iter().zip(test.image(0)).all(|(a, b)| a + b == 255));
        let range = |image: &[u8]| image.iter().max().unwrap() - image.iter().min().unwrap();
        assert!(range(of("blurred").image(0)) < range(test.image(0)));
        assert!(all.iter().all(|(_, set)| set.len() == 2 && set.shape == shape && set.labels == test.labels));
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
