//! Weights as register tiles read them: made once from a model, the same numbers in another order.

use super::scalar::Rows;
use alloc::{vec, vec::Vec};

/// How an instruction set reads the weights of sixteen channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// A line is `[16 channels][4 inputs]`.
    Quads,
    /// Two lines, of the first and the second two inputs, are `[16 channels][2 inputs]` as i16.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    Pairs,
    /// Two lines are `[16 channels][8 inputs]`.
    #[cfg_attr(not(target_arch = "aarch64"), allow(dead_code))]
    Eights,
    /// Half a line is `[2 taps][16 channels]` of a depthwise convolution.
    #[cfg_attr(not(target_arch = "aarch64"), allow(dead_code))]
    Taps,
    /// A line is `[16 channels][2 taps]` of a depthwise convolution as i16, the channels as AVX2 interleaves those of two
    /// registers: 0 to 3, 8 to 11, 4 to 7, 12 to 15.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    WideTaps,
}

impl Order {
    /// Steps of four inputs that are read in one go.
    fn steps(self) -> usize {
        if self == Self::Eights { 2 } else { 1 }
    }

    /// Lines of a step.
    fn lines(self) -> usize {
        if self == Self::Pairs { 2 } else { 1 }
    }

    /// Puts the weight of input `i` and channel `lane` into the lines of these steps.
    fn put(self, lines: &mut [CacheLine], [lane, i]: [usize; 2], weight: i8) {
        let at = match self {
            Self::Quads => 4 * lane + i,
            Self::Pairs => 64 * (i / 2) + 4 * lane + 2 * (i % 2),
            Self::Eights => 8 * lane + i,
            Self::Taps => LANES * i + lane,
            Self::WideTaps => 4 * (lane & 3 | (lane & 4) << 1 | (lane & 8) >> 1) + 2 * i,
        };
        let to = &mut lines[at / 64].0[at % 64..];
        match self {
            Self::Pairs | Self::WideTaps => to[..2].copy_from_slice(&i16::from(weight).to_le_bytes()),
            _ => to[0] = weight as u8,
        }
    }

    /// Whether its kernels multiply inputs that were widened to i16 before ([`Wide`](super::map::Wide)).
    pub fn is_wide(self) -> bool {
        self == Self::Pairs
    }

    /// Whether it is one of a depthwise convolution's taps, two a line, rather than of
    /// [`Columns`](super::map::Columns).
    pub fn is_by_taps(self) -> bool {
        matches!(self, Self::Taps | Self::WideTaps)
    }
}

/// Output channels of a line.
pub const LANES: usize = 16;

/// Rows of a depthwise convolution's input that lie side by side, as four neighbouring inputs do to other maps.
pub const DEPTH: usize = 4;

/// Sixty-four bytes of the block in which a model's packed numbers lie: weights of four neighbouring inputs for sixteen
/// output channels in an [`Order`] (of eight for eight), or a constant of each of sixteen channels.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy)]
pub struct CacheLine(pub [u8; 64]);

/// Appends four bytes a channel, zeros up to whole blocks.
pub fn push_constants(lines: &mut Vec<CacheLine>, constants: impl Iterator<Item = [u8; 4]>) {
    for (i, bytes) in constants.enumerate() {
        if i % LANES == 0 {
            lines.push(CacheLine([0; 64]));
        }
        if let Some(line) = lines.last_mut() {
            line.0[4 * (i % LANES)..][..4].copy_from_slice(&bytes);
        }
    }
}

/// Appends a map's biases, less `flip sum w` of each channel, and its scales.
pub fn push_ends(lines: &mut Vec<CacheLine>, rows: Rows, flip: u8) {
    let channels = rows.bias.len();
    let width = rows.weight.len() / channels.max(1);
    let shifted = |channel: usize| {
        let sum: i32 = rows.weight[channel * width..][..width].iter().map(|w| i32::from(*w)).sum();
        // Modulo 2^32, as the sums that it meets.
        rows.bias.at(channel).wrapping_sub(sum.wrapping_mul(i32::from(flip)))
    };
    push_constants(lines, (0..channels).map(|c| shifted(c).to_le_bytes()));
    push_constants(lines, rows.scale.iter().map(f32::to_le_bytes));
}

/// Where a linear map over `runs` runs of neighbouring inputs lies in a block of lines.
///
/// A convolution's taps of one kernel row lie side by side in NHWC, so a run is `kw * c` inputs; it is cut into steps of
/// four, as many as an order reads in one go, and what the last have too many meets weights of 0. The lines are weights
/// `[blocks of 16 channels][runs][steps]`, then the blocks' biases as i32, less `128 sum w` where inputs are stored as
/// x + 128, then their requantisation scales as f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    /// Its first line.
    pub at: usize,
    /// Runs.
    pub runs: usize,
    /// Steps a run.
    pub steps: usize,
    /// Lines of a step and a block.
    pub lines: usize,
    /// Output channels.
    pub channels: usize,
}

impl Packed {
    /// Appends i8 `[channels][runs][run]` for inputs that are stored with `flip`.
    ///
    /// # Panics
    /// If the weights have another number.
    pub fn push(lines: &mut Vec<CacheLine>, rows: Rows, runs: usize, run: usize, order: Order, flip: u8) -> Self {
        let channels = rows.bias.len();
        assert_eq!(rows.weight.len(), channels * runs * run, "weights of {channels} x {runs} x {run}");
        let steps = run.div_ceil(4).next_multiple_of(order.steps());
        let this = Self { at: lines.len(), runs, steps, lines: order.lines(), channels };
        lines.reserve(this.end() - this.at);
        for block in 0..this.blocks() {
            for row in 0..runs {
                for step in (0..this.steps).step_by(order.steps()) {
                    let start = lines.len();
                    lines.resize(start + order.steps() * order.lines(), CacheLine([0; 64]));
                    for lane in 0..LANES.min(channels - block * LANES) {
                        let own = &rows.weight[((block * LANES + lane) * runs + row) * run..][..run];
                        let taps = own.iter().skip(4 * step).take(4 * order.steps());
                        for (i, tap) in taps.enumerate() {
                            order.put(&mut lines[start..], [lane, i], *tap);
                        }
                    }
                }
            }
        }
        push_ends(lines, rows, flip);
        this
    }

    /// Appends a grouped convolution, i8 `[channels][runs][run]` in `groups`, as maps side by side: each over as many
    /// groups as fill a block, a channel's weights 0 for the inputs of the other groups.
    pub fn push_groups(
        lines: &mut Vec<CacheLine>,
        rows: Rows,
        [runs, run]: [usize; 2],
        groups: usize,
        order: Order,
        flip: u8,
    ) -> Vec<Self> {
        let own = rows.bias.len() / groups;
        let together = (LANES / own).max(1);
        let map = |first: usize| {
            let count = together.min(groups - first);
            let (from, channels, width) = (first * own, count * own, count * run);
            let mut weight = vec![0; channels * runs * width];
            for (i, to) in weight.chunks_exact_mut(width).enumerate() {
                let (channel, at) = (i / runs, i / runs / own * run);
                to[at..at + run].copy_from_slice(&rows.weight[((from + channel) * runs + i % runs) * run..][..run]);
            }
            let (bias, scale) = (rows.bias.slice(from, from + channels), rows.scale.slice(from, from + channels));
            Self::push(lines, Rows { weight: &weight, bias, scale }, runs, width, order, flip)
        };
        (0..groups).step_by(together).map(map).collect()
    }

    /// Appends a depthwise convolution, i8 `[channels][kernel_h][kernel_w]`: a run is two taps, or, for inputs in
    /// [`Columns`](super::map::Columns), four kernel rows, of which a step is a kernel column.
    ///
    /// # Panics
    /// If the weights have another number.
    pub fn push_depthwise(
        lines: &mut Vec<CacheLine>,
        rows: Rows,
        [kernel_h, kernel_w]: [usize; 2],
        order: Order,
        flip: u8,
    ) -> Self {
        let (channels, taps) = (rows.bias.len(), kernel_h * kernel_w);
        let (runs, run) =
            if order.is_by_taps() { (taps.div_ceil(2), 2) } else { (kernel_h.div_ceil(DEPTH), kernel_w * DEPTH) };
        let mut weight = vec![0; channels * runs * run];
        for (own, to) in rows.weight.chunks_exact(taps).zip(weight.chunks_exact_mut(runs * run)) {
            for (i, w) in own.iter().enumerate() {
                let (row, column) = (i / kernel_w, i % kernel_w);
                to[if order.is_by_taps() { i } else { row / DEPTH * run + column * DEPTH + row % DEPTH }] = *w;
            }
        }
        Self::push(lines, Rows { weight: &weight, ..rows }, runs, run, order, flip)
    }

    /// Blocks of sixteen output channels.
    pub fn blocks(&self) -> usize {
        self.channels.div_ceil(LANES)
    }

    /// Lines of a block's weights.
    pub fn span(&self) -> usize {
        self.runs * self.steps * self.lines
    }

    /// The first line of the biases.
    pub fn bias(&self) -> usize {
        self.at + self.blocks() * self.span()
    }

    /// The first line of the scales.
    pub fn scale(&self) -> usize {
        self.bias() + self.blocks()
    }

    /// The line after the last.
    pub fn end(&self) -> usize {
        self.scale() + self.blocks()
    }
}
