//! Weights and inputs as register tiles read them: made once from a model, the same numbers in another order.

use crate::kernel::scalar::{Rows, Source};
use crate::layer::Window;
use alloc::vec::Vec;

/// Output channels of a register.
pub const LANES: usize = 16;

/// Weights of four neighbouring inputs for sixteen output channels: `[16][4]`.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy)]
pub struct Line(pub [i8; 64]);

/// A linear map over `rows` runs of neighbouring bytes, as tiles read it.
///
/// A convolution's taps of one kernel row lie side by side in NHWC, so a run is `kw * c` bytes; it is cut into steps of
/// four, and what the last step has too many meets weights of 0.
#[derive(Debug, Clone)]
pub struct Packed {
    /// `[blocks of 16 channels][rows][steps]`.
    pub lines: Vec<Line>,
    /// Runs.
    pub rows: usize,
    /// Steps of four bytes a run.
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
    pub fn new(rows: Rows, runs: usize, run: usize) -> Self {
        let channels = rows.bias.len();
        assert_eq!(rows.weight.len(), channels * runs * run, "weights of {channels} x {runs} x {run}");
        let (blocks, steps) = (channels.div_ceil(LANES), run.div_ceil(4));
        let mut lines = Vec::with_capacity(blocks * runs * steps);
        for block in 0..blocks {
            for row in 0..runs {
                for step in 0..steps {
                    let mut line = Line([0; 64]);
                    for (lane, to) in line.0.chunks_exact_mut(4).enumerate() {
                        let channel = block * LANES + lane;
                        if channel >= channels {
                            continue;
                        }
                        let own = &rows.weight[(channel * runs + row) * run..][..run];
                        let taps = &own[4 * step..run.min(4 * step + 4)];
                        to[..taps.len()].copy_from_slice(taps);
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

/// Bytes after a frame that a tile may read and whose weights are 0.
pub const SLACK: usize = 4;

/// Rows and bytes a row of an input with its border.
pub fn frame_extent(source: &Source, window: &Window) -> [usize; 2] {
    let [top, left, bottom, right] = window.pad.map(usize::from);
    let (h, w, c) = (source.shape.h as usize, source.shape.w as usize, source.shape.c as usize);
    [h + top + bottom, (w + left + right) * c]
}

/// Writes an input with its border to `to`, every byte as x + 128.
///
/// # Panics
/// If `to` is shorter than the frame and its slack.
pub fn frame(source: &Source, window: &Window, to: &mut [u8]) {
    let [rows, pitch] = frame_extent(source, window);
    let [top, left, ..] = window.pad.map(usize::from);
    let (h, w, c) = (source.shape.h as usize, source.shape.w as usize, source.shape.c as usize);
    let border = source.zero as u8 ^ 0x80;
    let (to, slack) = to.split_at_mut(rows * pitch);
    slack[..SLACK].fill(0);
    let (above, rest) = to.split_at_mut(top * pitch);
    let (inside, below) = rest.split_at_mut(h * pitch);
    above.fill(border);
    below.fill(border);
    for (to, from) in inside.chunks_exact_mut(pitch).zip(source.x.chunks_exact(w * c)) {
        to[..left * c].fill(border);
        to[(left + w) * c..].fill(border);
        flip(from, &mut to[left * c..(left + w) * c]);
    }
}

/// `x + 128` of every byte.
pub fn flip(from: &[i8], to: &mut [u8]) {
    to.iter_mut().zip(from).for_each(|(t, f)| *t = *f as u8 ^ 0x80);
}
