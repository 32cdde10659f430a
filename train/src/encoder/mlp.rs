//! The supplement's MNIST networks: fully connected layers with ReLU, and the same in reverse as a decoder.

use super::{Architecture, Bound};
use paradise_engine::Shape;
use paradise_nn::graph::{Graph, Init, Op, Stage};

fn dense(widths: &[usize], last_relu: bool) -> Vec<Stage> {
    let stage =
        |(x, out): (usize, &usize)| Stage { x, op: Op::Dense { out: *out, relu: last_relu || x + 1 < widths.len() } };
    widths.iter().enumerate().map(stage).collect()
}

/// Dense layers of these widths over flattened images (supplement, section 2: 1,000 and 1,000).
pub fn encoder(hidden: &[usize], latent: usize, input: Shape, classes: usize) -> Architecture {
    let graph = Graph { input, stages: dense(hidden, true) };
    Architecture { graph, latent, classes, bound: Bound::Sigmoid, init: Init::Uniform, decoder: None }
}

/// The mirrored decoder: from a latent `[1, 1, d]` to an image's values, without a bound on them.
pub fn decoder(hidden: &[usize], latent: u16, image: Shape) -> Graph {
    let mut widths: Vec<usize> = hidden.iter().rev().copied().collect();
    widths.push(image.len() as usize);
    Graph { input: Shape::new(1, 1, latent), stages: dense(&widths, false) }
}
