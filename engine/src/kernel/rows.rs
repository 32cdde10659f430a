//! Element-wise operations and pools over grids, row by row: the scalar kernels' formulas, written so that a compiler turns
//! them into vectors. Equal to [`super::scalar`] bit for bit.

use super::grid::Grid;
use crate::layer::Window;
use crate::requant::Output;
use crate::tensor::Le;

/// A stored byte less its zero point, as f32.
#[inline(always)]
fn centred(byte: u8, flip: u8, zero: i32) -> f32 {
    (i32::from((byte ^ flip) as i8) - zero) as f32
}

/// The value that a grid's zero byte stands for.
fn zero(grid: &Grid, flip: u8) -> i32 {
    i32::from((grid.zero ^ flip) as i8)
}

/// [`super::scalar::affine`]; each grid with its own bytes.
#[inline(always)]
pub fn affine(x: (&Grid, &[u8]), flip: u8, [mul, add]: [Le<f32>; 2], out: Output, y: (&Grid, &mut [u8])) {
    let zero = zero(x.0, flip);
    let c = mul.len();
    for (x, y) in x.0.rows(x.1).zip(y.0.rows_mut(y.1)) {
        for (x, y) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)) {
            for (((x, y), mul), add) in x.iter().zip(y).zip(mul.iter()).zip(add.iter()) {
                let scaled = centred(*x, flip, zero) * mul;
                *y = out.quantise(scaled + add) as u8 ^ flip;
            }
        }
    }
}

/// [`super::scalar::add`]; each grid with its own bytes.
#[inline(always)]
pub fn add([a, b]: [(&Grid, &[u8]); 2], flip: u8, ratio: [f32; 2], out: Output, y: (&Grid, &mut [u8])) {
    let zeros = [zero(a.0, flip), zero(b.0, flip)];
    for ((a, b), y) in a.0.rows(a.1).zip(b.0.rows(b.1)).zip(y.0.rows_mut(y.1)) {
        for ((a, b), y) in a.iter().zip(b).zip(y) {
            let left = centred(*a, flip, zeros[0]) * ratio[0];
            let right = centred(*b, flip, zeros[1]) * ratio[1];
            *y = out.quantise(left + right) as u8 ^ flip;
        }
    }
}

/// Channels that are summed side by side.
const WIDE: usize = 64;

/// [`super::scalar::avg_pool`]; each grid with its own bytes.
#[inline(always)]
pub fn avg_pool(x: (&Grid, &[u8]), flip: u8, window: &Window, scale: f32, out: Output, y: (&Grid, &mut [u8])) {
    let shape = x.0.shape;
    let (h, w, c) = (shape.h as usize, shape.w as usize, shape.c as usize);
    let zero = zero(x.0, flip);
    for (row, y) in y.0.rows_mut(y.1).enumerate() {
        let (first_y, inside_y) = window.taps(0, row, h);
        for (column, y) in y.chunks_exact_mut(c).enumerate() {
            let (first_x, inside_x) = window.taps(1, column, w);
            for (first, y) in (0..c).step_by(WIDE).zip(y.chunks_mut(WIDE)) {
                let mut sums = [0i32; WIDE];
                let mut count = 0;
                for x in x.0.rows(x.1).skip((first_y + inside_y.start as isize) as usize).take(inside_y.len()) {
                    let left = (first_x + inside_x.start as isize) as usize;
                    for pixel in x.chunks_exact(c).skip(left).take(inside_x.len()) {
                        count += 1;
                        for (sum, byte) in sums.iter_mut().zip(&pixel[first..c.min(first + WIDE)]) {
                            *sum += i32::from((byte ^ flip) as i8);
                        }
                    }
                }
                for (sum, y) in sums.iter().zip(y) {
                    *y = out.requantise(sum - count * zero, scale) as u8 ^ flip;
                }
            }
        }
    }
}

/// [`super::scalar::max_pool`]; each grid with its own bytes.
#[inline(always)]
pub fn max_pool(x: (&Grid, &[u8]), flip: u8, window: &Window, y: (&Grid, &mut [u8])) {
    let shape = x.0.shape;
    let (h, w, c) = (shape.h as usize, shape.w as usize, shape.c as usize);
    for (row, y) in y.0.rows_mut(y.1).enumerate() {
        let (first_y, inside_y) = window.taps(0, row, h);
        y.fill(i8::MIN as u8 ^ flip);
        for x in x.0.rows(x.1).skip((first_y + inside_y.start as isize) as usize).take(inside_y.len()) {
            for (column, y) in y.chunks_exact_mut(c).enumerate() {
                let (first_x, inside_x) = window.taps(1, column, w);
                let left = (first_x + inside_x.start as isize) as usize;
                for pixel in x.chunks_exact(c).skip(left).take(inside_x.len()) {
                    for (most, byte) in y.iter_mut().zip(pixel) {
                        *most = ((*most ^ flip) as i8).max((byte ^ flip) as i8) as u8 ^ flip;
                    }
                }
            }
        }
    }
}
