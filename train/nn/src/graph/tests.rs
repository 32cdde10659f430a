//! Whole trunks, every kind of stage, against the same network in candle's own operations and its autograd.

use super::*;
use crate::Precision;
use crate::ops::lanes::{Isa, available};
use candle_core::{D, DType, Device, Tensor, Var};
use paradise_support::random::{self, Purpose};
use proptest::prelude::*;
use std::io::Write;

mod ranks;

fn noise(dims: &[usize], seed: u64) -> Tensor {
    let mut rng = random::stream(seed, Purpose::Noise, 0, 0, 0);
    let v: Vec<f32> = (0..dims.iter().product()).map(|_| random::normal(&mut rng)).collect();
    Tensor::from_vec(v, dims, &Device::Cpu).unwrap()
}

/// One channel vector as `[1, c, 1, 1]`.
fn channels(t: &Tensor) -> Tensor {
    t.flatten_all().unwrap().reshape((1, t.elem_count(), 1, 1)).unwrap()
}

fn square(window: &Window) -> (usize, usize, usize) {
    (window.kernel[0].into(), window.stride[0].into(), window.pad[0].into())
}

/// The image under each place of an unpadded window: one `[n, c, out, out]` a place.
fn under(x: &Tensor, window: &Window) -> Vec<Tensor> {
    let (k, s, _) = square(window);
    let out = (x.dim(2).unwrap() - k) / s + 1;
    let pick = |t: &Tensor, axis, first: usize| {
        let at: Vec<u32> = (0..out).map(|o| (o * s + first) as u32).collect();
        t.contiguous().unwrap().index_select(&Tensor::new(&at[..], &Device::Cpu).unwrap(), axis).unwrap()
    };
    (0..k * k).map(|t| pick(&pick(x, 2, t / k), 3, t % k)).collect()
}

/// The least lead of a window's largest value over its second: where there is none, candle shares the gradient out and a
/// trunk gives it to the first.
fn lead(views: &[Tensor]) -> f64 {
    let views: Vec<Vec<f64>> = views.iter().map(|v| v.flatten_all().unwrap().to_vec1().unwrap()).collect();
    let of = |i: usize| {
        let mut window: Vec<f64> = views.iter().map(|v| v[i]).collect();
        window.sort_by(|a, b| b.total_cmp(a));
        window.get(1).map_or(f64::MAX, |second| window[0] - second)
    };
    (0..views[0].len()).map(of).fold(f64::MAX, f64::min)
}

/// The same trunk in candle's operations, NCHW, f64, with `running` statistics in [`Mode::Fixed`]; and how near to a
/// corner it came: to 0 at the input of a ReLU, to a tie in a maximum.
fn by_candle(
    graph: &Graph,
    images: &Tensor,
    parameters: &[Vec<Tensor>],
    mode: Mode,
    running: &[Vec<f32>],
) -> (Tensor, f64) {
    let mut corner = f64::MAX;
    let nchw = |t: &Tensor| t.permute((0, 3, 1, 2)).unwrap();
    let mut all = vec![nchw(images)];
    let mut norms = running.chunks_exact(2);
    for (stage, p) in graph.stages.iter().zip(parameters) {
        let x = all[stage.x].clone();
        let y = match &stage.op {
            Op::Normalise { mean, std } => {
                let [mean, std] = [mean, std]
                    .map(|v| channels(&Tensor::new(&v[..], &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap()));
                x.broadcast_sub(&mean).unwrap().broadcast_div(&std).unwrap()
            }
            Op::Conv { window, groups, residual, .. } => {
                let (_, s, pad) = square(window);
                // Padding after the normalisation is what it makes of black.
                let x = match &graph.stages.get(stage.x.wrapping_sub(1)).map(|s| &s.op) {
                    Some(Op::Normalise { mean, std }) if pad > 0 => {
                        let (n, c, h, w) = x.dims4().unwrap();
                        let black: Vec<f64> =
                            mean.iter().zip(std).map(|(m, s)| -f64::from(*m) / f64::from(*s)).collect();
                        let border = channels(&Tensor::new(&black[..], &Device::Cpu).unwrap());
                        let border = border.broadcast_as((n, c, h + 2 * pad, w + 2 * pad)).unwrap();
                        let inside = x.pad_with_zeros(2, pad, pad).unwrap().pad_with_zeros(3, pad, pad).unwrap();
                        let mask = Tensor::ones((n, c, h, w), DType::F64, &Device::Cpu).unwrap();
                        let mask = mask.pad_with_zeros(2, pad, pad).unwrap().pad_with_zeros(3, pad, pad).unwrap();
                        (inside + (border * (1.0 - mask).unwrap()).unwrap()).unwrap()
                    }
                    _ => x.pad_with_zeros(2, pad, pad).unwrap().pad_with_zeros(3, pad, pad).unwrap(),
                };
                let y = x.contiguous().unwrap().conv2d(&nchw(&p[0]).contiguous().unwrap(), 0, s, 1, *groups).unwrap();
                let y = p.get(1).map_or(y.clone(), |b| y.broadcast_add(&channels(b)).unwrap());
                residual.map_or(y.clone(), |r| (&y + &all[r]).unwrap())
            }
            Op::Transposed { window, side, .. } => {
                let (k, s, pad) = square(window);
                let extra = usize::from(side[0]) + 2 * pad - k - (x.dim(2).unwrap() - 1) * s;
                let w = nchw(&p[0]).contiguous().unwrap();
                let y = x.contiguous().unwrap().conv_transpose2d(&w, pad, extra, s, 1).unwrap();
                y.broadcast_add(&channels(&p[1])).unwrap()
            }
            Op::BatchNorm { .. } => {
                let [mean, variance] = [0, 1].map(|k| {
                    let fixed = norms.clone().next().unwrap();
                    Tensor::new(&fixed[k][..], &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap()
                });
                norms.next();
                let (mean, variance) = if mode == Mode::Learn {
                    let over = |t: &Tensor| t.mean_keepdim((0, 2, 3)).unwrap();
                    let mean = over(&x);
                    let variance = over(&x.broadcast_sub(&mean).unwrap().sqr().unwrap());
                    (mean, variance)
                } else {
                    (channels(&mean), channels(&variance))
                };
                let unit = x.broadcast_sub(&mean).unwrap().broadcast_div(&(variance + 1e-5).unwrap().sqrt().unwrap());
                let scaled = unit.unwrap().broadcast_mul(&channels(&p[0])).unwrap();
                scaled.broadcast_add(&channels(&p[1])).unwrap()
            }
            Op::Affine { .. } => x.broadcast_mul(&channels(&p[0])).unwrap().broadcast_add(&channels(&p[1])).unwrap(),
            // candle differentiates pools only where windows do not overlap; these are the same by definition.
            Op::AvgPool { window } => {
                let views = under(&x, window);
                let n = views.len() as f64;
                (views.into_iter().reduce(|a, b| (a + b).unwrap()).unwrap() / n).unwrap()
            }
            Op::MaxPool { window } => {
                let views = under(&x, window);
                corner = corner.min(lead(&views));
                views.into_iter().reduce(|a, b| a.maximum(&b).unwrap()).unwrap()
            }
            Op::Add { other, .. } => (&x + &all[*other]).unwrap(),
            Op::Dense { out, .. } => {
                let flat = x.permute((0, 2, 3, 1)).unwrap().flatten_from(1).unwrap();
                let y = flat.matmul(&p[0].t().unwrap()).unwrap().broadcast_add(&p[1]).unwrap();
                y.reshape((y.dim(0).unwrap(), *out, 1, 1)).unwrap()
            }
        };
        if stage.op.relu() {
            let nearest = y.abs().unwrap().flatten_all().unwrap().min(0).unwrap();
            corner = corner.min(nearest.to_scalar().unwrap());
        }
        all.push(if stage.op.relu() { y.relu().unwrap() } else { y });
    }
    (all.pop().unwrap().permute((0, 2, 3, 1)).unwrap().contiguous().unwrap(), corner)
}

fn close(what: &str, got: &[f32], exact: &Tensor) -> std::result::Result<(), TestCaseError> {
    let exact = exact.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    prop_assert_eq!(got.len(), exact.len());
    let top = exact.iter().fold(1e-3, |m: f64, v| m.max(v.abs()));
    for (g, e) in got.iter().zip(&exact) {
        prop_assert!((f64::from(*g) - e).abs() <= 1e-4 * top, "{what}: {g} {e} of {top}");
    }
    Ok(())
}

/// Output and both gradients of `sum(trunk * t)` equal candle's in f64.
fn compare(graph: &Graph, isa: Isa, n: usize, mode: Mode, seed: u64) -> std::result::Result<(), TestCaseError> {
    let trunk = Trunk::on(graph.clone(), isa, Precision::F32).unwrap();
    let declared = graph.parameters(Init::Uniform).unwrap();
    let mut flat = Vec::new();
    for (k, p) in declared.iter().flatten().enumerate() {
        let v = values(&noise(&p.dims, seed ^ (k as u64 + 10))).unwrap();
        let scale = 1.0 / (p.fan_in as f32).sqrt();
        flat.extend(v.into_iter().map(|v| if p.decays { v * scale } else { 0.7 + 0.3 * v }));
    }
    let mut running = trunk.running().unwrap();
    for (i, v) in running.iter_mut().enumerate() {
        *v = 0.5 + 0.1 * (i % 7) as f32;
    }
    trunk.set_running(&running).unwrap();
    let statistics: Vec<Vec<f32>> = (0..graph.stages.len())
        .filter(|i| matches!(graph.stages[*i].op, Op::BatchNorm { .. }))
        .flat_map(|i| trunk.running_places(i).clone().map(|r| running[r].to_vec()))
        .collect();
    let s = graph.input;
    let images = Var::from_tensor(&noise(&[n, s.h.into(), s.w.into(), s.c.into()], seed)).unwrap();
    let theta = Var::from_vec(flat, trunk.parameters(), &Device::Cpu).unwrap();
    let ledger = Ledger::new(&Device::Cpu).unwrap();
    let y = trunk.apply(&images, &theta, mode, Some(&ledger)).unwrap();
    let t = noise(y.dims(), seed ^ 1);
    let grads = (&y * &t).unwrap().sum_all().unwrap().backward().unwrap();

    let wide = |t: &Tensor| Var::from_tensor(&t.to_dtype(DType::F64).unwrap()).unwrap();
    let (images64, theta64) = (wide(&images), wide(&theta));
    let parameters: Vec<Vec<Tensor>> = declared
        .iter()
        .enumerate()
        .map(|(i, stage)| {
            let place = |(p, r): (&Parameter, &std::ops::Range<usize>)| {
                theta64.narrow(0, r.start, r.len()).unwrap().reshape(p.dims.as_slice()).unwrap()
            };
            stage.iter().zip(trunk.places(i)).map(place).collect()
        })
        .collect();
    let (exact, corner) = by_candle(graph, &images64, &parameters, mode, &statistics);
    close("output", &values(&y).unwrap(), &exact)?;
    // Within rounding of a corner both slopes are right: such a rare draw says nothing about gradients.
    if corner < 2e-6 {
        return Err(TestCaseError::reject("a corner of a ReLU or a maximum"));
    }
    let target = t.to_dtype(DType::F64).unwrap();
    let exact_grads = (exact * target).unwrap().sum_all().unwrap().backward().unwrap();
    let zeros = |t: &Tensor| t.zeros_like().unwrap();
    let dx = exact_grads.get(&images64).cloned().unwrap_or_else(|| zeros(&images64));
    let dtheta = exact_grads.get(&theta64).cloned().unwrap_or_else(|| zeros(&theta64));
    close("images", &values(grads.get(&images).unwrap()).unwrap(), &dx)?;
    close("parameters", &values(&ledger.take().unwrap()).unwrap(), &dtheta)?;
    Ok(())
}

fn window(kernel: u16, stride: u16, pad: u16) -> Window {
    Window { kernel: [kernel; 2], stride: [stride; 2], pad: [pad; 4] }
}

fn conv(window: Window, out: usize) -> Op {
    Op::Conv { window, groups: 1, out, bias: false, relu: false, residual: None }
}

/// A pre-activation network with everything: normalisation, strided shortcut, identity, pools, dense.
fn residual(c: u16, side: u16, widths: [usize; 2]) -> Graph {
    let norm = Op::BatchNorm { relu: true };
    let add = |window, out, r| Op::Conv { window, groups: 1, out, bias: false, relu: false, residual: Some(r) };
    let [a, b] = widths;
    let half = side.div_ceil(2);
    let mean = vec![0.4; c.into()];
    let std = vec![0.5; c.into()];
    let ops = [
        (0, Op::Normalise { mean, std }),
        (1, conv(window(3, 1, 1), a)),
        (2, norm.clone()),
        (3, conv(window(3, 1, 1), a)),
        (4, norm.clone()),
        (5, add(window(3, 1, 1), a, 2)),
        (6, norm.clone()),
        (7, conv(window(1, 2, 0), b)),
        (7, conv(window(3, 2, 1), b)),
        (9, norm.clone()),
        (10, add(window(3, 1, 1), b, 8)),
        (11, norm),
        (12, Op::AvgPool { window: window(half, 1, 0) }),
        (13, Op::Dense { out: 5, relu: true }),
    ];
    let stages = ops.into_iter().map(|(x, op)| Stage { x, op }).collect();
    Graph { input: Shape::new(side, side, c), stages }
}

fn chain(input: Shape, ops: Vec<Op>) -> Graph {
    Graph { input, stages: ops.into_iter().enumerate().map(|(x, op)| Stage { x, op }).collect() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn residual_networks_equal_candle(
        c in 1u16..4, side in 4u16..10, widths in [1usize..20, 1usize..20], n in 2usize..20, fixed: bool, seed in 0u64..1000,
    ) {
        let mode = if fixed { Mode::Fixed } else { Mode::Learn };
        for isa in available() {
            compare(&residual(c, side, widths), isa, n, mode, seed)?;
        }
    }

    #[test]
    fn one_convolution_equals_candle(
        n in 1usize..12, side in 1u16..13, c in 1usize..7, o in 1usize..9, groups in 1usize..4,
        kernel in prop::sample::select(vec![1u16, 3, 4, 5, 7]), stride in 1u16..3, pad in 0u16..4, relu: bool, seed in 0u64..1000,
    ) {
        let op = Op::Conv { window: window(kernel, stride, pad), groups, out: o * groups, bias: true, relu, residual: None };
        let graph = chain(Shape::new(side, side, (c * groups) as u16), vec![op]);
        prop_assume!(graph.shapes().is_ok());
        for isa in available() {
            compare(&graph, isa, n, Mode::Learn, seed)?;
        }
    }

    #[test]
    fn decoders_equal_candle(n in 1usize..10, d in 1u16..20, out in 1usize..20, seed in 0u64..1000) {
        let grow = |window, side: u16, out, relu| Op::Transposed { window, side: [side; 2], out, relu };
        let ops = vec![
            grow(window(4, 1, 0), 4, out, false),
            Op::BatchNorm { relu: true },
            grow(window(4, 2, 1), 8, out, true),
            grow(window(3, 2, 1), 15, 3, false),
        ];
        for isa in available() {
            compare(&chain(Shape::new(1, 1, d), ops.clone()), isa, n + 1, Mode::Learn, seed)?;
        }
    }

    #[test]
    fn dense_layers_and_pools_equal_candle(n in 1usize..80, side in 2u16..7, c in 1u16..20, seed in 0u64..1000) {
        let ops = vec![
            Op::MaxPool { window: window(2, 1, 0) },
            Op::Affine { relu: false },
            Op::MaxPool { window: window(1, 2, 0) },
            Op::AvgPool { window: window(1, 1, 0) },
            Op::Dense { out: 33, relu: true },
            Op::Affine { relu: true },
            Op::Dense { out: 7, relu: false },
        ];
        for isa in available() {
            compare(&chain(Shape::new(side, side, c), ops.clone()), isa, n, Mode::Fixed, seed)?;
        }
    }
}

/// This draw has two equal values under one window of the maximum.
#[test]
fn a_tie_in_a_maximum_is_not_judged() {
    let ops = vec![Op::MaxPool { window: window(2, 1, 0) }];
    let verdict = compare(&chain(Shape::new(2, 2, 8), ops), available()[0], 37, Mode::Fixed, 635);
    assert!(matches!(verdict, Err(TestCaseError::Reject(_))), "{verdict:?}");
}

#[test]
fn sums_with_a_relu_equal_candle() {
    let add = Op::Conv { window: window(3, 1, 1), groups: 1, out: 4, bias: true, relu: true, residual: Some(1) };
    let mut graph = chain(Shape::new(5, 5, 2), vec![conv(window(3, 1, 1), 4), add]);
    graph.stages.push(Stage { x: 2, op: Op::Add { other: 1, relu: true } });
    for isa in available() {
        compare(&graph, isa, 9, Mode::Learn, 3).unwrap();
    }
}

#[test]
fn a_folded_network_equals_the_one_that_learned() {
    let graph = residual(3, 8, [5, 18]);
    let trunk = Trunk::new(graph.clone()).unwrap();
    let theta = noise(&[trunk.parameters()], 4);
    let images = noise(&[40, 8, 8, 3], 5);
    // A few passes move the running statistics away from where they start.
    for _ in 0..3 {
        trunk.apply(&images, &theta, Mode::Learn, None).unwrap();
    }
    let (folded, numbers) = fold(&trunk, &values(&theta).unwrap()).unwrap();
    assert!(!folded.stages.iter().any(|s| matches!(s.op, Op::BatchNorm { .. } | Op::Normalise { .. })));
    // norm1, conv, norm2 of each block: the second norm folds, the first and the last stay.
    assert_eq!(folded.stages.iter().filter(|s| matches!(s.op, Op::Affine { .. })).count(), 3);
    let served = Trunk::new(folded).unwrap();
    let numbers = Tensor::from_vec(numbers, served.parameters(), &Device::Cpu).unwrap();
    let exact = trunk.apply(&images, &theta, Mode::Fixed, None).unwrap();
    let got = served.apply(&images, &numbers, Mode::Fixed, None).unwrap();
    let top = exact.abs().unwrap().flatten_all().unwrap().max(D::Minus1).unwrap().to_scalar::<f32>().unwrap();
    for (g, e) in values(&got).unwrap().iter().zip(values(&exact).unwrap()) {
        assert!((g - e).abs() <= 1e-4 * top, "{g} {e}");
    }
}

#[test]
fn results_do_not_depend_on_threads_and_nothing_is_kept_without_need() {
    for precision in [Precision::F32, Precision::Bf16] {
        let trunk = Trunk::on(residual(3, 9, [17, 20]), available()[0], precision).unwrap();
        let theta = values(&noise(&[trunk.parameters()], 4)).unwrap();
        let go = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| output_and_gradients(&trunk, 37, 9, theta.clone()))
        };
        assert_eq!(go(1), go(3), "{precision:?}");
    }
}

/// Output, and gradients of parameters and images, of `n` images.
fn output_and_gradients(trunk: &Trunk, n: usize, side: usize, theta: Vec<f32>) -> [Vec<f32>; 3] {
    let theta = Var::from_vec(theta, trunk.parameters(), &Device::Cpu).unwrap();
    let images = Var::from_tensor(&noise(&[n, side, side, 3], 5)).unwrap();
    let ledger = Ledger::new(&Device::Cpu).unwrap();
    let y = trunk.apply(&images, &theta, Mode::Learn, Some(&ledger)).unwrap();
    let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    [&y, &ledger.take().unwrap(), gradients.get(&images).unwrap()].map(|t| values(t).unwrap())
}

#[test]
fn bf16_is_as_near_to_f32_as_its_rounding() {
    if !crate::device::cpu_multiplies_bf16() {
        // Past the test harness, which shows nothing of a test that passes.
        let _ = writeln!(std::io::stderr(), "skipped: bf16_is_as_near_to_f32_as_its_rounding needs AMX");
        return;
    }
    let trunk = |p| Trunk::on(residual(3, 12, [32, 48]), available()[0], p).unwrap();
    let theta = values(&(noise(&[trunk(Precision::F32).parameters()], 4) * 0.3).unwrap()).unwrap();
    // Eight significant bits, in another way than the kernels': what that alone changes in f32 is the measure.
    let short = |v: &f32| {
        let unit = 2f32.powi(v.abs().log2().floor() as i32 - 7);
        if *v == 0.0 { 0.0 } else { (v / unit).round_ties_even() * unit }
    };
    let rounded: Vec<f32> = theta.iter().map(short).collect();
    let run = |p, theta: &[f32]| output_and_gradients(&trunk(p), 24, 12, theta.to_vec());
    let (exact, weights, all) =
        (run(Precision::F32, &theta), run(Precision::F32, &rounded), run(Precision::Bf16, &theta));
    let norm = |v: &mut dyn Iterator<Item = f32>| v.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    let away = |a: &[f32], b: &[f32]| norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut a.iter().copied());
    for (k, what) in ["output", "parameters", "images"].into_iter().enumerate() {
        let (weights, all) = (away(&exact[k], &weights[k]), away(&exact[k], &all[k]));
        // Not nothing, or bf16 was not used.
        assert!(all > 1e-5 && all < 5.0 * weights, "{what}: {all}, rounded weights alone {weights}");
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let graph = chain(Shape::new(4, 4, 1), vec![conv(window(3, 1, 1), 4)]);
    let trunk = Trunk::new(graph.clone()).unwrap();
    let theta = noise(&[trunk.parameters()], 0);
    assert!(trunk.apply(&noise(&[2, 4, 5, 1], 0), &theta, Mode::Learn, None).is_err());
    assert!(trunk.apply(&noise(&[2, 4, 4, 1], 0), &noise(&[3], 0), Mode::Learn, None).is_err());
    assert!(trunk.set_running(&[0.0]).is_err());
    let bad = |ops: Vec<Op>| chain(Shape::new(4, 4, 1), ops).shapes().is_err();
    assert!(bad(vec![]));
    assert!(bad(vec![conv(window(5, 1, 0), 4)]));
    assert!(bad(vec![Op::BatchNorm { relu: true }]), "a map at the end");
    assert!(bad(vec![Op::Normalise { mean: vec![0.0; 2], std: vec![1.0; 2] }, conv(window(1, 1, 0), 1)]));
}
