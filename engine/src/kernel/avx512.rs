//! AVX-512 VNNI: sixteen output channels a register, up to eight pixels and three registers of channels a tile.
//!
//! `vpdpbusd` multiplies unsigned by signed bytes and saturates nowhere: inputs are stored as x + 128, and
//! `-128 sum w` stands in the bias. Sums wrap as i32 and end where the exact sum does, which fits. Equal to
//! [`super::scalar`] bit for bit.

// Intrinsics: each block says which check above it makes it sound.
#![allow(unsafe_code)]

use super::packed::{LANES, Map};
use super::scalar::{Source, Target};
use crate::layer::Window;
use crate::requant::Output;
use crate::tensor::Le;
use core::arch::x86_64::*;

/// Proof that the CPU has AVX-512 F, BW, VL and VNNI and that the system keeps their registers; only [`detect`] makes it.
#[derive(Debug, Clone, Copy)]
pub struct Avx512(());

/// The token, where the CPU has what it takes.
pub fn detect() -> Option<Avx512> {
    let all = std::is_x86_feature_detected!("avx512f")
        && std::is_x86_feature_detected!("avx512bw")
        && std::is_x86_feature_detected!("avx512vl")
        && std::is_x86_feature_detected!("avx512vnni");
    all.then_some(Avx512(()))
}

/// Pixels of a tile at most.
const PIXELS: usize = 8;

/// Requantised outputs `[rows][columns][channels]`.
///
/// # Safety
/// The CPU has the instructions, and [`Map::check`] has held for these outputs.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn requantised(map: &Map, out: Output, y: &mut [i8]) {
    let blocks = map.packed.blocks();
    let mut block = 0;
    while block < blocks {
        let rest = blocks - block;
        // SAFETY: as this function's callers.
        block += unsafe {
            match rest {
                1 => rows::<1>(map, block, out, y),
                3 => rows::<3>(map, block, out, y),
                _ => rows::<2>(map, block, out, y),
            }
        };
    }
}

/// All pixels of `Q` blocks of channels; returns Q.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn rows<const Q: usize>(map: &Map, block: usize, out: Output, y: &mut [i8]) -> usize {
    let [rows, columns] = map.extent;
    for row in 0..rows {
        let mut column = 0;
        while column < columns {
            let rest = columns - column;
            // SAFETY: a tile of P pixels starts at most P before the end of the row.
            unsafe {
                match rest {
                    1 => tile::<1, Q>(map, block, row, column, out, y),
                    2 => tile::<2, Q>(map, block, row, column, out, y),
                    3 => tile::<3, Q>(map, block, row, column, out, y),
                    4 => tile::<4, Q>(map, block, row, column, out, y),
                    5 => tile::<5, Q>(map, block, row, column, out, y),
                    6 => tile::<6, Q>(map, block, row, column, out, y),
                    7 => tile::<7, Q>(map, block, row, column, out, y),
                    _ => tile::<PIXELS, Q>(map, block, row, column, out, y),
                }
            }
            column += rest.min(PIXELS);
        }
    }
    Q
}

/// The sums of P neighbouring pixels, each over Q blocks of channels.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn sums<const P: usize, const Q: usize>(
    map: &Map,
    block: usize,
    row: usize,
    column: usize,
) -> [[__m512i; Q]; P] {
    let Map { frame, pitch, step, packed, .. } = map;
    let span = packed.rows * packed.steps;
    // SAFETY: `Map::check` proved that every step of every tile lies in the frame, and that there are lines and biases
    // for all blocks; the callers' tiles end with the row and with the blocks.
    unsafe {
        let from = frame.as_ptr().add(row * step[1] + column * step[0]);
        let lines = packed.lines.as_ptr().add(block * span).cast::<__m512i>();
        let mut biases = [_mm512_setzero_si512(); Q];
        for (q, bias) in biases.iter_mut().enumerate() {
            *bias = _mm512_loadu_si512(packed.bias.as_ptr().add((block + q) * LANES).cast());
        }
        let mut sums = [biases; P];
        for run in 0..packed.rows {
            let inputs = from.add(run * pitch);
            let weights = lines.add(run * packed.steps);
            for k in 0..packed.steps {
                let mut w = [_mm512_setzero_si512(); Q];
                for (q, w) in w.iter_mut().enumerate() {
                    *w = _mm512_load_si512(weights.add(q * span + k));
                }
                for (p, sums) in sums.iter_mut().enumerate() {
                    let four = inputs.add(p * step[0] + 4 * k).cast::<i32>().read_unaligned();
                    let x = _mm512_set1_epi32(four);
                    for (sum, w) in sums.iter_mut().zip(w) {
                        *sum = _mm512_dpbusd_epi32(*sum, x, w);
                    }
                }
            }
        }
        sums
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn tile<const P: usize, const Q: usize>(
    map: &Map,
    block: usize,
    row: usize,
    column: usize,
    out: Output,
    y: &mut [i8],
) {
    let channels = map.packed.channels;
    // SAFETY: as `sums`; a block's lanes past the last channel are masked out, and pixel and channels lie in y.
    unsafe {
        let sums = sums::<P, Q>(map, block, row, column);
        let to = y.as_mut_ptr().add((row * map.extent[1] + column) * channels + block * LANES);
        for q in 0..Q {
            let first = (block + q) * LANES;
            let scale = _mm512_loadu_ps(map.packed.scale.as_ptr().add(first));
            let mask = lanes(channels - first);
            for (p, sums) in sums.iter().enumerate() {
                let bytes = rounded(_mm512_mul_ps(_mm512_cvtepi32_ps(sums[q]), scale), out);
                _mm_mask_storeu_epi8(to.add(p * channels + q * LANES), mask, bytes);
            }
        }
    }
}

/// `f32(acc) * scale` of a map of one pixel, `[channels]`.
///
/// # Safety
/// As [`requantised`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn real(map: &Map, y: &mut [f32]) {
    for block in 0..map.packed.blocks() {
        // SAFETY: as `tile`.
        unsafe {
            let [[sum]] = sums::<1, 1>(map, block, 0, 0);
            let first = block * LANES;
            let scale = _mm512_loadu_ps(map.packed.scale.as_ptr().add(first));
            let values = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale);
            _mm512_mask_storeu_ps(y.as_mut_ptr().add(first), lanes(y.len() - first), values);
        }
    }
}

/// The first `n` of sixteen lanes.
#[inline]
fn lanes(n: usize) -> u16 {
    if n >= LANES { u16::MAX } else { (1 << n) - 1 }
}

/// [`Output::quantise`] of sixteen values. `vmaxps` gives its second operand where the first is NaN, and `vcvtps2dq`
/// rounds half to even: the rounding is written into the instruction.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn rounded(values: __m512, out: Output) -> __m128i {
    let [low, high] = out.bounds().map(|v| _mm512_set1_ps(v));
    let clamped = _mm512_min_ps(_mm512_max_ps(values, low), high);
    const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    let whole = _mm512_cvt_roundps_epi32::<NEAREST>(clamped);
    _mm512_cvtepi32_epi8(_mm512_add_epi32(whole, _mm512_set1_epi32(out.zero())))
}

/// Sixteen int8 values less their zero point, as f32; lanes outside `mask` are not read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn centred(from: *const i8, mask: u16, zero: i8) -> __m512 {
    // SAFETY: the caller's lanes inside the mask are readable.
    let bytes = unsafe { _mm_maskz_loadu_epi8(mask, from) };
    _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_cvtepi8_epi32(bytes), _mm512_set1_epi32(i32::from(zero))))
}

/// [`super::scalar::affine`].
///
/// # Panics
/// If the lengths do not agree.
pub fn affine(_: Avx512, x: &[i8], zero: i8, mul: Le<f32>, add: Le<f32>, out: Output, y: &mut [i8]) {
    assert!(
        mul.len() == add.len() && x.len() == y.len() && x.len().is_multiple_of(mul.len()),
        "lengths of an affine map"
    );
    // SAFETY: the token; the lengths.
    unsafe { affine_map(x, zero, mul, add, out, y) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn affine_map(x: &[i8], zero: i8, mul: Le<f32>, add: Le<f32>, out: Output, y: &mut [i8]) {
    let channels = mul.len();
    for first in (0..channels).step_by(LANES) {
        let mask = lanes(channels - first);
        // SAFETY: lanes inside the mask are below `channels`, pixels below the length.
        unsafe {
            let (m, a) = (
                _mm512_maskz_loadu_ps(mask, mul.bytes().as_ptr().cast::<f32>().add(first)),
                _mm512_maskz_loadu_ps(mask, add.bytes().as_ptr().cast::<f32>().add(first)),
            );
            for at in (first..x.len()).step_by(channels) {
                // Two roundings, as the definition has them: no FMA.
                let scaled = _mm512_mul_ps(centred(x.as_ptr().add(at), mask, zero), m);
                let bytes = rounded(_mm512_add_ps(scaled, a), out);
                _mm_mask_storeu_epi8(y.as_mut_ptr().add(at), mask, bytes);
            }
        }
    }
}

/// [`super::scalar::add`].
///
/// # Panics
/// If the lengths do not agree.
pub fn add(_: Avx512, a: &[i8], b: &[i8], zero: [i8; 2], ratio: [f32; 2], out: Output, y: &mut [i8]) {
    assert!(a.len() == b.len() && a.len() == y.len(), "lengths of a sum");
    // SAFETY: the token; the lengths.
    unsafe { add_map(a, b, zero, ratio, out, y) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn add_map(a: &[i8], b: &[i8], zero: [i8; 2], ratio: [f32; 2], out: Output, y: &mut [i8]) {
    let [left, right] = ratio.map(|r| _mm512_set1_ps(r));
    for at in (0..a.len()).step_by(LANES) {
        let mask = lanes(a.len() - at);
        // SAFETY: lanes inside the mask are below the length.
        unsafe {
            let l = _mm512_mul_ps(centred(a.as_ptr().add(at), mask, zero[0]), left);
            let r = _mm512_mul_ps(centred(b.as_ptr().add(at), mask, zero[1]), right);
            _mm_mask_storeu_epi8(y.as_mut_ptr().add(at), mask, rounded(_mm512_add_ps(l, r), out));
        }
    }
}

/// [`super::scalar::avg_pool`].
///
/// # Panics
/// If the output does not fit the window.
pub fn avg_pool(_: Avx512, source: Source, window: &Window, scale: f32, target: Target) {
    let Target { y, extent, out } = target;
    let (h, w, c) = (source.shape.h as usize, source.shape.w as usize, source.shape.c as usize);
    assert!(source.x.len() == h * w * c && y.len() == extent[0] * extent[1] * c, "lengths of a pool");
    for row in 0..extent[0] {
        let (first_y, inside_y) = window.taps(0, row, h);
        for column in 0..extent[1] {
            let (first_x, inside_x) = window.taps(1, column, w);
            let top = (first_y + inside_y.start as isize) as usize;
            let left = (first_x + inside_x.start as isize) as usize;
            let area = [top, top + inside_y.len(), left, left + inside_x.len()];
            let to = &mut y[(row * extent[1] + column) * c..][..c];
            assert!(area[1] <= h && area[3] <= w || inside_y.is_empty() || inside_x.is_empty(), "a window's taps");
            // SAFETY: the token; the area lies in the input.
            unsafe { average(&source, area, scale, out, to) }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn average(source: &Source, [top, bottom, left, right]: [usize; 4], scale: f32, out: Output, to: &mut [i8]) {
    let (w, c) = (source.shape.w as usize, source.shape.c as usize);
    let count = ((bottom - top) * (right - left)) as i32;
    for first in (0..c).step_by(LANES) {
        let mask = lanes(c - first);
        let mut sum = _mm512_set1_epi32(-count * i32::from(source.zero));
        for y in top..bottom {
            for x in left..right {
                // SAFETY: a pixel of the area, lanes inside the mask.
                let bytes = unsafe { _mm_maskz_loadu_epi8(mask, source.x.as_ptr().add((y * w + x) * c + first)) };
                sum = _mm512_add_epi32(sum, _mm512_cvtepi8_epi32(bytes));
            }
        }
        let bytes = rounded(_mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(scale)), out);
        // SAFETY: lanes inside the mask are below c.
        unsafe { _mm_mask_storeu_epi8(to.as_mut_ptr().add(first), mask, bytes) }
    }
}
