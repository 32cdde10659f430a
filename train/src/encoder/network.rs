//! A network that learns, and the view of it that objectives and attacks run.

use super::{Architecture, Bound};
use crate::device::Precision;
use crate::gaussian;
use crate::graph::{Init, Ledger, Mode, Parameter, Trunk, fold};
use crate::random::{self, Purpose};
use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor, Var};
use candle_nn::ops::sigmoid;

/// A network that learns: its architecture and variables.
#[derive(Debug, Clone)]
pub struct Network {
    /// Shape of the network.
    pub architecture: Architecture,
    /// The trunk's parameters in one vector, then weight and bias of mu, s and the classifier, then the decoder's
    /// parameters in one vector.
    pub variables: Vec<Var>,
    /// The trunk and its running statistics.
    pub trunk: Trunk,
    /// The decoder and its running statistics, where images are reconstructed.
    pub decoder: Option<Trunk>,
}

/// One parameter's numbers; keyed by the parameter's index.
fn fresh(p: &Parameter, index: usize, seed: u64) -> Vec<f32> {
    let mut rng = random::stream(seed, Purpose::Init, 0, index as u64, 0);
    let bound = 1.0 / (p.fan_in as f32).sqrt();
    let deviation = (2.0 / p.fan_out as f32).sqrt();
    let one = |_| match p.init {
        Init::Uniform => bound * (2.0 * random::uniform(&mut rng) - 1.0),
        Init::He => deviation * random::normal(&mut rng),
        Init::Ones => 1.0,
        Init::Zeros => 0.0,
    };
    (0..p.len()).map(one).collect()
}

/// Each parameter's numbers in the extents of a network's variables: the trunk's in one vector, the heads' on their own,
/// the decoder's in one vector.
fn gather(architecture: &Architecture, numbers: &[Vec<f32>]) -> Result<Vec<Tensor>> {
    let parameters = architecture.parameters()?;
    ensure!(numbers.len() == parameters.len(), "{} parameters instead of {}", numbers.len(), parameters.len());
    for (p, v) in parameters.iter().zip(numbers) {
        ensure!(v.len() == p.len(), "{}: {} values instead of {}", p.name, v.len(), p.len());
    }
    let body = architecture.graph.parameters(architecture.init)?.iter().map(Vec::len).sum();
    let tail = body + architecture.head_parameters()?.len();
    let flat = |numbers: &[Vec<f32>]| Tensor::new(numbers.concat(), &Device::Cpu);
    let mut all = vec![flat(&numbers[..body])?];
    for (p, v) in parameters[body..tail].iter().zip(&numbers[body..]) {
        all.push(Tensor::from_slice(v, p.dims.as_slice(), &Device::Cpu)?);
    }
    if architecture.decoder.is_some() {
        all.push(flat(&numbers[tail..])?);
    }
    Ok(all)
}

impl Network {
    /// Fresh numbers, keyed by seed and parameter.
    ///
    /// # Errors
    /// If the graph is not consistent.
    pub fn new(architecture: Architecture, seed: u64) -> Result<Self> {
        let numbers: Vec<Vec<f32>> =
            architecture.parameters()?.iter().enumerate().map(|(i, p)| fresh(p, i, seed)).collect();
        Self::from_numbers(architecture, numbers)
    }

    /// From each parameter's numbers, in the order of [`Architecture::parameters`].
    ///
    /// # Errors
    /// If a length differs.
    pub fn from_numbers(architecture: Architecture, numbers: Vec<Vec<f32>>) -> Result<Self> {
        let variables = gather(&architecture, &numbers)?;
        let variables = variables.iter().map(Var::from_tensor).collect::<candle_core::Result<_>>()?;
        let trunk = Trunk::new(architecture.graph.clone())?;
        let decoder = architecture.decoder.clone().map(Trunk::new).transpose()?;
        Ok(Self { architecture, variables, trunk, decoder })
    }

    /// The running statistics of trunk and decoder.
    ///
    /// # Errors
    /// If they cannot be read from a GPU.
    pub fn running(&self) -> Result<Vec<f32>> {
        let mut all = self.trunk.running()?;
        if let Some(decoder) = &self.decoder {
            all.extend(decoder.running()?);
        }
        Ok(all)
    }

    /// The same network on `device`, its convolutions at `precision`.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn on(&self, device: &Device, precision: Precision) -> Result<Self> {
        let there = |v: &Var| Ok(Var::from_tensor(&v.as_detached_tensor().to_device(device)?)?);
        Ok(Self {
            architecture: self.architecture.clone(),
            variables: self.variables.iter().map(there).collect::<Result<_>>()?,
            trunk: self.trunk.at(precision)?,
            decoder: self.decoder.as_ref().map(|d| d.at(precision)).transpose()?,
        })
    }

    /// Where its numbers are.
    pub fn device(&self) -> &Device {
        self.variables[0].device()
    }

    /// Sets the running statistics of trunk and decoder.
    ///
    /// # Errors
    /// If their number differs.
    pub fn set_running(&self, values: &[f32]) -> Result<()> {
        let own = self.trunk.running()?.len();
        ensure!(values.len() >= own, "{} running statistics instead of {own}", values.len());
        self.trunk.set_running(&values[..own])?;
        match &self.decoder {
            Some(decoder) => decoder.set_running(&values[own..]),
            None => {
                ensure!(values.len() == own, "{} running statistics instead of {own}", values.len());
                Ok(())
            }
        }
    }

    /// Splits vectors that stand beside the variables into each parameter's own, in checkpoint order.
    ///
    /// # Errors
    /// If a tensor cannot be read.
    pub fn split(&self, tensors: &[Tensor]) -> Result<Vec<Vec<f32>>> {
        let parts = |trunk: &Trunk, flat: &Tensor| -> Result<Vec<Vec<f32>>> {
            let flat = super::values(flat)?;
            let stage = |i| trunk.places(i).iter().map(|r| flat[r.clone()].to_vec()).collect::<Vec<_>>();
            Ok((0..trunk.graph().stages.len()).flat_map(stage).collect())
        };
        let (body, tail) = tensors.split_first().context("no tensors")?;
        let mut all = parts(&self.trunk, body)?;
        let heads = tail.len() - usize::from(self.decoder.is_some());
        for tensor in &tail[..heads] {
            all.push(super::values(tensor)?);
        }
        if let Some(decoder) = &self.decoder {
            all.extend(parts(decoder, &tail[heads])?);
        }
        Ok(all)
    }

    /// Each parameter's numbers, in checkpoint order.
    ///
    /// # Errors
    /// If a tensor cannot be read.
    pub fn numbers(&self) -> Result<Vec<Vec<f32>>> {
        self.split(&self.variables.iter().map(|v| v.as_detached_tensor()).collect::<Vec<_>>())
    }

    /// The inverse of [`Network::split`]: vectors to stand beside the variables.
    ///
    /// # Errors
    /// If a length differs.
    pub fn gather(&self, numbers: &[Vec<f32>]) -> Result<Vec<Tensor>> {
        gather(&self.architecture, numbers)
    }

    /// For each variable, 1 where weight decay applies and 0 elsewhere.
    ///
    /// # Errors
    /// If the graph is not consistent.
    pub fn decays(&self) -> Result<Vec<Tensor>> {
        let parameters = self.architecture.parameters()?;
        let each = parameters.iter().map(|p| vec![if p.decays { 1.0 } else { 0.0 }; p.len()]);
        self.gather(&each.collect::<Vec<_>>())
    }

    /// The network as it learns: gradients reach the variables, batch norms follow the mini-batch.
    ///
    /// # Errors
    /// If candle cannot allocate.
    pub fn learning(&self) -> Result<Encoder<'_>> {
        let weights = self.variables.iter().map(|v| v.as_tensor().clone()).collect();
        let device = self.device();
        let ledgers = Some([Ledger::new(device)?, Ledger::new(device)?]);
        Ok(Encoder { mode: Mode::Learn, ledgers, ..self.view(weights) })
    }

    /// As [`Network::learning`], but computing with other numbers in the variables' places: gradients are taken there and
    /// count as the variables' own. What is to reach a head must depend on it.
    ///
    /// # Errors
    /// If candle cannot allocate.
    pub fn learning_at(&self, weights: Vec<Tensor>) -> Result<Encoder<'_>> {
        ensure!(weights.len() == self.variables.len(), "{} tensors, not {}", weights.len(), self.variables.len());
        Ok(Encoder { weights, ..self.learning()? })
    }

    /// The network as it is attacked or measured: no gradient reaches the variables, batch norms stand still.
    pub fn frozen(&self) -> Encoder<'_> {
        let weights = self.variables.iter().map(|v| v.as_detached_tensor()).collect();
        self.view(weights)
    }

    fn view(&self, weights: Vec<Tensor>) -> Encoder<'_> {
        Encoder {
            architecture: &self.architecture,
            trunk: self.trunk.clone(),
            decoder: self.decoder.clone(),
            mode: Mode::Fixed,
            weights,
            ledgers: None,
        }
    }

    /// The network as it is served: without batch norms (see [`crate::graph::fold`]).
    ///
    /// # Errors
    /// If the graph holds what cannot be served.
    pub fn folded(&self) -> Result<Self> {
        ensure!(self.decoder.is_none(), "a network that reconstructs images is not served");
        let theta = super::values(self.variables[0].as_tensor())?;
        let (graph, theta) = fold(&self.trunk, &theta)?;
        let architecture = Architecture { graph, ..self.architecture.clone() };
        let trunk = Trunk::new(architecture.graph.clone())?;
        let mut variables = vec![Var::from_vec(theta, trunk.parameters(), &Device::Cpu)?];
        for v in &self.variables[1..] {
            variables.push(Var::from_tensor(&v.as_detached_tensor().to_device(&Device::Cpu)?)?);
        }
        Ok(Self { architecture, variables, trunk, decoder: None })
    }
}

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
    trunk: Trunk,
    decoder: Option<Trunk>,
    mode: Mode,
    weights: Vec<Tensor>,
    /// Of the trunk and of the decoder.
    ledgers: Option<[Ledger; 2]>,
}

impl Encoder<'_> {
    /// Where it runs.
    pub fn device(&self) -> &Device {
        self.weights[0].device()
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
        let theta = &self.weights[0];
        self.trunk.places(i).iter().map(|r| super::values(&theta.narrow(0, r.start, r.len())?)).collect()
    }

    fn pair(&self, k: usize) -> (&Tensor, &Tensor) {
        (&self.weights[1 + 2 * k], &self.weights[2 + 2 * k])
    }

    /// Weight and bias of the heads and the classifier: mu, s, classifier.
    ///
    /// # Errors
    /// If there is no classifier.
    pub fn heads(&self) -> Result<[(&Tensor, &Tensor); 3]> {
        ensure!(self.architecture.classes > 0, "this encoder has no classifier");
        Ok([self.pair(0), self.pair(1), self.pair(2)])
    }

    /// Every activation of images f32 `[n, h, w, c]` in [0, 1]: the images, then each stage's output.
    ///
    /// # Errors
    /// If the images have another shape.
    pub fn activations(&self, images: &Tensor) -> Result<Vec<Vec<f32>>> {
        self.trunk.activations(&super::values(images)?, images.dim(0)?, &super::values(&self.weights[0])?)
    }

    /// The posteriors of images f32 `[n, h, w, c]` in [0, 1].
    ///
    /// # Errors
    /// If the images have another shape.
    pub fn encode(&self, images: &Tensor) -> Result<Encoding> {
        let features = self.features(images)?;
        let head = |(w, b): (&Tensor, &Tensor)| linear(&features, w, b);
        Encoding::new(head(self.pair(0))?, &head(self.pair(1))?, self.architecture.bound)
    }

    fn features(&self, images: &Tensor) -> Result<Tensor> {
        // Images of a validation or test set come from the host.
        let images = &images.to_device(self.device())?;
        Ok(self
            .trunk
            .apply(images, &self.weights[0], self.mode, self.ledgers.as_ref().map(|l| &l[0]))?
            .flatten_from(1)?)
    }

    /// Logits f32 `[n, classes]` of latents `[n, d]`.
    ///
    /// # Errors
    /// If the latents have another dimension, or there is no classifier.
    pub fn classify(&self, z: &Tensor) -> Result<Tensor> {
        let [_, _, (w, b)] = self.heads()?;
        linear(z, w, b)
    }

    /// Logits of images, the classifier fed mu: what is served and attacked.
    ///
    /// # Errors
    /// If the images have another shape.
    pub fn logits(&self, images: &Tensor) -> Result<Tensor> {
        let (w, b) = self.pair(0);
        let mu = linear(&self.features(images)?, w, b)?;
        self.classify(&if self.architecture.bound == Bound::Tanh { mu.tanh()? } else { mu })
    }
}

fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    Ok(x.matmul(&weight.t()?)?.broadcast_add(bias)?)
}
