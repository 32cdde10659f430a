//! How a convolution's inputs and weights lie in memory for the DSP kernels.
//!
//! Eight output pixels of one row, a *group*, are computed at once, one channel after the other. What they read of an input row
//! is widened to s16 once, two channels to a word, a *plane* of words for each pair of channels:
//!
//! ```text
//! row slot   [groups][planes][words of a block] u32         a word: two channels of one column
//! quad       two planes, of channels (k0, k2) and (k1, k3): what SXTB16 makes of four int8 side by side
//! block      Three: the (8 - 1) * stride + 3 columns under three taps    Runs: one word a pixel, planes over kw * c inputs
//! ```
//! A channel's record in flash is its bias i32, its scale f32, and for each kernel row and quad twelve bytes (Three) or four
//! (Runs), in the order in which the kernel unpacks them. So one pointer walks through all that a layer knows.

use crate::kernel::ring::MAX_ROWS;
use crate::layer::Window;
use crate::tensor::Shape;

/// Output pixels that are computed at once.
pub const GROUP: usize = 8;
/// Bytes of a channel's bias and scale.
pub const CONSTANTS: usize = 8;
/// Bytes after the padded row that widening may read.
const SLACK: usize = 4;

/// How a kernel row's taps find their words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taps {
    /// Three taps a row at stride 1 or 2 share a block's columns.
    Three,
    /// The whole run of `kw * c` inputs, gathered for each pixel: any kernel and stride.
    Runs,
}

/// A convolution of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// How taps find their words.
    pub taps: Taps,
    /// Kernel rows.
    pub rows: usize,
    /// Pairs of planes.
    pub quads: usize,
    /// Columns between two pixels' first taps.
    pub stride: usize,
    /// Input channels.
    pub channels: usize,
    /// Groups of output pixels a row.
    pub groups: usize,
    /// Taps a kernel row.
    pub width: usize,
    /// Bytes of an input row between its borders, as it is padded before it is widened.
    pub padded: usize,
}

impl Geometry {
    /// Of a window from `x` to `y`; `None` if its kernel is too tall.
    pub fn new(window: &Window, x: Shape, y: Shape) -> Option<Self> {
        let [rows, width] = window.kernel.map(usize::from);
        let (channels, stride) = (usize::from(x.c), usize::from(window.stride[1]));
        if rows > MAX_ROWS {
            return None;
        }
        // Of one or two channels, quads of each tap's own would be mostly empty.
        let three = width == 3 && stride <= 2 && channels > 2;
        let (taps, inputs) = if three { (Taps::Three, channels) } else { (Taps::Runs, width * channels) };
        let groups = usize::from(y.w).div_ceil(GROUP);
        // Every pixel of the last group has its columns, those past the output's width too.
        let columns = ((groups * GROUP - 1) * stride + width).max(usize::from(x.w) + usize::from(window.pad[1]));
        let padded = columns * channels;
        Some(Self { taps, rows, quads: inputs.div_ceil(4), stride, channels, groups, width, padded })
    }

    /// Words of a block.
    pub fn block(&self) -> usize {
        match self.taps {
            Taps::Three => (GROUP - 1) * self.stride + 3,
            Taps::Runs => GROUP,
        }
    }

    /// Words of what a group reads of one row.
    pub fn group_words(&self) -> usize {
        2 * self.quads * self.block()
    }

    /// Words of a row slot.
    pub fn row_words(&self) -> usize {
        self.groups * self.group_words()
    }

    /// Bytes of weights for one quad.
    pub fn quad_bytes(&self) -> usize {
        match self.taps {
            Taps::Three => 12,
            Taps::Runs => 4,
        }
    }

    /// Bytes of a channel's record.
    pub fn record(&self) -> usize {
        CONSTANTS + self.rows * self.quads * self.quad_bytes()
    }

    /// Words of memory for `channels` outputs: the slots, the padded row, and a group that is not stored as a whole.
    pub fn scratch_words(&self, channels: usize) -> usize {
        self.rows * self.row_words() + self.row_buffer_words() + (GROUP * channels).div_ceil(4)
    }

    /// Words of the padded row.
    pub fn row_buffer_words(&self) -> usize {
        (self.padded + SLACK).div_ceil(4)
    }

    /// The byte of a quad's weights that is multiplied with input `channel` of four at `tap` (of one where runs are gathered).
    pub fn place(&self, channel: usize, tap: usize) -> usize {
        match self.taps {
            Taps::Runs => channel,
            Taps::Three => {
                // Channels 0 and 2 are the first plane's, 1 and 3 the second's; a half word holds the earlier and the later.
                let (plane, later) = (channel % 2, channel / 2);
                match tap {
                    2 => 4 + plane + 2 * later,
                    _ => 8 * plane + tap + 2 * later,
                }
            }
        }
    }
}
