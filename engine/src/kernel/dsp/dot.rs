//! What is no convolution: dot products of dense layers and heads, and sums over a pool's window; the kernels are in `dot.s`.

// The assembly reads and writes through these pointers; what they point to is checked before each call.
#![allow(unsafe_code)]

use crate::kernel::scalar;

unsafe extern "C" {
    fn paradise_dsp_dot(a: *const i8, b: *const i8, fours: usize) -> i32;
    fn paradise_dsp_sums(x: *const i8, sums: *mut [i32; 4], window: *const Pixels);
}

/// Exact i32 dot product of equally long slices.
pub fn dot(a: &[i8], b: &[i8]) -> i32 {
    // SAFETY: both slices hold as many words.
    scalar::dot_in_groups(a, b, 4, |fours| unsafe { paradise_dsp_dot(a.as_ptr(), b.as_ptr(), fours) })
}

/// A window's pixels, in the order in which the assembly reads it.
#[repr(C)]
struct Pixels {
    rows: usize,
    columns: usize,
    pixel: usize,
    row: usize,
}

/// Sums of four channels over `[rows][columns]` pixels of `x`, which are `pixel` and rows `row` bytes apart.
///
/// # Panics
/// If a pixel's channels are not in `x`.
pub fn sums(x: &[i8], [rows, columns]: [usize; 2], [pixel, row]: [usize; 2]) -> [i32; 4] {
    let mut sums = [0; 4];
    if rows > 0 && columns > 0 {
        assert!((rows - 1) * row + (columns - 1) * pixel + 4 <= x.len(), "pixels");
        // SAFETY: the last pixel's channels are in the slice.
        unsafe { paradise_dsp_sums(x.as_ptr(), &mut sums, &Pixels { rows, columns, pixel, row }) };
    }
    sums
}
