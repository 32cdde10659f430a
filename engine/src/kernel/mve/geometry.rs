//! How a convolution's inputs and weights lie in memory for the MVE kernels.

use crate::kernel::ring::MAX_ROWS;
use crate::layer::Window;
use crate::tensor::Shape;

/// Inputs of one multiplication.
pub const LANES: usize = 16;
/// Output channels that are summed at once.
pub const BLOCK: usize = 4;
/// Output pixels that are summed at once.
pub const PAIR: usize = 2;
/// Bytes of a block's biases and scales.
pub const CONSTANTS: usize = 8 * BLOCK;

/// A convolution of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Kernel rows.
    pub rows: usize,
    /// Vectors of a kernel row.
    pub vectors: usize,
    /// Inputs of a kernel row.
    pub run: usize,
    /// Input channels.
    pub channels: usize,
    /// Bytes between two pixels' first taps.
    pub step: usize,
    /// Bytes of a row with its borders.
    pub padded: usize,
}

impl Geometry {
    /// Of a window from `x` to `y`; `None` if its kernel is too tall, or the output's channels are no multiple of four.
    pub fn new(window: &Window, x: Shape, y: Shape) -> Option<Self> {
        let [rows, width] = window.kernel.map(usize::from);
        let (channels, stride) = (usize::from(x.c), usize::from(window.stride[1]));
        if rows > MAX_ROWS || !usize::from(y.c).is_multiple_of(BLOCK) {
            return None;
        }
        let run = width * channels;
        let vectors = run.div_ceil(LANES);
        // Every pixel of the last pair, and the lanes that its last vector has too many.
        let reads = (usize::from(y.w).next_multiple_of(PAIR) - 1) * stride * channels + vectors * LANES;
        let holds = (usize::from(x.w) + usize::from(window.pad[1])) * channels;
        Some(Self { rows, vectors, run, channels, step: stride * channels, padded: reads.max(holds) })
    }

    /// Words of a row slot.
    pub fn row_words(&self) -> usize {
        self.padded.div_ceil(4)
    }

    /// Bytes of a block's record.
    pub fn record(&self) -> usize {
        CONSTANTS + self.rows * self.vectors * BLOCK * LANES
    }

    /// Words of memory for `channels` outputs: the slots, and a pair that is not stored as a whole.
    pub fn scratch_words(&self, channels: usize) -> usize {
        self.rows * self.row_words() + (PAIR * channels).div_ceil(4)
    }
}
