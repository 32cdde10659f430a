//! Versions of models: numbers between dots, `7` or `2026.11.2`, compared number by number.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// Most numbers of a version.
const MOST: usize = 8;

/// A version, as it was written.
///
/// ```
/// use paradise_runtime::store::Version;
/// let version = |text: &str| text.parse::<Version>().unwrap();
/// assert!(version("10") > version("9") && version("1.2") > version("1") && version("2") > version("1.9.9"));
/// assert!("1.x".parse::<Version>().is_err() && "".parse::<Version>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version {
    text: String,
    numbers: Vec<u64>,
}

/// A text that is no version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoVersion;

impl fmt::Display for NoVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a version: 1 to {MOST} numbers between dots, as 7 or 2026.11.2")
    }
}

impl std::error::Error for NoVersion {}

impl FromStr for Version {
    type Err = NoVersion;

    fn from_str(text: &str) -> Result<Self, NoVersion> {
        // One way to write a number, so that no two versions are the same number by number.
        let number = |part: &str| {
            let plain = part.bytes().all(|b| b.is_ascii_digit()) && (part.len() == 1 || !part.starts_with('0'));
            part.parse().ok().filter(|_| plain).ok_or(NoVersion)
        };
        let numbers = text.split('.').map(number).collect::<Result<Vec<u64>, _>>()?;
        if numbers.len() > MOST { Err(NoVersion) } else { Ok(Self { text: text.into(), numbers }) }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers)
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl serde::Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> serde::Deserialize<'de> for Version {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
