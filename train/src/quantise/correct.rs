//! Bias correction (Nagel et al., 2019): rounding weights moves the mean of an output, and the bias moves it back.

use super::spread::patch;
use paradise_engine::Shape;
use paradise_engine::layer::Window;

/// The mean input of every tap of a convolution over its output pixels, `[kh][kw][c]`, from the mean of its input
/// activation `[h][w][c]`: what lies outside counts as 0.
pub fn mean_patch(mean: &[f32], shape: Shape, window: &Window) -> Vec<f64> {
    let c = usize::from(shape.c);
    let mut sum = vec![0.0f64; window.kernel.iter().map(|k| usize::from(*k)).product::<usize>() * c];
    let pixels = window.output(shape).map_or(0, |[h, w]| usize::from(h) * usize::from(w));
    let mut taps = Vec::new();
    for at in 0..pixels {
        taps.clear();
        patch(mean, shape, window, at, 0..c, &mut taps);
        sum.iter_mut().zip(&taps).for_each(|(s, t)| *s += f64::from(*t));
    }
    sum.iter_mut().for_each(|s| *s /= pixels.max(1) as f64);
    sum
}

/// What to add to a row's bias: the mean of `(w - step q) . x` over inputs of mean `x`.
pub fn shift(weights: &[f32], quantised: &[i8], step: f32, mean: &[f64]) -> f64 {
    let errors = weights.iter().zip(quantised).map(|(w, q)| f64::from(*w) - f64::from(step) * f64::from(*q));
    errors.zip(mean).map(|(error, x)| error * x).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_holds_the_mean_of_each_tap() {
        // 3 x 3 pixels 1..9, a 3 x 3 window with a border of 1: the middle tap sees all nine, a corner tap four.
        let mean: Vec<f32> = (1..10).map(|v| v as f32).collect();
        let window = Window { kernel: [3; 2], stride: [1; 2], pad: [1; 4] };
        let patch = mean_patch(&mean, Shape::new(3, 3, 1), &window);
        assert!((patch[4] - 45.0 / 9.0).abs() < 1e-12);
        assert!((patch[0] - (1.0 + 2.0 + 4.0 + 5.0) / 9.0).abs() < 1e-12);
        assert!((patch[8] - (5.0 + 6.0 + 8.0 + 9.0) / 9.0).abs() < 1e-12);
    }

    #[test]
    fn the_mean_output_is_restored() {
        let (w, q, step) = ([0.26f32, -0.74], [1i8, -3], 0.25f32);
        let x = [2.0f64, 4.0];
        let exact = 0.26 * 2.0 - 0.74 * 4.0;
        let rounded = 0.25 * 2.0 - 0.75 * 4.0;
        assert!((shift(&w, &q, step, &x) - (exact - rounded)).abs() < 1e-6);
    }
}
