//! A whole layer by tiles: inputs transformed, multiplied position by position, outputs transformed back and finished. Written
//! once over vectors of a [`Set`] and inlined into one function an instruction set, which alone carries `#[target_feature]`.

// Vectors: each block says which check above it makes it sound.
#![allow(unsafe_code)]
// Rows and columns of small matrices, which a size of tile only partly fills.
#![allow(clippy::needless_range_loop)]

use super::tiling::{Four, Tiling, Two};
use super::{BLOCKS, Winograd};
use crate::kernel::map::Map;
use crate::kernel::packed::{CacheLine, LANES};
use crate::kernel::part::Part;
use core::ops::Range;

/// The inverse of 9 modulo 2^32.
pub const NINTH: i32 = 0x38e3_8e39;

/// Lines of weights that a multiplication asks for before it takes them, so that they come while others are multiplied: a layer's may
/// lie beyond the caches of a core, and positions follow each other.
#[cfg(target_arch = "x86_64")]
pub const AHEAD: usize = 96;

/// A vector of i16, of inputs as they are transformed.
///
/// # Safety
/// Every method may be called only where the CPU has the instructions, with pointers to as many values as it has.
pub trait Words: Copy {
    /// How many: a divisor of [`LANES`].
    const N: usize;

    /// Stored bytes: unsigned where the set stores x + 128.
    unsafe fn widened(from: *const u8) -> Self;
    unsafe fn keep(self, to: *mut u8);
    unsafe fn plus(self, other: Self) -> Self;
    unsafe fn minus(self, other: Self) -> Self;
    unsafe fn fourfold(self) -> Self;
}

/// A vector of i32, of sums.
///
/// # Safety
/// As [`Words`].
pub trait Sums: Copy {
    /// How many: a divisor of [`LANES`].
    const N: usize;

    unsafe fn load(from: *const i32) -> Self;
    unsafe fn keep(self, to: *mut i32);
    unsafe fn plus(self, other: Self) -> Self;
    unsafe fn minus(self, other: Self) -> Self;
    unsafe fn fourfold(self) -> Self;
    /// Times [`NINTH`], modulo 2^32.
    unsafe fn ninth(self) -> Self;
    /// Shifted right by `n`, with sign.
    unsafe fn halved(self, n: u32) -> Self;
}

/// An instruction set's vectors, its products, and what it does after a convolution.
///
/// # Safety
/// As [`Words`].
pub trait Set {
    /// Vectors of inputs.
    type Words: Words;
    /// Vectors of sums.
    type Sums: Sums;
    /// Tiles that are multiplied in registers at once: at most 8.
    const TILES: usize;
    /// Blocks of output channels that are: 1 or 2.
    const BLOCKS: usize;
    /// How the map's roundings are kept.
    type Finish;

    /// Writes the sums of `P` tiles over `Q` blocks, at most [`Set::BLOCKS`].
    unsafe fn multiply<const P: usize, const Q: usize>(factors: Factors, to: *mut i32);

    /// What follows the convolution for a row of pixels from `place` (block, row, column) on: `pixels` times [`LANES`] sums.
    unsafe fn finish(
        m: &Map,
        place: [usize; 3],
        pixels: usize,
        sums: *const i32,
        finish: &Self::Finish,
        memory: *mut u8,
    );
}

/// What is multiplied at a position, and how far apart things lie.
#[derive(Clone, Copy)]
pub struct Factors {
    /// Transformed inputs of the first tile, i16, and bytes from there to the next tile's.
    pub inputs: *const u8,
    /// See above.
    pub stride: usize,
    /// Lines of weights of the first block, and lines from there to the next block's.
    pub lines: *const CacheLine,
    /// See above; only where [`Set::BLOCKS`] is 2.
    #[cfg_attr(target_arch = "aarch64", allow(dead_code))]
    pub span: usize,
    /// Pairs of inputs: whole times eight.
    pub steps: usize,
    /// Sums from one tile's to the next one's; the second block's lie [`LANES`] after the first one's.
    pub apart: usize,
}

/// A part of a map by tiles, and what follows it.
///
/// # Safety
/// The CPU has the instructions, and [`Map::check`] has held for the bytes at `memory`.
#[inline(always)]
pub unsafe fn sweep<S: Set>(m: &Map, w: &Winograd, part: Part, finish: &S::Finish, memory: *mut u8) {
    // SAFETY: as this function's callers.
    unsafe {
        match w.side {
            4 => tiled::<S, Four>(m, w, part, finish, memory),
            _ => tiled::<S, Two>(m, w, part, finish, memory),
        }
    }
}

#[inline(always)]
unsafe fn tiled<S: Set, T: Tiling>(m: &Map, w: &Winograd, part: Part, finish: &S::Finish, memory: *mut u8) {
    for group in part.rows[0]..part.rows[1] {
        let tiles = w.group(group);
        // SAFETY: as this function's callers.
        unsafe {
            for (i, tile) in tiles.clone().enumerate() {
                transform::<S, T>(m, w, [i, tile], memory);
            }
            let [mut block, blocks] = part.blocks;
            while block < blocks {
                let together = S::BLOCKS.min(blocks - block);
                match together {
                    1 => multiply::<S, T, 1>(m, w, block, tiles.len(), memory),
                    _ => multiply::<S, T, 2>(m, w, block, tiles.len(), memory),
                }
                for q in 0..together {
                    for (i, tile) in tiles.clone().enumerate() {
                        transform_back::<S, T>(m, w, [block, q], [i, tile], finish, memory);
                    }
                }
                block += together;
            }
        }
    }
}

/// Row and column of a tile's first output.
#[inline(always)]
fn corner(w: &Winograd, tile: usize) -> [usize; 2] {
    [tile / w.tiles[1], tile % w.tiles[1]].map(|n| n * w.side)
}

/// The inputs of a tile, the `i`-th of its group.
#[inline(always)]
unsafe fn transform<S: Set, T: Tiling>(m: &Map, w: &Winograd, [i, tile]: [usize; 2], memory: *mut u8) {
    let [row, column] = corner(w, tile);
    // What lies past the border is of outputs that are not kept: any input does.
    let inside = |first: usize, n: usize, extent: usize| (first + n).min(extent + 1);
    let mut rows = [0; 6];
    let mut columns = [0; 6];
    for n in 0..T::READ {
        rows[n] = m.x + inside(row, n, m.extent[0]) * m.step[1];
        columns[n] = inside(column, n, m.extent[1]) * m.step[0];
    }
    let pitch = w.pitch();
    // SAFETY: `Map::check` proved that whole blocks of channels of every input lie in the memory, and the room for them.
    unsafe {
        let to = memory.add(w.at + 2 * i * w.width);
        let mut first = 0;
        while first < w.width {
            let from = memory.add(first);
            let zero = S::Words::widened(from.add(rows[0] + columns[0]));
            let mut half = [[zero; 6]; 6];
            for column in 0..T::READ {
                let mut d = [zero; 6];
                for n in 0..T::READ {
                    d[n] = S::Words::widened(from.add(rows[n] + columns[column]));
                }
                let d = T::input(d);
                for n in 0..T::READ {
                    half[n][column] = d[n];
                }
            }
            for (n, row) in half.iter().enumerate().take(T::READ) {
                let v = T::input(*row);
                for (j, v) in v.into_iter().enumerate().take(T::READ) {
                    v.keep(to.add((n * T::READ + j) * pitch + 2 * first));
                }
            }
            first += S::Words::N;
        }
    }
}

/// The sums of a group's first `count` tiles at every position, for `Q` blocks of output channels.
#[inline(always)]
unsafe fn multiply<S: Set, T: Tiling, const Q: usize>(
    m: &Map,
    w: &Winograd,
    block: usize,
    count: usize,
    memory: *mut u8,
) {
    let span = m.packed.span();
    let steps = m.packed.steps;
    let first = m.line(m.packed.at + block * span);
    // SAFETY: `Map::check` proved lines and room.
    unsafe {
        for position in 0..T::READ * T::READ {
            let inputs = memory.add(w.at + position * w.pitch()).cast_const();
            let sums = memory.add(w.sums()).cast::<i32>().add(position * BLOCKS * LANES);
            let lines = first.add(position * steps);
            let mut tile = 0;
            while tile < count {
                let (stride, apart) = (2 * w.width, w.apart());
                let from = inputs.add(tile * stride);
                let factors = Factors { inputs: from, stride, lines, span, steps, apart };
                let to = sums.add(tile * apart);
                // Eight are two times four rather than six and two.
                let rest = if S::TILES == 6 && count - tile == 8 { 4 } else { S::TILES.min(count - tile) };
                match rest {
                    1 => S::multiply::<1, Q>(factors, to),
                    2 => S::multiply::<2, Q>(factors, to),
                    3 => S::multiply::<3, Q>(factors, to),
                    4 => S::multiply::<4, Q>(factors, to),
                    5 => S::multiply::<5, Q>(factors, to),
                    6 => S::multiply::<6, Q>(factors, to),
                    7 => S::multiply::<7, Q>(factors, to),
                    _ => S::multiply::<8, Q>(factors, to),
                }
                tile += rest;
            }
        }
    }
}

/// The outputs of a tile, the `i`-th of its group, over the `q`-th of the blocks that were multiplied together, and what follows.
#[inline(always)]
unsafe fn transform_back<S: Set, T: Tiling>(
    m: &Map,
    w: &Winograd,
    [block, q]: [usize; 2],
    [i, tile]: [usize; 2],
    finish: &S::Finish,
    memory: *mut u8,
) {
    let [row, column] = corner(w, tile);
    let kept: Range<usize> = 0..T::SIDE.min(m.extent[0] - row);
    let pixels = T::SIDE.min(m.extent[1] - column);
    let block = block + q;
    // SAFETY: `Map::check` proved room and constants.
    unsafe {
        let sums = memory.add(w.sums()).cast::<i32>().add(i * w.apart() + q * LANES);
        let outputs = memory.add(w.outputs()).cast::<i32>();
        let mut lane = 0;
        while lane < LANES {
            let bias = S::Sums::load(m.bias().add(block * LANES + lane));
            let mut half = [[bias; 6]; 6];
            for column in 0..T::READ {
                let mut v = [bias; 6];
                for n in 0..T::READ {
                    v[n] = S::Sums::load(sums.add((n * T::READ + column) * BLOCKS * LANES + lane));
                }
                let v = T::output(v);
                for n in 0..T::SIDE {
                    half[n][column] = v[n];
                }
            }
            for (n, row) in half.iter().enumerate().take(T::SIDE) {
                let y = T::output(*row);
                for (j, y) in y.into_iter().enumerate().take(T::SIDE) {
                    let y = if T::NINEFOLD { y.ninth() } else { y };
                    let y = y.halved(T::SHIFTS[n] + T::SHIFTS[j]).plus(bias);
                    y.keep(outputs.add((n * T::SIDE + j) * LANES + lane));
                }
            }
            lane += S::Sums::N;
        }
        for n in kept {
            S::finish(m, [block, row + n, column], pixels, outputs.add(n * T::SIDE * LANES), finish, memory);
        }
    }
}
