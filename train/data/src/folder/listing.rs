//! What lies in folders of pictures: classes, pictures, and what is neither.

use anyhow::{Context, Result, bail, ensure};
use paradise_picture::Format;
use std::fs;
use std::path::{Path, PathBuf};

/// Endings that say that a file is meant as a picture, whatever it holds.
const ENDINGS: [&str; 18] = [
    "jpg", "jpeg", "jpe", "jfif", "png", "bmp", "gif", "webp", "ppm", "pgm", "pbm", "pnm", "pam", "tif", "tiff",
    "qoi", "tga", "ico",
];

/// Files that are no pictures.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    count: usize,
    first: Vec<String>,
}

impl LeftOut {
    fn add(&mut self, path: &Path) {
        self.count += 1;
        if self.first.len() < 3 {
            self.first.push(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
    }

    /// One line, if there is anything to say.
    pub fn line(&self) -> Option<String> {
        let more = if self.count > self.first.len() { ", ..." } else { "" };
        let names = format!("{}{more}", self.first.join(", "));
        match self.count {
            0 => None,
            1 => Some(format!("1 file that is no picture was left out ({names})")),
            n => Some(format!("{n} files that are no pictures were left out ({names})")),
        }
    }

    /// Logs what was left out of `folder`.
    pub fn tell(&self, folder: &Path) {
        if let Some(line) = self.line() {
            tracing::warn!("{}: {line}", folder.display());
        }
    }
}

/// What is in a folder, sorted; names that begin with a dot are nobody's pictures.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut all: Vec<PathBuf> = fs::read_dir(folder)
        .and_then(|entries| entries.map(|e| e.map(|e| e.path())).collect())
        .with_context(|| format!("{}: cannot read", folder.display()))?;
    all.retain(|p| p.file_name().is_some_and(|n| !n.to_string_lossy().starts_with('.')));
    all.sort();
    Ok(all)
}

/// Names and paths of the folders in `folder`: in numeric order where all names are numbers, else sorted.
pub(super) fn classes(folder: &Path, left_out: &mut LeftOut) -> Result<Vec<(String, PathBuf)>> {
    let mut all: Vec<(String, PathBuf)> = Vec::new();
    for path in entries(folder)? {
        if !path.is_dir() {
            left_out.add(&path);
            continue;
        }
        let at = path.display();
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else {
            bail!("{at}: a class name must be UTF-8; rename the folder")
        };
        ensure!(!name.contains(['\n', '\r']), "{at:?}: a class name holds no line break; rename the folder");
        ensure!(name == name.trim(), "{at:?}: a class name neither begins nor ends with a space; rename the folder");
        all.push((name.to_string(), path));
    }
    ensure!(all.len() <= 65_535, "{}: more than 65535 classes", folder.display());
    let numbers: Option<Vec<u64>> = all.iter().map(|(name, _)| name.parse().ok()).collect();
    if let Some(numbers) = numbers {
        let mut order: Vec<usize> = (0..all.len()).collect();
        order.sort_by_key(|&i| numbers[i]);
        if let Some(pair) = order.windows(2).find(|pair| numbers[pair[0]] == numbers[pair[1]]) {
            let [a, b] = [pair[0], pair[1]].map(|i| &all[i].0);
            bail!("{}: the class names {a:?} and {b:?} are the same number; rename a folder", folder.display());
        }
        all = order.into_iter().map(|i| all[i].clone()).collect();
    }
    Ok(all)
}

/// Whether a file is a picture, or meant as one.
fn is_picture(path: &Path) -> Result<bool> {
    let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    if ending.is_some_and(|e| ENDINGS.contains(&&*e)) {
        return Ok(true);
    }
    Ok(Format::of_file(path).with_context(|| format!("{}: cannot read", path.display()))?.is_some())
}

/// The first `n` pictures in `folder` and the folders in it, sorted.
pub(super) fn pictures_below(folder: &Path, n: usize, left_out: &mut LeftOut) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in entries(folder)? {
        if found.len() >= n {
            break;
        }
        // A link may lead back up; only real folders are entered.
        let kind = fs::symlink_metadata(&path).with_context(|| format!("{}: cannot read", path.display()))?;
        if kind.is_dir() {
            found.extend(pictures_below(&path, n - found.len(), left_out)?);
        } else if path.is_file() && is_picture(&path)? {
            found.push(path);
        } else {
            left_out.add(&path);
        }
    }
    Ok(found)
}

/// The first `n` pictures in `folder` and the folders in it, sorted; says what is left out.
pub(crate) fn all_pictures(folder: &Path, n: usize) -> Result<Vec<PathBuf>> {
    let mut left_out = LeftOut::default();
    let found = pictures_below(folder, n, &mut left_out)?;
    left_out.tell(folder);
    Ok(found)
}
