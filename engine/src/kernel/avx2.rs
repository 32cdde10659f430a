//! AVX2: eight output channels a register, four pixels and sixteen channels a tile.
//!
//! `vpmaddwd` multiplies pairs of i16 exactly (`vpmaddubsw` would saturate): inputs are stored as x + 128 in two bytes, so
//! that the packed biases are those of [`super::avx512`]. Element-wise operations are the scalar ones, compiled for AVX2.
//! Equal to [`super::scalar`] bit for bit.

// Intrinsics: each block says which check above it makes it sound.
#![allow(unsafe_code)]

use super::packed::{LANES, Map};
use super::scalar::{self, Source, Target};
use crate::layer::Window;
use crate::requant::Output;
use crate::tensor::Le;
use core::arch::x86_64::*;

/// Proof that the CPU has AVX2; only [`detect`] makes it.
#[derive(Debug, Clone, Copy)]
pub struct Avx2(());

/// The token, where the CPU has what it takes.
pub fn detect() -> Option<Avx2> {
    std::is_x86_feature_detected!("avx2").then_some(Avx2(()))
}

/// Pixels of a tile at most.
const PIXELS: usize = 4;

/// Requantised outputs `[rows][columns][channels]`.
///
/// # Safety
/// The CPU has the instructions, and [`Map::check`] has held for these outputs.
#[target_feature(enable = "avx2")]
pub unsafe fn requantised(map: &Map, out: Output, y: &mut [i8]) {
    let [rows, columns] = map.extent;
    for block in 0..map.packed.blocks() {
        for row in 0..rows {
            let mut column = 0;
            while column < columns {
                let rest = columns - column;
                // SAFETY: a tile of P pixels starts at most P before the end of the row.
                unsafe {
                    match rest {
                        1 => tile::<1>(map, block, row, column, out, y),
                        2 => tile::<2>(map, block, row, column, out, y),
                        3 => tile::<3>(map, block, row, column, out, y),
                        _ => tile::<PIXELS>(map, block, row, column, out, y),
                    }
                }
                column += rest.min(PIXELS);
            }
        }
    }
}

/// The sums of P neighbouring pixels over the two halves of a block of channels.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn sums<const P: usize>(map: &Map, block: usize, row: usize, column: usize) -> [[__m256i; 2]; P] {
    let Map { frame, pitch, step, packed, .. } = map;
    // SAFETY: `Map::check` proved that every step of every tile lies in the frame, and that there are lines and biases
    // for all blocks; the callers' tiles end with the row.
    unsafe {
        let from = frame.as_ptr().add(row * step[1] + column * step[0]);
        let mut line = packed.lines.as_ptr().add(block * packed.rows * packed.steps).cast::<u8>();
        let bias = packed.bias.as_ptr().add(block * LANES).cast::<__m256i>();
        let mut sums = [[_mm256_loadu_si256(bias), _mm256_loadu_si256(bias.add(1))]; P];
        for run in 0..packed.rows {
            let inputs = from.add(run * pitch);
            for k in 0..packed.steps {
                for pair in 0..2 {
                    // `[pair][half][8 channels][2 inputs]`.
                    let half = |h: usize| line.add(32 * pair + 16 * h).cast::<__m128i>();
                    let w = [
                        _mm256_cvtepi8_epi16(_mm_load_si128(half(0))),
                        _mm256_cvtepi8_epi16(_mm_load_si128(half(1))),
                    ];
                    for (p, sums) in sums.iter_mut().enumerate() {
                        let two = inputs.add(p * step[0] + 8 * k + 4 * pair).cast::<i32>().read_unaligned();
                        let x = _mm256_set1_epi32(two);
                        for (sum, w) in sums.iter_mut().zip(w) {
                            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(x, w));
                        }
                    }
                }
                line = line.add(64);
            }
        }
        sums
    }
}

#[target_feature(enable = "avx2")]
unsafe fn tile<const P: usize>(map: &Map, block: usize, row: usize, column: usize, out: Output, y: &mut [i8]) {
    let channels = map.packed.channels;
    let first = block * LANES;
    // SAFETY: as `sums`.
    let sums = unsafe { sums::<P>(map, block, row, column) };
    for (p, sums) in sums.iter().enumerate() {
        let mut bytes = [0i8; LANES];
        for (h, sum) in sums.iter().enumerate() {
            // SAFETY: scales have whole blocks; eight bytes fit each half.
            unsafe {
                let scale = _mm256_loadu_ps(map.packed.scale.as_ptr().add(first + 8 * h));
                let eight = rounded(_mm256_mul_ps(_mm256_cvtepi32_ps(*sum), scale), out);
                _mm_storel_epi64(bytes.as_mut_ptr().add(8 * h).cast(), eight);
            }
        }
        let at = (row * map.extent[1] + column + p) * channels + first;
        let n = LANES.min(channels - first);
        y[at..at + n].copy_from_slice(&bytes[..n]);
    }
}

/// `f32(acc) * scale` of a map of one pixel, `[channels]`.
///
/// # Safety
/// As [`requantised`].
#[target_feature(enable = "avx2")]
pub unsafe fn real(map: &Map, y: &mut [f32]) {
    for (block, y) in y.chunks_mut(LANES).enumerate() {
        // SAFETY: as `tile`.
        unsafe {
            let [halves] = sums::<1>(map, block, 0, 0);
            let mut values = [0.0f32; LANES];
            for (h, sum) in halves.iter().enumerate() {
                let scale = _mm256_loadu_ps(map.packed.scale.as_ptr().add(block * LANES + 8 * h));
                let scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(*sum), scale);
                _mm256_storeu_ps(values.as_mut_ptr().add(8 * h), scaled);
            }
            y.copy_from_slice(&values[..y.len()]);
        }
    }
}

/// [`Output::quantise`] of eight values, in the low eight bytes: `vroundps` rounds half to even.
#[inline]
#[target_feature(enable = "avx2")]
fn rounded(values: __m256, out: Output) -> __m128i {
    let [low, high] = out.bounds().map(|v| _mm256_set1_ps(v));
    let clamped = _mm256_min_ps(_mm256_max_ps(values, low), high);
    const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    let whole = _mm256_cvttps_epi32(_mm256_round_ps::<NEAREST>(clamped));
    let moved = _mm256_add_epi32(whole, _mm256_set1_epi32(out.zero()));
    // The values fit a byte, so packing saturates nothing.
    let words = _mm_packs_epi32(_mm256_castsi256_si128(moved), _mm256_extracti128_si256::<1>(moved));
    _mm_packs_epi16(words, words)
}

/// [`scalar::affine`].
pub fn affine(_: Avx2, x: &[i8], zero: i8, mul: Le<f32>, add: Le<f32>, out: Output, y: &mut [i8]) {
    #[target_feature(enable = "avx2")]
    fn compiled(x: &[i8], zero: i8, mul: Le<f32>, add: Le<f32>, out: Output, y: &mut [i8]) {
        scalar::affine(x, zero, mul, add, out, y);
    }
    // SAFETY: the token.
    unsafe { compiled(x, zero, mul, add, out, y) }
}

/// [`scalar::add`].
pub fn add(_: Avx2, a: &[i8], b: &[i8], zero: [i8; 2], ratio: [f32; 2], out: Output, y: &mut [i8]) {
    #[target_feature(enable = "avx2")]
    fn compiled(a: &[i8], b: &[i8], zero: [i8; 2], ratio: [f32; 2], out: Output, y: &mut [i8]) {
        scalar::add(a, b, zero, ratio, out, y);
    }
    // SAFETY: the token.
    unsafe { compiled(a, b, zero, ratio, out, y) }
}

/// [`scalar::avg_pool`].
pub fn avg_pool(_: Avx2, source: Source, window: &Window, scale: f32, target: Target) {
    #[target_feature(enable = "avx2")]
    fn compiled(source: Source, window: &Window, scale: f32, target: Target) {
        scalar::avg_pool(source, window, scale, target);
    }
    // SAFETY: the token.
    unsafe { compiled(source, window, scale, target) }
}
