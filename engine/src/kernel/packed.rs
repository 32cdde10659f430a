//! Weights and inputs as register tiles read them: made once from a model, the same numbers in another order.

use super::scalar::{Rows, Source};
use crate::layer::Window;
use alloc::vec::Vec;

/// How a register's lanes read a step's weights, and in how many bytes its inputs are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// `[16 channels][4 inputs]`; an input is a byte, x + 128.
    Quads,
    /// `[2 pairs][2 halves][8 channels][2 inputs]`; an input is two bytes, x + 128.
    Pairs,
}

impl Order {
    /// Bytes of an input.
    pub fn width(self) -> usize {
        match self {
            Self::Quads => 1,
            Self::Pairs => 2,
        }
    }

    /// Where the weight of input `i` and channel `lane` stands in its line.
    fn place(self, lane: usize, i: usize) -> usize {
        match self {
            Self::Quads => 4 * lane + i,
            Self::Pairs => 32 * (i / 2) + 16 * (lane / 8) + 2 * (lane % 8) + i % 2,
        }
    }
}

/// Output channels of a register.
pub const LANES: usize = 16;

/// Weights of four neighbouring inputs for sixteen output channels, in an [`Order`].
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy)]
pub struct Line(pub [i8; 64]);

/// A linear map over `rows` runs of neighbouring inputs, as tiles read it.
///
/// A convolution's taps of one kernel row lie side by side in NHWC, so a run is `kw * c` inputs; it is cut into steps of
/// four, and what the last step has too many meets weights of 0.
#[derive(Debug, Clone)]
pub struct Packed {
    /// `[blocks of 16 channels][rows][steps]`.
    pub lines: Vec<Line>,
    /// Runs.
    pub rows: usize,
    /// Steps of four inputs a run.
    pub steps: usize,
    /// Bias of each channel less `128 sum w`, for inputs that are stored as x + 128; zeros up to whole blocks.
    pub bias: Vec<i32>,
    /// Requantisation scale of each channel, zeros up to whole blocks.
    pub scale: Vec<f32>,
    /// Output channels.
    pub channels: usize,
}

impl Packed {
    /// Packs i8 `[channels][runs][run]`.
    ///
    /// # Panics
    /// If the weights have another number.
    pub fn new(rows: Rows, runs: usize, run: usize, order: Order) -> Self {
        let channels = rows.bias.len();
        assert_eq!(rows.weight.len(), channels * runs * run, "weights of {channels} x {runs} x {run}");
        let (blocks, steps) = (channels.div_ceil(LANES), run.div_ceil(4));
        let mut lines = Vec::with_capacity(blocks * runs * steps);
        for block in 0..blocks {
            for row in 0..runs {
                for step in 0..steps {
                    let mut line = Line([0; 64]);
                    for lane in 0..LANES.min(channels - block * LANES) {
                        let own = &rows.weight[((block * LANES + lane) * runs + row) * run..][..run];
                        for (i, tap) in own[4 * step..run.min(4 * step + 4)].iter().enumerate() {
                            line.0[order.place(lane, i)] = *tap;
                        }
                    }
                    lines.push(line);
                }
            }
        }
        let shifted = |channel: usize| {
            let own = &rows.weight[channel * runs * run..][..runs * run];
            let sum: i32 = own.iter().map(|w| i32::from(*w)).sum();
            // Modulo 2^32, as the sums that it meets.
            rows.bias.at(channel).wrapping_sub(sum.wrapping_mul(128))
        };
        let mut bias: Vec<i32> = (0..channels).map(shifted).collect();
        let mut scale: Vec<f32> = rows.scale.iter().collect();
        bias.resize(blocks * LANES, 0);
        scale.resize(blocks * LANES, 0.0);
        Self { lines, rows: runs, steps, bias, scale, channels }
    }

    /// Blocks of sixteen output channels.
    pub fn blocks(&self) -> usize {
        self.bias.len() / LANES
    }
}

/// Bytes after a frame that a tile may read and whose weights are 0: up to three inputs.
pub const SLACK: usize = 8;

/// A linear map at every output pixel of a frame.
pub struct Map<'a> {
    /// Inputs in an order's bytes, with [`SLACK`] bytes after the last that is needed.
    pub frame: &'a [u8],
    /// Bytes from one run of a pixel to its next.
    pub pitch: usize,
    /// Bytes from one output pixel to the next, and from one row of them to the next.
    pub step: [usize; 2],
    /// Rows and columns of output pixels.
    pub extent: [usize; 2],
    /// The map.
    pub packed: &'a Packed,
}

impl Map<'_> {
    /// Refuses a frame that a tile would leave, whose inputs have `width` bytes, and outputs of another number.
    pub fn check(&self, width: usize, outputs: usize) {
        let [rows, columns] = self.extent;
        let packed = self.packed;
        assert!(rows > 0 && columns > 0 && packed.rows > 0, "an empty map");
        let last = (rows - 1) * self.step[1] + (columns - 1) * self.step[0];
        let end = last + (packed.rows - 1) * self.pitch + 4 * packed.steps * width;
        assert!(end <= self.frame.len(), "a tile would read byte {end} of {}", self.frame.len());
        assert_eq!(outputs, rows * columns * packed.channels, "outputs of a map");
        assert_eq!(packed.lines.len(), packed.blocks() * packed.rows * packed.steps, "lines of a map");
        assert_eq!(packed.scale.len(), packed.bias.len(), "scales of a map");
        assert_eq!(packed.blocks(), packed.channels.div_ceil(LANES), "blocks of a map");
    }
}

/// Rows and bytes a row of an input with its border.
pub fn frame_extent(source: &Source, window: &Window, order: Order) -> [usize; 2] {
    let [top, left, bottom, right] = window.pad.map(usize::from);
    let (h, w, c) = (source.shape.h as usize, source.shape.w as usize, source.shape.c as usize);
    [h + top + bottom, (w + left + right) * c * order.width()]
}

/// Writes an input with its border, and the slack, to `to`.
///
/// # Panics
/// If `to` is shorter than the frame and its slack.
pub fn frame(source: &Source, window: &Window, order: Order, to: &mut [u8]) {
    let [rows, pitch] = frame_extent(source, window, order);
    let [top, left, ..] = window.pad.map(usize::from);
    let (h, w, c) = (source.shape.h as usize, source.shape.w as usize, source.shape.c as usize);
    let (to, slack) = to.split_at_mut(rows * pitch);
    slack[..SLACK].fill(0);
    let border = |to: &mut [u8]| to.chunks_exact_mut(order.width()).for_each(|to| put(source.zero, to));
    let (above, rest) = to.split_at_mut(top * pitch);
    let (inside, below) = rest.split_at_mut(h * pitch);
    border(above);
    border(below);
    let (from, to) = (left * c * order.width(), (left + w) * c * order.width());
    for (row, x) in inside.chunks_exact_mut(pitch).zip(source.x.chunks_exact(w * c)) {
        border(&mut row[..from]);
        border(&mut row[to..]);
        inputs(x, order, &mut row[from..to]);
    }
}

/// One input in as many bytes as `to` has.
#[inline(always)]
fn put(x: i8, to: &mut [u8]) {
    to[0] = x as u8 ^ 0x80;
    to[1..].fill(0);
}

/// Inputs in an order's bytes.
pub fn inputs(x: &[i8], order: Order, to: &mut [u8]) {
    match order {
        Order::Quads => to.iter_mut().zip(x).for_each(|(to, x)| *to = *x as u8 ^ 0x80),
        Order::Pairs => to.as_chunks_mut::<2>().0.iter_mut().zip(x).for_each(|(to, x)| *to = [*x as u8 ^ 0x80, 0]),
    }
}
