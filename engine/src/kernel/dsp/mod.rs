//! Convolutions for Cortex-M cores with the DSP extension (M4, M7, M33): `SMLAD` multiplies two pairs of s16 and adds both
//! products to a sum.
//!
//! No im2col: input rows are widened once, into the slots of a ring, in the order of [`geometry`]. Eight sums of
//! one channel stay in registers while the kernel goes over what eight neighbouring pixels read; three taps share most of
//! their words, so ten loads serve 24 `SMLAD`s. Requantisation, ReLU and the residual sum follow in the same registers
//! (`group.rs`).

#[cfg(all(feature = "dsp", target_arch = "arm"))]
mod assembly;
#[cfg(all(feature = "dsp", target_arch = "arm"))]
mod dot;
pub mod geometry;
mod group;
#[cfg(feature = "alloc")]
pub mod pack;
mod rows;

#[cfg(all(feature = "dsp", target_arch = "arm"))]
pub(crate) use dot::{dot, sums};
#[cfg(all(feature = "dsp", target_arch = "arm"))]
pub(crate) use rows::affine;

use super::ring::{self, Conv, Kernels, Other};
use crate::kernel;
use geometry::{GROUP, Geometry};

/// Runs a convolution from `x` to `y`, both int8 NHWC, over [`Geometry::scratch_words`] words.
///
/// # Panics
/// If a slice does not have the length that the shapes need.
pub fn conv(conv: &Conv, geometry: &Geometry, x: &[i8], other: Other, y: &mut [i8], scratch: &mut [u32]) {
    let channels = usize::from(conv.shapes[1].c);
    assert_eq!(conv.weight.len(), channels * geometry.record(), "weights");
    let (slots, scratch) = scratch.split_at_mut(geometry.rows * geometry.row_words());
    let (padded, tail) = scratch.split_at_mut(geometry.row_buffer_words());
    let padded: &mut [i8] = bytemuck::cast_slice_mut(padded);
    padded.fill(conv.zero);
    let tail = &mut bytemuck::cast_slice_mut(tail)[..GROUP * channels];
    let rows = Rows { conv, geometry, group: group::Group::new(conv, geometry), padded, tail };
    ring::conv(conv, rows, x, other, y, slots);
}

/// A convolution's rows.
struct Rows<'a> {
    conv: &'a Conv<'a>,
    geometry: &'a Geometry,
    group: group::Group<'a>,
    /// A row with its borders, which never change.
    padded: &'a mut [i8],
    /// The output of a group that reaches past the row.
    tail: &'a mut [i8],
}

impl Kernels for Rows<'_> {
    fn slot_words(&self) -> usize {
        self.geometry.row_words()
    }

    fn prepare(&mut self, row: Option<&[i8]>, slot: &mut [u32]) {
        let Some(row) = row else { return slot.fill(rows::pair(self.conv.zero, self.conv.zero)) };
        let left = usize::from(self.conv.window.pad[1]) * self.geometry.channels;
        let to = &mut self.padded[left..][..row.len()];
        match &self.conv.before {
            Some(map) => kernel::affine(row, map, to),
            None => to.copy_from_slice(row),
        }
        rows::widen(self.geometry, self.padded, slot);
    }

    fn run(&mut self, under: &[&[u32]], other: Other, y: &mut [i8]) {
        let (whole, words) = (self.tail.len(), self.geometry.group_words());
        for (g, y) in y.chunks_mut(whole).enumerate() {
            let mut group: [&[u32]; ring::MAX_ROWS] = [&[]; ring::MAX_ROWS];
            for (to, slot) in group.iter_mut().zip(under) {
                *to = &slot[g * words..][..words];
            }
            let group = &group[..under.len()];
            let other = other.part(g * whole, y.len());
            if y.len() == whole {
                self.group.run(group, other, y);
                continue;
            }
            ring::in_part(self.tail, other, y, |other, tail| self.group.run(group, other, tail));
        }
    }
}
