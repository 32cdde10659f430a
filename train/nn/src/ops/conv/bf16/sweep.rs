//! What one pass of products covers: output pixels that share their taps, the weights packed in the order of the steps,
//! and what becomes of the sums.

use super::planes::Planes;
use super::tiles::{SIDE, STEP};
use crate::ops::conv::pixels::Pixels;
use crate::ops::conv::{ChannelSums, End};
use crate::ops::lanes::{Lanes, bf16, get, per_isa, put};
use rayon::prelude::*;

/// Output pixels of one image that are computed from the same taps.
#[derive(Debug, Clone)]
pub(super) struct Sweep {
    pub pixels: Pixels,
    /// Bytes from an output pixel's own place to what each step reads: blocks of channels, taps inside.
    pub offsets: Vec<usize>,
    /// Each tap's index in the weights, `ky * kw + kx`.
    pub tap_index: Vec<usize>,
}

impl Sweep {
    /// bf16 of the packed weights.
    pub fn packed_len(&self) -> usize {
        self.pixels.pitch.div_ceil(SIDE) * self.offsets.len() * STEP
    }

    /// Places from the first output pixel's to the last one's, and it.
    pub fn places(&self, pitch: usize) -> usize {
        let Pixels { rows, columns, .. } = self.pixels;
        if rows * columns == 0 { 0 } else { (rows - 1) * pitch + columns }
    }

    /// Panics unless every access of a run stays inside its slice.
    pub fn check(&self, places: usize, planes: &Planes, packed: usize, y: usize, end: &End, sums: &ChannelSums) {
        if places == 0 {
            return;
        }
        let far = places.next_multiple_of(SIDE) * SIDE + self.offsets.iter().max().map_or(0, |o| o / 2);
        assert!(far <= planes.len() && packed >= self.packed_len(), "taps leave the image, or weights are missing");
        let channels = self.pixels.pitch;
        self.pixels.check(channels, y, end.bias, end.residual);
        assert!(sums.as_ref().is_none_or(|(s, q)| s.len().min(q.len()) >= channels), "sums for each channel");
    }

    /// Packs `weight(output channel, tap, input channel)` as `[block of outputs][step][pair][32][2]`.
    pub fn pack(&self, depth: usize, weight: impl Fn(usize, usize, usize) -> f32 + Sync, to: &mut [u16]) {
        let taps = self.tap_index.len();
        if to.is_empty() {
            return;
        }
        to.par_chunks_exact_mut(self.offsets.len() * STEP).enumerate().for_each(|(block, to)| {
            for (step, to) in to.chunks_exact_mut(STEP).enumerate() {
                let (first, tap) = (step / taps * SIDE, self.tap_index[step % taps]);
                for (at, to) in to.iter_mut().enumerate() {
                    let (o, i) = (block * SIDE + at % (2 * SIDE) / 2, first + at / (2 * SIDE) * 2 + at % 2);
                    *to = if o < self.pixels.pitch && i < depth { bf16(weight(o, tap, i)) } else { 0 };
                }
            }
        });
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn put_block<L: Lanes>(
    sweep: &Sweep,
    pitch: usize,
    place: usize,
    first: usize,
    block: &[f32; STEP],
    end: End,
    y: &mut [f32],
    mut sums: ChannelSums,
) {
    let pixels = &sweep.pixels;
    let valid = SIDE.min(pixels.pitch - first);
    let [row, column] = [place / pitch, place % pitch];
    for done in (0..valid).step_by(L::N) {
        let (count, channel) = (L::N.min(valid - done), first + done);
        // SAFETY: `check` saw that the last output pixel is inside `y` and the residual, `channels` values in
        // bias and sums; `done + N` is at most 32.
        unsafe {
            let bias = end.bias.map_or(L::zero(), |b| get::<L>(b.as_ptr().add(channel), count));
            let (mut added, mut squares) = (L::zero(), L::zero());
            let (mut row, mut column) = (row, column);
            for v in block.as_chunks::<SIDE>().0 {
                if row == pixels.rows {
                    break;
                }
                if column < pixels.columns {
                    let at = pixels.at(row, column) + channel;
                    let mut v = L::load(v.as_ptr().add(done)).add(bias);
                    if let Some(residual) = end.residual {
                        v = v.add(get::<L>(residual.as_ptr().add(at), count));
                    }
                    if end.accumulate {
                        v = v.add(get::<L>(y.as_ptr().add(at), count));
                    }
                    if end.relu {
                        v = v.relu();
                    }
                    (added, squares) = (added.add(v), squares.fma(v, v));
                    put(v, y.as_mut_ptr().add(at), count);
                }
                column += 1;
                if column == pitch {
                    (row, column) = (row + 1, 0);
                }
            }
            if let Some((s, q)) = &mut sums {
                for (to, v) in [(s, added), (q, squares)] {
                    let to = to.as_mut_ptr().add(channel);
                    put(get::<L>(to, count).add(v), to, count);
                }
            }
        }
    }
}

per_isa! {
    /// Writes a block of sums to its output pixels, 32 places from `place` on and channels from `first` on.
    ///
    /// # Safety
    /// [`Sweep::check`] passed for `y`, `end` and `sums`.
    pub(super) fn finish(
        sweep: &Sweep,
        pitch: usize,
        place: usize,
        first: usize,
        block: &[f32; STEP],
        end: End,
        y: &mut [f32],
        sums: ChannelSums,
    ) = put_block
}
