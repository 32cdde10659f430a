//! A network that learns: its architecture and its numbers.

use super::view::Encoder;
use super::{Architecture, Heads, Place, values};
use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor, Var};
use paradise_nn::Precision;
use paradise_nn::graph::{Init, Ledger, Mode, Parameter, Trunk, fold};
use paradise_support::random::{self, Purpose};
use std::ops::{Index, IndexMut};

/// A network that learns: its architecture and variables.
///
/// ```
/// use paradise_data::embedded;
/// use paradise_train::config::encoder::Encoder;
/// use paradise_train::encoder::{Network, batch};
/// let set = embedded::subset()?.test.head(2);
/// let network = Network::new(Encoder::default().architecture(set.shape, 10)?, 0)?;
/// let posterior = network.frozen().encode(&batch(&set, &[0, 1])?)?;
/// assert_eq!(posterior.mu.dims(), [2, 32]);
/// # Ok::<(), anyhow::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Network {
    /// Shape of the network.
    pub architecture: Architecture,
    /// In the order of [`Place`], then the decoder's parameters in one vector.
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
        self[Place::Trunk].device()
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
            let flat = values(flat)?;
            let stage = |i| trunk.places(i).iter().map(|r| flat[r.clone()].to_vec()).collect::<Vec<_>>();
            Ok((0..trunk.graph().stages.len()).flat_map(stage).collect())
        };
        let (body, tail) = tensors.split_first().context("no tensors")?;
        let mut all = parts(&self.trunk, body)?;
        let heads = tail.len() - usize::from(self.decoder.is_some());
        for tensor in &tail[..heads] {
            all.push(values(tensor)?);
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
            share: None,
        }
    }

    /// All parameters of the trunk, in one vector.
    pub fn trunk_parameters(&self) -> &Tensor {
        self[Place::Trunk].as_tensor()
    }

    /// Weight and bias of the heads and the classifier.
    ///
    /// # Errors
    /// If there is no classifier.
    pub fn heads(&self) -> Result<Heads<'_>> {
        Heads::of(|place| self[place].as_tensor(), self.architecture.classes)
            .context("this encoder has no classifier")
    }

    /// The network as it is served: without batch norms (see [`paradise_nn::graph::fold`]).
    ///
    /// # Errors
    /// If the graph holds what cannot be served.
    pub fn folded(&self) -> Result<Self> {
        ensure!(self.decoder.is_none(), "a network that reconstructs images is not served");
        let theta = values(self.trunk_parameters())?;
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

impl Index<Place> for Network {
    type Output = Var;

    fn index(&self, place: Place) -> &Var {
        &self.variables[place as usize]
    }
}

impl IndexMut<Place> for Network {
    fn index_mut(&mut self, place: Place) -> &mut Var {
        &mut self.variables[place as usize]
    }
}
