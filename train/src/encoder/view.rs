//! A network bound to tensors, ready to run: the view of it that objectives and attacks have.

use super::{Architecture, Bound, Heads, Place, values};
use crate::gaussian;
use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor, Var};
use candle_nn::ops::sigmoid;
use paradise_nn::exchange::Share;
use paradise_nn::graph::{Ledger, Mode, Trunk};

/// A batch of posteriors.
#[derive(Debug, Clone)]
pub struct Encoding {
    /// f32 `[n, d]`.
    pub mu: Tensor,
    /// f32 `[n, d]`.
    pub log_sigma: Tensor,
    /// f32 `[n, d]`.
    pub sigma: Tensor,
}

impl Encoding {
    /// From the heads' outputs.
    fn new(mu: Tensor, s: &Tensor, bound: Bound) -> Result<Self> {
        Ok(match bound {
            Bound::Sigmoid => Self { mu, log_sigma: gaussian::log_sigma(s)?, sigma: sigmoid(s)? },
            Bound::Tanh => {
                let log_sigma = s.tanh()?;
                Self { mu: mu.tanh()?, sigma: log_sigma.exp()?, log_sigma }
            }
        })
    }

    /// Posteriors `from..from + n`.
    ///
    /// # Errors
    /// If there are fewer.
    pub fn narrow(&self, from: usize, n: usize) -> Result<Self> {
        let part = |t: &Tensor| t.narrow(0, from, n);
        Ok(Self { mu: part(&self.mu)?, log_sigma: part(&self.log_sigma)?, sigma: part(&self.sigma)? })
    }
}

/// A network bound to tensors, ready to run.
#[derive(Debug, Clone)]
pub struct Encoder<'a> {
    /// Shape of the network.
    pub architecture: &'a Architecture,
    pub(super) trunk: Trunk,
    pub(super) decoder: Option<Trunk>,
    pub(super) mode: Mode,
    /// In the order of [`Network::variables`](super::Network::variables).
    pub(super) weights: Vec<Tensor>,
    /// Of the trunk and of the decoder.
    pub(super) ledgers: Option<[Ledger; 2]>,
    /// This process's part of the batches that come, if ranks share them.
    pub(super) share: Option<Share>,
}

impl Encoder<'_> {
    /// Where it runs.
    pub fn device(&self) -> &Device {
        self.at(Place::Trunk).device()
    }

    /// The gradient of a loss with respect to the network's variables, in their order; `None` where it does not depend
    /// on one. Every application of this view since the last call counts.
    ///
    /// # Errors
    /// If candle fails.
    pub fn gradients(&self, variables: &[Var], loss: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let mut store = loss.backward()?;
        let mut all: Vec<Option<Tensor>> = variables.iter().map(|v| store.remove(v)).collect();
        let last = variables.len() - 1;
        let places = [Some(0), self.decoder.is_some().then_some(last)];
        for (place, ledger) in places.into_iter().zip(self.ledgers.iter().flatten()) {
            if let Some(at) = place {
                all[at] = ledger.take();
            }
        }
        Ok(all)
    }

    /// The same network over a share of a batch: images are this rank's; while learning, features and what follows them are the whole
    /// batch's.
    pub fn sharing(self, share: Option<Share>) -> Self {
        Self { share, ..self }
    }

    /// The same network as it is attacked: no gradient reaches the variables, batch norms stand still.
    pub fn frozen(&self) -> Self {
        let weights = self.weights.iter().map(Tensor::detach).collect();
        Self { mode: Mode::Fixed, ledgers: None, weights, ..self.clone() }
    }

    /// Images f32 `[n, h, w, c]` from latents `[n, d]`.
    ///
    /// # Errors
    /// If there is no decoder, or the latents have another dimension.
    pub fn decode(&self, z: &Tensor) -> Result<Tensor> {
        let decoder = self.decoder.as_ref().context("this encoder has no decoder")?;
        let (n, d) = z.dims2()?;
        let ledger = self.ledgers.as_ref().map(|l| &l[1]);
        let theta = &self.weights[self.weights.len() - 1];
        decoder.apply(&z.reshape((n, 1, 1, d))?, theta, self.mode, ledger)
    }

    /// Weight, then bias of the trunk's stage `i`, as they are stored.
    ///
    /// # Errors
    /// If the parameters cannot be read.
    pub fn stage(&self, i: usize) -> Result<Vec<Vec<f32>>> {
        let theta = self.at(Place::Trunk);
        self.trunk.places(i).iter().map(|r| values(&theta.narrow(0, r.start, r.len())?)).collect()
    }

    fn at(&self, place: Place) -> &Tensor {
        &self.weights[place as usize]
    }

    fn mu(&self, features: &Tensor) -> Result<Tensor> {
        self.linear(features, self.at(Place::MuWeight), self.at(Place::MuBias))
    }

    /// Weight and bias of the heads and the classifier.
    ///
    /// # Errors
    /// If there is no classifier.
    pub fn heads(&self) -> Result<Heads<'_>> {
        Heads::of(|place| self.at(place), self.architecture.classes).context("this encoder has no classifier")
    }

    /// Every activation of images f32 `[n, h, w, c]` in [0, 1]: the images, then each stage's output.
    ///
    /// # Errors
    /// If the images have another shape.
    pub fn activations(&self, images: &Tensor) -> Result<Vec<Vec<f32>>> {
        self.trunk.activations(&values(images)?, images.dim(0)?, &values(self.at(Place::Trunk))?)
    }

    /// The posteriors of images f32 `[n, h, w, c]` in [0, 1].
    ///
    /// # Errors
    /// If the images have another shape.
    pub fn encode(&self, images: &Tensor) -> Result<Encoding> {
        let features = self.features(images)?;
        let s = self.linear(&features, self.at(Place::SWeight), self.at(Place::SBias))?;
        Encoding::new(self.mu(&features)?, &s, self.architecture.bound)
    }

    fn features(&self, images: &Tensor) -> Result<Tensor> {
        // Images of a validation or test set come from the host.
        let images = &images.to_device(self.device())?;
        let (theta, ledger) = (self.at(Place::Trunk), self.ledgers.as_ref().map(|l| &l[0]));
        let features = match &self.share {
            Some(share) if self.mode == Mode::Learn => {
                self.trunk.apply_shared(share, images, theta, self.mode, ledger)?
            }
            _ => self.trunk.apply(images, theta, self.mode, ledger)?,
        };
        Ok(features.flatten_from(1)?)
    }

    /// Logits f32 `[n, classes]` of latents `[n, d]`.
    ///
    /// # Errors
    /// If the latents have another dimension, or there is no classifier.
    pub fn classify(&self, z: &Tensor) -> Result<Tensor> {
        let (w, b) = self.heads()?.classifier;
        self.linear(z, w, b)
    }

    /// Logits of images, the classifier fed mu: what is served and attacked.
    ///
    /// # Errors
    /// If the images have another shape.
    pub fn logits(&self, images: &Tensor) -> Result<Tensor> {
        let mu = self.mu(&self.features(images)?)?;
        self.classify(&if self.architecture.bound == Bound::Tanh { mu.tanh()? } else { mu })
    }

    /// `x weight^T + bias`, f32 `[n, outputs]`.
    ///
    /// A product's rounding depends on its number of rows. Where a rank has its images to itself, they stand where they do in the
    /// whole batch, zeros around them, so that each row has the bits of one process.
    fn linear(&self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
        let of = |x: &Tensor| x.matmul(&weight.t()?)?.broadcast_add(bias);
        match &self.share {
            Some(share) if self.mode == Mode::Fixed && share.ranks() > 1 => {
                let own = share.own();
                ensure!(x.dim(0)? == own.len(), "{} rows of a rank that has {}", x.dim(0)?, own.len());
                let x = x.pad_with_zeros(0, own.start, share.images() - own.end)?;
                Ok(of(&x)?.narrow(0, own.start, own.len())?)
            }
            _ => Ok(of(x)?),
        }
    }
}
