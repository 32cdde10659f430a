//! What the assembly computes, in Rust.

use super::geometry::{BLOCK, CONSTANTS, Geometry, LANES, PAIR};
use crate::kernel::ring::{Conv, Other};
use crate::kernel::scalar;

/// Four channels of a pixel.
pub fn sums(geometry: &Geometry, under: &[&[u32]], from: usize, record: &[u8]) -> [i32; BLOCK] {
    let word = |at: usize| i32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]]);
    let mut sums: [i32; BLOCK] = core::array::from_fn(|channel| word(4 * channel));
    let mut weights = record[CONSTANTS..].chunks_exact(LANES);
    for row in under {
        let row: &[i8] = bytemuck::cast_slice(row);
        for lanes in row[from..from + geometry.vectors * LANES].chunks_exact(LANES) {
            for (sum, weight) in sums.iter_mut().zip(&mut weights) {
                *sum += lanes.iter().zip(weight).map(|(x, w)| i32::from(*x) * i32::from(*w as i8)).sum::<i32>();
            }
        }
    }
    sums
}

/// Pairs of pixels from `first` on, to int8 `[pixels][channels]`.
pub fn run(conv: &Conv, geometry: &Geometry, under: &[&[u32]], first: usize, other: Other, y: &mut [i8]) {
    let channels = usize::from(conv.shapes[1].c);
    for (pixel, y) in y.chunks_exact_mut(channels).enumerate() {
        let from = (PAIR * first + pixel) * geometry.step;
        for (block, record) in conv.weight.chunks_exact(geometry.record()).enumerate() {
            let sums = sums(geometry, under, from, record);
            for (channel, acc) in sums.into_iter().enumerate() {
                let at = 4 * (BLOCK + channel);
                let scale = f32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]]);
                let own = conv.out.requantise(acc, scale);
                let at = block * BLOCK + channel;
                y[at] = match (&conv.sum, other) {
                    (None, _) => own,
                    (Some(sum), other) => {
                        let b = if let Other::At(other) = other { other[pixel * channels + at] } else { y[at] };
                        scalar::sum(own, b, [conv.out.zero() as i8, sum.zero], sum.ratio, &sum.out)
                    }
                };
            }
        }
    }
}

/// Copies a row.
pub fn copy(from: &[i8], to: &mut [i8]) {
    to.copy_from_slice(from);
}
