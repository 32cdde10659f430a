//! CelebA: `img_align_celeba/*.jpg`, `list_attr_celeba.txt` and, where there is one, `list_eval_partition.txt`.
//!
//! The class of a face is whether it has one attribute.

use super::files::Files;
use super::picture::Policy;
use super::{Calibration, Splits, Training, stratified};
use anyhow::{Context, Result, bail, ensure};
use paradise_engine::Shape;
use paradise_engine::image::{Geometry, ImagePolicy, Polarity};
use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// The centred square of 148 pixels that is usually kept of the 178 x 218 ones.
pub const POLICY: ImagePolicy = ImagePolicy { geometry: Geometry::Crop { parts: 8315 }, polarity: Polarity::AsTaken };

/// How CelebA is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Rows and columns of the images.
    pub side: u16,
    /// How pictures become images.
    pub policy: ImagePolicy,
    /// The attribute that is the class.
    pub attribute: String,
    /// Whether broken pictures are left out instead of stopping the run.
    pub skip_corrupt: bool,
    /// Training images are kept in memory up to this many bytes.
    pub memory: u64,
    /// Most training images that are set aside for calibration where the partition has no validation images.
    pub calibration: usize,
    /// Most test images.
    pub test_images: usize,
}

/// Name and class of every face in the attribute file: a count, the attributes' names, then a line a face.
fn attributes(text: &str, attribute: &str) -> Result<Vec<(String, u16)>> {
    let mut lines = text.lines();
    let count: usize = lines.next().and_then(|l| l.trim().parse().ok()).context("line 1: not a number of images")?;
    let names: Vec<&str> = lines.next().context("line 2: no attribute names")?.split_whitespace().collect();
    let Some(at) = names.iter().position(|n| *n == attribute) else {
        bail!("no attribute {attribute:?}; there are {}", names.join(", "))
    };
    let mut faces = Vec::with_capacity(count.min(1 << 20));
    for (i, line) in lines.enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        ensure!(
            words.len() == names.len() + 1,
            "line {}: {} values instead of {}",
            i + 3,
            words.len(),
            names.len() + 1
        );
        let label = match words[at + 1] {
            "1" => 1,
            "-1" | "0" => 0,
            other => bail!("line {}: {other:?} where 1 or -1 is expected", i + 3),
        };
        faces.push((words[0].to_string(), label));
    }
    ensure!(faces.len() == count, "{} faces where line 1 says {count}", faces.len());
    Ok(faces)
}

/// The part of each face: 0 training, 1 validation, 2 test.
fn partition(text: &str) -> Result<HashMap<&str, u8>> {
    let one = |(i, line): (usize, &'_ str)| {
        let mut words = line.split_whitespace();
        match (words.next(), words.next().and_then(|w| w.parse().ok()), words.next()) {
            (Some(_), Some(part), None) if part <= 2 => Ok(part),
            _ => bail!("line {}: not a name and 0, 1 or 2", i + 1),
        }
    };
    let mut all = HashMap::new();
    for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let part = one((i, line))?;
        all.insert(line.split_whitespace().next().unwrap_or(""), part);
    }
    Ok(all)
}

/// CelebA in `folder`: validation faces are the calibration images; without a partition file the last tenth is the
/// test set.
///
/// # Errors
/// With the path of what is missing or broken.
pub fn splits(folder: &Path, settings: &Settings) -> Result<Splits> {
    let read = |name: &str| {
        let path = folder.join(name);
        let text = fs::read_to_string(&path).with_context(|| format!("{}: cannot read", path.display()))?;
        Ok::<_, anyhow::Error>((path.display().to_string(), text))
    };
    let (path, text) = read("list_attr_celeba.txt")?;
    let faces = attributes(&text, &settings.attribute).with_context(|| path)?;
    let parts_text = match folder.join("list_eval_partition.txt").exists() {
        true => Some(read("list_eval_partition.txt")?),
        false => None,
    };
    let parts = match &parts_text {
        Some((path, text)) => Some(partition(text).with_context(|| path.clone())?),
        None => None,
    };
    let pictures = folder.join("img_align_celeba");
    ensure!(pictures.is_dir(), "{}: no such folder", pictures.display());
    let part = |i: usize, name: &str| match &parts {
        Some(parts) => parts.get(name).copied().with_context(|| format!("{name} is in no partition")),
        None => Ok(if 10 * i >= 9 * faces.len() { 2 } else { 0 }),
    };
    let mut split: [(Vec<_>, Vec<u16>); 3] = Default::default();
    for (i, (name, label)) in faces.iter().enumerate() {
        let (paths, labels) = &mut split[usize::from(part(i, name)?)];
        paths.push(pictures.join(name));
        labels.push(*label);
    }
    let policy = Policy { shape: Shape::new(settings.side, settings.side, 3), image: settings.policy };
    let [train, calibration, test] = split
        .map(|(paths, labels)| (!paths.is_empty()).then(|| Files::new(paths, labels, policy, settings.skip_corrupt)));
    let train = train.context("no training face")??;
    let test = test.context("no test face")??;
    let few = |files: Files, name: &str| files.select(&stratified(&files.labels, settings.test_images)).read(name);
    let calibration = match calibration.transpose()? {
        Some(files) => Calibration::Given(few(files, "calibration")?),
        None => Calibration::HeldOut(settings.calibration),
    };
    let streamed = train.bytes() > settings.memory;
    let train = if streamed { Training::Files(train) } else { Training::Memory(train.read("training")?) };
    let labels = vec![format!("not {}", settings.attribute), settings.attribute.clone()];
    Splits::new(train, calibration, few(test, "test")?, labels, settings.policy, |n| {
        format!("CelebA, {} ({n} training images)", settings.attribute)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageBuffer, Rgb};

    fn settings(attribute: &str) -> Settings {
        Settings {
            side: 64,
            policy: POLICY,
            attribute: attribute.into(),
            skip_corrupt: false,
            memory: 1 << 24,
            calibration: 1,
            test_images: 10,
        }
    }

    fn tree(attributes: &str, partition: Option<&str>) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let pictures = folder.path().join("img_align_celeba");
        fs::create_dir(&pictures).unwrap();
        for i in 0..4u8 {
            ImageBuffer::from_pixel(178, 218, Rgb([60 * i, 0, 9])).save(pictures.join(format!("{i}.png"))).unwrap();
        }
        fs::write(folder.path().join("list_attr_celeba.txt"), attributes).unwrap();
        if let Some(partition) = partition {
            fs::write(folder.path().join("list_eval_partition.txt"), partition).unwrap();
        }
        folder
    }

    const FACES: &str = "4\nBald Smiling\n0.png 1 -1\n1.png -1  1\n2.png -1 -1\n3.png 1 1\n";

    #[test]
    fn faces_have_their_attribute_and_their_part() {
        let folder = tree(FACES, Some("0.png 0\n1.png 0\n2.png 1\n3.png 2\n"));
        let splits = splits(folder.path(), &settings("Smiling")).unwrap();
        assert_eq!((splits.train.labels(), &splits.calibration.labels[..]), (&[0u16, 1][..], &[0u16][..]));
        assert_eq!((&splits.test.labels[..], &splits.test.image(0)[..3]), (&[1u16][..], &[180u8, 0, 9][..]));
        assert_eq!(splits.labels, ["not Smiling", "Smiling"]);
        assert_eq!((splits.test.shape.h, splits.test.shape.w), (64, 64));
    }

    #[test]
    fn bad_files_are_named() {
        let error = |text: &str, partition: Option<&str>, attribute: &str| {
            format!("{:#}", splits(tree(text, partition).path(), &settings(attribute)).unwrap_err())
        };
        assert!(error(FACES, None, "Hat").contains("Bald, Smiling"));
        assert!(error("5\nBald\n0.png 1\n", None, "Bald").contains("line 1 says 5"));
        assert!(error("1\nBald\n0.png 7\n", None, "Bald").contains("\"7\""));
        assert!(error("1\nBald\n0.png\n", None, "Bald").contains("line 3"));
        assert!(error("x", None, "Bald").contains("list_attr_celeba.txt"));
        assert!(error(FACES, Some("0.png 3\n"), "Bald").contains("line 1"));
        assert!(error(FACES, Some("0.png 0\n"), "Bald").contains("1.png is in no partition"));
        assert!(format!("{:#}", splits(Path::new("/no/such"), &settings("Bald")).unwrap_err()).contains("/no/such"));
    }
}
