//! How the inputs of linear maps spread together: the covariance that says which roundings of weights make up for another.

use super::observe::each_batch;
use crate::encoder::Encoder;
use anyhow::Result;
use candle_core::{Device, Tensor};
use paradise_data::Dataset;
use paradise_engine::Shape;
use paradise_engine::layer::Window;
use paradise_nn::graph::Op;

/// About so many inputs a map are looked at.
const INPUTS: usize = 32_768;

/// The covariance of the inputs of one group of rows, f64 `[width][width]`.
#[derive(Debug, Clone)]
pub struct Spread {
    /// Inputs of a row.
    pub width: usize,
    /// Row by row.
    pub covariance: Vec<f64>,
}

/// Sums over the inputs of one map.
struct Sums {
    shape: Shape,
    /// The window and groups of a convolution.
    conv: Option<(Window, usize)>,
    width: usize,
    n: f64,
    /// `[group][width]`.
    sum: Vec<Vec<f64>>,
    /// `[group][width][width]`.
    square: Vec<Vec<f64>>,
}

impl Sums {
    fn new(shape: Shape, conv: Option<(Window, usize)>) -> Self {
        let (groups, width) = match &conv {
            Some((window, groups)) => (
                *groups,
                window.kernel.iter().map(|k| usize::from(*k)).product::<usize>() * usize::from(shape.c) / groups,
            ),
            None => (1, shape.len() as usize),
        };
        let (sum, square) = (vec![vec![0.0; width]; groups], vec![vec![0.0; width * width]; groups]);
        Self { shape, conv, width, n: 0.0, sum, square }
    }

    /// Adds inputs f32 `[n][width]` of group `g`.
    fn add(&mut self, g: usize, inputs: Vec<f32>) -> Result<()> {
        for input in inputs.chunks_exact(self.width) {
            self.sum[g].iter_mut().zip(input).for_each(|(s, x)| *s += f64::from(*x));
        }
        let n = inputs.len() / self.width;
        let inputs = Tensor::from_vec(inputs, (n, self.width), &Device::Cpu)?;
        let square = inputs.t()?.matmul(&inputs)?.flatten_all()?.to_vec1::<f32>()?;
        self.square[g].iter_mut().zip(square).for_each(|(s, x)| *s += f64::from(x));
        if g == 0 {
            self.n += n as f64;
        }
        Ok(())
    }

    /// Adds what the map reads of one batch's activation; `each` output pixels an image, other ones in every image.
    fn look(&mut self, values: &[f32], each: usize) -> Result<()> {
        let Some((window, groups)) = self.conv else { return self.add(0, values.to_vec()) };
        let pixels = window.output(self.shape).map_or(0, |[h, w]| usize::from(h) * usize::from(w));
        let (taken, depth) = (each.clamp(1, pixels.max(1)), usize::from(self.shape.c) / groups);
        for g in 0..groups {
            let mut inputs = Vec::new();
            for (i, image) in values.chunks_exact(self.shape.len() as usize).enumerate() {
                // Steps of the golden ratio visit an image's pixels evenly whatever their number.
                let offset = (i as f64 * 0.618_033_988_749_895).fract();
                for k in 0..taken {
                    let at = ((k as f64 + offset) * pixels as f64 / taken as f64) as usize;
                    patch(image, self.shape, &window, at, g * depth..(g + 1) * depth, &mut inputs);
                }
            }
            self.add(g, inputs)?;
        }
        Ok(())
    }

    fn spreads(self) -> Vec<Spread> {
        let each = |(sum, square): (Vec<f64>, Vec<f64>)| {
            let mean: Vec<f64> = sum.iter().map(|s| s / self.n).collect();
            let centred = |(at, s): (usize, f64)| s / self.n - mean[at / self.width] * mean[at % self.width];
            Spread { width: self.width, covariance: square.into_iter().enumerate().map(centred).collect() }
        };
        self.sum.into_iter().zip(self.square).map(each).collect()
    }
}

/// Appends what output pixel `at` of a convolution reads of `channels`, `[kh][kw][channels]`, 0 outside.
pub fn patch(
    image: &[f32],
    shape: Shape,
    window: &Window,
    at: usize,
    channels: std::ops::Range<usize>,
    inputs: &mut Vec<f32>,
) {
    let Some([_, columns]) = window.output(shape) else { return };
    let (c, columns) = (usize::from(shape.c), usize::from(columns));
    let first = |axis: usize, at: usize| (at * usize::from(window.stride[axis])) as isize - window.pad[axis] as isize;
    let [top, left] = [first(0, at / columns), first(1, at % columns)];
    for y in top..top + window.kernel[0] as isize {
        for x in left..left + window.kernel[1] as isize {
            if (0..shape.h as isize).contains(&y) && (0..shape.w as isize).contains(&x) {
                let pixel = (y * shape.w as isize + x) as usize * c;
                inputs.extend_from_slice(&image[pixel + channels.start..pixel + channels.end]);
            } else {
                inputs.resize(inputs.len() + channels.len(), 0.0);
            }
        }
    }
}

/// For each stage that is a linear map and, last, for the heads: one spread a group of rows, over `set`.
///
/// # Errors
/// If the images do not fit.
pub fn spreads(encoder: &Encoder, set: &Dataset) -> Result<Vec<Vec<Spread>>> {
    let graph = &encoder.architecture.graph;
    let shapes = graph.shapes()?;
    let of = |i: usize| match graph.stages.get(i).map(|s| (&s.op, s.x)) {
        Some((Op::Conv { window, groups, .. }, x)) => Some((x, Sums::new(shapes[x], Some((*window, *groups))))),
        Some((Op::Dense { .. }, x)) => Some((x, Sums::new(shapes[x], None))),
        Some(_) => None,
        None => Some((i, Sums::new(shapes[i], None))),
    };
    let mut sums: Vec<Option<(usize, Sums)>> = (0..=graph.stages.len()).map(of).collect();
    let each = INPUTS.div_ceil(set.len().max(1));
    each_batch(encoder, set, &[], |a, values| {
        let mut reading = sums.iter_mut().flatten().filter(|(x, _)| *x == a);
        reading.try_for_each(|(_, sums)| sums.look(values, each))
    })?;
    Ok(sums.into_iter().map(|s| s.map_or_else(Vec::new, |(_, s)| s.spreads())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_is_what_a_convolution_reads() {
        // Two channels over 2 x 3 pixels; 3 x 3 window, a border of 1, stride 2.
        let shape = Shape::new(2, 3, 2);
        let image: Vec<f32> = (0..12).map(|v| v as f32).collect();
        let window = Window { kernel: [3; 2], stride: [2; 2], pad: [1; 4] };
        assert_eq!(window.output(shape), Some([1, 2]));
        let mut inputs = Vec::new();
        patch(&image, shape, &window, 1, 1..2, &mut inputs);
        assert_eq!(inputs, [0.0, 0.0, 0.0, 3.0, 5.0, 0.0, 9.0, 11.0, 0.0]);
    }

    #[test]
    fn the_covariance_is_that_of_the_inputs() {
        let shape = Shape::new(1, 1, 2);
        let mut sums = Sums::new(shape, None);
        sums.look(&[1.0, 2.0, 3.0, 6.0], 1).unwrap();
        sums.look(&[5.0, 1.0], 1).unwrap();
        // Means 3 and 3: variances 8/3 and 14/3, covariance (2 + 0 - 4) / 3.
        let [Spread { covariance, .. }] = &sums.spreads()[..] else { panic!() };
        for (got, exact) in covariance.iter().zip([8.0 / 3.0, -2.0 / 3.0, -2.0 / 3.0, 14.0 / 3.0]) {
            assert!((got - exact).abs() < 1e-6, "{covariance:?}");
        }
        // Groups of a convolution over one pixel each see their own channel.
        let mut sums = Sums::new(shape, Some((Window { kernel: [1; 2], stride: [1; 2], pad: [0; 4] }, 2)));
        sums.look(&[1.0, 2.0, 3.0, 6.0, 5.0, 1.0], 1).unwrap();
        let variances: Vec<f64> = sums.spreads().iter().map(|s| s.covariance[0]).collect();
        assert!((variances[0] - 8.0 / 3.0).abs() < 1e-6 && (variances[1] - 14.0 / 3.0).abs() < 1e-6);
    }
}
