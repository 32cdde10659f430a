//! A trained network as attacks run it: folded as it is served, from pixels to logits in one graph. The same graph that ends
//! in mu and s is what the adaptive attack on abstention runs.

use super::classifier::weighed;
use super::{Bound, Heads, Network, values};
use anyhow::{Result, ensure};
use candle_core::Device;
use paradise_attack::abstaining::AbstainingModel;
use paradise_attack::{Classifier, Differentiable, Error, checked_logits};
use paradise_engine::{Model, Shape};
use paradise_nn::graph::{FixedGraph, Op, Stage};
use paradise_support::hex;
use sha2::{Digest, Sha256};

/// Trunk, mu head and classifier in one graph.
#[derive(Debug, Clone)]
pub struct LogitModel {
    graph: FixedGraph,
    /// Numbers that it gives for an image: logits, or mu and s.
    outputs: usize,
}

impl LogitModel {
    /// The network with its batch norms folded: the numbers that are exported.
    ///
    /// # Errors
    /// If it has no classifier, bounds mu, or cannot be folded.
    pub fn new(network: &Network) -> Result<Self> {
        let folded = served(network)?;
        let architecture = &folded.architecture;
        let mut graph = architecture.graph.clone();
        for out in [architecture.latent, architecture.classes] {
            graph.stages.push(Stage { x: graph.stages.len(), op: Op::Dense { out, relu: false } });
        }
        // The s head has no part in the logits.
        let Heads { mu, classifier, .. } = folded.heads()?;
        let mut theta = values(folded.trunk_parameters())?;
        for (weight, bias) in [mu, classifier] {
            theta.extend(values(weight)?);
            theta.extend(values(bias)?);
        }
        Ok(Self { outputs: architecture.classes, graph: FixedGraph::new(graph, theta)? })
    }

    /// The network up to its posterior: mu, then s, in the place of logits.
    fn posterior(folded: &Network) -> Result<Self> {
        let outputs = 2 * folded.architecture.latent;
        let mut graph = folded.architecture.graph.clone();
        graph.stages.push(Stage { x: graph.stages.len(), op: Op::Dense { out: outputs, relu: false } });
        // mu and s as the rows of one dense stage.
        let Heads { mu, s, .. } = folded.heads()?;
        let mut theta = values(folded.trunk_parameters())?;
        for rows in [mu.0, s.0, mu.1, s.1] {
            theta.extend(values(rows)?);
        }
        Ok(Self { outputs, graph: FixedGraph::new(graph, theta)? })
    }

    /// The same where `device` is.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn on(self, device: &Device) -> Result<Self> {
        Ok(Self { graph: self.graph.on(device)?, ..self })
    }

    /// SHA-256 of its graph and numbers, in hexadecimal.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{:?}", self.graph.graph()));
        self.graph.theta().iter().for_each(|v| hash.update(v.to_le_bytes()));
        hex(&hash.finalize())
    }
}

impl Classifier for LogitModel {
    fn shape(&self) -> Shape {
        self.graph.shape()
    }

    fn batch(&self) -> (usize, bool) {
        self.graph.batch()
    }

    fn classes(&self) -> usize {
        self.outputs
    }

    fn logits(&self, images: &[f32]) -> paradise_attack::Result<Vec<f32>> {
        let n = images.len() / self.shape().len() as usize;
        checked_logits(self.graph.forward(images).map_err(Error::model)?, n, self.outputs)
    }
}

impl Differentiable for LogitModel {
    fn pull(
        &self,
        images: &[f32],
        weigh: &mut dyn FnMut(&[f32]) -> paradise_attack::Result<Vec<f32>>,
    ) -> paradise_attack::Result<(Vec<f32>, Vec<f32>)> {
        self.graph.pull(images, &mut |logits| Ok(weighed(logits, weigh)?)).map_err(Error::model)
    }
}

/// The network folded as it is served.
fn served(network: &Network) -> Result<Network> {
    let folded = network.folded()?;
    ensure!(folded.architecture.classes > 0, "this encoder has no classifier");
    ensure!(folded.architecture.bound == Bound::Sigmoid, "an encoder whose mu is bounded is not served");
    Ok(folded)
}

/// The network, folded as it is served, under the confidence of `model`, where `device` is.
///
/// # Errors
/// If it has no classifier, bounds mu, has other extents than the model, or the device has no room.
pub fn abstaining<'m>(network: &Network, model: &'m Model<'m>, device: &Device) -> Result<AbstainingModel<'m>> {
    let folded = served(network)?;
    let (weight, bias) = folded.heads()?.classifier;
    let posterior = LogitModel::posterior(&folded)?.on(device)?;
    Ok(AbstainingModel::new(Box::new(posterior), values(weight)?, values(bias)?, model)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::confidence;
    use crate::encoder::{resnet::ResNet, small_conv::SmallConv};
    use crate::prediction::predict;
    use paradise_data::{Training, embedded};
    use paradise_support::random::{self, Purpose};

    #[test]
    fn it_equals_the_encoder_in_logits_and_gradients_whatever_the_batch() {
        let shape = Shape::new(12, 12, 3);
        let small = SmallConv { channels: [5, 18], hidden: 20, latent: 6 }.architecture(shape, 4);
        let statistics: [&[f32]; 2] = [&[0.4, 0.5, 0.6], &[0.2, 0.3, 0.25]];
        let deep = ResNet::cifar(8, 6).unwrap().architecture(shape, 4, statistics).unwrap();
        for architecture in [small, deep] {
            let network = Network::new(architecture, 3).unwrap();
            let (served, view) = (LogitModel::new(&network).unwrap(), network.frozen());
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

    #[test]
    fn its_posterior_is_judged_as_the_engine_judges_the_encoders() {
        let mut splits = embedded::subset().unwrap();
        splits.train = Training::Memory(splits.train.head(300).unwrap());
        splits.calibration = splits.calibration.head(100);
        let encoder = SmallConv { channels: [3, 4], hidden: 12, latent: 4 };
        let network = Network::new(encoder.architecture(splits.test.shape, 10), 2).unwrap();
        let folded = network.folded().unwrap();
        let bytes = confidence::fit_float(&folded, &splits, 0.2).unwrap();
        let model = Model::parse(&bytes).unwrap();
        let abstaining = abstaining(&network, &model, &Device::Cpu).unwrap();
        let set = splits.test.head(40);
        let predictions = predict(&folded.frozen(), &model, &set).unwrap();
        let pixels = paradise_attack::pixels(&set);
        let posteriors = abstaining.posteriors(&pixels).unwrap();
        let seen = pixels.chunks_exact(set.shape.len() as usize).zip(posteriors.chunks_exact(8));
        let same = seen.zip(&predictions).filter(|((image, p), there)| {
            let here = abstaining.judge(image, &p[..4], &p[4..]);
            here.class == usize::from(there.class) && here.accepted == there.accept
        });
        // Another order of the sums may move a value over a step of its p-value.
        let same = same.count();
        assert!(same >= 39, "{same}");
    }
}
