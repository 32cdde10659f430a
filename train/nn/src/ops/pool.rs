//! Average and maximum pools over one NHWC image, forward and backward. Padding counts as nothing.

use paradise_engine::Shape;
use paradise_engine::layer::Window;

/// Calls `visit(output pixel, input pixel)` for every pair under one window.
fn pairs(input: Shape, output: Shape, window: Window, mut visit: impl FnMut(usize, usize)) {
    let [h, w] = [input.h, input.w].map(usize::from);
    let inside = |at: usize, k: usize, axis: usize, size: usize| {
        (at * usize::from(window.stride[axis]) + k).checked_sub(usize::from(window.pad[axis])).filter(|v| *v < size)
    };
    for oy in 0..usize::from(output.h) {
        for ox in 0..usize::from(output.w) {
            for ky in 0..usize::from(window.kernel[0]) {
                let Some(y) = inside(oy, ky, 0, h) else { continue };
                for kx in 0..usize::from(window.kernel[1]) {
                    let Some(x) = inside(ox, kx, 1, w) else { continue };
                    visit(oy * usize::from(output.w) + ox, y * w + x);
                }
            }
        }
    }
}

/// Mean over each window, whose area always counts in full: `x` `[h][w][c]` -> `y` `[out h][out w][c]`.
pub(crate) fn average(input: Shape, output: Shape, window: Window, x: &[f32], y: &mut [f32]) {
    let c = usize::from(input.c);
    let share = 1.0 / (f32::from(window.kernel[0]) * f32::from(window.kernel[1]));
    y.fill(0.0);
    pairs(input, output, window, |o, i| {
        y[o * c..(o + 1) * c].iter_mut().zip(&x[i * c..(i + 1) * c]).for_each(|(y, x)| *y += x);
    });
    y.iter_mut().for_each(|y| *y *= share);
}

/// Adds the gradient of [`average`] to `dx`.
pub(crate) fn add_average_gradient(input: Shape, output: Shape, window: Window, dy: &[f32], dx: &mut [f32]) {
    let c = usize::from(input.c);
    let share = 1.0 / (f32::from(window.kernel[0]) * f32::from(window.kernel[1]));
    pairs(input, output, window, |o, i| {
        dx[i * c..(i + 1) * c].iter_mut().zip(&dy[o * c..(o + 1) * c]).for_each(|(dx, dy)| *dx += share * dy);
    });
}

/// Largest value under each window.
pub(crate) fn maximum(input: Shape, output: Shape, window: Window, x: &[f32], y: &mut [f32]) {
    let c = usize::from(input.c);
    y.fill(f32::NEG_INFINITY);
    pairs(input, output, window, |o, i| {
        y[o * c..(o + 1) * c].iter_mut().zip(&x[i * c..(i + 1) * c]).for_each(|(y, x)| *y = x.max(*y));
    });
}

/// Adds the gradient of [`maximum`] to `dx`: all of it to the first largest value of a window.
pub(crate) fn add_maximum_gradient(
    input: Shape,
    output: Shape,
    window: Window,
    x: &[f32],
    y: &[f32],
    dy: &[f32],
    dx: &mut [f32],
) {
    let c = usize::from(input.c);
    let mut given = vec![false; y.len()];
    pairs(input, output, window, |o, i| {
        for k in 0..c {
            let (at, from) = (o * c + k, i * c + k);
            if !given[at] && x[from] == y[at] {
                given[at] = true;
                dx[from] += dy[at];
            }
        }
    });
}
