//! The kernels of each layout behind one interface: how a convolution lies in memory, what makes its weights valid, running it.

use super::format::Layout;
use crate::kernel::ring::{Conv, Other};
#[cfg(feature = "alloc")]
use crate::kernel::scalar::Rows;
use crate::kernel::{dsp, mve};
use crate::layer::Window;
use crate::tensor::Shape;

/// How a convolution's inputs and weights lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Geometry {
    Dsp(dsp::geometry::Geometry),
    Mve(mve::geometry::Geometry),
}

impl Geometry {
    /// Of a window from `x` to `y`; `None` if the layout's kernels do not compute it.
    pub fn new(layout: Layout, window: &Window, x: Shape, y: Shape) -> Option<Self> {
        match layout {
            Layout::Dsp => dsp::geometry::Geometry::new(window, x, y).map(Self::Dsp),
            Layout::Mve => mve::geometry::Geometry::new(window, x, y).map(Self::Mve),
        }
    }

    /// Words of scratch memory for so many output channels.
    pub fn scratch_words(&self, channels: usize) -> usize {
        match self {
            Self::Dsp(geometry) => geometry.scratch_words(channels),
            Self::Mve(geometry) => geometry.scratch_words(channels),
        }
    }

    /// Channels of a record, its bytes, and how many of them are biases and scales.
    fn record(&self) -> [usize; 3] {
        match self {
            Self::Dsp(geometry) => [1, geometry.record(), dsp::geometry::CONSTANTS],
            Self::Mve(geometry) => [mve::geometry::BLOCK, geometry.record(), mve::geometry::CONSTANTS],
        }
    }

    /// Bytes of all records.
    pub fn weight_len(&self, channels: usize) -> usize {
        let [together, bytes, _] = self.record();
        channels / together * bytes
    }

    /// Weights, biases and scales in the order of the kernels.
    #[cfg(feature = "alloc")]
    pub fn pack(&self, rows: Rows) -> alloc::vec::Vec<u8> {
        match self {
            Self::Dsp(geometry) => dsp::pack::pack(geometry, rows),
            Self::Mve(geometry) => mve::pack::pack(geometry, rows),
        }
    }

    /// Whether no sum can overflow, and every scale is finite and positive. `packed` has the length of all records.
    pub fn check(&self, packed: &[u8]) -> Result<(), &'static str> {
        let [together, bytes, constants] = self.record();
        for record in packed.chunks_exact(bytes) {
            // What all channels of a record have together bounds each of them, many times over.
            let magnitude: u64 = record[constants..].iter().map(|w| u64::from((*w as i8).unsigned_abs())).sum();
            for channel in 0..together {
                let number = |at: usize| {
                    let at = 4 * (at + channel);
                    [record[at], record[at + 1], record[at + 2], record[at + 3]]
                };
                let (bias, scale) = (i32::from_le_bytes(number(0)), f32::from_le_bytes(number(together)));
                if 128 * magnitude + u64::from(bias.unsigned_abs()) > i32::MAX as u64 {
                    return Err("an accumulator could overflow");
                }
                if !(scale.is_finite() && scale > 0.0) {
                    return Err("a scale is not finite and positive");
                }
            }
        }
        Ok(())
    }

    /// Runs a convolution from `x` to `y`, both int8 NHWC.
    pub fn conv(&self, conv: &Conv, x: &[i8], other: Other, y: &mut [i8], scratch: &mut [u32]) {
        match self {
            // A chip has one layout, and carries no other's kernels.
            Self::Dsp(geometry) if !matches!(Layout::HERE, Some(Layout::Mve)) => {
                dsp::conv(conv, geometry, x, other, y, scratch);
            }
            Self::Mve(geometry) if !matches!(Layout::HERE, Some(Layout::Dsp)) => {
                mve::conv(conv, geometry, x, other, y, scratch);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
