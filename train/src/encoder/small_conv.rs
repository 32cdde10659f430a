//! The small convolutional encoder: 5x5 stride 2, 3x3 stride 2, one dense layer.

use super::{Architecture, Bound};
use paradise_engine::Shape;
use paradise_engine::layer::Window;
use paradise_nn::graph::{Graph, Init, Op, Stage};

/// Its widths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmallConv {
    /// Channels of the two convolutions.
    pub channels: [usize; 2],
    /// Width of the dense layer.
    pub hidden: usize,
    /// Latent dimension d.
    pub latent: usize,
}

impl SmallConv {
    /// The architecture over images of `input` and `classes` classes.
    pub fn architecture(&self, input: Shape, classes: usize) -> Architecture {
        let conv = |kernel: u16, out| Op::Conv {
            window: Window { kernel: [kernel; 2], stride: [2; 2], pad: [kernel / 2; 4] },
            groups: 1,
            out,
            bias: true,
            relu: true,
            residual: None,
        };
        let ops = [conv(5, self.channels[0]), conv(3, self.channels[1]), Op::Dense { out: self.hidden, relu: true }];
        let stages = ops.into_iter().enumerate().map(|(x, op)| Stage { x, op }).collect();
        let graph = Graph { input, stages };
        Architecture {
            graph,
            latent: self.latent,
            classes,
            bound: Bound::Sigmoid,
            init: Init::Uniform,
            decoder: None,
        }
    }
}
