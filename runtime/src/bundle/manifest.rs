//! `manifest.json`: the list of a bundle's files, under a seal of its own.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The format that this build reads and writes.
pub(super) const FORMAT: u32 = 2;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub format: u32,
    pub name: String,
    pub files: BTreeMap<String, Listed>,
    /// SHA-256 of name and list, so that damage to the manifest is not taken for damage to a file.
    #[serde(default)]
    pub seal: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Listed {
    pub sha256: String,
    pub bytes: u64,
}

impl Manifest {
    /// What the seal must be.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{}\n", self.name));
        for (name, Listed { sha256, bytes }) in &self.files {
            hash.update(format!("{name} {bytes} {sha256}\n"));
        }
        hex(&hash.finalize())
    }
}

/// The text of `manifest.json` for a bundle of these files.
pub(super) fn text<'a>(name: &str, files: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    let listed = |bytes: &[u8]| Listed { sha256: hex(&Sha256::digest(bytes)), bytes: bytes.len() as u64 };
    let files = files.map(|(file, bytes)| (file.to_string(), listed(bytes))).collect();
    let mut manifest = Manifest { format: FORMAT, name: name.into(), files, seal: String::new() };
    manifest.seal = manifest.digest();
    // A map of strings and numbers always has a JSON form.
    format!("{:#}\n", serde_json::json!(manifest))
}

/// Bytes as hexadecimal digits, as hashes are written.
///
/// ```
/// assert_eq!(paradise_runtime::bundle::hex(&[1, 0xab]), "01ab");
/// ```
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
