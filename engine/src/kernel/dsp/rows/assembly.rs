//! The kernels in `rows.s`, called with what they need.

// The assembly reads and writes through these pointers; what they point to is checked before each call.
#![allow(unsafe_code)]

use super::step;
use crate::kernel::dsp::geometry::{GROUP, Geometry};
use crate::kernel::ring::Affine;
use crate::kernel::scalar;

unsafe extern "C" {
    fn paradise_dsp_widen(from: *const i8, to: *mut u32, widen: *const Widen);
    fn paradise_dsp_affine(from: *const i8, to: *mut i8, affine: *const Rounding, eights: usize);
    fn paradise_dsp_affine_relu(from: *const i8, to: *mut i8, affine: *const Rounding, eights: usize);
}

/// What the assembly reads, in `rows.s`'s order.
#[repr(C)]
struct Widen {
    step: usize,
    columns: usize,
    quads: usize,
    groups: usize,
    next_group: usize,
}

/// As [`Widen`].
#[repr(C)]
struct Rounding {
    zero: i32,
    out_zero: i32,
    mul: f32,
    add: f32,
    pixel: usize,
}

/// Widens a padded row into a slot.
///
/// # Panics
/// If the row or the slot is shorter than the geometry says.
pub fn widen(geometry: &Geometry, row: &[i8], slot: &mut [u32]) {
    let Geometry { quads, groups, stride, channels, .. } = *geometry;
    let (step, columns, next_group) = (step(geometry), geometry.block(), GROUP * stride * channels);
    assert_eq!(slot.len(), groups * geometry.group_words(), "slot");
    assert!(row.len() >= (groups - 1) * next_group + (columns - 1) * step + 4 * quads, "row");
    // SAFETY: the last word that is read ends at the row's length that was checked, the words that are written are the slot's.
    unsafe {
        paradise_dsp_widen(row.as_ptr(), slot.as_mut_ptr(), &Widen { step, columns, quads, groups, next_group });
    }
}

/// [`scalar::affine`], channel by channel, so that each constant is read once.
///
/// # Panics
/// If the slices differ in length.
pub fn affine(x: &[i8], affine: &Affine, y: &mut [i8]) {
    assert_eq!(x.len(), y.len(), "pixels");
    let Affine { zero, mul, add, out } = *affine;
    let pixel = mul.len();
    let eights = x.len() / pixel / GROUP;
    let relu = out.cuts();
    if eights > 0 {
        let kernel = if relu { paradise_dsp_affine_relu } else { paradise_dsp_affine };
        for (c, (mul, add)) in mul.iter().zip(add.iter()).enumerate() {
            let rounding = Rounding { zero: zero.into(), out_zero: out.zero(), mul, add, pixel };
            // SAFETY: channel c of whole eights of pixels lies in both slices.
            unsafe { kernel(x[c..].as_ptr(), y[c..].as_mut_ptr(), &rounding, eights) };
        }
    }
    let rest = eights * GROUP * pixel;
    scalar::affine(&x[rest..], zero, mul, add, out, &mut y[rest..]);
}
