//! The `[encoder]` table: which network, and its widths.

use crate::encoder::mobilenet::MobileNet;
use crate::encoder::resnet::ResNet;
use crate::encoder::small_conv::SmallConv;
use crate::encoder::{Architecture, conv_celeba, mlp};
use anyhow::{Result, bail, ensure};
use paradise_engine::Shape;
use paradise_nn::graph::Graph;
use serde::{Deserialize, Serialize};

/// The networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// 5x5 and 3x3 stride-2 convolutions, one dense layer.
    #[serde(rename = "small-conv")]
    SmallConv,
    /// Two dense layers of 1,000.
    #[serde(rename = "mlp-1000")]
    Mlp1000,
    /// Chen et al. (2018) for 64 x 64 images.
    #[serde(rename = "conv-celeba")]
    ConvCeleba,
    /// Pre-activation, one block a group: the widths of MLPerf Tiny's network.
    #[serde(rename = "resnet-8")]
    ResNet8,
    /// Pre-activation, three blocks a group.
    #[serde(rename = "resnet-20")]
    ResNet20,
    /// Five blocks a group.
    #[serde(rename = "resnet-32")]
    ResNet32,
    /// Nine blocks a group.
    #[serde(rename = "resnet-56")]
    ResNet56,
    /// Eighteen blocks a group.
    #[serde(rename = "resnet-110")]
    ResNet110,
    /// Wide: 64, 128, 256 channels, two blocks a group.
    #[serde(rename = "wrn-16-4")]
    Wrn16x4,
    /// Wide: 160, 320, 640 channels, four blocks a group.
    #[serde(rename = "wrn-28-10")]
    Wrn28x10,
    /// Pre-activation, for ImageNet.
    #[serde(rename = "resnet-34")]
    ResNet34,
    /// MobileNetV1 at a quarter of its width: MLPerf Tiny's network for person detection.
    #[serde(rename = "mobilenet-25")]
    MobileNet25,
}

/// The `[encoder]` table. Keys that a network has no use for are refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Encoder {
    /// Which network.
    pub kind: Kind,
    /// Channels of `small-conv`'s two convolutions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<[usize; 2]>,
    /// Width of `small-conv`'s dense layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden: Option<usize>,
    /// Latent dimension d.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latent: Option<usize>,
    /// Mean of the pixels a channel, in [0, 1]; for networks with batch norms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<Vec<f32>>,
    /// Their standard deviation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<Vec<f32>>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self { kind: Kind::SmallConv, channels: None, hidden: None, latent: None, mean: None, std: None }
    }
}

/// Mean and standard deviation of Fashion-MNIST's, CIFAR-10's and ImageNet's training images.
const GREY: [&[f32]; 2] = [&[0.2860], &[0.3530]];
const CIFAR: [&[f32]; 2] = [&[0.4914, 0.4822, 0.4465], &[0.2470, 0.2435, 0.2616]];
const IMAGENET: [&[f32]; 2] = [&[0.485, 0.456, 0.406], &[0.229, 0.224, 0.225]];

impl Encoder {
    /// The latent dimension: the supplement's for each network.
    pub fn latent(&self) -> usize {
        self.latent.unwrap_or(match self.kind {
            Kind::SmallConv => 32,
            Kind::Mlp1000 => 2,
            Kind::Wrn16x4 | Kind::Wrn28x10 => 128,
            Kind::ResNet34 => 512,
            _ => 64,
        })
    }

    fn is_normalised(&self) -> bool {
        !matches!(self.kind, Kind::SmallConv | Kind::Mlp1000 | Kind::ConvCeleba)
    }

    /// Refuses what cannot be meant.
    ///
    /// # Errors
    /// With the key, its value and its range.
    pub fn validate(&self) -> Result<()> {
        let in_range = |name: &str, value: usize, high: usize| {
            ensure!((1..=high).contains(&value), "encoder.{name} = {value} is not in 1..={high}");
            Ok(())
        };
        in_range("latent", self.latent(), 4096)?;
        for c in self.channels.unwrap_or([1, 1]) {
            in_range("channels", c, 4096)?;
        }
        in_range("hidden", self.hidden.unwrap_or(1), 65_535)?;
        let small = self.kind == Kind::SmallConv;
        let foreign = [("channels", self.channels.is_some() && !small), ("hidden", self.hidden.is_some() && !small)];
        for (key, is) in foreign.into_iter().chain([
            ("mean", self.mean.is_some() && !self.is_normalised()),
            ("std", self.std.is_some() && !self.is_normalised()),
        ]) {
            ensure!(!is, "encoder.{key} has no meaning for this encoder.kind");
        }
        for std in self.std.iter().flatten() {
            ensure!(*std > 0.0 && std.is_finite(), "encoder.std = {std} is not > 0");
        }
        Ok(())
    }

    /// The decoder that mirrors this network, for images of `image`.
    ///
    /// # Errors
    /// If the network has none.
    pub fn decoder(&self, image: Shape) -> Result<Graph> {
        let latent = u16::try_from(self.latent())?;
        match self.kind {
            Kind::Mlp1000 => Ok(mlp::decoder(&[1000, 1000], latent, image)),
            Kind::ConvCeleba => Ok(conv_celeba::decoder(latent, image)),
            _ => bail!("this encoder.kind has no decoder: paradise-unsupervised takes mlp-1000 or conv-celeba"),
        }
    }

    /// The architecture over images of `input` and `classes` classes.
    ///
    /// ```
    /// use paradise_engine::Shape;
    /// use paradise_train::config::encoder::{Encoder, Kind};
    /// let network = Encoder { kind: Kind::ResNet8, ..Encoder::default() }.architecture(Shape::new(32, 32, 3), 10)?;
    /// assert_eq!((network.latent, network.macs()? / 1_000_000), (64, 12));
    /// # Ok::<(), anyhow::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the images are too small, or of another size than the network needs.
    pub fn architecture(&self, input: Shape, classes: usize) -> Result<Architecture> {
        let latent = self.latent();
        let known = match input.c {
            1 => GREY,
            3 if input.h <= 64 => CIFAR,
            3 => IMAGENET,
            c => bail!("images of {c} channels need encoder.mean and encoder.std"),
        };
        let statistics = [self.mean.as_deref().unwrap_or(known[0]), self.std.as_deref().unwrap_or(known[1])];
        let residual = |net: ResNet| net.architecture(input, classes, statistics);
        let architecture = match self.kind {
            Kind::SmallConv => {
                let (channels, hidden) = (self.channels.unwrap_or([24, 48]), self.hidden.unwrap_or(128));
                SmallConv { channels, hidden, latent }.architecture(input, classes)
            }
            Kind::Mlp1000 => mlp::encoder(&[1000, 1000], latent, input, classes),
            Kind::ConvCeleba => {
                ensure!([input.h, input.w] == [64, 64], "conv-celeba needs 64 x 64 images, not {input:?}");
                conv_celeba::encoder(latent, input, classes)
            }
            Kind::ResNet8 => residual(ResNet::cifar(8, latent)?)?,
            Kind::ResNet20 => residual(ResNet::cifar(20, latent)?)?,
            Kind::ResNet32 => residual(ResNet::cifar(32, latent)?)?,
            Kind::ResNet56 => residual(ResNet::cifar(56, latent)?)?,
            Kind::ResNet110 => residual(ResNet::cifar(110, latent)?)?,
            Kind::Wrn16x4 => residual(ResNet::wide(16, 4, latent)?)?,
            Kind::Wrn28x10 => residual(ResNet::wide(28, 10, latent)?)?,
            Kind::ResNet34 => residual(ResNet::imagenet_34(latent))?,
            Kind::MobileNet25 => MobileNet { narrower: 4, latent }.architecture(input, classes, statistics)?,
        };
        architecture.features()?;
        Ok(architecture)
    }
}
