//! Features that a pool makes, each stored several times and rounded from another part of a step: the heads add the copies
//! up in i32, so they read what a step [`COPIES`] times as fine would have left. In a small residual network the rounding
//! of the features is the largest part of what int8 changes, and they are the fewest numbers.

use super::assemble::{Linear, Quantisation, pool_scale};
use paradise_engine::Shape;
use paradise_engine::layer::Window;
use paradise_nn::graph::{Graph, Op};

/// How often each feature is stored.
pub const COPIES: usize = 4;

/// Whether a pool makes the features, they are one pixel and their copies fit; `shapes` are the graph's.
pub fn fits(graph: &Graph, shapes: &[Shape]) -> bool {
    let (Some(stage), Some(y)) = (graph.stages.last(), shapes.last()) else { return false };
    let whole = matches!(stage.op, Op::AvgPool { window } if window.pad == [0; 4]);
    whole && (y.h, y.w) == (1, 1) && usize::from(y.c) * COPIES <= usize::from(u16::MAX)
}

/// A pool of each of `channels` as a convolution in groups of one channel: its exact sums, [`COPIES`] of each side by side,
/// the `k`th moved by `(k + 1/2) / COPIES - 1/2` steps before it is rounded.
pub fn copied(channels: u16, window: &Window, x: Quantisation, y: Quantisation) -> Linear {
    let scale = pool_scale(x, y, window);
    let area: usize = window.kernel.iter().map(|k| usize::from(*k)).product();
    let zero = i32::from(x.zero_point) * area as i32;
    let moved = |k: usize| {
        let part = (k as f64 + 0.5) / COPIES as f64 - 0.5;
        (part / f64::from(scale)).round() as i32 - zero
    };
    let rows = usize::from(channels) * COPIES;
    Linear {
        weight: vec![1; rows * area],
        bias: (0..rows).map(|r| moved(r % COPIES)).collect(),
        scale: vec![scale; rows],
    }
}

/// A head over the copies: every weight as often as its feature is there.
pub fn repeated(head: &Linear) -> Linear {
    Linear {
        weight: head.weight.iter().flat_map(|w| [*w; COPIES]).collect(),
        bias: head.bias.iter().map(|b| b * COPIES as i32).collect(),
        scale: head.scale.iter().map(|s| s / COPIES as f32).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// From the definitions: a head over copies of a mean is nearer the exact one than a head over the rounded mean may be.
        #[test]
        fn the_heads_read_a_quarter_of_a_step(
            pixels in proptest::collection::vec(any::<i8>(), 2 * 16), weight in proptest::collection::vec(-127i8..=127, 2),
            bias in -1000i32..1000,
        ) {
            let (area, x) = (16, Quantisation { scale: 0.02, zero_point: -128 });
            let y = Quantisation { scale: 0.03, zero_point: -128 };
            let window = Window { kernel: [4; 2], stride: [1; 2], pad: [0; 4] };
            let pooled = copied(2, &window, x, y);
            prop_assert_eq!((pooled.weight.len(), pooled.bias.len()), (2 * COPIES * area, 2 * COPIES));
            let head = repeated(&Linear { weight: weight.clone(), bias: vec![bias], scale: vec![1.0] });
            let (mut acc, mut exact) = (head.bias[0], f64::from(bias));
            for c in 0..2 {
                let own = &pixels[c * area..(c + 1) * area];
                let mean = own.iter().map(|p| f64::from(*p) + 128.0).sum::<f64>() / area as f64;
                exact += f64::from(weight[c]) * (mean * 0.02 / 0.03 - 128.0);
                for k in 0..COPIES {
                    let row = c * COPIES + k;
                    let sum: i32 = own.iter().map(|p| i32::from(*p)).sum::<i32>() + pooled.bias[row];
                    let q = ((f64::from(sum) * f64::from(pooled.scale[row])).round() - 128.0).clamp(-128.0, 127.0);
                    acc += i32::from(head.weight[row]) * q as i32;
                }
            }
            let got = f64::from(acc) * f64::from(head.scale[0]);
            // An eighth of a step of each feature, and what the moves lose as integers.
            let slack = 0.125 + 0.5 * f64::from(pooled.scale[0]);
            let bound: f64 = weight.iter().map(|w| f64::from(*w).abs() * slack).sum();
            prop_assert!((got - exact).abs() <= bound + 1e-3, "{got} {exact} {bound}");
        }
    }
}
