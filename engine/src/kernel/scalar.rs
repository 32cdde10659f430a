//! The scalar kernels: plain loops, the definition of every operation's bits.
//!
//! All slices are NHWC with N = 1 and have been checked against the shapes by `validate`; a wrong length panics.

use crate::layer::Window;
use crate::requant::Output;
use crate::tensor::{Le, Shape};

/// Weights, folded biases and scales of an integer linear map, one row an output.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// i8 `[rows][width]`.
    pub weight: &'a [i8],
    /// i32 `[rows]`.
    pub bias: Le<'a, i32>,
    /// f32 `[rows]`.
    pub scale: Le<'a, f32>,
}

/// An int8 input with its extents and the value that stands for 0, which is also what lies outside it.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// i8 `[h][w][c]`.
    pub x: &'a [i8],
    /// Extents.
    pub shape: Shape,
    /// Zero point.
    pub zero: i8,
}

/// Where an int8 output goes and how it is rounded.
#[derive(Debug)]
pub struct Target<'a> {
    /// i8 `[h][w][channels]`.
    pub y: &'a mut [i8],
    /// Rows and columns.
    pub extent: [usize; 2],
    /// Clamp and zero point.
    pub out: Output,
}

/// Exact i32 dot product of equally long slices.
#[inline(always)]
fn dot(a: &[i8], b: &[i8]) -> i32 {
    a.iter().zip(b).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum()
}

/// Exact i32 sum.
#[inline(always)]
fn total(taps: &[i8]) -> i32 {
    taps.iter().map(|&t| i32::from(t)).sum()
}

/// `y[o] = requantise(bias[o] + sum x * w, scale[o])` with weights `[out][kh][kw][in / groups]`; outside the input lies
/// its zero point.
pub fn conv(source: Source, window: &Window, groups: usize, rows: Rows, target: Target) {
    let Source { x, shape, zero } = source;
    let Target { y, extent: [out_h, out_w], out } = target;
    let (h, w, c) = (shape.h as usize, shape.w as usize, shape.c as usize);
    let (kernel_h, kernel_w) = (window.kernel[0] as usize, window.kernel[1] as usize);
    let depth = c / groups;
    let channels = rows.bias.len();
    let per_group = channels / groups;
    let row_len = kernel_h * kernel_w * depth;
    for oy in 0..out_h {
        let (first_y, inside_y) = window.taps(0, oy, h);
        for ox in 0..out_w {
            let (first_x, inside_x) = window.taps(1, ox, w);
            let pixel = (oy * out_w + ox) * channels;
            for o in 0..channels {
                let filter = &rows.weight[o * row_len..][..row_len];
                let group = o / per_group * depth;
                let mut acc = rows.bias.at(o);
                for (ky, taps) in filter.chunks_exact(kernel_w * depth).enumerate() {
                    if !inside_y.contains(&ky) || inside_x.is_empty() {
                        acc += i32::from(zero) * total(taps);
                        continue;
                    }
                    let (from, to) = (inside_x.start, inside_x.end);
                    acc += i32::from(zero) * (total(&taps[..from * depth]) + total(&taps[to * depth..]));
                    let row = (first_y + ky as isize) as usize * w;
                    let pixels = &x[(row + (first_x + from as isize) as usize) * c..][..(to - from) * c];
                    let taps = &taps[from * depth..to * depth];
                    if groups == 1 {
                        // All channels of neighbouring pixels lie side by side, as their weights do.
                        acc += dot(pixels, taps);
                    } else {
                        for (pixel, taps) in pixels.chunks_exact(c).zip(taps.chunks_exact(depth)) {
                            acc += dot(&pixel[group..][..depth], taps);
                        }
                    }
                }
                y[pixel + o] = out.requantise(acc, rows.scale.at(o));
            }
        }
    }
}

/// `y[o] = requantise(bias[o] + sum_i x[i] w[o][i], scale[o])`.
pub fn dense(x: &[i8], rows: Rows, out: Output, y: &mut [i8]) {
    for (o, (y, filter)) in y.iter_mut().zip(rows.weight.chunks_exact(x.len())).enumerate() {
        *y = out.requantise(rows.bias.at(o) + dot(x, filter), rows.scale.at(o));
    }
}

/// A head: `y[o] = f32(bias[o] + sum_i x[i] w[o][i]) * scale[o]`.
pub fn head(x: &[i8], rows: Rows, y: &mut [f32]) {
    for (o, (y, filter)) in y.iter_mut().zip(rows.weight.chunks_exact(x.len())).enumerate() {
        *y = (rows.bias.at(o) + dot(x, filter)) as f32 * rows.scale.at(o);
    }
}

/// `y = quantise(f32(x - zero) * mul[c] + add[c])`, each step one f32 operation.
pub fn affine(x: &[i8], zero: i8, mul: Le<f32>, add: Le<f32>, out: Output, y: &mut [i8]) {
    for (x, y) in x.chunks_exact(mul.len()).zip(y.chunks_exact_mut(mul.len())) {
        for (c, (x, y)) in x.iter().zip(y).enumerate() {
            let centred = (i32::from(*x) - i32::from(zero)) as f32;
            let scaled = centred * mul.at(c);
            *y = out.quantise(scaled + add.at(c));
        }
    }
}

/// `y = quantise(f32(a - zero[0]) * ratio[0] + f32(b - zero[1]) * ratio[1])`.
pub fn add(a: &[i8], b: &[i8], zero: [i8; 2], ratio: [f32; 2], out: Output, y: &mut [i8]) {
    for ((a, b), y) in a.iter().zip(b).zip(y) {
        let left = (i32::from(*a) - i32::from(zero[0])) as f32 * ratio[0];
        let right = (i32::from(*b) - i32::from(zero[1])) as f32 * ratio[1];
        *y = out.quantise(left + right);
    }
}

/// Calls `emit(output index, inputs inside the window)` for every output of a pool.
fn pool(
    source: Source,
    window: &Window,
    [out_h, out_w]: [usize; 2],
    mut emit: impl FnMut(usize, &mut dyn Iterator<Item = i8>),
) {
    let Source { x, shape, .. } = source;
    let (h, w, c) = (shape.h as usize, shape.w as usize, shape.c as usize);
    for oy in 0..out_h {
        let (first_y, inside_y) = window.taps(0, oy, h);
        for ox in 0..out_w {
            let (first_x, inside_x) = window.taps(1, ox, w);
            for channel in 0..c {
                let mut inputs = inside_y.clone().flat_map(|ky| {
                    let row = (first_y + ky as isize) as usize * w;
                    inside_x.clone().map(move |kx| x[(row + (first_x + kx as isize) as usize) * c + channel])
                });
                emit((oy * out_w + ox) * c + channel, &mut inputs);
            }
        }
    }
}

/// `y = requantise(sum (x - zero), scale)`; padding contributes 0.
pub fn avg_pool(source: Source, window: &Window, scale: f32, target: Target) {
    let Target { y, extent, out } = target;
    pool(source, window, extent, |at, inputs| {
        let sum: i32 = inputs.map(|q| i32::from(q) - i32::from(source.zero)).sum();
        y[at] = out.requantise(sum, scale);
    });
}

/// `y = max x` over the window's elements inside the input.
pub fn max_pool(source: Source, window: &Window, y: &mut [i8], extent: [usize; 2]) {
    pool(source, window, extent, |at, inputs| y[at] = inputs.max().unwrap_or(i8::MIN));
}
