//! The small convolutional encoder: 5x5 stride 2, 3x3 stride 2, one dense layer.

use super::{Architecture, Stage};
use paradise_engine::Shape;
use paradise_engine::layer::Window;
use serde::{Deserialize, Serialize};

/// Its widths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SmallConv {
    /// Channels of the two convolutions.
    pub channels: [usize; 2],
    /// Width of the dense layer.
    pub hidden: usize,
    /// Latent dimension d.
    pub latent: usize,
}

impl Default for SmallConv {
    fn default() -> Self {
        Self { channels: [24, 48], hidden: 128, latent: 32 }
    }
}

impl SmallConv {
    /// The architecture over images of `input` and `classes` classes.
    pub fn architecture(&self, input: Shape, classes: usize) -> Architecture {
        let conv = |kernel: u16, out| Stage::Conv {
            window: Window { kernel: [kernel; 2], stride: [2; 2], pad: [kernel / 2; 4] },
            out,
        };
        let stages = vec![conv(5, self.channels[0]), conv(3, self.channels[1]), Stage::Dense { out: self.hidden }];
        Architecture { input, stages, latent: self.latent, classes }
    }
}
