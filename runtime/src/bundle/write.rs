//! Writing a bundle: its folder appears whole or not at all.

use super::{BundleError, MANIFEST, manifest};
use crate::files;
use std::fs;
use std::path::Path;

/// Writes a bundle called `name` with these files into `folder`: into a folder beside it, synced, which then takes its place.
///
/// A bundle or an empty folder that is there is replaced; anything else is left alone.
///
/// ```
/// use paradise_runtime::bundle::{Bundle, write};
/// let folder = std::env::temp_dir().join(format!("bundle-{}", std::process::id()));
/// write(&folder, "mine", &[("notes.txt", b"hello".to_vec())])?;
/// assert_eq!(Bundle::open(&folder)?.file("notes.txt")?, b"hello");
/// std::fs::write(folder.join("notes.txt"), "changed").unwrap();
/// assert!(Bundle::open(&folder).is_err());
/// # std::fs::remove_dir_all(&folder).unwrap();
/// # Ok::<(), paradise_runtime::BundleError>(())
/// ```
///
/// # Errors
/// With the path that cannot be written, or the folder that is no bundle.
pub fn write(folder: &Path, name: &str, contents: &[(&str, Vec<u8>)]) -> Result<(), BundleError> {
    let parent = files::parent(folder);
    if folder.exists() && !folder.join(MANIFEST).exists() && !is_empty(folder) {
        return Err(BundleError::NotOurs(folder.to_path_buf()));
    }
    create(parent)?;
    let beside = |what: &str| parent.join(format!(".{name}.{}.{what}", std::process::id()));
    let (building, old) = (beside("building"), beside("old"));
    create(&building)?;
    for (file, bytes) in contents {
        put(&building.join(file), bytes)?;
    }
    let manifest = manifest::text(name, contents.iter().map(|(file, bytes)| (*file, &bytes[..])));
    put(&building.join(MANIFEST), manifest.as_bytes())?;
    sync(&building)?;
    if folder.exists() {
        fs::rename(folder, &old).map_err(|e| BundleError::Write(folder.to_path_buf(), e))?;
    }
    fs::rename(&building, folder).map_err(|e| BundleError::Write(folder.to_path_buf(), e))?;
    sync(parent)?;
    if old.exists() {
        fs::remove_dir_all(&old).map_err(|e| BundleError::Write(old, e))?;
    }
    Ok(())
}

fn create(folder: &Path) -> Result<(), BundleError> {
    fs::create_dir_all(folder).map_err(|e| BundleError::Write(folder.to_path_buf(), e))
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), BundleError> {
    files::put(path, bytes).map_err(|e| BundleError::Write(path.to_path_buf(), e))
}

fn sync(folder: &Path) -> Result<(), BundleError> {
    files::sync(folder).map_err(|e| BundleError::Write(folder.to_path_buf(), e))
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Bundle;

    #[test]
    fn a_bundle_is_replaced_whole_and_a_strangers_folder_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model");
        write(&target, "one", &[("a", vec![1, 2]), ("b", vec![3])]).unwrap();
        write(&target, "two", &[("a", vec![4])]).unwrap();
        let bundle = Bundle::open(&target).unwrap();
        assert_eq!((bundle.name(), bundle.file("a").unwrap()), ("two", &[4u8][..]));
        assert!(bundle.file("b").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");

        let strangers = folder.path().join("strangers");
        fs::create_dir(&strangers).unwrap();
        write(&strangers, "three", &[("a", vec![5])]).unwrap();
        fs::remove_file(strangers.join(MANIFEST)).unwrap();
        let refused = write(&strangers, "four", &[("a", vec![6])]).unwrap_err();
        assert!(matches!(refused, BundleError::NotOurs(_)), "{refused}");
        assert_eq!(fs::read(strangers.join("a")).unwrap(), [5]);
    }
}
