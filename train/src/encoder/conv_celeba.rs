//! The convolutional encoder and decoder for 64 x 64 images in the layout of Chen et al. (2018), d = 64 in the
//! supplement: 4x4 stride-2 convolutions of 32, 32, 64 and 64 channels, a 4x4 convolution to 512, batch norm and ReLU
//! after each; the decoder mirrors it with transposed convolutions.

use super::{Architecture, Bound};
use paradise_engine::Shape;
use paradise_engine::layer::Window;
use paradise_nn::graph::{Graph, Init, Op, Stage};

const HALVE: Window = Window { kernel: [4, 4], stride: [2, 2], pad: [1; 4] };
const WHOLE: Window = Window { kernel: [4, 4], stride: [1, 1], pad: [0; 4] };
const POINT: Window = Window { kernel: [1, 1], stride: [1, 1], pad: [0; 4] };
const NORM: Op = Op::BatchNorm { relu: true };

fn chain(input: Shape, ops: Vec<Op>) -> Graph {
    Graph { input, stages: ops.into_iter().enumerate().map(|(x, op)| Stage { x, op }).collect() }
}

/// The encoder over 64 x 64 images; mu and log sigma are bounded by tanh.
pub fn encoder(latent: usize, input: Shape, classes: usize) -> Architecture {
    let conv = |window, out| Op::Conv { window, groups: 1, out, bias: false, relu: false, residual: None };
    let mut ops = Vec::new();
    for (window, out) in [(HALVE, 32), (HALVE, 32), (HALVE, 64), (HALVE, 64), (WHOLE, 512)] {
        ops.extend([conv(window, out), NORM]);
    }
    // The heads read a stored activation: a 1x1 average leaves the last map's values as they are.
    ops.push(Op::AvgPool { window: POINT });
    Architecture { graph: chain(input, ops), latent, classes, bound: Bound::Tanh, init: Init::He, decoder: None }
}

/// The decoder from a latent `[1, 1, d]` to 64 x 64 images.
pub fn decoder(latent: u16, image: Shape) -> Graph {
    let grow = |window, side: u16, out, relu| Op::Transposed { window, side: [side; 2], out, relu };
    let ops = vec![
        grow(POINT, 1, 512, false),
        NORM,
        grow(WHOLE, 4, 64, false),
        NORM,
        grow(HALVE, 8, 64, false),
        NORM,
        grow(HALVE, 16, 32, false),
        NORM,
        grow(HALVE, 32, 32, false),
        NORM,
        grow(HALVE, 64, usize::from(image.c), false),
    ];
    chain(Shape::new(1, 1, latent), ops)
}
