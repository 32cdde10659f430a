//! The shape of a whole encoder without its numbers.

use anyhow::{Result, ensure};
use paradise_nn::graph::{Graph, Init, Parameter};

/// How the heads' outputs become mu and log sigma.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// mu as it is, `sigma = sigmoid(s)` (supplement, section 2).
    Sigmoid,
    /// `mu = tanh`, `log sigma = tanh` (the supplement's CelebA setting).
    Tanh,
}

/// A trunk, its heads and its classifier.
#[derive(Debug, Clone, PartialEq)]
pub struct Architecture {
    /// From image to features.
    pub graph: Graph,
    /// Latent dimension d.
    pub latent: usize,
    /// Number of classes; 0 for an encoder without a classifier.
    pub classes: usize,
    /// How the heads are bounded.
    pub bound: Bound,
    /// How the trunk's weights start; heads and classifier always start uniform.
    pub init: Init,
    /// From a latent to an image, where images are reconstructed.
    pub decoder: Option<Graph>,
}

impl Architecture {
    /// Values of the features.
    ///
    /// # Errors
    /// If the graph is not consistent.
    pub fn features(&self) -> Result<usize> {
        let shapes = self.graph.shapes()?;
        Ok(shapes[shapes.len() - 1].len() as usize)
    }

    /// Weight and bias of the heads and the classifier: mu, s, classifier.
    ///
    /// # Errors
    /// If the graph is not consistent.
    pub fn head_parameters(&self) -> Result<Vec<Parameter>> {
        let features = self.features()?;
        ensure!(self.latent > 0, "a latent dimension of 0");
        let mut heads = vec![("mu", [self.latent, features]), ("s", [self.latent, features])];
        if self.classes > 0 {
            heads.push(("classifier", [self.classes, self.latent]));
        }
        let pair = |(name, [out, width]): (&str, [usize; 2])| {
            let one = |part: &str, dims: Vec<usize>, decays| Parameter {
                name: format!("{name}.{part}"),
                dims,
                fan_in: width,
                fan_out: out,
                init: Init::Uniform,
                decays,
            };
            [one("weight", vec![out, width], true), one("bias", vec![out], false)]
        };
        Ok(heads.into_iter().flat_map(pair).collect())
    }

    /// All parameters in checkpoint order: each stage's, then mu, s, classifier.
    ///
    /// # Errors
    /// If the graph is not consistent.
    pub fn parameters(&self) -> Result<Vec<Parameter>> {
        let mut all: Vec<Parameter> = self.graph.parameters(self.init)?.into_iter().flatten().collect();
        all.extend(self.head_parameters()?);
        if let Some(decoder) = &self.decoder {
            let named = |p: Parameter| Parameter { name: format!("decoder.{}", p.name), ..p };
            all.extend(decoder.parameters(self.init)?.into_iter().flatten().map(named));
        }
        Ok(all)
    }

    /// Multiply-accumulates of one image, heads and classifier included.
    ///
    /// # Errors
    /// If the graph is not consistent.
    pub fn macs(&self) -> Result<u64> {
        let heads: usize = self.head_parameters()?.iter().filter(|p| p.decays).map(Parameter::len).sum();
        let decoder = self.decoder.as_ref().map_or(Ok(Vec::new()), Graph::macs)?;
        Ok(self.graph.macs()?.iter().chain(&decoder).sum::<u64>() + heads as u64)
    }
}
