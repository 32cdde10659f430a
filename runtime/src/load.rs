//! From a bundle to the back end that was asked for.

use crate::bundle::{Bundle, BundleError};
use crate::int8::Int8;
#[cfg(feature = "tract")]
use crate::onnx::Tract;
use crate::pipeline::{Backend, BackendKind};

/// A loaded back end of either kind.
#[derive(Debug)]
pub enum Loaded {
    /// The engine.
    Int8(Box<Int8>),
    /// The float encoder.
    #[cfg(feature = "tract")]
    Tract(Box<Tract>),
}

impl Loaded {
    /// Loads the back end of a bundle.
    ///
    /// # Errors
    /// With the path of the file that is refused.
    pub fn open(bundle: &Bundle, kind: BackendKind) -> Result<Self, BundleError> {
        Ok(match kind {
            BackendKind::Int8 => Self::Int8(Box::new(Int8::load(bundle)?)),
            #[cfg(feature = "tract")]
            BackendKind::Tract => Self::Tract(Box::new(Tract::load(bundle)?)),
            #[cfg(not(feature = "tract"))]
            BackendKind::Tract => {
                let why = "this build has no tract back end; build with the feature `tract`";
                return Err(BundleError::Backend(bundle.path(crate::bundle::ENCODER), why.into()));
            }
        })
    }

    /// What every back end offers.
    pub fn backend(&mut self) -> &mut dyn Backend {
        match self {
            Self::Int8(int8) => int8.as_mut(),
            #[cfg(feature = "tract")]
            Self::Tract(tract) => tract.as_mut(),
        }
    }

    /// The engine, for checks that look inside.
    pub fn int8(&mut self) -> Option<&mut Int8> {
        match self {
            Self::Int8(int8) => Some(int8),
            #[cfg(feature = "tract")]
            Self::Tract(_) => None,
        }
    }
}

/// Loads the back end of a bundle as a trait object.
///
/// ```
/// use paradise_runtime::{BackendKind, Bundle, load};
/// # let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/fashion-mnist-small");
/// let mut model = load(&Bundle::open(&folder)?, BackendKind::Int8)?;
/// let verdict = model.verdict(&[0; 28 * 28], None)?;
/// assert!(!verdict.is_accept());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// With the path of the file that is refused.
pub fn load(bundle: &Bundle, kind: BackendKind) -> Result<Box<dyn Backend>, BundleError> {
    Ok(match Loaded::open(bundle, kind)? {
        Loaded::Int8(int8) => int8,
        #[cfg(feature = "tract")]
        Loaded::Tract(tract) => tract,
    })
}
