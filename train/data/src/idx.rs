//! The IDX format of MNIST and Fashion-MNIST, plain or gzipped.

use super::Dataset;
use anyhow::{Context, Result, bail, ensure};
use flate2::read::GzDecoder;
use paradise_engine::Shape;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Most bytes an IDX file may unpack to: 60,000 images of 224 x 224 would fit.
const MAX_BYTES: u64 = 4 << 30;

/// An n-dimensional array of bytes.
struct Idx {
    dims: Vec<usize>,
    data: Vec<u8>,
}

fn unpack(bytes: &[u8]) -> Result<Vec<u8>> {
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(bytes.to_vec());
    }
    let mut out = Vec::new();
    GzDecoder::new(bytes).take(MAX_BYTES + 1).read_to_end(&mut out).context("broken gzip data")?;
    ensure!(out.len() as u64 <= MAX_BYTES, "unpacks to more than {MAX_BYTES} bytes");
    Ok(out)
}

fn parse(bytes: &[u8]) -> Result<Idx> {
    let bytes = unpack(bytes)?;
    ensure!(bytes.len() >= 4 && bytes[..2] == [0, 0], "not an IDX file");
    ensure!(bytes[2] == 8, "IDX element type {:#04x}, only unsigned bytes (0x08) are read", bytes[2]);
    let rank = bytes[3] as usize;
    let body = 4 + 4 * rank;
    ensure!(bytes.len() >= body, "truncated IDX header: {} bytes", bytes.len());
    let dims: Vec<usize> =
        bytes[4..body].chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize).collect();
    let need = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).context("IDX extents overflow")?;
    ensure!(bytes.len() - body == need, "IDX declares {need} bytes of data and has {}", bytes.len() - body);
    Ok(Idx { dims, data: bytes[body..].to_vec() })
}

/// A data set from the bytes of an image file (3 axes: grey, 4: channels last) and a label file.
///
/// # Errors
/// If either is not IDX, they disagree, or a label is not below `classes`.
pub fn dataset(images: &[u8], labels: &[u8], classes: usize) -> Result<Dataset> {
    let images = parse(images).context("images")?;
    let labels = parse(labels).context("labels")?;
    ensure!(labels.dims.len() == 1, "labels: {} axes instead of 1", labels.dims.len());
    let side = |d: usize| u16::try_from(d).with_context(|| format!("images: a side of {d} exceeds 65535"));
    let shape = match images.dims[..] {
        [_, h, w] => Shape::new(side(h)?, side(w)?, 1),
        [_, h, w, c] => Shape::new(side(h)?, side(w)?, side(c)?),
        _ => bail!("images: {} axes instead of 3 or 4", images.dims.len()),
    };
    ensure!(images.dims[0] == labels.dims[0], "{} images but {} labels", images.dims[0], labels.dims[0]);
    if let Some(bad) = labels.data.iter().find(|l| **l as usize >= classes) {
        bail!("labels: {bad} where the classes are 0..={}", classes - 1);
    }
    Dataset::new(shape, images.data, labels.data.iter().map(|l| u16::from(*l)).collect())
}

fn find(folder: &Path, stem: &str) -> Result<PathBuf> {
    let names = [format!("{stem}.gz"), stem.to_string(), stem.replace("-idx", ".idx")];
    names
        .iter()
        .map(|n| folder.join(n))
        .find(|p| p.is_file())
        .with_context(|| format!("{}: holds neither {stem}.gz nor {stem}", folder.display()))
}

/// Reads `{part}-images-idx3-ubyte[.gz]` and `{part}-labels-idx1-ubyte[.gz]` from a folder.
///
/// # Errors
/// With the file's path.
pub fn read(folder: &Path, part: &str, classes: usize) -> Result<Dataset> {
    let images = find(folder, &format!("{part}-images-idx3-ubyte"))?;
    let labels = find(folder, &format!("{part}-labels-idx1-ubyte"))?;
    let bytes = |p: &Path| fs::read(p).with_context(|| format!("{}: cannot read", p.display()));
    dataset(&bytes(&images)?, &bytes(&labels)?, classes).with_context(|| images.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idx(dims: &[u32], data: &[u8]) -> Vec<u8> {
        let mut out = vec![0, 0, 8, dims.len() as u8];
        out.extend(dims.iter().flat_map(|d| d.to_be_bytes()));
        out.extend(data);
        out
    }

    #[test]
    fn literal_bytes_become_images() {
        let set = dataset(&idx(&[2, 1, 3], &[1, 2, 3, 4, 5, 6]), &idx(&[2], &[0, 1]), 2).unwrap();
        assert_eq!(
            (set.shape, set.image(1), &set.labels[..]),
            (Shape::new(1, 3, 1), &[4u8, 5, 6][..], &[0u16, 1][..])
        );
    }

    #[test]
    fn bad_files_are_named() {
        let labels = idx(&[1], &[0]);
        let error = |images: &[u8], labels: &[u8]| format!("{:#}", dataset(images, labels, 1).unwrap_err());
        assert!(error(b"text", &labels).contains("not an IDX file"));
        assert!(error(&[], &labels).contains("not an IDX file"));
        assert!(error(&idx(&[1, 2, 2], &[0; 3]), &labels).contains("declares 4 bytes of data and has 3"));
        assert!(error(&idx(&[1, 1, 1], &[0]), &idx(&[1], &[7])).contains("7 where the classes are 0..=0"));
        assert!(error(&idx(&[2, 1, 1], &[0; 2]), &labels).contains("2 images but 1 labels"));
        assert!(error(&idx(&[u32::MAX, u32::MAX, u32::MAX], &[]), &labels).contains("images"));
        assert!(error(&[0x1f, 0x8b, 0, 0], &labels).contains("gzip"));
    }
}
