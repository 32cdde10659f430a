//! Convolution + bias (+ ReLU) as one differentiable operation: NHWC, im2col over a few images, one product each.
//!
//! `y[n,oy,ox,o] = relu(b[o] + sum_{ky,kx,i} x[n, oy*sy-top+ky, ox*sx-left+kx, i] w[o,ky,kx,i])`
//!
//! Images are processed in chunks of fixed size, in parallel, and the chunks' weight gradients are added in order,
//! so the result does not depend on the number of threads.

mod backward;
mod geometry;

use super::gemm::{Matrix, multiply};
use backward::Backward;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use geometry::Geometry;
use paradise_engine::layer::Window;
use rayon::prelude::*;

/// Images unrolled at once by a thread.
const CHUNK: usize = 8;

struct Conv {
    window: Window,
    relu: bool,
}

fn contiguous<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (layout.contiguous_offsets(), storage) {
        (Some((from, to)), CpuStorage::F32(values)) => Ok(&values[from..to]),
        _ => bail!("convolution takes contiguous f32 tensors"),
    }
}

impl CustomOp3 for Conv {
    fn name(&self) -> &'static str {
        "paradise-conv"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let g = Geometry::new(x_layout.dims(), w_layout.dims(), self.window)?;
        let (x, w, b) = (contiguous(x, x_layout)?, contiguous(w, w_layout)?, contiguous(b, b_layout)?);
        let each = g.pixels() * g.out_c;
        let mut y = vec![0.0; g.n * each];
        y.par_chunks_mut(CHUNK * each).zip(x.par_chunks(CHUNK * g.image())).for_each_init(
            Vec::new,
            |columns, (y, x)| {
                let rows = y.len() / g.out_c;
                columns.resize(rows * g.depth(), 0.0);
                g.unroll_chunk(x, columns);
                for y in y.chunks_exact_mut(g.out_c) {
                    y.copy_from_slice(b);
                }
                multiply(y, true, Matrix::new(columns, rows, g.depth()), Matrix::new(w, g.out_c, g.depth()).t());
                if self.relu {
                    for y in y.iter_mut() {
                        *y = y.max(0.0);
                    }
                }
            },
        );
        Ok((CpuStorage::F32(y), Shape::from((g.n, g.out_h, g.out_w, g.out_c))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let g = Geometry::new(x.dims(), w.dims(), self.window)?;
        let grad = grad.contiguous()?;
        let (gs, gl) = grad.storage_and_layout();
        let (ys, yl) = y.storage_and_layout();
        let (xs, xl) = x.storage_and_layout();
        let (ws, wl) = w.storage_and_layout();
        let backward = Backward {
            g,
            relu: self.relu,
            x: contiguous(cpu(&xs)?, xl)?,
            w: contiguous(cpu(&ws)?, wl)?,
            y: contiguous(cpu(&ys)?, yl)?,
            grad: contiguous(cpu(&gs)?, gl)?,
        };
        let needs_weights = w.track_op() || b.track_op();
        let gradients = backward.run(x.track_op(), needs_weights);
        let wrap = |values: Option<Vec<f32>>, like: &Tensor| {
            values.map(|v| Tensor::from_vec(v, like.shape(), like.device())).transpose()
        };
        Ok((wrap(gradients.x, x)?, wrap(gradients.w, w)?, wrap(gradients.b, b)?))
    }
}

fn cpu(storage: &candle_core::Storage) -> Result<&CpuStorage> {
    match storage {
        candle_core::Storage::Cpu(storage) => Ok(storage),
        _ => bail!("this convolution runs on the CPU"),
    }
}

/// Convolution with bias: `x` f32 `[n, h, w, in]`, `weight` `[out, kh, kw, in]`, `bias` `[out]` ->
/// `[n, out_h, out_w, out]`.
///
/// # Errors
/// If the shapes do not fit each other or a tensor is not f32 on the CPU.
pub fn conv(x: &Tensor, weight: &Tensor, bias: &Tensor, window: Window, relu: bool) -> Result<Tensor> {
    if bias.dims() != [weight.dim(0)?] {
        bail!("convolution: bias {:?} for weights {:?}", bias.dims(), weight.dims())
    }
    x.contiguous()?.apply_op3(weight, bias, Conv { window, relu })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};
    use proptest::prelude::*;

    fn values(n: usize, seed: u64) -> Vec<f32> {
        let mut rng = crate::random::stream(seed, crate::random::Purpose::Noise, 0, 0, 0);
        (0..n).map(|_| crate::random::normal(&mut rng)).collect()
    }

    /// y before its ReLU and the gradients of `sum y * t`, by the definition in f64.
    #[allow(clippy::needless_range_loop)]
    fn by_definition(g: &Geometry, x: &[f32], w: &[f32], b: &[f32], t: &[f32], relu: bool) -> [Vec<f64>; 4] {
        let [kh, kw] = g.window.kernel.map(usize::from);
        let mut y = vec![0.0; g.n * g.pixels() * g.out_c];
        let (mut dx, mut dw, mut db) = (vec![0.0; x.len()], vec![0.0; w.len()], vec![0.0; b.len()]);
        for pass in 0..2 {
            for at in 0..y.len() {
                let (o, ox) = (at % g.out_c, at / g.out_c % g.out_w);
                let (oy, n) = (at / g.out_c / g.out_w % g.out_h, at / g.out_c / g.pixels());
                let active = if relu && y[at] <= 0.0 { 0.0 } else { f64::from(t[at]) };
                if pass == 0 {
                    y[at] = f64::from(b[o]);
                } else {
                    db[o] += active;
                }
                for ky in 0..kh {
                    for kx in 0..kw {
                        let iy = (oy * g.window.stride[0] as usize + ky) as isize - g.window.pad[0] as isize;
                        let ix = (ox * g.window.stride[1] as usize + kx) as isize - g.window.pad[1] as isize;
                        if iy < 0 || ix < 0 || iy >= g.h as isize || ix >= g.w as isize {
                            continue;
                        }
                        for i in 0..g.c {
                            let xi = ((n * g.h + iy as usize) * g.w + ix as usize) * g.c + i;
                            let wi = ((o * kh + ky) * kw + kx) * g.c + i;
                            if pass == 0 {
                                y[at] += f64::from(x[xi]) * f64::from(w[wi]);
                            } else {
                                dx[xi] += active * f64::from(w[wi]);
                                dw[wi] += active * f64::from(x[xi]);
                            }
                        }
                    }
                }
            }
        }
        [y, dx, dw, db]
    }

    fn close(got: &Tensor, exact: &[f64]) -> std::result::Result<(), TestCaseError> {
        let got = got.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        // Every value is a sum of terms of magnitude 1, whatever they cancel to.
        let top = exact.iter().fold(1.0, |m: f64, v| m.max(v.abs()));
        for (g, e) in got.iter().zip(exact) {
            prop_assert!((f64::from(*g) - e).abs() <= 1e-4 * top, "{g} {e}");
        }
        prop_assert_eq!(got.len(), exact.len());
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn output_and_gradients_equal_f64(
            n in 1usize..19, h in 1u16..9, w in 1u16..9, c in 1usize..5, o in 1usize..6,
            kernel in [1u16..6, 1u16..6], stride in [1u16..3, 1u16..3], pad in [0u16..4, 0u16..4, 0u16..4, 0u16..4],
            relu: bool, seed: u64,
        ) {
            let window = Window { kernel, stride, pad };
            let dims = [n, h as usize, w as usize, c];
            let filter = [o, kernel[0] as usize, kernel[1] as usize, c];
            let Ok(g) = Geometry::new(&dims, &filter, window) else { return Ok(()) };
            let var = |dims: &[usize], k| {
                Var::from_vec(values(dims.iter().product(), seed ^ k), dims, &Device::Cpu).unwrap()
            };
            let (x, wt, b) = (var(&dims, 1), var(&filter, 2), var(&[o], 3));
            let t = values(n * g.pixels() * o, seed ^ 4);
            let y = conv(&x, &wt, &b, window, relu).unwrap();
            let target = Tensor::from_vec(t.clone(), y.shape(), &Device::Cpu).unwrap();
            let grads = (&y * &target).unwrap().sum_all().unwrap().backward().unwrap();
            let flat = |v: &Var| v.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let mut exact = by_definition(&g, &flat(&x), &flat(&wt), &flat(&b), &t, relu);
            if relu {
                // At the ReLU's corner a rounding error decides the gradient; such a draw proves nothing.
                prop_assume!(exact[0].iter().all(|v| v.abs() > 1e-5));
                exact[0].iter_mut().for_each(|v| *v = v.max(0.0));
            }
            close(&y, &exact[0])?;
            close(grads.get(&x).unwrap(), &exact[1])?;
            close(grads.get(&wt).unwrap(), &exact[2])?;
            close(grads.get(&b).unwrap(), &exact[3])?;
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors() {
        let zeros = |d: &[usize]| Tensor::zeros(d, candle_core::DType::F32, &Device::Cpu).unwrap();
        let window = Window { kernel: [3, 3], stride: [1, 1], pad: [0; 4] };
        assert!(conv(&zeros(&[1, 2, 2, 1]), &zeros(&[1, 3, 3, 1]), &zeros(&[1]), window, true).is_err());
        assert!(conv(&zeros(&[1, 4, 4, 2]), &zeros(&[1, 3, 3, 1]), &zeros(&[1]), window, true).is_err());
        assert!(conv(&zeros(&[1, 4, 4, 1]), &zeros(&[1, 3, 3, 1]), &zeros(&[2]), window, true).is_err());
    }
}
