//! Whom a bundle is from: minisign's signature of its manifest, and what its signed trusted comment says.
//!
//! ```text
//! minisign -S -m manifest.json -t "model=NAME version=7 expires=2027-06-30"
//! ```
//! The manifest lists every file by its SHA-256, so the signature is of all of them. Model and version are in the comment, so that a
//! bundle cannot pass for another or an older one for a newer; the day on which it expires, so that nobody can keep a device on an
//! old one for good by withholding what follows.

use super::Version;
use crate::bundle::{Bundle, SIGNATURE};
use jiff::civil::Date;
use minisign_verify::{PublicKey, Signature};
use std::fmt;
use std::path::Path;

/// Keys, any of which may have signed.
#[derive(Default)]
pub struct Keys(Vec<PublicKey>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

/// What the one who signed says of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The model's name.
    pub model: String,
    /// Its version.
    pub version: Version,
    /// The last day on which it may be taken into service, UTC.
    pub expires: Date,
}

/// Why a bundle is not trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Distrust {
    /// A key cannot be read.
    Key(String, String),
    /// There is no signature.
    Unsigned,
    /// The signature is not one.
    NoSignature(String),
    /// None of the keys has signed this manifest.
    Forged,
    /// The trusted comment does not say what it must.
    Comment(String),
    /// It is signed as another model or version.
    Other(Claims),
    /// It has expired.
    Expired(Date),
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key, why) => write!(f, "{key}: not a public key of minisign: {why}"),
            Self::Unsigned => write!(f, "it is not signed (no {SIGNATURE})"),
            Self::NoSignature(why) => write!(f, "{SIGNATURE}: not a signature of minisign: {why}"),
            Self::Forged => write!(f, "{SIGNATURE}: not of this manifest.json by any of the keys"),
            Self::Comment(why) => write!(
                f,
                "{SIGNATURE}: its trusted comment must say `model=NAME version=7 expires=2027-06-30`: {why}"
            ),
            Self::Other(claims) => {
                write!(f, "{SIGNATURE}: it is signed as model {:?}, version {}", claims.model, claims.version)
            }
            Self::Expired(date) => write!(f, "it expired on {date}"),
        }
    }
}

impl std::error::Error for Distrust {}

impl Keys {
    /// Each a file that `minisign -G` wrote, or the one line of base64 in it.
    ///
    /// # Errors
    /// The first that is neither.
    pub fn read(keys: &[String]) -> Result<Self, Distrust> {
        let key = |key: &String| {
            let read = if Path::new(key).exists() { PublicKey::from_file(key) } else { PublicKey::from_base64(key) };
            read.map_err(|e| Distrust::Key(key.clone(), e.to_string()))
        };
        keys.iter().map(key).collect::<Result<_, _>>().map(Self)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is signed of a bundle, if it is signed by one of the keys.
    ///
    /// # Errors
    /// If it is not, or not enough is said.
    pub fn claims(&self, bundle: &Bundle) -> Result<Claims, Distrust> {
        let signature = bundle.signature().ok_or(Distrust::Unsigned)?;
        let signature = std::str::from_utf8(signature).map_err(|e| Distrust::NoSignature(e.to_string()))?;
        let signature = Signature::decode(signature).map_err(|e| Distrust::NoSignature(e.to_string()))?;
        if !self.0.iter().any(|key| key.verify(bundle.manifest(), &signature, false).is_ok()) {
            return Err(Distrust::Forged);
        }
        Claims::parse(signature.trusted_comment()).map_err(Distrust::Comment)
    }
}

impl Claims {
    fn parse(comment: &str) -> Result<Self, String> {
        let value = |name: &str| {
            let mut found = comment.split_whitespace().filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            match (found.next(), found.next()) {
                (Some(value), None) => Ok(value),
                (None, _) => Err(format!("it says no {name}")),
                (Some(_), Some(_)) => Err(format!("it says {name} twice")),
            }
        };
        let version = value("version")?;
        let version = version.parse().map_err(|e| format!("version={version}: {e}"))?;
        let expires = value("expires")?;
        let expires = expires.parse().map_err(|e| format!("expires={expires}: {e}"))?;
        Ok(Self { model: value("model")?.to_string(), version, expires })
    }

    /// They are of this model and version, which may be taken into service today.
    ///
    /// # Errors
    /// What does not hold.
    pub fn hold(&self, model: &str, version: &Version, today: Date) -> Result<(), Distrust> {
        if self.model != model || self.version != *version {
            return Err(Distrust::Other(self.clone()));
        }
        if today > self.expires { Err(Distrust::Expired(self.expires)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_says_each_once() {
        let good = Claims::parse("timestamp:1 model=net version=1.2  expires=2027-06-30 by=me").unwrap();
        assert_eq!((good.model.as_str(), good.version.to_string().as_str()), ("net", "1.2"));
        let day = |text: &str| text.parse::<Date>().unwrap();
        let version = "1.2".parse().unwrap();
        assert_eq!(good.hold("net", &version, day("2027-06-30")), Ok(()));
        assert_eq!(good.hold("net", &version, day("2027-07-01")), Err(Distrust::Expired(day("2027-06-30"))));
        assert_eq!(good.hold("other", &version, day("2026-01-01")), Err(Distrust::Other(good.clone())));
        assert_eq!(good.hold("net", &"1.3".parse().unwrap(), day("2026-01-01")), Err(Distrust::Other(good.clone())));
        for (wrong, why) in [
            ("", "no version"),
            ("model=a version=1", "no expires"),
            ("model=a version=1 expires=2027-13-01", "expires=2027-13-01: "),
            ("model=a version=1.b expires=2027-01-01", "version=1.b: "),
            ("model=a version=1 version=2 expires=2027-01-01", "version twice"),
            ("version=1 expires=2027-01-01", "no model"),
            ("xmodel=a version=1 expires=2027-01-01", "no model"),
        ] {
            assert!(Claims::parse(wrong).unwrap_err().contains(why), "{wrong}");
        }
    }
}
