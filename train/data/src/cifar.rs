//! The binary release of CIFAR-10 and CIFAR-100: label bytes, then 32 x 32 pixels a channel.

use super::{Calibration, Dataset, Splits, Training, WHOLE};
use anyhow::{Context, Result, ensure};
use paradise_engine::Shape;
use std::fs;
use std::path::Path;

const SIDE: usize = 32;
const PIXELS: usize = SIDE * SIDE;

/// Which release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// `data_batch_1.bin` to `data_batch_5.bin`, `test_batch.bin`, `batches.meta.txt`; one label byte.
    Ten,
    /// `train.bin`, `test.bin`, `fine_label_names.txt`; coarse and fine label bytes, of which the fine one is read.
    Hundred,
}

/// The test file of each release.
pub(super) const TEST_FILES: [(Release, &str); 2] =
    [(Release::Ten, "test_batch.bin"), (Release::Hundred, "test.bin")];

impl Release {
    fn classes(self) -> usize {
        if self == Self::Ten { 10 } else { 100 }
    }

    fn label_bytes(self) -> usize {
        if self == Self::Ten { 1 } else { 2 }
    }
}

/// The images of one file.
///
/// # Errors
/// If its length is not whole records or a label is not a class.
pub fn parse(release: Release, bytes: &[u8]) -> Result<Dataset> {
    let record = release.label_bytes() + 3 * PIXELS;
    ensure!(
        !bytes.is_empty() && bytes.len().is_multiple_of(record),
        "{} bytes are not whole records of {record} bytes",
        bytes.len()
    );
    let (mut images, mut labels) = (Vec::with_capacity(bytes.len()), Vec::new());
    for (i, record) in bytes.chunks_exact(record).enumerate() {
        let (label, planes) = record.split_at(release.label_bytes());
        let label = label[release.label_bytes() - 1];
        ensure!(
            usize::from(label) < release.classes(),
            "image {i}: label {label} where the classes are 0..={}",
            release.classes() - 1
        );
        labels.push(u16::from(label));
        images.extend((0..3 * PIXELS).map(|k| planes[k % 3 * PIXELS + k / 3]));
    }
    Dataset::new(Shape::new(SIDE as u16, SIDE as u16, 3), images, labels)
}

fn read(release: Release, folder: &Path, names: &[&str]) -> Result<Dataset> {
    let mut all: Option<Dataset> = None;
    for name in names {
        let path = folder.join(name);
        let bytes = fs::read(&path).with_context(|| format!("{}: cannot read", path.display()))?;
        let part = parse(release, &bytes).with_context(|| path.display().to_string())?;
        match &mut all {
            Some(all) => {
                all.images.extend(part.images);
                all.labels.extend(part.labels);
            }
            None => all = Some(part),
        }
    }
    all.context("no file")
}

/// The whole release in `folder`, of which at most `calibration` training images are set aside.
///
/// # Errors
/// With the path of a missing or broken file.
pub fn splits(release: Release, folder: &Path, calibration: usize) -> Result<Splits> {
    let (train, test, names, source): (&[&str], _, _, _) = match release {
        Release::Ten => (
            &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"],
            "test_batch.bin",
            "batches.meta.txt",
            "CIFAR-10",
        ),
        Release::Hundred => (&["train.bin"], "test.bin", "fine_label_names.txt", "CIFAR-100"),
    };
    let path = folder.join(names);
    let text = fs::read_to_string(&path).with_context(|| format!("{}: cannot read", path.display()))?;
    let labels: Vec<String> = text.lines().map(str::trim).filter(|l| !l.is_empty()).map(String::from).collect();
    ensure!(
        labels.len() == release.classes(),
        "{}: {} names instead of {}",
        path.display(),
        labels.len(),
        release.classes()
    );
    let train = Training::Memory(read(release, folder, train)?);
    let test = read(release, folder, &[test])?;
    Splits::new(train, Calibration::HeldOut(calibration), test, labels, WHOLE, |n| {
        format!("{source}, binary release ({n} training images)")
    })
}

#[cfg(test)]
mod tests {
    use super::super::HELD_OUT;
    use super::*;

    fn record(label: &[u8], first: u8) -> Vec<u8> {
        let mut bytes = label.to_vec();
        bytes.extend((0..3 * PIXELS).map(|k| if k == 0 { first } else { (k / PIXELS) as u8 }));
        bytes
    }

    #[test]
    fn literal_records_become_images() {
        let set = parse(Release::Ten, &[record(&[3], 200), record(&[9], 201)].concat()).unwrap();
        assert_eq!((set.len(), &set.labels[..]), (2, &[3u16, 9][..]));
        assert_eq!(&set.image(1)[..6], &[201, 1, 2, 0, 1, 2]);
        let set = parse(Release::Hundred, &record(&[19, 99], 7)).unwrap();
        assert_eq!((&set.labels[..], set.image(0)[0]), (&[99u16][..], 7));
    }

    #[test]
    fn bad_files_are_named() {
        let error = |release, bytes: &[u8]| format!("{:#}", parse(release, bytes).unwrap_err());
        assert!(error(Release::Ten, &record(&[10], 0)).contains("label 10 where the classes are 0..=9"));
        assert!(error(Release::Hundred, &record(&[0, 100], 0)).contains("label 100"));
        assert!(error(Release::Ten, &record(&[0], 0)[1..]).contains("whole records of 3073"));
        assert!(error(Release::Ten, &[]).contains("whole records"));
        let missing = format!("{:#}", splits(Release::Ten, Path::new("/no/such"), HELD_OUT).unwrap_err());
        assert!(missing.contains("/no/such/batches.meta.txt"), "{missing}");
    }

    #[test]
    fn a_whole_release_is_read() {
        let folder = tempfile::tempdir().unwrap();
        for k in 1..=5u8 {
            let path = folder.path().join(format!("data_batch_{k}.bin"));
            fs::write(path, (0..4).flat_map(|i| record(&[k + i], k)).collect::<Vec<u8>>()).unwrap();
        }
        fs::write(folder.path().join("test_batch.bin"), record(&[0], 9)).unwrap();
        let names: String = (0..10).map(|c| format!("class {c}\n")).collect();
        fs::write(folder.path().join("batches.meta.txt"), names).unwrap();
        let splits = splits(Release::Ten, folder.path(), HELD_OUT).unwrap();
        assert_eq!((splits.train.len(), splits.calibration.len(), splits.test.len()), (18, 2, 1));
        let fewer = super::splits(Release::Ten, folder.path(), 1).unwrap();
        assert_eq!((fewer.train.len(), fewer.calibration.len()), (19, 1));
        assert!(splits.source.contains("18 training images"), "{}", splits.source);
    }
}
