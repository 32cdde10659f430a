//! Pre-activation residual networks (He et al., 2016b) and wide ones (Zagoruyko & Komodakis, 2016).
//!
//! A block: `a = relu(norm(x))`, `y = conv(relu(norm(conv(a)))) + shortcut`, the shortcut being `x`, or a 1x1
//! convolution of `a` where extents change.

use super::{Architecture, Bound};
use anyhow::{Result, ensure};
use paradise_engine::Shape;
use paradise_engine::layer::Window;
use paradise_nn::graph::{Graph, Init, Op, Stage};

/// What distinguishes one residual network from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResNet {
    /// Channels of the first convolution.
    pub stem: usize,
    /// 7x7 stride 2 and a 3x3 stride-2 pool first, as for ImageNet, instead of 3x3.
    pub large: bool,
    /// Channels and number of blocks of each group; every group but the first halves the image.
    pub groups: Vec<(usize, usize)>,
    /// Latent dimension d.
    pub latent: usize,
}

impl ResNet {
    /// ResNet-(6n + 2) for CIFAR: 16, 32, 64 channels.
    ///
    /// # Errors
    /// If the depth is not of that form.
    pub fn cifar(depth: usize, latent: usize) -> Result<Self> {
        ensure!(depth >= 8 && depth % 6 == 2, "a CIFAR residual network has 6n + 2 layers, not {depth}");
        let n = (depth - 2) / 6;
        Ok(Self { stem: 16, large: false, groups: vec![(16, n), (32, n), (64, n)], latent })
    }

    /// WRN-(6n + 4)-k: 16k, 32k, 64k channels.
    ///
    /// # Errors
    /// If the depth is not of that form.
    pub fn wide(depth: usize, widen: usize, latent: usize) -> Result<Self> {
        ensure!(depth >= 10 && depth % 6 == 4 && widen > 0, "a wide residual network has 6n + 4 layers, not {depth}");
        let n = (depth - 4) / 6;
        let groups = [16, 32, 64].map(|c| (c * widen, n)).to_vec();
        Ok(Self { stem: 16, large: false, groups, latent })
    }

    /// ResNet-34 for ImageNet.
    pub fn imagenet_34(latent: usize) -> Self {
        Self { stem: 64, large: true, groups: vec![(64, 3), (128, 4), (256, 6), (512, 3)], latent }
    }

    /// The architecture over images of `input`, normalised by `statistics` (mean and standard deviation a channel)
    /// inside the graph.
    ///
    /// # Errors
    /// If the image is too small for its groups.
    pub fn architecture(&self, input: Shape, classes: usize, statistics: [&[f32]; 2]) -> Result<Architecture> {
        let mut net = Builder { stages: Vec::new() };
        let [mean, std] = statistics.map(<[f32]>::to_vec);
        let image = net.push(0, Op::Normalise { mean, std });
        let mut x = if self.large {
            let stem = net.conv(image, self.stem, 7, 2, None);
            let window = Window { kernel: [3; 2], stride: [2; 2], pad: [1; 4] };
            net.push(stem, Op::MaxPool { window })
        } else {
            net.conv(image, self.stem, 3, 1, None)
        };
        let mut channels = self.stem;
        for (g, &(out, blocks)) in self.groups.iter().enumerate() {
            for b in 0..blocks {
                let stride = if g > 0 && b == 0 { 2 } else { 1 };
                x = net.block(x, channels, out, stride);
                channels = out;
            }
        }
        let last = net.push(x, Op::BatchNorm { relu: true });
        let graph = Graph { input, stages: net.stages.clone() };
        let shapes = graph_shapes(&graph)?;
        let end = shapes[shapes.len() - 1];
        let window = Window { kernel: [end.h, end.w], stride: [1, 1], pad: [0; 4] };
        net.push(last, Op::AvgPool { window });
        let graph = Graph { input, stages: net.stages };
        graph.shapes()?;
        Ok(Architecture { graph, latent: self.latent, classes, bound: Bound::Sigmoid, init: Init::He, decoder: None })
    }
}

/// Extents of a graph that still ends in a map.
fn graph_shapes(graph: &Graph) -> Result<Vec<Shape>> {
    let mut closed = graph.clone();
    let window = Window { kernel: [1, 1], stride: [1, 1], pad: [0; 4] };
    closed.stages.push(Stage { x: graph.stages.len(), op: Op::AvgPool { window } });
    closed.shapes()
}

struct Builder {
    stages: Vec<Stage>,
}

impl Builder {
    fn push(&mut self, x: usize, op: Op) -> usize {
        self.stages.push(Stage { x, op });
        self.stages.len()
    }

    fn conv(&mut self, x: usize, out: usize, kernel: u16, stride: u16, residual: Option<usize>) -> usize {
        let window = Window { kernel: [kernel; 2], stride: [stride; 2], pad: [kernel / 2; 4] };
        self.push(x, Op::Conv { window, groups: 1, out, bias: false, relu: false, residual })
    }

    fn block(&mut self, x: usize, channels: usize, out: usize, stride: u16) -> usize {
        let a = self.push(x, Op::BatchNorm { relu: true });
        let shortcut = if channels != out || stride != 1 { self.conv(a, out, 1, stride, None) } else { x };
        let first = self.conv(a, out, 3, stride, None);
        let b = self.push(first, Op::BatchNorm { relu: true });
        self.conv(b, out, 3, 1, Some(shortcut))
    }
}
