//! A folder a class: `train/CLASS/*.jpg` and `test/` or `val/` beside it (ImageNet's layout).

use super::files::Files;
use super::picture::Policy;
use super::{Calibration, Splits, Training, stratified};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};

/// Endings of picture files.
const ENDINGS: [&str; 9] = ["jpg", "jpeg", "png", "bmp", "gif", "webp", "ppm", "pgm", "tiff"];

/// How a folder of pictures is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Rows and columns of the images; the first picture's own where none is given.
    pub side: Option<u16>,
    /// 1 for grey, 3 for colour.
    pub channels: u16,
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
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut all: Vec<PathBuf> = fs::read_dir(folder)
        .and_then(|entries| entries.map(|e| e.map(|e| e.path())).collect())
        .with_context(|| format!("{}: cannot read", folder.display()))?;
    all.retain(|p| p.file_name().is_some_and(|n| !n.to_string_lossy().starts_with('.')));
    all.sort();
    Ok(all)
}

fn name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned())
}

/// Names of the folders in `folder`, sorted.
fn classes(folder: &Path) -> Result<Vec<String>> {
    let names: Vec<String> = entries(folder)?.iter().filter(|p| p.is_dir()).map(|p| name(p)).collect();
    ensure!(names.len() > 1, "{}: needs at least two folders, one a class", folder.display());
    ensure!(names.len() <= 65_535, "{}: more than 65535 classes", folder.display());
    Ok(names)
}

fn is_picture(path: &Path) -> bool {
    path.extension().is_some_and(|e| ENDINGS.contains(&e.to_string_lossy().to_lowercase().as_str()))
}

/// The first `n` pictures in `folder` and the folders in it, sorted.
pub(super) fn all_pictures(folder: &Path, n: usize) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in entries(folder)? {
        if found.len() >= n {
            break;
        }
        // A link may lead back up; only real folders are entered.
        let kind = fs::symlink_metadata(&path).with_context(|| format!("{}: cannot read", path.display()))?;
        if kind.is_dir() {
            found.extend(all_pictures(&path, n - found.len())?);
        } else if is_picture(&path) {
            found.push(path);
        }
    }
    Ok(found)
}

/// Pictures and classes of `folder`, whose folders must be among `classes`.
fn pictures(folder: &Path, classes: &[String]) -> Result<(Vec<PathBuf>, Vec<u16>)> {
    let (mut paths, mut labels) = (Vec::new(), Vec::new());
    for class in entries(folder)?.into_iter().filter(|p| p.is_dir()) {
        let Some(label) = classes.iter().position(|c| *c == name(&class)) else {
            bail!("{}: no such class among the training images", class.display())
        };
        let found: Vec<PathBuf> = entries(&class)?.into_iter().filter(|p| is_picture(p)).collect();
        ensure!(!found.is_empty(), "{}: holds no picture", class.display());
        labels.extend(std::iter::repeat_n(label as u16, found.len()));
        paths.extend(found);
    }
    Ok((paths, labels))
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
    let labels = classes(&train)?;
    let (paths, classes) = pictures(&train, &labels)?;
    let side = match settings.side {
        Some(side) => side,
        None => {
            let [h, w] = Policy::size(&paths[0])?;
            ensure!(h == w && h <= 1024, "{}: {w} x {h}; data.side says what size to make", paths[0].display());
            h as u16
        }
    };
    let policy = Policy { channels: settings.channels, side, square: None };
    let files = |paths, labels| Files::new(paths, labels, policy, settings.skip_corrupt);
    let mut training = files(paths, classes)?;
    training.random_parts = settings.random_parts;
    let streamed = training.random_parts || training.bytes() > settings.memory;
    let training = if streamed { Training::Files(training) } else { Training::Memory(training.read("training")?) };
    let (paths, classes) = pictures(&test, &labels)?;
    let all = files(paths, classes)?;
    let test = all.select(&stratified(&all.labels, settings.test_images)).read("test")?;
    let named = folder.file_name().map_or_else(|| folder.display().to_string(), |n| n.to_string_lossy().into_owned());
    Splits::new(training, Calibration::HeldOut(settings.calibration), test, labels, |n| {
        format!("pictures in {named} ({n} training images, {side} x {side})")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageBuffer, Rgb};

    const SETTINGS: Settings = Settings {
        side: None,
        channels: 3,
        random_parts: false,
        skip_corrupt: false,
        memory: 1 << 20,
        calibration: super::super::HELD_OUT,
        test_images: 100,
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
    }
}
