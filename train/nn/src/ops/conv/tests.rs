//! Every kernel against the definition in f64, on random shapes and every instruction set of this CPU.

use super::*;
use crate::ops::lanes::available;
use paradise_support::random::{self, Purpose};
use proptest::prelude::*;

fn values(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = random::stream(seed, Purpose::Noise, 0, 0, 0);
    // Seven significant bits, which bf16 holds, so that products are exact in every precision.
    (0..n).map(|_| (random::normal(&mut rng).clamp(-3.9, 3.9) * 32.0).round() / 32.0).collect()
}

/// Output and gradients of one image, in f64 from the definition.
struct Exact {
    y: Vec<f64>,
    dx: Vec<f64>,
    dw: Vec<f64>,
}

fn by_definition(
    [input, output]: [Shape; 2],
    window: Window,
    groups: usize,
    x: &[f32],
    w: &[f32],
    dy: &[f32],
) -> Exact {
    let side = |s: Shape| [s.h, s.w, s.c].map(usize::from);
    let ([h, width, c], [out_h, out_w, out]) = (side(input), side(output));
    let [kh, kw] = window.kernel.map(usize::from);
    let (each_in, each_out) = (c / groups, out / groups);
    let mut exact = Exact { y: vec![0.0; dy.len()], dx: vec![0.0; x.len()], dw: vec![0.0; w.len()] };
    for (at, gradient) in dy.iter().enumerate() {
        let (o, ox, oy) = (at % out, at / out % out_w, at / out / out_w);
        assert!(oy < out_h);
        for t in 0..kh * kw {
            let iy = (oy * window.stride[0] as usize + t / kw) as isize - window.pad[0] as isize;
            let ix = (ox * window.stride[1] as usize + t % kw) as isize - window.pad[1] as isize;
            if iy < 0 || ix < 0 || iy >= h as isize || ix >= width as isize {
                continue;
            }
            for i in 0..each_in {
                let xi = (iy as usize * width + ix as usize) * c + o / each_out * each_in + i;
                let wi = (o * kh * kw + t) * each_in + i;
                exact.y[at] += f64::from(x[xi]) * f64::from(w[wi]);
                exact.dx[xi] += f64::from(*gradient) * f64::from(w[wi]);
                exact.dw[wi] += f64::from(*gradient) * f64::from(x[xi]);
            }
        }
    }
    exact
}

fn close(what: &str, got: &[f32], exact: &[f64]) -> std::result::Result<(), TestCaseError> {
    // Every value is a sum of terms of magnitude 1, whatever they cancel to.
    let top = exact.iter().fold(1.0, |m: f64, v| m.max(v.abs()));
    prop_assert_eq!(got.len(), exact.len());
    for (g, e) in got.iter().zip(exact) {
        prop_assert!((f64::from(*g) - e).abs() <= 1e-5 * top, "{what}: {g} {e} of {top}");
    }
    Ok(())
}

/// One image through one convolution: every kernel equals the definition.
fn check(
    input: Shape,
    window: Window,
    groups: usize,
    out: usize,
    seed: u64,
) -> std::result::Result<(), TestCaseError> {
    let Some([h, w]) = window.output(input) else {
        prop_assert!(Conv::new(detect(), None, input, window, groups, out).is_err());
        return Ok(());
    };
    let output = Shape::new(h, w, out as u16);
    let len = |s: Shape| s.len() as usize;
    let taps = usize::from(window.kernel[0] * window.kernel[1]);
    let weights = out * taps * usize::from(input.c) / groups;
    let (x, w, dy) = (values(len(input), seed), values(weights, seed ^ 1), values(len(output), seed ^ 2));
    let exact = by_definition([input, output], window, groups, &x, &w, &dy);
    let mut all: Vec<Conv> =
        available().into_iter().map(|isa| Conv::new(isa, None, input, window, groups, out).unwrap()).collect();
    if groups == 1 {
        // Whatever is worth it: blocks that are hardly filled, too.
        all.extend(
            bf16::available().into_iter().map(|t| Conv::Bf16(bf16::Conv::new(detect(), t, input, window, output))),
        );
    }
    for conv in all {
        let mut grid = vec![0.0; conv.grid_len()];
        conv.load(&x, Load::Plain, &mut grid);
        let mut y = vec![7.0; len(output)];
        let (mut sums, mut squares) = (vec![0.0; out], vec![0.0; out]);
        conv.forward(&grid, &conv.pack(&w), End::default(), &mut y, Some((&mut sums, &mut squares)));
        close("y", &y, &exact.y)?;
        for (o, (sum, square)) in sums.iter().zip(&squares).enumerate() {
            let channel = || y.iter().skip(o).step_by(out).map(|v| f64::from(*v));
            prop_assert!((f64::from(*sum) - channel().sum::<f64>()).abs() <= 1e-3);
            let exact = channel().map(|v| v * v).sum::<f64>();
            prop_assert!((f64::from(*square) - exact).abs() <= 1e-4 * exact);
        }

        let mut gradient = vec![0.0; conv.gradient_grid_len()];
        conv.load_gradient(&dy, Load::Plain, &mut gradient);
        let mut dx = vec![7.0; len(input)];
        conv.input_gradient(&gradient, &conv.pack_transposed(&w), End::default(), &mut dx, None);
        close("dx", &dx, &exact.dx)?;

        let mut sums = vec![0.0; conv.weight_gradient_len()];
        conv.add_weight_gradient(&grid, &gradient, &mut sums);
        let mut dw = vec![0.0; w.len()];
        conv.unpack_weight_gradient(&sums, &mut dw);
        close("dw", &dw, &exact.dw)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn every_kernel_equals_f64(
        h in 1u16..20, w in 1u16..40, c in 1usize..20, o in 1usize..36, groups in 1usize..4,
        kernel in [prop::sample::select(vec![1u16, 2, 3, 4, 5, 7]), prop::sample::select(vec![1u16, 2, 3, 4, 5, 7])],
        stride in [1u16..4, 1u16..4], pad in [0u16..4, 0u16..4, 0u16..4, 0u16..4], seed: u64,
    ) {
        let input = Shape::new(h, w, (c * groups) as u16);
        check(input, Window { kernel, stride, pad }, groups, o * groups, seed)?;
    }
}

#[test]
fn the_shapes_of_the_encoders_equal_f64() {
    let window = |k: u16, s: u16| Window { kernel: [k; 2], stride: [s; 2], pad: [k / 2; 4] };
    for (side, c, out, k, s) in [
        (32, 3, 16, 3, 1),
        (32, 16, 16, 3, 1),
        (32, 16, 32, 3, 2),
        (32, 16, 32, 1, 2),
        (16, 32, 32, 3, 1),
        (8, 64, 64, 3, 1),
        (8, 160, 48, 3, 1),
        (28, 1, 24, 5, 2),
        (14, 24, 48, 3, 2),
        (31, 64, 80, 7, 2),
    ] {
        check(Shape::new(side, side, c), window(k, s), 1, out, 3).unwrap();
    }
    // Depthwise, and the transposed convolutions of a decoder.
    check(Shape::new(9, 9, 24), window(3, 2), 24, 24, 4).unwrap();
    check(Shape::new(8, 8, 3), Window { kernel: [4, 4], stride: [2, 2], pad: [1; 4] }, 1, 32, 5).unwrap();
    check(Shape::new(4, 4, 64), Window { kernel: [4, 4], stride: [1, 1], pad: [0; 4] }, 1, 70, 6).unwrap();
}

#[test]
fn epilogues_add_and_clip_in_order() {
    for isa in available() {
        let window = Window { kernel: [1, 1], stride: [1, 1], pad: [0; 4] };
        let conv = Conv::new(isa, None, Shape::new(1, 2, 1), window, 1, 17).unwrap();
        let (x, w) = ([1.0f32, -2.0], vec![1.0f32; 17]);
        let (bias, residual) = (vec![0.5f32; 17], vec![0.25f32; 34]);
        let mut grid = vec![0.0; conv.grid_len()];
        conv.load(&x, Load::Plain, &mut grid);
        let mut y = vec![1.0; 34];
        let end = End { bias: Some(&bias), residual: Some(&residual), relu: true, accumulate: true };
        conv.forward(&grid, &conv.pack(&w), end, &mut y, None);
        assert_eq!(y, [vec![2.75; 17], vec![0.0; 17]].concat(), "{isa:?}");
    }
}

#[test]
fn loads_normalise_and_mask() {
    for isa in available() {
        let window = Window { kernel: [1, 1], stride: [1, 1], pad: [0; 4] };
        let conv = Conv::new(isa, None, Shape::new(1, 1, 19), window, 1, 1).unwrap();
        let x: Vec<f32> = (0..19).map(|i| i as f32 - 9.0).collect();
        let (scale, shift) = (vec![2.0; 19], vec![1.0; 19]);
        let mut grid = vec![0.0; conv.grid_len()];
        conv.load(&x, Load::Affine { scale: &scale, shift: &shift, relu: true }, &mut grid);
        for (i, v) in x.iter().enumerate() {
            assert_eq!(grid[i], (2.0 * v + 1.0).max(0.0), "{isa:?} {i}");
        }
        conv.load(&x, Load::Masked { mask: &x }, &mut grid);
        for (i, v) in x.iter().enumerate() {
            assert_eq!(grid[i], v.max(0.0), "{isa:?} {i}");
        }
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let window = Window { kernel: [3, 3], stride: [1, 1], pad: [0; 4] };
    assert!(Conv::new(detect(), None, Shape::new(2, 2, 1), window, 1, 1).is_err());
    assert!(Conv::new(detect(), None, Shape::new(4, 4, 3), window, 2, 4).is_err());
    assert!(Conv::new(detect(), None, Shape::new(4, 4, 2), window, 0, 4).is_err());
}

use crate::ops::lanes::detect;
