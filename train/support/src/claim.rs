//! A folder that one process at a time writes to.

use anyhow::{Context, Result};
use std::fs::{File, TryLockError};
use std::path::Path;

/// The folder is this process's until this is dropped, or the process ends, however it does.
#[derive(Debug)]
pub struct Claim {
    _locked: File,
}

impl Claim {
    /// Claims a folder; none if another process has. The lock is a file `.lock` in it, which stays.
    ///
    /// ```
    /// use paradise_support::claim::Claim;
    /// let folder = std::env::temp_dir().join(format!("claimed-{}", std::process::id()));
    /// std::fs::create_dir_all(&folder)?;
    /// let claim = Claim::on(&folder)?;
    /// assert!(claim.is_some() && Claim::on(&folder)?.is_none());
    /// drop(claim);
    /// assert!(Claim::on(&folder)?.is_some());
    /// # std::fs::remove_dir_all(&folder)?;
    /// # Ok::<(), anyhow::Error>(())
    /// ```
    ///
    /// # Errors
    /// With the path, if there is no such folder, it cannot be written to, or its file system knows no locks.
    pub fn on(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(".lock");
        let file = File::options().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("{}: cannot open", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _locked: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(e).with_context(|| format!("{}: cannot lock", path.display())),
        }
    }
}
