//! A bundle on disk, read and written: file names and manifest are decided here and nowhere else. Every file is read once and
//! compared with the manifest before anything uses it.

mod error;
mod manifest;
mod write;

pub use error::BundleError;
pub use write::write;

pub use manifest::hex;

use manifest::{FORMAT, Manifest};
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
/// What calibration images give by the float network: its own tables, since those in the model are the int8 network's.
pub const ENCODER_TABLES: &str = "encoder.tables.json";
/// The int8 model's integers as an ONNX graph.
pub const ENCODER_INT8: &str = "encoder.int8.onnx";
/// Golden images, pictures and probes.
pub const SELFTEST: &str = "selftest.bin";
/// What was measured, and on what.
pub const CARD: &str = "card.toml";
/// The list of all files.
pub const MANIFEST: &str = "manifest.json";
/// A detached signature of the manifest.
pub const SIGNATURE: &str = "manifest.json.minisig";

/// The files of a bundle, whole and as listed.
#[derive(Debug)]
pub struct Bundle {
    folder: PathBuf,
    manifest: Vec<u8>,
    signature: Option<Vec<u8>>,
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

fn fingerprint(manifest: &[u8], signature: Option<&[u8]>) -> String {
    let mut hash = Sha256::new();
    hash.update(Sha256::digest(manifest));
    hash.update(signature.unwrap_or_default());
    hex(&hash.finalize())
}

impl Bundle {
    /// Reads the bundle in `folder` and checks every listed file's size and SHA-256.
    ///
    /// ```
    /// use paradise_runtime::Bundle;
    /// use std::path::Path;
    /// # let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/fashion-mnist-small");
    /// # let at = |_: &str| here.clone();
    /// let bundle = Bundle::open(&at("models/fashion-mnist-small"))?;
    /// assert_eq!(bundle.name(), "fashion-mnist-small");
    /// assert!(Bundle::open(Path::new("no/such")).is_err());
    /// # Ok::<(), paradise_runtime::BundleError>(())
    /// ```
    ///
    /// # Errors
    /// With the path of the first file that is missing, too large or different.
    pub fn open(folder: &Path) -> Result<Self, BundleError> {
        let path = folder.join(MANIFEST);
        if !path.exists() {
            return Err(BundleError::NoBundle(folder.to_path_buf()));
        }
        let not_a_manifest = |why: String| BundleError::Manifest(path.clone(), why);
        let bytes = read(&path)?;
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|e| not_a_manifest(e.to_string()))?;
        let signature = folder.join(SIGNATURE);
        let signature = if signature.exists() { Some(read(&signature)?) } else { None };
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
        Ok(Self { folder: folder.to_path_buf(), manifest: bytes, signature, name: manifest.name, files })
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

    /// The bytes of the manifest.
    pub fn manifest(&self) -> &[u8] {
        &self.manifest
    }

    /// The manifest's detached signature, if it has one.
    pub fn signature(&self) -> Option<&[u8]> {
        self.signature.as_deref()
    }

    /// SHA-256 of manifest and signature, in hexadecimal: which bundle this is, to the byte, and by whom.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.manifest, self.signature.as_deref())
    }

    /// [`Bundle::fingerprint`] of a folder, whatever its files are; `None` if it has no manifest.
    pub fn fingerprint_of(folder: &Path) -> Option<String> {
        let manifest = read(&folder.join(MANIFEST)).ok()?;
        Some(fingerprint(&manifest, read(&folder.join(SIGNATURE)).ok().as_deref()))
    }
}
