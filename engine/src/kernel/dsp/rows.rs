//! What happens to an input row before a convolution reads it: the affine map, and widening to s16 pairs.

#[cfg(all(feature = "dsp", target_arch = "arm"))]
mod assembly;
#[cfg(not(all(feature = "dsp", target_arch = "arm")))]
mod portable;

#[cfg(all(feature = "dsp", target_arch = "arm"))]
pub(crate) use assembly::affine;
#[cfg(all(feature = "dsp", target_arch = "arm"))]
pub use assembly::widen;
#[cfg(not(all(feature = "dsp", target_arch = "arm")))]
pub use portable::widen;

use super::geometry::{Geometry, Taps};

/// Two int8 values as a word of two s16, the first in the lower half.
#[inline(always)]
pub fn pair(a: i8, b: i8) -> u32 {
    u32::from(i16::from(a) as u16) | u32::from(i16::from(b) as u16) << 16
}

/// Bytes of a padded row from one of a block's columns to the next.
fn step(geometry: &Geometry) -> usize {
    match geometry.taps {
        Taps::Three => geometry.channels,
        Taps::Runs => geometry.stride * geometry.channels,
    }
}
