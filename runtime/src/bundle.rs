//! A bundle on disk: every file is read once and compared with the manifest before anything uses it.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest file of a bundle, bytes.
pub const MAX_FILE: u64 = 1 << 30;

/// The int8 model.
pub const MODEL: &str = "model.pmq";
/// The float network.
pub const ENCODER: &str = "encoder.onnx";
/// Golden images, pictures and probes.
pub const SELFTEST: &str = "selftest.bin";
/// The list of all files.
pub const MANIFEST: &str = "manifest.json";
/// The manifest's format that this build reads and writes.
const FORMAT: u32 = 2;

/// Why a bundle was refused. Each message names the file.
#[derive(Debug)]
pub enum BundleError {
    /// The path is no folder, or one without a manifest.
    NoBundle(PathBuf),
    /// A file cannot be read.
    Read(PathBuf, std::io::Error),
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

impl std::error::Error for BundleError {}

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    name: String,
    files: BTreeMap<String, Listed>,
    /// SHA-256 of name and list, so that damage to the manifest is not taken for damage to a file.
    #[serde(default)]
    seal: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Listed {
    sha256: String,
    bytes: u64,
}

impl Manifest {
    /// What the seal must be.
    fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{}\n", self.name));
        for (name, Listed { sha256, bytes }) in &self.files {
            hash.update(format!("{name} {bytes} {sha256}\n"));
        }
        hex(&hash.finalize())
    }
}

/// The text of `manifest.json` for a bundle of these files.
pub fn manifest<'a>(name: &str, files: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    let listed = |bytes: &[u8]| Listed { sha256: hex(&Sha256::digest(bytes)), bytes: bytes.len() as u64 };
    let files = files.map(|(file, bytes)| (file.to_string(), listed(bytes))).collect();
    let mut manifest = Manifest { format: FORMAT, name: name.into(), files, seal: String::new() };
    manifest.seal = manifest.digest();
    // A map of strings and numbers always has a JSON form.
    format!("{:#}\n", serde_json::json!(manifest))
}

/// The files of a bundle, whole and as listed.
#[derive(Debug)]
pub struct Bundle {
    folder: PathBuf,
    name: String,
    files: BTreeMap<String, Vec<u8>>,
}

fn read(path: &Path) -> Result<Vec<u8>, BundleError> {
    let failed = |e| BundleError::Read(path.to_path_buf(), e);
    let file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    if size > MAX_FILE {
        return Err(BundleError::TooLarge(path.to_path_buf(), size));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

impl Bundle {
    /// Reads the bundle in `folder` and checks every listed file's size and SHA-256.
    ///
    /// # Errors
    /// With the path of the first file that is missing, too large or different.
    pub fn open(folder: &Path) -> Result<Self, BundleError> {
        let path = folder.join(MANIFEST);
        if !path.exists() {
            return Err(BundleError::NoBundle(folder.to_path_buf()));
        }
        let not_a_manifest = |why: String| BundleError::Manifest(path.clone(), why);
        let manifest: Manifest = serde_json::from_slice(&read(&path)?).map_err(|e| not_a_manifest(e.to_string()))?;
        if manifest.format != FORMAT {
            let why = format!(
                "bundle format {}, this version reads format {FORMAT} only; export the model again (`train export`, or \
                 `train import-onnx`) with the version that serves it",
                manifest.format
            );
            return Err(not_a_manifest(why));
        }
        if let Some(name) = manifest.files.keys().find(|n| n.contains(['/', '\\']) || n.starts_with('.')) {
            return Err(not_a_manifest(format!("{name:?} is not a plain file name")));
        }
        if manifest.seal != manifest.digest() {
            return Err(not_a_manifest("damaged: its own seal does not match what it lists".into()));
        }
        let mut files = BTreeMap::new();
        for (name, listed) in manifest.files {
            let path = folder.join(&name);
            let bytes = read(&path)?;
            if bytes.len() as u64 != listed.bytes {
                return Err(BundleError::Mismatch(path, "size"));
            }
            if hex(&Sha256::digest(&bytes)) != listed.sha256 {
                return Err(BundleError::Mismatch(path, "SHA-256"));
            }
            files.insert(name, bytes);
        }
        Ok(Self { folder: folder.to_path_buf(), name: manifest.name, files })
    }

    /// The bundle's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where a file of the bundle lies.
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// The bytes of a listed file.
    ///
    /// # Errors
    /// If the manifest does not list it.
    pub fn file(&self, name: &str) -> Result<&[u8], BundleError> {
        self.files.get(name).map(Vec::as_slice).ok_or_else(|| BundleError::NotListed(self.path(name)))
    }

    /// Names and sizes of the listed files.
    pub fn files(&self) -> impl Iterator<Item = (&str, usize)> {
        self.files.iter().map(|(name, bytes)| (name.as_str(), bytes.len()))
    }

    /// Whether the manifest carries a detached signature.
    pub fn is_signed(&self) -> bool {
        self.path("manifest.json.minisig").exists()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
