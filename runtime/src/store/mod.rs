//! The folder from which a device takes its models, `DIR/<name>/<version>/`, each a bundle: which versions there are, which may serve,
//! what happened to them. Whoever delivers them writes a version under a name that begins with a dot, or elsewhere in the same file
//! system, and renames it into its place when it is whole.
//!
//! ```text
//! scan --> newest that may be tried --> hashes --> signature, model, version, day --> (load, self-test, swap: the caller) --> accept
//!                       ^--------------------------- refuse: the next older one <--------------'
//! ```

mod record;
mod trust;
mod version;

pub use record::{MOST_CRASHES, Record};
pub use trust::{Claims, Distrust, Keys};
pub use version::{NoVersion, Version};

use crate::bundle::{Bundle, BundleError};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a version does not serve.
#[derive(Debug)]
pub enum Refused {
    /// Its files.
    Bundle(BundleError),
    /// Whom it is from.
    Distrust(PathBuf, Distrust),
    /// It is another model's.
    Name(PathBuf, String),
    /// It ended the process when it was taken into service.
    Crashed(PathBuf),
    /// What is remembered cannot be read or written.
    Record(io::Error),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bundle(error) => write!(f, "{error}"),
            Self::Distrust(path, why) => write!(f, "{}: {why}", path.display()),
            Self::Name(path, name) => write!(f, "{}: it is the model {name:?}", path.display()),
            Self::Crashed(path) => {
                write!(
                    f,
                    "{}: the process ended {MOST_CRASHES} times when it had been taken into service",
                    path.display()
                )
            }
            Self::Record(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for Refused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Bundle(error) => error.source(),
            Self::Record(error) => error.source(),
            _ => None,
        }
    }
}

/// A folder of models.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    state: PathBuf,
    keys: Option<Arc<Keys>>,
}

/// Today by the machine's clock, UTC.
fn clock() -> Date {
    TimeZone::UTC.to_datetime(Timestamp::now()).date()
}

/// The names of the folders in one, but for those that begin with a dot.
fn folders(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // A link to a folder is one.
        if let Some(name) = entry.file_name().to_str().filter(|name| !name.starts_with('.'))
            && entry.path().is_dir()
        {
            names.push(name.to_string());
        }
    }
    names.sort();
    Ok(names)
}

impl Store {
    /// The models under `root`; what is remembered of them lies in `state`, which is made. Without keys nothing need be signed.
    ///
    /// # Errors
    /// If the folders cannot be used.
    pub fn open(root: &Path, state: &Path, keys: Option<Arc<Keys>>) -> io::Result<Self> {
        let named = |path: &Path, e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        fs::read_dir(root).map_err(|e| named(root, e))?;
        Ok(Self { root: root.to_path_buf(), state: state.to_path_buf(), keys })
    }

    /// Where the models are.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folders of models, those without a version too.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn folders(&self) -> io::Result<Vec<PathBuf>> {
        Ok(folders(&self.root)?.into_iter().map(|name| self.root.join(name)).collect())
    }

    /// The models' names.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let names = folders(&self.root)?;
        Ok(names.into_iter().filter(|name| self.versions(name).is_ok_and(|versions| !versions.is_empty())).collect())
    }

    /// A model's versions, the newest first; what is no version is passed over.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn versions(&self, model: &str) -> io::Result<Vec<Version>> {
        let names = folders(&self.root.join(model))?;
        let mut versions: Vec<Version> = names.iter().filter_map(|name| name.parse().ok()).collect();
        versions.sort_by(|a, b| b.cmp(a));
        Ok(versions)
    }

    /// Where a version lies.
    pub fn folder(&self, model: &str, version: &Version) -> PathBuf {
        self.root.join(model).join(version.to_string())
    }

    /// What is remembered of a model.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn record(&self, model: &str) -> Result<Record, Refused> {
        Record::read(&record::path(&self.state, model)).map_err(Refused::Record)
    }

    /// Changes what is remembered.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub fn remember<T>(&self, model: &str, change: impl FnOnce(&mut Record) -> T) -> Result<T, Refused> {
        let mut record = self.record(model)?;
        let before = record.clone();
        let outcome = change(&mut record);
        if record != before {
            fs::create_dir_all(&self.state).map_err(Refused::Record)?;
            record.write(&record::path(&self.state, model)).map_err(Refused::Record)?;
        }
        Ok(outcome)
    }

    /// The versions that may be tried, the newest first.
    ///
    /// # Errors
    /// If folders or records cannot be read.
    pub fn candidates(&self, model: &str) -> Result<Vec<Version>, Refused> {
        let record = self.record(model)?;
        let versions = self.versions(model).map_err(Refused::Record)?;
        Ok(versions.into_iter().filter(|version| record.allows(version)).collect())
    }

    /// A version whose files are whole, that is signed for this model and version by one of the keys, and has not expired unless it
    /// is what serves already. From now on it is being tried.
    ///
    /// # Errors
    /// Why it must not serve; it is not tried again as it is.
    pub fn begin(&self, model: &str, version: &Version) -> Result<Bundle, Refused> {
        let folder = self.folder(model, version);
        let bundle = Bundle::open(&folder).map_err(Refused::Bundle)?;
        let tried = self.check(model, version, &folder, &bundle);
        match &tried {
            // A clock that is wrong today may be right tomorrow.
            Ok(()) | Err(Refused::Distrust(_, Distrust::Expired(_)) | Refused::Record(_)) => {}
            Err(why) => self.refuse(model, version, &bundle.fingerprint(), why)?,
        }
        tried.map(|()| bundle)
    }

    fn check(&self, model: &str, version: &Version, folder: &Path, bundle: &Bundle) -> Result<(), Refused> {
        if bundle.name() != model {
            return Err(Refused::Name(folder.to_path_buf(), bundle.name().to_string()));
        }
        let record = self.record(model)?;
        let (today, serves) = (record.today(clock()), record.current.as_ref() == Some(version));
        if let Some(keys) = &self.keys {
            let held = keys.claims(bundle).and_then(|claims| claims.hold(model, version, today));
            match held {
                // It was taken into service in time; a device does not stop because nobody sends it another.
                Err(Distrust::Expired(_)) if serves => {}
                held => held.map_err(|why| Refused::Distrust(folder.to_path_buf(), why))?,
            }
        }
        if self.remember(model, |record| record.begin(version))? {
            return Err(Refused::Crashed(folder.to_path_buf()));
        }
        Ok(())
    }

    /// Whether a version, as it lies there, was refused before, and why. Its manifest alone is read.
    ///
    /// # Errors
    /// If what is remembered cannot be read.
    pub fn was_refused(&self, model: &str, version: &Version) -> Result<Option<String>, Refused> {
        let bundle = Bundle::fingerprint_of(&self.folder(model, version));
        let record = self.record(model)?;
        Ok(bundle.and_then(|bundle| record.why_refused(version, &bundle).map(String::from)))
    }

    /// A version serves.
    ///
    /// # Errors
    /// If that cannot be written down.
    pub fn accept(&self, model: &str, version: &Version) -> Result<(), Refused> {
        self.remember(model, |record| record.accept(version, clock()))
    }

    /// What serves has served long enough.
    ///
    /// # Errors
    /// If that cannot be written down.
    pub fn prove(&self, model: &str) -> Result<(), Refused> {
        self.remember(model, Record::prove)
    }

    /// A version must not serve as the bundle of this fingerprint, for this reason.
    ///
    /// # Errors
    /// If that cannot be written down.
    pub fn refuse(
        &self,
        model: &str,
        version: &Version,
        bundle: &str,
        why: &dyn fmt::Display,
    ) -> Result<(), Refused> {
        self.remember(model, |record| record.refuse(version, bundle, why.to_string()))
    }
}
