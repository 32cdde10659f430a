//! Convolutions for Cortex-M cores with the vector extension (M55): `VMLADAVA` adds sixteen products of int8 to a sum.
//!
//! Input rows are only given their borders: a pixel's taps of one kernel row lie side by side, and are read sixteen at a time
//! where they lie. Two pixels by four channels are summed at once in eight registers; rounding, ReLU and the residual sum
//! happen to four channels side by side (`pairs.rs`).
//!
//! Weights of four channels, a *block*, are their biases i32, their scales f32, and for each kernel row and sixteen inputs
//! sixteen int8 of each channel; what the last sixteen have too many meets weights of 0.

#[cfg(all(feature = "mve", target_arch = "arm"))]
mod assembly;
pub mod geometry;
#[cfg(feature = "alloc")]
pub mod pack;
mod pairs;
#[cfg(not(all(feature = "mve", target_arch = "arm")))]
mod portable;

#[cfg(all(feature = "mve", target_arch = "arm"))]
pub(crate) use assembly::{affine, copy, dot, means};
#[cfg(not(all(feature = "mve", target_arch = "arm")))]
use portable::copy;

use super::ring::{self, Conv, Kernels, Other};
use crate::kernel;
use geometry::{BLOCK, Geometry, PAIR};

/// Runs a convolution from `x` to `y`, both int8 NHWC, over [`Geometry::scratch_words`] words.
///
/// # Panics
/// If a slice does not have the length that the shapes need.
pub fn conv(conv: &Conv, geometry: &Geometry, x: &[i8], other: Other, y: &mut [i8], scratch: &mut [u32]) {
    let channels = usize::from(conv.shapes[1].c);
    assert_eq!(conv.weight.len(), channels / BLOCK * geometry.record(), "weights");
    let (slots, tail) = scratch.split_at_mut(geometry.rows * geometry.row_words());
    let tail = &mut bytemuck::cast_slice_mut(tail)[..PAIR * channels];
    bytemuck::cast_slice_mut::<u32, i8>(slots).fill(conv.zero);
    let rows = Rows { conv, geometry, pairs: pairs::Pairs::new(conv, geometry), tail };
    ring::conv(conv, rows, x, other, y, slots);
}

/// A convolution's rows.
struct Rows<'a> {
    conv: &'a Conv<'a>,
    geometry: &'a Geometry,
    pairs: pairs::Pairs<'a>,
    /// The output of the last pair where a row's pixels are odd.
    tail: &'a mut [i8],
}

impl Kernels for Rows<'_> {
    fn slot_words(&self) -> usize {
        self.geometry.row_words()
    }

    fn prepare(&mut self, row: Option<&[i8]>, slot: &mut [u32]) {
        let slot: &mut [i8] = bytemuck::cast_slice_mut(slot);
        let left = usize::from(self.conv.window.pad[1]) * self.geometry.channels;
        // Borders were filled once; a row outside the input is all border, here and where the last one was.
        let to = &mut slot[left..][..usize::from(self.conv.shapes[0].w) * self.geometry.channels];
        match (row, &self.conv.before) {
            (None, _) => to.fill(self.conv.zero),
            (Some(row), Some(map)) => kernel::affine(row, map, to),
            (Some(row), None) => copy(row, to),
        }
    }

    fn run(&mut self, under: &[&[u32]], other: Other, y: &mut [i8]) {
        let pair = self.tail.len();
        let even = y.len() / pair * pair;
        let (whole, rest) = y.split_at_mut(even);
        self.pairs.run(under, 0, other.part(0, even), whole);
        if rest.is_empty() {
            return;
        }
        let other = other.part(even, rest.len());
        ring::in_part(self.tail, other, rest, |other, tail| self.pairs.run(under, even / pair, other, tail));
    }
}
