//! Files that appear whole or not at all.

use std::fs::{self, File};
use std::io::{Error, ErrorKind, Result, Write};
use std::path::Path;

/// Writes a file and syncs it.
pub(crate) fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    File::create(path).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
}

/// Syncs a folder: what was renamed in it stays.
pub(crate) fn sync(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|f| f.sync_all())
}

/// The folder that holds `path`.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Writes `bytes` beside `path` and puts them in its place; an old file stays until then.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().ok_or_else(|| Error::new(ErrorKind::InvalidInput, "not a file name"))?;
    let temporary = path.with_file_name(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
    let outcome = put(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if outcome.is_err() {
        // The first error is the one to report; a leftover temporary file is harmless.
        let _ = fs::remove_file(&temporary);
    }
    outcome.and_then(|()| sync(parent(path)))
}
