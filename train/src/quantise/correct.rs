//! Bias correction (Nagel et al., 2019): rounding weights moves the mean of an output, and the bias moves it back.

use paradise_engine::Shape;
use paradise_engine::layer::Window;

/// The mean input of every tap of a convolution over its output pixels, `[kh][kw][c]`, from the mean of its input
/// activation `[h][w][c]`: what lies outside counts as 0.
pub fn mean_patch(mean: &[f32], shape: Shape, window: &Window) -> Vec<f64> {
    let (h, w, c) = (shape.h as isize, shape.w as isize, shape.c as usize);
    let [kh, kw] = window.kernel.map(usize::from);
    let mut patch = vec![0.0f64; kh * kw * c];
    let Some([rows, columns]) = window.output(shape).map(|e| e.map(usize::from)) else { return patch };
    let [down, right] = window.stride.map(usize::from);
    for (tap, taps) in patch.chunks_exact_mut(c).enumerate() {
        let [top, left] = [tap / kw, tap % kw];
        for row in 0..rows {
            let y = (row * down + top) as isize - window.pad[0] as isize;
            for column in 0..columns {
                let x = (column * right + left) as isize - window.pad[1] as isize;
                if (0..h).contains(&y) && (0..w).contains(&x) {
                    let pixel = &mean[(y * w + x) as usize * c..][..c];
                    taps.iter_mut().zip(pixel).for_each(|(t, p)| *t += f64::from(*p));
                }
            }
        }
    }
    let pixels = (rows * columns) as f64;
    patch.iter_mut().for_each(|t| *t /= pixels);
    patch
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
