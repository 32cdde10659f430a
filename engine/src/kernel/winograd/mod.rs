//! Convolutions of 3 x 3 taps and stride 1 with a quarter of the products, exactly: Winograd's F(4 x 4, 3 x 3), and
//! F(2 x 2, 3 x 3), in integers.
//!
//! Of six neighbouring inputs d (one dimension) and three taps g, four outputs are `A' (G g . B' d)`: six products instead of
//! twelve, in two dimensions 36 instead of 144. B' is of whole numbers, and the rows of G and A' are multiplied until they
//! are: then `24 y` comes out instead of y, in two dimensions `576 y = 2^6 9 y`. All sums wrap at 2^32; multiplied by the
//! inverse of 9 modulo 2^32 they are `64 y` modulo 2^32, so y itself where `-2^25 <= y < 2^25`, which packing proves of
//! every channel's weights. What stands between fits i16: inputs times 100, weights times 49.
//!
//! Source: Winograd, "Arithmetic Complexity of Computations" (1980); Lavin and Gray (arXiv:1509.09308) for networks. Both leave
//! open that integers need no rounding. Equal to [`super::scalar`] bit for bit.

mod sweep;
mod tiling;

#[cfg(target_arch = "x86_64")]
pub use sweep::AHEAD;
pub use sweep::{Factors, NINTH, Set, Sums, Words, sweep};
pub use tiling::{Four, Two};

use super::packed::{CacheLine, LANES, Packed, push_ends};
use super::scalar::Rows;
use crate::layer::Window;
use crate::tensor::Shape;
use alloc::vec::Vec;
use core::ops::Range;
use tiling::Tiling;

/// Bytes between what one position of all tiles holds and the next position's: without them all would share a few sets of
/// a cache.
const APART: usize = 64;

/// Blocks of output channels that there is room for at once.
const BLOCKS: usize = 2;

/// What an instruction set makes of these tiles.
#[derive(Debug, Clone, Copy)]
pub struct Uses {
    /// How its kernels read weights.
    pub order: Order,
    /// Fewest input channels for which they are faster than its other kernels.
    pub least: u16,
    /// Whether those of 2 x 2 outputs are, too: they save as much as dot products of bytes do.
    pub two: bool,
}

/// Bytes of weights that stay near a core.
const NEAR: usize = 512 << 10;

/// Tiles for which weights may come from farther away.
const MANY: usize = 16;

/// How a layer's output is cut into tiles, and where an inference keeps what is between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Winograd {
    /// Rows and columns of outputs in a tile: 4 or 2.
    pub side: usize,
    /// Input channels, up to whole blocks.
    pub width: usize,
    /// Rows and columns of tiles.
    pub tiles: [usize; 2],
    /// Tiles that are transformed before any is multiplied.
    pub together: usize,
    /// First byte of the room for them.
    pub at: usize,
}

impl Winograd {
    /// Tiles of `side` for an output of `extent`.
    pub fn new(side: usize, channels: usize, extent: [usize; 2]) -> Self {
        let tiles = extent.map(|n| n.div_ceil(side));
        let width = channels.next_multiple_of(LANES);
        // Wide weights lie far away: each should serve many tiles once it is near.
        let most = if width >= 128 { 16 } else { 8 };
        Self { side, width, tiles, together: most.min(tiles[0] * tiles[1]), at: 0 }
    }

    /// The tiles of a convolution of one group, if its shape is one that they make faster.
    pub fn of(uses: Uses, window: &Window, x: Shape, y: Shape) -> Option<Self> {
        if window.kernel != [3, 3] || window.stride != [1, 1] || x.c < uses.least {
            return None;
        }
        let side = |side| Self::new(side, x.c.into(), [y.h, y.w].map(usize::from));
        let four = side(4);
        let weights = 2 * four.positions() * four.width * usize::from(y.c);
        // Each weight should serve many tiles once it was read, or lie near.
        if weights <= NEAR || four.tiles[0] * four.tiles[1] >= MANY {
            return Some(four);
        }
        uses.two.then(|| side(2))
    }

    /// Products of a tile, a pair of channels: inputs it reads in each direction, squared.
    pub fn positions(&self) -> usize {
        (self.side + 2) * (self.side + 2)
    }

    /// Bytes from one position of transformed inputs, i16 `[tiles together][channels]`, to the next.
    pub fn pitch(&self) -> usize {
        2 * self.together * self.width + APART
    }

    /// Sums from one tile's to the next one's.
    pub fn apart(&self) -> usize {
        self.positions() * BLOCKS * LANES
    }

    /// First byte of sums, i32 `[tiles together][positions][BLOCKS][LANES]`.
    pub fn sums(&self) -> usize {
        self.at + (self.positions() * self.pitch()).next_multiple_of(size_of::<CacheLine>())
    }

    /// First byte of a tile's outputs, i32 `[side x side][LANES]`.
    pub fn outputs(&self) -> usize {
        self.sums() + self.together * self.apart() * size_of::<i32>()
    }

    /// Bytes of room.
    pub fn len(&self) -> usize {
        self.outputs() - self.at + self.side * self.side * size_of::<CacheLine>()
    }

    /// Groups of tiles that are transformed together.
    pub fn groups(&self) -> usize {
        (self.tiles[0] * self.tiles[1]).div_ceil(self.together)
    }

    /// The tiles of a group.
    fn group(&self, n: usize) -> Range<usize> {
        n * self.together..((n + 1) * self.together).min(self.tiles[0] * self.tiles[1])
    }
}

/// How the weights of one position lie in a line of sixteen output channels and two input channels, as i16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// `[16 outputs][2 inputs]`.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    Pairs,
    /// `[2 inputs][16 outputs]`.
    #[cfg_attr(not(target_arch = "aarch64"), allow(dead_code))]
    Apart,
}

/// Appends i8 `[channels][3][3][c]` for inputs of `c` channels that are stored with `flip`, as lines `[blocks][positions][pairs of inputs]`, then
/// biases and scales as [`Packed::push`] has them. `None`, and nothing is appended, if some output might not fit what the sums
/// leave of 32 bits.
pub fn push(lines: &mut Vec<CacheLine>, rows: Rows, c: usize, side: usize, order: Order, flip: u8) -> Option<Packed> {
    match side {
        4 => push_tiled::<Four>(lines, rows, c, order, flip),
        _ => push_tiled::<Two>(lines, rows, c, order, flip),
    }
}

fn push_tiled<T: Tiling>(lines: &mut Vec<CacheLine>, rows: Rows, c: usize, order: Order, flip: u8) -> Option<Packed> {
    let channels = rows.bias.len();
    let taps = 9 * c;
    assert_eq!(rows.weight.len(), channels * taps, "weights of {channels} x 3 x 3 x {c}");
    let most = (1i64 << 31) >> T::SHIFTS[0] >> T::SHIFTS[0];
    let inputs = [i64::from(i8::MIN) + i64::from(flip), i64::from(i8::MAX) + i64::from(flip)];
    let fits = |own: &[i8]| {
        // Where every input is the one extreme or the other.
        let sum = |i: usize| own.iter().map(|w| i64::from(*w) * inputs[if *w > 0 { i } else { 1 - i }]).sum::<i64>();
        -most <= sum(0) && sum(1) < most
    };
    if !rows.weight.chunks_exact(taps).all(fits) {
        return None;
    }
    let steps = c.next_multiple_of(LANES) / 2;
    let packed = Packed { at: lines.len(), runs: T::READ * T::READ, steps, lines: 1, channels };
    lines.resize(packed.bias(), CacheLine([0; 64]));
    for (channel, own) in rows.weight.chunks_exact(taps).enumerate() {
        let (block, lane) = (channel / LANES, channel % LANES);
        for input in 0..c {
            // Rows of taps, then columns.
            let mut half = [[0i32; 3]; 6];
            for column in 0..3 {
                let g = [0, 1, 2].map(|row| i32::from(own[(row * 3 + column) * c + input]));
                (0..T::READ).for_each(|i| half[i][column] = product(T::TAPS[i], g));
            }
            for (i, row) in half.iter().enumerate().take(T::READ) {
                for (j, taps) in T::TAPS.iter().enumerate() {
                    let weight = product(*taps, *row) as i16;
                    let line = packed.at + (block * packed.runs + i * T::READ + j) * steps + input / 2;
                    let place = match order {
                        Order::Pairs => 2 * lane + input % 2,
                        Order::Apart => LANES * (input % 2) + lane,
                    };
                    lines[line].0[2 * place..][..2].copy_from_slice(&weight.to_le_bytes());
                }
            }
        }
    }
    push_ends(lines, rows, flip);
    Some(packed)
}

fn product(row: [i32; 3], g: [i32; 3]) -> i32 {
    row.iter().zip(g).map(|(r, g)| r * g).sum()
}
