//! A trained network as attacks run it: folded as it is served, from pixels to logits in one graph.

use super::model::{Classifier, Differentiable, NOT_FINITE, checked};
use crate::dataset::hex;
use crate::encoder::{Bound, Network, values};
use crate::graph::{Frozen, Op, Stage};
use anyhow::{Result, ensure};
use candle_core::Device;
use paradise_engine::Shape;
use sha2::{Digest, Sha256};

/// Trunk, mu head and classifier in one graph.
#[derive(Debug, Clone)]
pub struct Served {
    frozen: Frozen,
    classes: usize,
}

impl Served {
    /// The network with its batch norms folded: the numbers that are exported.
    ///
    /// # Errors
    /// If it has no classifier, bounds mu, or cannot be folded.
    pub fn new(network: &Network) -> Result<Self> {
        let folded = network.folded()?;
        let architecture = &folded.architecture;
        ensure!(architecture.classes > 0, "this encoder has no classifier");
        ensure!(architecture.bound == Bound::Sigmoid, "an encoder whose mu is bounded is not attacked by itself");
        let mut graph = architecture.graph.clone();
        for out in [architecture.latent, architecture.classes] {
            graph.stages.push(Stage { x: graph.stages.len(), op: Op::Dense { out, relu: false } });
        }
        // The s head, variables 3 and 4, has no part in the logits.
        let mut theta = Vec::new();
        for i in [0, 1, 2, 5, 6] {
            theta.extend(values(folded.variables[i].as_tensor())?);
        }
        let classes = architecture.classes;
        Ok(Self { frozen: Frozen::new(graph, theta)?, classes })
    }

    /// The same where `device` is.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn on(self, device: &Device) -> Result<Self> {
        Ok(Self { frozen: self.frozen.on(device)?, ..self })
    }

    /// SHA-256 of its graph and numbers, in hexadecimal.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{:?}", self.frozen.graph()));
        self.frozen.theta().iter().for_each(|v| hash.update(v.to_le_bytes()));
        hex(&hash.finalize())
    }
}

impl Classifier for Served {
    fn shape(&self) -> Shape {
        self.frozen.shape()
    }

    fn batch(&self) -> (usize, bool) {
        self.frozen.batch()
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn logits(&self, images: &[f32]) -> Result<Vec<f32>> {
        let n = images.len() / self.shape().len() as usize;
        checked(self.frozen.forward(images)?, n, self.classes)
    }
}

impl Differentiable for Served {
    fn pull(
        &self,
        images: &[f32],
        weigh: &mut dyn FnMut(&[f32]) -> Result<Vec<f32>>,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        self.frozen.pull(images, &mut |logits| {
            ensure!(logits.iter().all(|l| l.is_finite()), NOT_FINITE);
            weigh(logits)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::{resnet::ResNet, small_conv::SmallConv};
    use crate::random::{self, Purpose};

    #[test]
    fn it_equals_the_encoder_in_logits_and_gradients_whatever_the_batch() {
        let shape = Shape::new(12, 12, 3);
        let small = SmallConv { channels: [5, 18], hidden: 20, latent: 6 }.architecture(shape, 4);
        let statistics: [&[f32]; 2] = [&[0.4, 0.5, 0.6], &[0.2, 0.3, 0.25]];
        let deep = ResNet::cifar(8, 6).unwrap().architecture(shape, 4, statistics).unwrap();
        for architecture in [small, deep] {
            let network = Network::new(architecture, 3).unwrap();
            let (served, view) = (Served::new(&network).unwrap(), network.frozen());
            let mut rng = random::stream(1, Purpose::Noise, 0, 0, 0);
            let x: Vec<f32> = (0..5 * 432).map(|_| random::uniform(&mut rng)).collect();
            let mut weigh = |z: &[f32]| Ok(z.iter().enumerate().map(|(i, _)| i as f32 % 7.0 - 3.0).collect());
            let (logits, gradient) = served.pull(&x, &mut weigh).unwrap();
            assert_eq!(logits, Classifier::logits(&served, &x).unwrap());
            let (want, slope) = view.pull(&x, &mut weigh).unwrap();
            let top = |v: &[f32]| v.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            assert!(logits.iter().zip(&want).all(|(a, b)| (a - b).abs() <= 1e-5 * top(&want)));
            assert!(gradient.iter().zip(&slope).all(|(a, b)| (a - b).abs() <= 1e-4 * top(&slope)));
            for (i, image) in x.chunks_exact(432).enumerate() {
                assert_eq!(Classifier::logits(&served, image).unwrap(), logits[i * 4..i * 4 + 4]);
                let (_, alone) = served
                    .pull(image, &mut |z| Ok((0..z.len()).map(|k| (i * 4 + k) as f32 % 7.0 - 3.0).collect()))
                    .unwrap();
                assert_eq!(alone, gradient[i * 432..(i + 1) * 432]);
            }
        }
    }
}
