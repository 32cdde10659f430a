//! MobileNetV1 (Howard et al., 2017): depthwise 3x3 and pointwise 1x1 convolutions, each with a batch norm and a ReLU.

use super::{Architecture, Bound};
use anyhow::Result;
use paradise_engine::Shape;
use paradise_engine::layer::Window;
use paradise_nn::graph::{Graph, Init, Op, Stage};

/// Channels at full width and stride of each depthwise and pointwise pair.
const PAIRS: [(usize, u16); 13] = [
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
];

/// Channels of the first convolution at full width.
const STEM: usize = 32;

/// Images of at most so many rows keep their extent in the first convolution.
const SMALL: u16 = 64;

/// What distinguishes one from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MobileNet {
    /// Full width over this one's.
    pub narrower: usize,
    /// Latent dimension d.
    pub latent: usize,
}

impl MobileNet {
    /// The architecture over images of `input`, normalised by `statistics` (mean and standard deviation a channel)
    /// inside the graph.
    ///
    /// # Errors
    /// If the image is too small.
    pub fn architecture(&self, input: Shape, classes: usize, statistics: [&[f32]; 2]) -> Result<Architecture> {
        let [mean, std] = statistics.map(<[f32]>::to_vec);
        let mut ops = vec![Op::Normalise { mean, std }];
        let mut extent = [input.h, input.w];
        let mut layer = |kernel: u16, stride: u16, groups: usize, out: usize| {
            let window = Window { kernel: [kernel; 2], stride: [stride; 2], pad: [kernel / 2; 4] };
            ops.push(Op::Conv { window, groups, out, bias: false, relu: false, residual: None });
            ops.push(Op::BatchNorm { relu: true });
            extent = extent.map(|e| e.div_ceil(stride));
        };
        let mut channels = STEM / self.narrower;
        layer(3, if input.h.min(input.w) > SMALL { 2 } else { 1 }, 1, channels);
        for (out, stride) in PAIRS {
            layer(3, stride, channels, channels);
            channels = out / self.narrower;
            layer(1, 1, 1, channels);
        }
        ops.push(Op::AvgPool { window: Window { kernel: extent, stride: [1; 2], pad: [0; 4] } });
        let graph = Graph { input, stages: ops.into_iter().enumerate().map(|(x, op)| Stage { x, op }).collect() };
        graph.shapes()?;
        Ok(Architecture { graph, latent: self.latent, classes, bound: Bound::Sigmoid, init: Init::He, decoder: None })
    }
}
