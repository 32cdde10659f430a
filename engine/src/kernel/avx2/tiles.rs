//! A map's pixels by register tiles, and 3 x 3 convolutions by Winograd's, over the products of either set.

// Intrinsics: each block says which check above it makes it sound.
#![allow(unsafe_code)]

use super::finish::{Block, Rounding, finish, scaled};
use crate::kernel::map::{Columns, Map, Roundings};
use crate::kernel::packed::LANES;
use crate::kernel::part::Part;
use crate::kernel::winograd::{self, AHEAD, Factors, NINTH, Sums, Words};
use core::arch::x86_64::*;
use core::marker::PhantomData;

/// Tiles read inputs as they are stored,
const NARROW: u8 = 0;

/// as they were widened,
const WIDE: u8 = 1;

/// or each channel its own.
const OWN: u8 = 2;

/// What a set multiplies with.
///
/// # Safety
/// Every method may be called only where the CPU has the instructions and [`Map::check`] has held for the bytes at `memory`.
pub trait Products {
    /// Pixels of a tile at most: 4 or 6.
    const PIXELS: usize;
    /// Winograd's tiles that are multiplied in registers at once.
    const TILES: usize;

    /// The map with the inputs of the first rows of these as it reads them, and the row after the last of those.
    unsafe fn ready<'a>(m: &Map<'a>, rows: [usize; 2], memory: *mut u8) -> (Map<'a>, usize);

    /// The sums of P neighbouring pixels over a block of channels; the tile ends with the row.
    unsafe fn sums<const P: usize, const WIDE: bool>(
        m: &Map,
        place: [usize; 3],
        memory: *const u8,
    ) -> [Block<__m256i>; P];

    /// Whole rows of a block of channels, the first and the one after the last, from inputs as they are stored.
    #[inline(always)]
    unsafe fn rows(m: &Map, block: usize, rows: [usize; 2], roundings: &Roundings<Rounding>, memory: *mut u8)
    where
        Self: Sized,
    {
        // SAFETY: the trait's contract.
        unsafe { row_by_row::<Self>(m, block, rows, roundings, memory) }
    }

    /// The sums of P neighbouring pixels over a block of channels, each over inputs of its own; the tile ends with the row.
    unsafe fn own_sums<const P: usize>(m: &Map, place: [usize; 3], memory: *const u8) -> [Block<__m256i>; P];

    /// `sum` and the products of i16 pairs.
    unsafe fn pairs(sum: __m256i, a: __m256i, b: __m256i) -> __m256i;
}

/// A part of the map, and what follows it.
///
/// # Safety
/// As [`Products`].
#[inline(always)]
pub unsafe fn map<D: Products>(m: &Map, part: Part, memory: *mut u8) {
    // SAFETY: as this function's callers.
    unsafe {
        let roundings = m.roundings(|out| Rounding::new(out));
        if let Some(w) = &m.winograd {
            return winograd::sweep::<Ymm<D>>(m, w, part, &roundings, memory);
        }
        let [mut first, last] = part.rows;
        while first < last {
            let (m, end) = D::ready(m, [first, last], memory);
            for block in part.blocks[0]..part.blocks[1] {
                if m.depthwise.is_none() && m.wide.is_none() {
                    D::rows(&m, block, [first, end], &roundings, memory);
                    continue;
                }
                for row in first..end {
                    if m.depthwise.is_some() {
                        if let Some(columns) = m.columns() {
                            interleave(&m, columns, [block, row], memory);
                        }
                        pixels::<D, OWN>(&m, [block, row], &roundings, memory);
                    } else {
                        pixels::<D, WIDE>(&m, [block, row], &roundings, memory);
                    }
                }
            }
            first = end;
        }
    }
}

/// [`Products::rows`] by tiles that end with their row.
///
/// # Safety
/// As [`Products`].
#[inline(always)]
pub unsafe fn row_by_row<D: Products>(
    m: &Map,
    block: usize,
    rows: [usize; 2],
    roundings: &Roundings<Rounding>,
    memory: *mut u8,
) {
    for row in rows[0]..rows[1] {
        // SAFETY: as this function's callers.
        unsafe { pixels::<D, NARROW>(m, [block, row], roundings, memory) }
    }
}

/// A row's pixels of a block of channels.
#[inline(always)]
unsafe fn pixels<D: Products, const READ: u8>(
    m: &Map,
    [block, row]: [usize; 2],
    roundings: &Roundings<Rounding>,
    memory: *mut u8,
) {
    let columns = m.extent[1];
    let mut column = 0;
    while column < columns {
        let (rest, place) = (columns - column, [block, row, column]);
        // Eight are two times four rather than six and two.
        let count = if rest == 8 { 4 } else { rest.min(D::PIXELS) };
        // SAFETY: a tile of P pixels starts at most P before the end of the row.
        unsafe {
            match count {
                1 => tile::<D, 1, READ>(m, place, roundings, memory),
                2 => tile::<D, 2, READ>(m, place, roundings, memory),
                3 => tile::<D, 3, READ>(m, place, roundings, memory),
                4 => tile::<D, 4, READ>(m, place, roundings, memory),
                5 => tile::<D, 5, READ>(m, place, roundings, memory),
                _ => tile::<D, 6, READ>(m, place, roundings, memory),
            }
        }
        column += count;
    }
}

#[inline(always)]
unsafe fn tile<D: Products, const P: usize, const READ: u8>(
    m: &Map,
    [block, row, column]: [usize; 3],
    roundings: &Roundings<Rounding>,
    memory: *mut u8,
) {
    // SAFETY: this function's callers.
    unsafe {
        let place = [block, row, column];
        let sums = match READ {
            OWN => D::own_sums::<P>(m, place, memory),
            WIDE => D::sums::<P, true>(m, place, memory),
            _ => D::sums::<P, false>(m, place, memory),
        };
        finish_pairs(m, [0, 2, 4].map(|p| [block, row, column + p]), sums, roundings, memory);
        if P % 2 == 1 {
            finish(m, [block, row, column + P - 1], [sums[P - 1]], roundings, memory);
        }
    }
}

/// What follows the sums of P pixels, pair by pair from these places on; an odd one's is left. Written out, since a loop may stay one, its
/// sums in memory.
///
/// # Safety
/// As [`finish`].
#[inline(always)]
pub unsafe fn finish_pairs<const P: usize>(
    m: &Map,
    pairs: [[usize; 3]; 3],
    sums: [Block<__m256i>; P],
    roundings: &Roundings<Rounding>,
    memory: *mut u8,
) {
    // SAFETY: this function's callers.
    unsafe {
        if P > 1 {
            finish(m, pairs[0], [sums[0], sums[1]], roundings, memory);
        }
        if P > 3 {
            finish(m, pairs[1], [sums[2], sums[3]], roundings, memory);
        }
        if P > 5 {
            finish(m, pairs[2], [sums[4], sums[5]], roundings, memory);
        }
    }
}

/// Lays a block's columns side by side for a row of pixels.
///
/// # Safety
/// [`Map::check`] has held for the bytes at `memory`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn interleave(m: &Map, columns: &Columns, place: [usize; 2], memory: *mut u8) {
    for (rows, to) in columns.strips(m, place, memory) {
        for column in 0..columns.extent[0] {
            // SAFETY: this function's callers.
            unsafe {
                let [a, b, c, d] = rows.map(|row| _mm_loadu_si128(row.add(column * columns.channels).cast()));
                let (ab, cd) = (_mm_unpacklo_epi8(a, b), _mm_unpacklo_epi8(c, d));
                let (high_ab, high_cd) = (_mm_unpackhi_epi8(a, b), _mm_unpackhi_epi8(c, d));
                let quarters = [
                    _mm_unpacklo_epi16(ab, cd),
                    _mm_unpackhi_epi16(ab, cd),
                    _mm_unpacklo_epi16(high_ab, high_cd),
                    _mm_unpackhi_epi16(high_ab, high_cd),
                ];
                for (i, quarter) in quarters.into_iter().enumerate() {
                    _mm_storeu_si128(to.add(64 * column + 16 * i).cast(), quarter);
                }
            }
        }
    }
}

/// `f32(acc) * scale` of a map of one pixel, `[channels]`.
///
/// # Safety
/// As [`Products`].
#[inline(always)]
pub unsafe fn real<D: Products>(m: &Map, memory: *const u8, y: &mut [f32]) {
    for (block, y) in y.chunks_mut(LANES).enumerate() {
        // SAFETY: as `tile`.
        unsafe {
            let [halves] = D::sums::<1, false>(m, [block, 0, 0], memory);
            let values = scaled(halves, m.scale().add(block * LANES));
            let mut all = [0.0f32; LANES];
            _mm256_storeu_ps(all.as_mut_ptr(), values[0]);
            _mm256_storeu_ps(all.as_mut_ptr().add(8), values[1]);
            y.copy_from_slice(&all[..y.len()]);
        }
    }
}

impl Words for __m256i {
    const N: usize = 16;

    #[inline(always)]
    unsafe fn widened(from: *const u8) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm256_cvtepu8_epi16(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    unsafe fn keep(self, to: *mut u8) {
        // SAFETY: the trait's contract.
        unsafe { _mm256_storeu_si256(to.cast(), self) }
    }

    #[inline(always)]
    unsafe fn plus(self, other: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm256_add_epi16(self, other) }
    }

    #[inline(always)]
    unsafe fn minus(self, other: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm256_sub_epi16(self, other) }
    }

    #[inline(always)]
    unsafe fn fourfold(self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm256_slli_epi16::<2>(self) }
    }
}

impl Sums for __m256i {
    const N: usize = 8;

    #[inline(always)]
    unsafe fn load(from: *const i32) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn keep(self, to: *mut i32) {
        // SAFETY: the trait's contract.
        unsafe { _mm256_storeu_si256(to.cast(), self) }
    }

    #[inline(always)]
    unsafe fn plus(self, other: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm256_add_epi32(self, other) }
    }

    #[inline(always)]
    unsafe fn minus(self, other: Self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm256_sub_epi32(self, other) }
    }

    #[inline(always)]
    unsafe fn fourfold(self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm256_slli_epi32::<2>(self) }
    }

    #[inline(always)]
    unsafe fn ninth(self) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm256_mullo_epi32(self, _mm256_set1_epi32(NINTH)) }
    }

    #[inline(always)]
    unsafe fn halved(self, n: u32) -> Self {
        // SAFETY: the trait's contract.
        unsafe { _mm256_sra_epi32(self, _mm_cvtsi32_si128(n as i32)) }
    }
}

/// Winograd's tiles by the products of a set.
pub struct Ymm<D>(PhantomData<D>);

impl<D: Products> winograd::Set for Ymm<D> {
    type Words = __m256i;
    type Sums = __m256i;
    const TILES: usize = D::TILES;
    const BLOCKS: usize = 1;
    type Finish = Roundings<Rounding>;

    #[inline(always)]
    unsafe fn multiply<const P: usize, const Q: usize>(f: Factors, to: *mut i32) {
        // SAFETY: the trait's contract; `Q` is 1.
        unsafe {
            let mut sums = [[_mm256_setzero_si256(); 2]; P];
            let mut k = 0;
            while k < f.steps {
                for i in 0..4 {
                    let line = f.lines.add(k + i).cast::<__m256i>();
                    // A hint: no address faults.
                    _mm_prefetch::<_MM_HINT_T0>(f.lines.wrapping_add(k + i + AHEAD).cast());
                    let weights = [_mm256_load_si256(line), _mm256_load_si256(line.add(1))];
                    for (p, sums) in sums.iter_mut().enumerate() {
                        let at = f.inputs.add(p * f.stride + 4 * (k + i)).cast::<i32>();
                        let pair = _mm256_set1_epi32(at.read_unaligned());
                        sums[0] = D::pairs(sums[0], pair, weights[0]);
                        sums[1] = D::pairs(sums[1], pair, weights[1]);
                    }
                }
                k += 4;
            }
            for (p, sums) in sums.into_iter().enumerate() {
                let to = to.add(p * f.apart).cast::<__m256i>();
                _mm256_storeu_si256(to, sums[0]);
                _mm256_storeu_si256(to.add(1), sums[1]);
            }
        }
    }

    #[inline(always)]
    unsafe fn finish(
        m: &Map,
        [block, row, column]: [usize; 3],
        pixels: usize,
        sums: *const i32,
        roundings: &Roundings<Rounding>,
        memory: *mut u8,
    ) {
        // SAFETY: the trait's contract.
        unsafe {
            let mut p = 0;
            while p < pixels {
                let from = sums.add(p * LANES).cast::<__m256i>();
                let pixel = [_mm256_loadu_si256(from), _mm256_loadu_si256(from.add(1))];
                if p + 1 < pixels {
                    let next = [_mm256_loadu_si256(from.add(2)), _mm256_loadu_si256(from.add(3))];
                    finish(m, [block, row, column + p], [pixel, next], roundings, memory);
                } else {
                    finish(m, [block, row, column + p], [pixel], roundings, memory);
                }
                p += 2;
            }
        }
    }
}
