//! What the assembly computes, in Rust: for cores without the instructions, and to test the layout on any machine.

use crate::kernel::dsp::geometry::{CONSTANTS, GROUP, Geometry, Taps};
use crate::kernel::ring::{Conv, Other};
use crate::kernel::scalar;

/// A convolution whose groups are run.
#[derive(Debug)]
pub struct Group<'a> {
    conv: &'a Conv<'a>,
    geometry: &'a Geometry,
}

impl<'a> Group<'a> {
    /// Of a convolution.
    pub fn new(conv: &'a Conv<'a>, geometry: &'a Geometry) -> Self {
        Self { conv, geometry }
    }

    /// From the words under each kernel row to int8 `[8][channels]`.
    pub fn run(&mut self, rows: &[&[u32]], other: Other, y: &mut [i8]) {
        let (Conv { weight, out, sum, shapes, .. }, geometry) = (self.conv, self.geometry);
        let channels = usize::from(shapes[1].c);
        for (o, record) in weight.chunks_exact(geometry.record()).enumerate() {
            let word = |at: usize| [record[at], record[at + 1], record[at + 2], record[at + 3]];
            let (bias, scale) = (i32::from_le_bytes(word(0)), f32::from_le_bytes(word(4)));
            let sums = sums(geometry, rows, &record[CONSTANTS..], bias);
            for (i, acc) in sums.iter().enumerate() {
                let at = i * channels + o;
                let own = out.requantise(*acc, scale);
                y[at] = match (sum, other) {
                    (None, _) => own,
                    (Some(sum), other) => {
                        let b = if let Other::At(other) = other { other[at] } else { y[at] };
                        scalar::sum(own, b, [out.zero() as i8, sum.zero], sum.ratio, &sum.out)
                    }
                };
            }
        }
    }
}

/// The eight sums of one channel.
fn sums(geometry: &Geometry, rows: &[&[u32]], weight: &[u8], bias: i32) -> [i32; GROUP] {
    let mut sums = [bias; GROUP];
    let block = geometry.block();
    let (taps, stride) = match geometry.taps {
        Taps::Three => (3, geometry.stride),
        Taps::Runs => (1, 1),
    };
    let mut quads = weight.chunks_exact(geometry.quad_bytes());
    for row in rows {
        for (planes, quad) in row.chunks_exact(2 * block).zip(&mut quads) {
            let tap = |plane: usize, t: usize| {
                [plane, plane + 2].map(|channel| i32::from(quad[geometry.place(channel, t)] as i8))
            };
            for (plane, words) in planes.chunks_exact(block).enumerate() {
                for t in 0..taps {
                    let [a, b] = tap(plane, t);
                    for (i, sum) in sums.iter_mut().enumerate() {
                        let word = words[i * stride + t];
                        *sum += i32::from(word as i16) * a + i32::from((word >> 16) as i16) * b;
                    }
                }
            }
        }
    }
    sums
}
