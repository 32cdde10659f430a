//! Gradients of a convolution, a chunk of images at a time; the chunks' weight gradients are added in order.

use super::CHUNK;
use super::geometry::Geometry;
use crate::ops::gemm::{Matrix, multiply};
use rayon::prelude::*;

/// A convolution's inputs, output and the gradient of that output.
pub(super) struct Backward<'a> {
    pub g: Geometry,
    pub relu: bool,
    pub x: &'a [f32],
    pub w: &'a [f32],
    pub y: &'a [f32],
    pub grad: &'a [f32],
}

/// The gradients that were asked for.
pub(super) struct Gradients {
    pub x: Option<Vec<f32>>,
    pub w: Option<Vec<f32>>,
    pub b: Option<Vec<f32>>,
}

/// A chunk's gradients of weights and bias.
type Partial = (Vec<f32>, Vec<f32>);

/// Memory of one thread.
#[derive(Default)]
struct Scratch {
    grad: Vec<f32>,
    columns: Vec<f32>,
}

impl Backward<'_> {
    /// Gradients of the input, and of weights and bias.
    pub fn run(&self, needs_x: bool, needs_weights: bool) -> Gradients {
        let g = &self.g;
        let each = g.pixels() * g.out_c;
        let mut dx = vec![0.0; if needs_x { self.x.len() } else { 0 }];
        // With no input gradient to write, every chunk gets an empty slice.
        let dx_chunks: Vec<&mut [f32]> = if needs_x {
            dx.chunks_mut(CHUNK * g.image()).collect()
        } else {
            (0..g.n.div_ceil(CHUNK)).map(|_| Default::default()).collect()
        };
        let partials: Vec<Partial> = dx_chunks
            .into_par_iter()
            .enumerate()
            .map_init(Scratch::default, |scratch, (chunk, dx)| {
                let images = chunk * CHUNK..g.n.min((chunk + 1) * CHUNK);
                let range = images.start * each..images.end * each;
                self.masked(range, &mut scratch.grad);
                let rows = images.len() * g.pixels();
                scratch.columns.resize(rows * g.depth(), 0.0);
                let partial = if needs_weights {
                    g.unroll_chunk(&self.x[images.start * g.image()..images.end * g.image()], &mut scratch.columns);
                    self.weights(rows, scratch)
                } else {
                    Default::default()
                };
                if needs_x {
                    let w = Matrix::new(self.w, g.out_c, g.depth());
                    multiply(&mut scratch.columns, false, Matrix::new(&scratch.grad, rows, g.out_c), w);
                    for (dx, columns) in
                        dx.chunks_exact_mut(g.image()).zip(scratch.columns.chunks_exact(g.pixels() * g.depth()))
                    {
                        g.roll(columns, dx);
                    }
                }
                partial
            })
            .collect();
        let sum = |pick: fn(&Partial) -> &Vec<f32>| {
            let mut total = vec![0.0; pick(&partials[0]).len()];
            for partial in &partials {
                total.iter_mut().zip(pick(partial)).for_each(|(t, p)| *t += p);
            }
            total
        };
        Gradients {
            x: needs_x.then_some(dx),
            w: needs_weights.then(|| sum(|p| &p.0)),
            b: needs_weights.then(|| sum(|p| &p.1)),
        }
    }

    /// The output's gradient, zero where the ReLU was.
    fn masked(&self, range: std::ops::Range<usize>, out: &mut Vec<f32>) {
        out.clear();
        if self.relu {
            let pairs = self.grad[range.clone()].iter().zip(&self.y[range]);
            out.extend(pairs.map(|(g, y)| if *y > 0.0 { *g } else { 0.0 }));
        } else {
            out.extend_from_slice(&self.grad[range]);
        }
    }

    fn weights(&self, rows: usize, scratch: &Scratch) -> Partial {
        let g = &self.g;
        let grad = Matrix::new(&scratch.grad, rows, g.out_c);
        let mut dw = vec![0.0; g.out_c * g.depth()];
        multiply(&mut dw, false, grad.t(), Matrix::new(&scratch.columns, rows, g.depth()));
        let mut db = vec![0.0; g.out_c];
        for row in scratch.grad.chunks_exact(g.out_c) {
            db.iter_mut().zip(row).for_each(|(b, r)| *b += r);
        }
        (dw, db)
    }
}
