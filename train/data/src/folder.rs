//! A folder a class: `train/CLASS/...` and `test/` or `val/` beside it (ImageNet's layout).
//!
//! What is a picture is told by content. A file that is none is left out and counted; one that has a picture's ending and
//! cannot be read is a broken picture, not something else.

mod listing;

use super::files::Files;
use super::picture::Policy;
use super::{Calibration, Splits, Training, stratified};
use anyhow::{Context, Result, bail, ensure};
pub(super) use listing::all_pictures;
use listing::{LeftOut, classes, pictures_below};
use paradise_engine::Shape;
use paradise_engine::image::ImagePolicy;
use std::path::{Path, PathBuf};

/// How a folder of pictures is read.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Rows and columns of the images; the first readable picture's own where none is given.
    pub side: Option<u16>,
    /// 1 for grey, 3 for colour.
    pub channels: u16,
    /// How pictures become images.
    pub policy: ImagePolicy,
    /// Whether training takes random parts of the pictures.
    pub random_parts: bool,
    /// Whether broken pictures are left out instead of stopping the run.
    pub skip_corrupt: bool,
    /// Training images are kept in memory up to this many bytes.
    pub memory: u64,
    /// Most training images that are set aside for calibration.
    pub calibration: usize,
    /// Most test images.
    pub test_images: usize,
    /// Class names in the order of the network's outputs; none for the folders' own order.
    pub labels: Option<Vec<String>>,
}

/// Pictures and classes of `folder`, whose folders must be among `labels`.
fn pictures(folder: &Path, labels: &[String]) -> Result<(Vec<PathBuf>, Vec<u16>)> {
    let (mut paths, mut of, mut left_out) = (Vec::new(), Vec::new(), LeftOut::default());
    for (name, class) in classes(folder, &mut left_out)? {
        let Some(label) = labels.iter().position(|c| *c == name) else {
            bail!("{}: no such class among the training images", class.display())
        };
        let found = pictures_below(&class, usize::MAX, &mut left_out)?;
        ensure!(!found.is_empty(), "{}: holds no picture", class.display());
        of.extend(std::iter::repeat_n(label as u16, found.len()));
        paths.extend(found);
    }
    left_out.tell(folder);
    ensure!(!paths.is_empty(), "{}: holds no folder of pictures", folder.display());
    Ok((paths, of))
}

/// Rows and columns of the first picture whose headers can be read.
fn own_side(paths: &[PathBuf], skip_corrupt: bool) -> Result<u16> {
    let mut sizes = paths.iter().map(|path| (path, Policy::size(path)));
    let readable = sizes.find(|(_, size)| !skip_corrupt || size.is_ok());
    let (path, size) = readable.context("none of the pictures can be read")?;
    let [h, w] = size?;
    ensure!(h == w && h <= 1024, "{}: {w} x {h}; data.side says what size to make", path.display());
    Ok(h as u16)
}

/// The pictures in `folder`.
///
/// # Errors
/// With the path of what is missing or broken.
pub fn splits(folder: &Path, settings: &Settings) -> Result<Splits> {
    let train = folder.join("train");
    ensure!(train.is_dir(), "{}: no such folder", train.display());
    let test = ["test", "val", "validation"].map(|n| folder.join(n)).into_iter().find(|p| p.is_dir());
    let test = test.with_context(|| format!("{}: holds neither test nor val", folder.display()))?;
    let own: Vec<String> = classes(&train, &mut LeftOut::default())?.into_iter().map(|(name, _)| name).collect();
    ensure!(own.len() > 1, "{}: needs at least two folders, one a class", train.display());
    let labels = match &settings.labels {
        Some(labels) => labels.clone(),
        None => own,
    };
    let (paths, of) = pictures(&train, &labels)?;
    if let Some(empty) = (0..labels.len()).find(|l| !of.contains(&(*l as u16))) {
        bail!("{}: no folder for class {:?}", train.display(), labels[empty]);
    }
    let side = settings.side.map_or_else(|| own_side(&paths, settings.skip_corrupt), Ok)?;
    let policy = Policy { shape: Shape::new(side, side, settings.channels), image: settings.policy };
    let files = |paths, labels| Files::new(paths, labels, policy, settings.skip_corrupt);
    let mut training = files(paths, of)?;
    training.random_parts = settings.random_parts;
    let streamed = training.random_parts || training.bytes() > settings.memory;
    let training = if streamed {
        training.one_of_each(&labels, &train)?;
        Training::Files(training)
    } else {
        Training::Memory(training.read("training")?)
    };
    every_class_is_left(training.labels(), &labels, &train)?;
    let (paths, of) = pictures(&test, &labels)?;
    let all = files(paths, of)?;
    let tested = all.select(&stratified(&all.labels, settings.test_images)).read("test")?;
    let named = folder.file_name().map_or_else(|| folder.display().to_string(), |n| n.to_string_lossy().into_owned());
    Splits::new(training, Calibration::HeldOut(settings.calibration), tested, labels, settings.policy, |n| {
        format!("pictures in {named} ({n} training images, {side} x {side})")
    })
}

/// Refuses a set of which a class lost every picture.
fn every_class_is_left(of: &[u16], labels: &[String], folder: &Path) -> Result<()> {
    match (0..labels.len()).find(|l| !of.contains(&(*l as u16))) {
        Some(lost) => bail!("{}: no picture of this class can be read", folder.join(&labels[lost]).display()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WHOLE;
    use image::{ImageBuffer, Rgb};
    use std::fs;

    const SETTINGS: Settings = Settings {
        side: None,
        channels: 3,
        policy: WHOLE,
        random_parts: false,
        skip_corrupt: false,
        memory: 1 << 20,
        calibration: super::super::HELD_OUT,
        test_images: 100,
        labels: None,
    };

    /// Two classes with `n` training pictures each, 8 x 8, of one colour a class, and one test picture each.
    fn tree(n: u8) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (class, colour) in [("cat", [200, 10, 10]), ("dog", [10, 10, 200])] {
            for (part, count) in [("train", n), ("val", 1)] {
                let at = folder.path().join(part).join(class);
                fs::create_dir_all(&at).unwrap();
                for i in 0..count {
                    let pixel = Rgb([colour[0], colour[1] + i, colour[2]]);
                    ImageBuffer::from_pixel(8, 8, pixel).save(at.join(format!("{i:04}.png"))).unwrap();
                }
            }
        }
        folder
    }

    #[test]
    fn a_tree_becomes_labelled_images_in_memory_or_not() {
        let folder = tree(20);
        let splits = |memory| super::splits(folder.path(), &Settings { memory, ..SETTINGS }).unwrap();
        let (kept, streamed) = (splits(1 << 20), splits(0));
        assert_eq!(kept.labels, ["cat", "dog"]);
        assert_eq!((kept.train.len(), kept.calibration.len(), kept.test.len()), (36, 4, 2));
        assert!(matches!((&kept.train, &streamed.train), (Training::Memory(_), Training::Files(_))));
        for i in 0..36 {
            let (image, label) = kept.train.image(i, 0, 0).unwrap();
            assert_eq!((image, label), streamed.train.image(i, 3, 9).unwrap());
        }
        assert_eq!(&kept.test.image(0)[..3], &[200, 10, 10]);
        assert_ne!(kept.train.digest().unwrap(), splits(1).test.digest());
    }

    #[test]
    fn sizes_and_random_parts() {
        let folder = tree(3);
        let settings = Settings { side: Some(5), channels: 1, random_parts: true, ..SETTINGS };
        let splits = splits(folder.path(), &settings).unwrap();
        assert_eq!((splits.test.shape.h, splits.test.shape.c), (5, 1));
        let (first, _) = splits.train.image(0, 0, 0).unwrap();
        assert_eq!((first.len(), splits.train.image(0, 0, 0).unwrap().0), (25, first));
    }

    #[test]
    fn broken_pictures_are_named_and_skipped_on_request() {
        let folder = tree(12);
        let broken = folder.path().join("train/cat/0003.png");
        fs::write(&broken, b"not a picture").unwrap();
        for memory in [0, 1 << 20] {
            let settings = Settings { memory, ..SETTINGS };
            let splits = splits(folder.path(), &settings);
            let error = match splits {
                Err(error) => error,
                Ok(splits) => (0..splits.train.len()).find_map(|i| splits.train.image(i, 0, 0).err()).unwrap(),
            };
            assert!(format!("{error:#}").contains("train/cat/0003.png"), "{error:#}");
            let splits = super::splits(folder.path(), &Settings { skip_corrupt: true, ..settings }).unwrap();
            assert!((0..splits.train.len()).all(|i| splits.train.image(i, 0, 0).is_ok()));
        }
    }

    #[test]
    fn content_tells_pictures_and_nothing_is_left_out_silently() {
        let folder = tree(12);
        let cat = folder.path().join("train/cat");
        fs::create_dir(cat.join("more")).unwrap();
        for (from, to) in [("0000.png", "a.jfif"), ("0001.png", "b"), ("0002.png", "more/c.dat")] {
            fs::rename(cat.join(from), cat.join(to)).unwrap();
        }
        fs::write(cat.join("notes.txt"), "not one").unwrap();
        fs::write(folder.path().join("train/readme.md"), "nor this").unwrap();
        let splits = splits(folder.path(), &SETTINGS).unwrap();
        assert_eq!(splits.train.len() + splits.calibration.len(), 24);
        let mut left_out = LeftOut::default();
        pictures_below(&cat, usize::MAX, &mut left_out).unwrap();
        assert_eq!(left_out.line().unwrap(), "1 file that is no picture was left out (notes.txt)");
    }

    #[test]
    fn numbers_are_in_their_own_order_and_labels_in_the_given_one() {
        let folder = tempfile::tempdir().unwrap();
        for class in 0..12u8 {
            for part in ["train", "test"] {
                let at = folder.path().join(part).join(class.to_string());
                fs::create_dir_all(&at).unwrap();
                for i in 0..2u8 {
                    ImageBuffer::from_pixel(4, 4, Rgb([class, i, 0])).save(at.join(format!("{i}.png"))).unwrap();
                }
            }
        }
        let read = splits(folder.path(), &SETTINGS).unwrap();
        assert_eq!(read.labels, (0..12).map(|c| c.to_string()).collect::<Vec<_>>());
        assert!((0..read.test.len()).all(|i| u16::from(read.test.image(i)[0]) == read.test.labels[i]));
        let labels: Vec<String> = (0..12).rev().map(|c| c.to_string()).collect();
        let turned = splits(folder.path(), &Settings { labels: Some(labels), ..SETTINGS }).unwrap();
        assert!((0..24).all(|i| u16::from(turned.test.image(i)[0]) == 11 - turned.test.labels[i]));
        let labels = Some(vec!["0".to_string(); 2]);
        assert!(splits(folder.path(), &Settings { labels, ..SETTINGS }).is_err());
    }

    #[test]
    fn a_class_of_broken_pictures_stops_the_run() {
        let folder = tree(12);
        for i in 0..12 {
            fs::write(folder.path().join(format!("train/dog/{i:04}.png")), b"broken").unwrap();
        }
        for memory in [0, 1 << 20] {
            let settings = Settings { memory, skip_corrupt: true, ..SETTINGS };
            let error = format!("{:#}", splits(folder.path(), &settings).unwrap_err());
            assert!(error.contains("train/dog: no picture of this class can be read"), "{error}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn class_names_that_cannot_be_kept_are_refused() {
        use std::os::unix::ffi::OsStrExt;
        let names: [&[u8]; 4] = [b"caf\xe9", b"two\nlines", b" cat", b"carriage\r"];
        for name in names {
            let folder = tree(2);
            fs::create_dir(folder.path().join("train").join(std::ffi::OsStr::from_bytes(name))).unwrap();
            let error = format!("{:#}", splits(folder.path(), &SETTINGS).unwrap_err());
            assert!(error.contains("class name"), "{error}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = |path: &Path| format!("{:#}", splits(path, &SETTINGS).unwrap_err());
        assert!(error(Path::new("/no/such")).contains("/no/such/train"));
        let folder = tree(2);
        fs::create_dir(folder.path().join("val/bird")).unwrap();
        assert!(error(folder.path()).contains("no such class"));
        fs::remove_dir_all(folder.path().join("val")).unwrap();
        assert!(error(folder.path()).contains("neither test nor val"));
        fs::create_dir(folder.path().join("test")).unwrap();
        fs::create_dir(folder.path().join("train/bird")).unwrap();
        assert!(error(folder.path()).contains("holds no picture"));
        fs::remove_dir(folder.path().join("train/bird")).unwrap();
        assert!(error(folder.path()).contains("test: holds no folder of pictures"), "{}", error(folder.path()));
    }
}
