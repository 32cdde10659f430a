//! Files that appear whole or not at all: temporary name, sync, rename, sync of the folder.

use anyhow::{Context, Result};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

fn temporary(path: &Path) -> Result<PathBuf> {
    let name = path.file_name().with_context(|| format!("{}: not a file name", path.display()))?;
    Ok(path.with_file_name(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id())))
}

fn sync_folder(path: &Path) -> Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(folder).and_then(|f| f.sync_all()).with_context(|| format!("{}: cannot sync", folder.display()))
}

/// Writes `bytes` to `path`, replacing it atomically.
///
/// # Errors
/// With the path, if the folder is missing, full or read-only; the old file is then untouched.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = temporary(path)?;
    let outcome = File::create(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    if outcome.is_err() {
        // The first error is the one to report; a leftover temporary file is harmless.
        let _ = fs::remove_file(&temporary);
    }
    outcome.with_context(|| format!("{}: cannot write", path.display()))?;
    sync_folder(path)
}

/// What a JSON file holds; `None` where there is none.
///
/// # Errors
/// With the path, if it cannot be read or holds something else.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(path).with_context(|| format!("{}: cannot read", path.display()))?;
    let value = serde_json::from_str(&text);
    value.map(Some).with_context(|| format!("{}: damaged; remove it and run again", path.display()))
}

/// Creates a folder and its parents.
///
/// # Errors
/// With the path.
pub fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("{}: cannot create the folder", path.display()))
}

/// Moves a finished folder over `target`; an existing folder there is replaced only if `is_ours` says that it may be.
///
/// # Errors
/// If `target` exists and is not ours, or a rename fails.
pub fn replace_folder(finished: &Path, target: &Path, is_ours: impl Fn(&Path) -> bool) -> Result<()> {
    let old = temporary(target)?;
    if target.exists() {
        anyhow::ensure!(
            is_ours(target),
            "{}: exists and was not written by this program; choose another folder",
            target.display()
        );
        fs::rename(target, &old).with_context(|| format!("{}: cannot move aside", target.display()))?;
    }
    fs::rename(finished, target).with_context(|| format!("{}: cannot rename to it", target.display()))?;
    sync_folder(target)?;
    if old.exists() {
        fs::remove_dir_all(&old).with_context(|| format!("{}: cannot remove", old.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_replaces_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let missing = folder.path().join("no/such");
        assert!(format!("{:#}", write(&missing, b"x").unwrap_err()).contains("no/such"));
    }

    #[test]
    fn a_strangers_folder_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (new, target) = (folder.path().join("new"), folder.path().join("target"));
        fs::create_dir(&new).unwrap();
        fs::create_dir(&target).unwrap();
        assert!(replace_folder(&new, &target, |_| false).is_err());
        assert!(new.exists() && target.exists());
        replace_folder(&new, &target, |_| true).unwrap();
        assert!(!new.exists() && target.exists());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
