//! Why a bundle was refused.

use super::{MANIFEST, MAX_FILE};
use std::path::PathBuf;

/// Why a bundle was refused. Each message names the file.
#[derive(Debug)]
pub enum BundleError {
    /// The path is no folder, or one without a manifest.
    NoBundle(PathBuf),
    /// A file cannot be read.
    Read(PathBuf, std::io::Error),
    /// A file or folder cannot be written.
    Write(PathBuf, std::io::Error),
    /// The folder that would be replaced is no bundle.
    NotOurs(PathBuf),
    /// A file is larger than [`MAX_FILE`].
    TooLarge(PathBuf, u64),
    /// The manifest is not one.
    Manifest(PathBuf, String),
    /// A file is not the one that the manifest lists.
    Mismatch(PathBuf, &'static str),
    /// A file that must be there is not listed.
    NotListed(PathBuf),
    /// A file does not parse.
    Format(PathBuf, paradise_engine::FormatError),
    /// A back end refuses its file.
    Backend(PathBuf, String),
}

impl std::fmt::Display for BundleError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoBundle(path) if path.is_dir() => {
                write!(f, "{}: not a bundle (it holds no {MANIFEST})", path.display())
            }
            Self::NoBundle(path) => write!(f, "{}: no such folder", path.display()),
            Self::Read(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Write(path, error) => write!(f, "{}: cannot write: {error}", path.display()),
            Self::NotOurs(path) => {
                write!(f, "{}: exists and is no bundle, so it is not replaced; choose another folder", path.display())
            }
            Self::TooLarge(path, size) => {
                write!(f, "{}: {size} bytes exceed the limit of {MAX_FILE} bytes", path.display())
            }
            Self::Manifest(path, why) => write!(f, "{}: not a bundle's manifest: {why}", path.display()),
            Self::Mismatch(path, what) => {
                write!(f, "{}: its {what} is not the one in manifest.json; the bundle is damaged", path.display())
            }
            Self::NotListed(path) => {
                write!(f, "{}: this bundle has no such file (manifest.json does not list it)", path.display())
            }
            Self::Format(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Backend(path, why) => write!(f, "{}: {why}", path.display()),
        }
    }
}

impl std::error::Error for BundleError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(_, error) | Self::Write(_, error) => error.source(),
            Self::Format(_, error) => error.source(),
            _ => None,
        }
    }
}
