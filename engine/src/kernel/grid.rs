//! How fast kernels keep an activation: NHWC rows inside a border that holds the zero point, so that a convolution reads
//! its taps in place. Bytes are the int8 values with `flip` xored in: 0x80 where inputs must be unsigned, 0 elsewhere.

use crate::tensor::Shape;
use core::ops::Range;

/// Where an activation's pixels lie in the memory of an inference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// First byte of pixel (0, 0).
    pub at: usize,
    /// Bytes from a row to the next.
    pub pitch: usize,
}

/// An activation and its border in the memory of an inference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Extents without the border.
    pub shape: Shape,
    /// Rows and columns of border: top, left, bottom, right.
    pub pad: [usize; 4],
    /// First byte of the border.
    pub at: usize,
    /// The byte that stands for 0, flipped.
    pub zero: u8,
}

impl Grid {
    /// Bytes from a row to the next.
    pub fn pitch(&self) -> usize {
        (self.shape.w as usize + self.pad[1] + self.pad[3]).saturating_mul(self.shape.c as usize)
    }

    /// Bytes with the border.
    pub fn len(&self) -> usize {
        (self.shape.h as usize + self.pad[0] + self.pad[2]).saturating_mul(self.pitch())
    }

    /// The pixels of a window whose first row and column lie `top` and `left` before the activation's.
    ///
    /// # Panics
    /// If the border is narrower.
    pub fn before(&self, top: usize, left: usize) -> View {
        assert!(top <= self.pad[0] && left <= self.pad[1], "a border of {:?}, not {top} and {left}", self.pad);
        let pitch = self.pitch();
        let at = self.at + (self.pad[0] - top) * pitch + (self.pad[1] - left) * self.shape.c as usize;
        View { at, pitch }
    }

    /// The activation's own pixels.
    pub fn inside(&self) -> View {
        self.before(0, 0)
    }

    /// Its bytes, border included.
    pub fn range(&self) -> Range<usize> {
        self.at..self.at + self.len()
    }

    /// Fills the border with the zero point.
    pub fn fill_border(&self, memory: &mut [u8]) {
        if self.pad == [0; 4] {
            return;
        }
        let (pitch, c) = (self.pitch(), self.shape.c as usize);
        let own = &mut memory[self.range()];
        let (row, sides) = (self.shape.w as usize * c, (self.pad[1] + self.pad[3]) * c);
        let first = self.pad[0] * pitch + self.pad[1] * c;
        let last = first + (self.shape.h as usize - 1) * pitch + row;
        own[..first].fill(self.zero);
        // A row's end and the next one's beginning lie side by side.
        for end in (first + row..last).step_by(pitch) {
            own[end..end + sides].fill(self.zero);
        }
        own[last..].fill(self.zero);
    }

    /// First byte of pixel (0, 0) among its own bytes, and bytes of a row's pixels.
    fn inner(&self) -> [usize; 2] {
        [self.inside().at - self.at, self.shape.w as usize * self.shape.c as usize]
    }

    /// The rows of pixels among its own bytes.
    pub fn rows<'m>(&self, own: &'m [u8]) -> impl Iterator<Item = &'m [u8]> + use<'m> {
        let [first, row] = self.inner();
        own[first..].chunks(self.pitch()).take(self.shape.h as usize).map(move |r| &r[..row])
    }

    /// The rows of pixels among its own bytes, to write.
    pub fn rows_mut<'m>(&self, own: &'m mut [u8]) -> impl Iterator<Item = &'m mut [u8]> + use<'m> {
        let [first, row] = self.inner();
        own[first..].chunks_mut(self.pitch()).take(self.shape.h as usize).map(move |r| &mut r[..row])
    }

    /// Copies int8 NHWC values in.
    #[cfg(test)]
    pub fn write(&self, memory: &mut [u8], flip: u8, x: &[i8]) {
        let [_, row] = self.inner();
        for (to, x) in self.rows_mut(&mut memory[self.range()]).zip(x.chunks_exact(row)) {
            to.iter_mut().zip(x).for_each(|(to, x)| *to = *x as u8 ^ flip);
        }
    }

    /// Copies int8 NHWC values out.
    pub fn read(&self, memory: &[u8], flip: u8, x: &mut [i8]) {
        let [_, row] = self.inner();
        for (from, x) in self.rows(&memory[self.range()]).zip(x.chunks_exact_mut(row)) {
            x.iter_mut().zip(from).for_each(|(x, from)| *x = (from ^ flip) as i8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{vec, vec::Vec};

    proptest! {
        #[test]
        fn what_was_written_is_read_inside_its_border(
            h in 1u16..6, w in 1u16..6, c in 1u16..6, pad in [0usize..4, 0usize..4, 0usize..4, 0usize..4], at in 0usize..9,
        ) {
            let shape = Shape::new(h, w, c);
            let grid = Grid { shape, pad, at, zero: 0xee };
            let mut memory = vec![0x11; at + grid.len() + 3];
            let x: Vec<i8> = (0..shape.len()).map(|i| (i % 90) as i8).collect();
            grid.fill_border(&mut memory);
            grid.write(&mut memory, 0x80, &x);
            let mut back = vec![0; x.len()];
            grid.read(&memory, 0x80, &mut back);
            prop_assert_eq!(&back, &x);
            // Every byte counted by its place: border, pixel, or outside.
            let pixel = |y: usize, x: usize, i: usize| (y * w as usize + x) * c as usize + i;
            for row in 0..h as usize + pad[0] + pad[2] {
                for column in 0..w as usize + pad[1] + pad[3] {
                    for i in 0..c as usize {
                        let byte = memory[at + (row * (w as usize + pad[1] + pad[3]) + column) * c as usize + i];
                        let inside = (pad[0]..pad[0] + h as usize).contains(&row)
                            && (pad[1]..pad[1] + w as usize).contains(&column);
                        let want = if inside { x[pixel(row - pad[0], column - pad[1], i)] as u8 ^ 0x80 } else { 0xee };
                        prop_assert_eq!(byte, want);
                    }
                }
            }
            prop_assert!(memory[..at].iter().chain(&memory[at + grid.len()..]).all(|b| *b == 0x11));
        }
    }
}
