//! Values that a library knows by name, as arguments.

use serde::de::DeserializeOwned;
use serde::de::value::{Error, StrDeserializer};

/// A value by the name that configuration files have for it; what is wrong lists all names.
///
/// # Errors
/// If there is no such name.
pub fn named<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    T::deserialize(StrDeserializer::<Error>::new(text)).map_err(|e| e.to_string())
}
