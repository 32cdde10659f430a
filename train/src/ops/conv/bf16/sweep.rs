//! What one pass of products covers: a regular grid of output pixels that share their taps, the weights packed in the
//! order of the steps, and what becomes of the sums.

use super::planes::Planes;
use super::tiles::{SIDE, STEP};
use crate::ops::conv::{ChannelSums, End};
use crate::ops::lanes::{Lanes, bf16, get, per_isa, put};
use rayon::prelude::*;

/// Output pixels `(origin + out_step * k)` of one image that are computed from the same taps.
#[derive(Debug, Clone)]
pub(super) struct Sweep {
    pub rows: usize,
    pub columns: usize,
    pub origin: [usize; 2],
    pub out_step: [usize; 2],
    /// Width of the output image, and its channels.
    pub out_w: usize,
    pub channels: usize,
    /// Bytes from an output pixel's own place to what each step reads: blocks of channels, taps inside.
    pub offsets: Vec<usize>,
    /// Each tap's index in the weights, `ky * kw + kx`.
    pub tap_index: Vec<usize>,
}

impl Sweep {
    fn out_blocks(&self) -> usize {
        self.channels.div_ceil(SIDE)
    }

    /// bf16 of the packed weights.
    pub fn packed_len(&self) -> usize {
        self.out_blocks() * self.offsets.len() * STEP
    }

    /// Places from the first output pixel's to the last one's, and it.
    pub fn places(&self, pitch: usize) -> usize {
        if self.rows * self.columns == 0 { 0 } else { (self.rows - 1) * pitch + self.columns }
    }

    /// Offset of the output pixel at `row`, `column` of this sweep.
    fn output(&self, row: usize, column: usize) -> usize {
        let (y, x) = (self.origin[0] + row * self.out_step[0], self.origin[1] + column * self.out_step[1]);
        (y * self.out_w + x) * self.channels
    }

    /// Panics unless every access of a run stays inside its slice.
    pub fn check(&self, places: usize, planes: &Planes, packed: usize, y: usize, end: &End, sums: &ChannelSums) {
        if places == 0 {
            return;
        }
        let far = places.next_multiple_of(SIDE) * SIDE + self.offsets.iter().max().map_or(0, |o| o / 2);
        assert!(far <= planes.len() && packed >= self.packed_len(), "taps leave the image, or weights are missing");
        let last = self.output(self.rows - 1, self.columns - 1) + self.channels;
        assert!(last <= y && end.residual.is_none_or(|r| last <= r.len()), "output of {y} values, {last} needed");
        assert!(end.bias.is_none_or(|b| b.len() >= self.channels), "a bias for each channel");
        assert!(sums.as_ref().is_none_or(|(s, q)| s.len().min(q.len()) >= self.channels), "sums for each channel");
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
                    *to = if o < self.channels && i < depth { bf16(weight(o, tap, i)) } else { 0 };
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
    let valid = SIDE.min(sweep.channels - first);
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
                if row == sweep.rows {
                    break;
                }
                if column < sweep.columns {
                    let at = sweep.output(row, column) + channel;
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
