//! The kernels in `mve.s`, called with what they need.

// The assembly reads and writes through these pointers; what they point to is checked before each call.
#![allow(unsafe_code)]

use super::geometry::{BLOCK, Geometry, LANES, PAIR};
use crate::kernel::ring::{Affine, Conv, MAX_ROWS, Other};
use crate::kernel::scalar;
use crate::requant::Output;
use core::ptr::{null, null_mut};

core::arch::global_asm!(include_str!("mve.s"), options(raw));

unsafe extern "C" {
    fn paradise_mve_pairs_by_three(job: *const Job);
    fn paradise_mve_pairs(job: *const Job);
    fn paradise_mve_affine(from: *const i8, to: *mut i8, affine: *const Rounding, relu: bool);
    fn paradise_mve_dot(a: *const i8, b: *const i8, vectors: usize) -> i32;
    fn paradise_mve_means(x: *const i8, y: *mut i8, window: *const Pixels);
    fn paradise_mve_copy(from: *const i8, to: *mut i8, vectors: usize);
}

/// What the assembly reads; `mve.s` knows the offsets.
#[derive(Debug)]
#[repr(C)]
pub struct Job {
    weight: *const u8,
    end: *const u8,
    pairs: usize,
    y: *mut i8,
    other: *const i8,
    /// Ended by a null pointer.
    rows: *const *const u32,
    first: usize,
    /// 0: only rounding; 1: a ReLU; 2: a residual sum; 3: one with a ReLU.
    after: u32,
    vectors: usize,
    pitch: usize,
    zero: i32,
    other_zero: i32,
    ratio: [f32; 2],
    low: i32,
    high: i32,
    sum_zero: i32,
    step: usize,
}

impl Job {
    /// Of a convolution.
    pub fn new(conv: &Conv, geometry: &Geometry) -> Self {
        let weight = conv.weight.as_ptr_range();
        let relu = |out: &Output| u32::from(out.cuts());
        let zero = conv.out.zero();
        Self {
            weight: weight.start,
            end: weight.end,
            pairs: 0,
            y: null_mut(),
            other: null(),
            rows: null(),
            first: 0,
            after: conv.sum.map_or(relu(&conv.out), |sum| 2 + relu(&sum.out)),
            vectors: geometry.vectors,
            pitch: conv.shapes[1].c.into(),
            zero,
            other_zero: conv.sum.map_or(0, |sum| sum.zero.into()),
            ratio: conv.sum.map_or([0.0; 2], |sum| sum.ratio),
            low: -128 - zero,
            high: 127 - zero,
            sum_zero: conv.sum.map_or(0, |sum| sum.out.zero()),
            step: geometry.step,
        }
    }

    /// From the rows under the kernel to pairs of int8 `[2][channels]`, the first of them pair `first` of the row.
    ///
    /// # Panics
    /// If a slice does not have the length that the geometry says.
    pub fn run(&mut self, geometry: &Geometry, under: &[&[u32]], first: usize, other: Other, y: &mut [i8]) {
        let pair = PAIR * self.pitch;
        self.pairs = y.len() / pair;
        assert!(under.len() == geometry.rows && under.iter().all(|row| row.len() == geometry.row_words()), "rows");
        assert!(y.len().is_multiple_of(pair), "output");
        let last = (PAIR * (first + self.pairs)).saturating_sub(1);
        assert!(last * geometry.step + geometry.vectors * LANES <= 4 * geometry.row_words(), "pixels");
        if self.pairs == 0 || self.weight == self.end {
            return;
        }
        let mut rows = [null(); MAX_ROWS + 1];
        for (to, row) in rows.iter_mut().zip(under) {
            *to = row.as_ptr();
        }
        (self.rows, self.first, self.y) = (rows.as_ptr(), PAIR * first * geometry.step, y.as_mut_ptr());
        self.other = match other {
            Other::At(other) => {
                assert_eq!(other.len(), y.len(), "other operand");
                other.as_ptr()
            }
            _ => self.y,
        };
        let kernel = if self.vectors.is_multiple_of(3) { paradise_mve_pairs_by_three } else { paradise_mve_pairs };
        // SAFETY: rows, output and other operand have the lengths that were checked above; `mve::conv` checked that there is a
        // record for each block, of the geometry's length; the assembly walks exactly through these.
        unsafe { kernel(self) };
    }
}

/// As [`Job`].
#[repr(C)]
struct Rounding {
    zero: i32,
    out_zero: i32,
    mul: *const u8,
    add: *const u8,
    channels: usize,
    pixels: usize,
    blocks: usize,
}

/// [`scalar::affine`], four channels side by side.
///
/// # Panics
/// If the slices differ in length.
pub fn affine(x: &[i8], map: &Affine, y: &mut [i8]) {
    assert_eq!(x.len(), y.len(), "pixels");
    let channels = map.mul.len();
    let [mul, add] = [map.mul, map.add].map(|constants| constants.bytes().as_ptr());
    let aligned = mul.addr().is_multiple_of(4) && add.addr().is_multiple_of(4);
    if !channels.is_multiple_of(BLOCK) || !aligned || map.add.len() != channels || x.is_empty() {
        return scalar::affine(x, map.zero, map.mul, map.add, map.out, y);
    }
    let relu = map.out.cuts();
    let (zero, out_zero) = (map.zero.into(), map.out.zero());
    let rounding =
        Rounding { zero, out_zero, mul, add, channels, pixels: x.len() / channels, blocks: channels / BLOCK };
    // SAFETY: whole pixels of whole blocks lie in both slices, as many constants in theirs.
    unsafe { paradise_mve_affine(x.as_ptr(), y.as_mut_ptr(), &rounding, relu) };
}

/// Exact i32 dot product of equally long slices.
pub fn dot(a: &[i8], b: &[i8]) -> i32 {
    // SAFETY: both slices hold as many vectors.
    scalar::dot_in_groups(a, b, LANES, |vectors| unsafe { paradise_mve_dot(a.as_ptr(), b.as_ptr(), vectors) })
}

/// As [`Job`].
#[repr(C)]
struct Pixels {
    rows: usize,
    columns: usize,
    pixel: usize,
    row: usize,
    zeros: i32,
    scale: f32,
    out_zero: i32,
}

/// Means of sixteen channels over `[rows][columns]` pixels of `x`, which are `pixel` and rows `row` bytes apart:
/// `requantise(sum - zeros, scale)`.
///
/// # Panics
/// If a pixel's channels are not in `x`, or `y` is not of sixteen.
pub fn means(
    x: &[i8],
    [rows, columns]: [usize; 2],
    [pixel, row]: [usize; 2],
    (zeros, scale, out): (i32, f32, Output),
    y: &mut [i8],
) {
    assert!(y.len() == LANES, "output");
    if rows == 0 || columns == 0 {
        return y.fill(out.requantise(-zeros, scale));
    }
    assert!((rows - 1) * row + (columns - 1) * pixel + LANES <= x.len(), "pixels");
    let window = Pixels { rows, columns, pixel, row, zeros, scale, out_zero: out.zero() };
    // SAFETY: the last pixel's channels are in the slice, sixteen outputs in theirs.
    unsafe { paradise_mve_means(x.as_ptr(), y.as_mut_ptr(), &window) };
}

/// Copies a row.
///
/// # Panics
/// If the slices differ in length.
pub fn copy(from: &[i8], to: &mut [i8]) {
    assert_eq!(from.len(), to.len(), "a row");
    let vectors = from.len() / LANES;
    if vectors > 0 {
        // SAFETY: both slices hold as many vectors.
        unsafe { paradise_mve_copy(from.as_ptr(), to.as_mut_ptr(), vectors) };
    }
    to[vectors * LANES..].copy_from_slice(&from[vectors * LANES..]);
}
