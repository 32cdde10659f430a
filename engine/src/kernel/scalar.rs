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
    #[cfg(all(feature = "mve", target_arch = "arm"))]
    return super::mve::dot(a, b);
    #[cfg(all(feature = "dsp", not(feature = "mve"), target_arch = "arm"))]
    return super::dsp::dot(a, b);
    #[cfg(not(all(any(feature = "dsp", feature = "mve"), target_arch = "arm")))]
    a.iter().zip(b).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum()
}

/// Exact i32 dot product of slices whose whole groups of `lanes` values `groups(how many)` multiplies, the rest one by one.
#[cfg(all(any(feature = "dsp", feature = "mve"), target_arch = "arm"))]
pub(crate) fn dot_in_groups(a: &[i8], b: &[i8], lanes: usize, groups: impl FnOnce(usize) -> i32) -> i32 {
    let len = a.len().min(b.len());
    let rest = len / lanes * lanes..len;
    let sum: i32 = a[rest.clone()].iter().zip(&b[rest]).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum();
    if len < lanes { sum } else { sum + groups(len / lanes) }
}

/// `rounds` dot products of 4,096 values; returns the number of products.
pub fn multiply_at_peak(rounds: u32) -> u64 {
    const LEN: usize = 4096;
    let values = core::hint::black_box([1i8; LEN]);
    for _ in 0..rounds {
        core::hint::black_box(dot(core::hint::black_box(&values), &values));
    }
    u64::from(rounds) * LEN as u64
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

/// `quantise(f32(a - zero[0]) * ratio[0] + f32(b - zero[1]) * ratio[1])`.
#[inline(always)]
pub(crate) fn sum(a: i8, b: i8, zero: [i8; 2], ratio: [f32; 2], out: &Output) -> i8 {
    let left = (i32::from(a) - i32::from(zero[0])) as f32 * ratio[0];
    let right = (i32::from(b) - i32::from(zero[1])) as f32 * ratio[1];
    out.quantise(left + right)
}

/// `y = quantise(f32(a - zero[0]) * ratio[0] + f32(b - zero[1]) * ratio[1])`.
pub fn add(a: &[i8], b: &[i8], zero: [i8; 2], ratio: [f32; 2], out: Output, y: &mut [i8]) {
    for ((a, b), y) in a.iter().zip(b).zip(y) {
        *y = sum(*a, *b, zero, ratio, &out);
    }
}

/// [`add`] in the first operand's place.
pub fn add_in_place(a: &mut [i8], b: &[i8], zero: [i8; 2], ratio: [f32; 2], out: Output) {
    for (a, b) in a.iter_mut().zip(b) {
        *a = sum(*a, *b, zero, ratio, &out);
    }
}

/// Calls `emit(first output, first input inside the window, [rows, columns] of it)` for every output pixel of a pool.
fn pool(
    Source { shape, .. }: Source,
    window: &Window,
    [out_h, out_w]: [usize; 2],
    mut emit: impl FnMut(usize, usize, [usize; 2]),
) {
    let (h, w, c) = (shape.h as usize, shape.w as usize, shape.c as usize);
    for oy in 0..out_h {
        let (first_y, inside_y) = window.taps(0, oy, h);
        for ox in 0..out_w {
            let (first_x, inside_x) = window.taps(1, ox, w);
            let [top, left] = [first_y + inside_y.start as isize, first_x + inside_x.start as isize];
            // Where no input is inside, the first may be anywhere.
            let at = (top.max(0) as usize * w + left.max(0) as usize) * c;
            emit((oy * out_w + ox) * c, at, [inside_y.len(), inside_x.len()]);
        }
    }
}

/// `fold` over `[rows][columns]` inputs of one channel, the first at `at`.
fn over<T: Copy>(source: &Source, at: usize, [rows, columns]: [usize; 2], start: T, fold: impl Fn(T, i8) -> T) -> T {
    let (w, c) = (source.shape.w as usize, source.shape.c as usize);
    let mut value = start;
    for row in 0..rows {
        for column in 0..columns {
            value = fold(value, source.x[at + (row * w + column) * c]);
        }
    }
    value
}

/// `y = requantise(sum (x - zero), scale)`; padding contributes 0.
pub fn avg_pool(source: Source, window: &Window, scale: f32, target: Target) {
    let Target { y, extent, out } = target;
    let (zero, c) = (i32::from(source.zero), source.shape.c as usize);
    pool(source, window, extent, |to, at, inside| {
        let zeros = (inside[0] * inside[1]) as i32 * zero;
        let whole = means(&source, at, inside, (zeros, scale, out), &mut y[to..to + c]);
        for channel in whole..c {
            let sum = over(&source, at + channel, inside, 0, |sum, q| sum + i32::from(q));
            y[to + channel] = out.requantise(sum - zeros, scale);
        }
    });
}

/// The means of a pool's leading channels by the chip's instructions, where it has some; how many those are.
#[cfg_attr(not(all(any(feature = "dsp", feature = "mve"), target_arch = "arm")), allow(unused_variables))]
#[inline(always)]
fn means(source: &Source, at: usize, inside: [usize; 2], how: (i32, f32, Output), y: &mut [i8]) -> usize {
    #[cfg(all(any(feature = "dsp", feature = "mve"), target_arch = "arm"))]
    {
        let (w, c) = (source.shape.w as usize, source.shape.c as usize);
        const LANES: usize = if cfg!(feature = "mve") { 16 } else { 4 };
        let mut first = 0;
        for y in y.chunks_exact_mut(LANES) {
            let x = source.x.get(at + first..).unwrap_or(&[]);
            #[cfg(feature = "mve")]
            super::mve::means(x, inside, [c, w * c], how, y);
            #[cfg(not(feature = "mve"))]
            for (y, sum) in y.iter_mut().zip(super::dsp::sums(x, inside, [c, w * c])) {
                let (zeros, scale, out) = how;
                *y = out.requantise(sum - zeros, scale);
            }
            first += LANES;
        }
        first
    }
    #[cfg(not(all(any(feature = "dsp", feature = "mve"), target_arch = "arm")))]
    0
}

/// `y = max x` over the window's elements inside the input.
pub fn max_pool(source: Source, window: &Window, y: &mut [i8], extent: [usize; 2]) {
    let c = source.shape.c as usize;
    pool(source, window, extent, |to, at, inside| {
        for channel in 0..c {
            y[to + channel] = over(&source, at + channel, inside, i8::MIN, i8::max);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    extern crate std;
    use std::vec::Vec;

    /// Round half to even of an exact real, clamped: the definition, in f64 from the f32 product.
    fn quantised(value: f32, zero: i8) -> i8 {
        let clamped = f64::from(value).clamp(-128.0 - f64::from(zero), 127.0 - f64::from(zero));
        (libm::rint(clamped) + f64::from(zero)) as i8
    }

    fn bytes(n: usize, seed: u64) -> Vec<i8> {
        let mut state = seed;
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                match state >> 61 {
                    0 => -127,
                    1 => 127,
                    _ => ((state >> 33) % 255) as i8,
                }
            })
            .map(|v| v.max(-127))
            .collect()
    }

    /// The padded input's value, read one at a time.
    fn at(source: &Source, y: isize, x: isize, c: usize) -> Option<i8> {
        let (h, w) = (source.shape.h as isize, source.shape.w as isize);
        let inside = (0..h).contains(&y) && (0..w).contains(&x);
        inside.then(|| source.x[((y * w + x) as usize) * source.shape.c as usize + c])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn convolution_and_pools_equal_their_definitions(
            h in 1u16..8, w in 1u16..8, per_in in 1usize..4, per_out in 1usize..4, groups in 1usize..4,
            kernel in [1u16..5, 1u16..5], stride in [1u16..4, 1u16..4], pad in [0u16..5, 0u16..5, 0u16..5, 0u16..5],
            zeros in any::<[i8; 2]>(), scale in 1e-4f32..1e-1, seed: u64,
        ) {
            let (c, out) = (per_in * groups, per_out * groups);
            let shape = Shape::new(h, w, c as u16);
            let window = Window { kernel, stride, pad };
            let Some(extent) = window.output(shape) else { return Ok(()) };
            let extent = extent.map(usize::from);
            let (kh, kw) = (kernel[0] as usize, kernel[1] as usize);
            let x = bytes(shape.len() as usize, seed);
            let weight = bytes(out * kh * kw * per_in, seed ^ 1);
            let bias: Vec<u8> = (0..out as i32).flat_map(|o| (o * 517 - 900).to_le_bytes()).collect();
            let scales: Vec<u8> = (0..out).flat_map(|o| (scale * (1.0 + o as f32)).to_le_bytes()).collect();
            let rows = Rows { weight: &weight, bias: Le::new(&bias), scale: Le::new(&scales) };
            let source = Source { x: &x, shape, zero: zeros[0] };
            let clamp = Output::new(zeros[1], false);
            let mut y = std::vec![0; extent[0] * extent[1] * out];
            conv(source, &window, groups, rows, Target { y: &mut y, extent, out: clamp });
            let mut mean = std::vec![0; extent[0] * extent[1] * c];
            avg_pool(source, &window, scale, Target { y: &mut mean, extent, out: clamp });
            let mut most = mean.clone();
            max_pool(source, &window, &mut most, extent);
            for pixel in 0..extent[0] * extent[1] {
                let top = (pixel / extent[1] * stride[0] as usize) as isize - pad[0] as isize;
                let left = (pixel % extent[1] * stride[1] as usize) as isize - pad[1] as isize;
                let taps = || (0..kh * kw).map(|k| (k, top + (k / kw) as isize, left + (k % kw) as isize));
                for o in 0..out {
                    let mut acc = i64::from(rows.bias.at(o));
                    for (k, row, column) in taps() {
                        for i in 0..per_in {
                            let q = at(&source, row, column, o / per_out * per_in + i).unwrap_or(zeros[0]);
                            acc += i64::from(q) * i64::from(weight[(o * kh * kw + k) * per_in + i]);
                        }
                    }
                    prop_assert_eq!(y[pixel * out + o], quantised(acc as f32 * rows.scale.at(o), zeros[1]));
                }
                for i in 0..c {
                    let inside: Vec<i8> = taps().filter_map(|(_, row, column)| at(&source, row, column, i)).collect();
                    let sum: i64 = inside.iter().map(|&q| i64::from(q) - i64::from(zeros[0])).sum();
                    prop_assert_eq!(mean[pixel * c + i], quantised(sum as f32 * scale, zeros[1]));
                    prop_assert_eq!(most[pixel * c + i], inside.iter().copied().max().unwrap_or(i8::MIN));
                }
            }
        }

        #[test]
        fn dense_affine_and_add_equal_their_definitions(
            n in 1usize..71, rows_n in 1usize..5, zeros in any::<[i8; 3]>(), seed: u64, ratio in [0.01f32..3.0, 0.01f32..3.0],
        ) {
            let (a, b, weight) = (bytes(n, seed), bytes(n, seed ^ 1), bytes(n * rows_n, seed ^ 2));
            let bias: Vec<u8> = (0..rows_n as i32).flat_map(|o| (300 - o * 77).to_le_bytes()).collect();
            let scales: Vec<u8> = (0..rows_n).flat_map(|_| (ratio[0] * 1e-3).to_le_bytes()).collect();
            let rows = Rows { weight: &weight, bias: Le::new(&bias), scale: Le::new(&scales) };
            let clamp = Output::new(zeros[2], false);
            let mut y = std::vec![0; rows_n];
            dense(&a, rows, clamp, &mut y);
            let mut real = std::vec![0.0; rows_n];
            head(&a, rows, &mut real);
            for o in 0..rows_n {
                let products = (0..n).map(|i| i64::from(a[i]) * i64::from(weight[o * n + i]));
                let acc = products.sum::<i64>() + i64::from(rows.bias.at(o));
                prop_assert_eq!(y[o], quantised(acc as f32 * rows.scale.at(o), zeros[2]));
                prop_assert_eq!(real[o], acc as f32 * rows.scale.at(o));
            }
            let mut sum = std::vec![0; n];
            add(&a, &b, [zeros[0], zeros[1]], ratio, clamp, &mut sum);
            let mut there = a.clone();
            add_in_place(&mut there, &b, [zeros[0], zeros[1]], ratio, clamp);
            prop_assert_eq!(&there, &sum);
            let constants: Vec<u8> = (0..n).flat_map(|i| (ratio[1] - i as f32 * 0.1).to_le_bytes()).collect();
            let mut mapped = std::vec![0; n];
            affine(&a, zeros[0], Le::new(&constants), Le::new(&constants), clamp, &mut mapped);
            for i in 0..n {
                let (p, q) = (f32::from(a[i]) - f32::from(zeros[0]), f32::from(b[i]) - f32::from(zeros[1]));
                prop_assert_eq!(sum[i], quantised(p * ratio[0] + q * ratio[1], zeros[2]));
                let constant = ratio[1] - i as f32 * 0.1;
                prop_assert_eq!(mapped[i], quantised(p * constant + constant, zeros[2]));
            }
        }
    }
}
