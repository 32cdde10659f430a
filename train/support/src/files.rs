//! Files that appear whole or not at all: temporary name, sync, rename, sync of the folder.

use anyhow::{Context, Result};
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A name beside a file. Processes of other machines may have this one's number, so that a draw is in it too.
fn temporary(path: &Path) -> Result<PathBuf> {
    let name = path.file_name().with_context(|| format!("{}: not a file name", path.display()))?;
    let draw = RandomState::new().hash_one(0);
    Ok(path.with_file_name(format!(".{}.{}.{draw:x}.tmp", name.to_string_lossy(), std::process::id())))
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
/// ```
/// use paradise_support::files;
/// let path = std::env::temp_dir().join(format!("whole-{}.json", std::process::id()));
/// files::write(&path, b"[1, 2]")?;
/// assert_eq!(files::read_json::<Vec<u32>>(&path)?, Some(vec![1, 2]));
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), anyhow::Error>(())
/// ```
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
}
