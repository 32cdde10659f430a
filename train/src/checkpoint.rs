//! Checkpoints: weights, batch-norm statistics, optimiser state and progress in one safetensors file. Randomness is
//! keyed, so no generator state is needed.

use crate::encoder::{Architecture, Network};
use crate::objective::Terms;
use anyhow::{Context, Result, bail, ensure};
use candle_core::{Device, Tensor};
use paradise_nn::Precision;
use paradise_nn::optimiser::{Optimiser, Settings};
use paradise_support::files;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::HashMap;
use std::path::Path;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Epochs finished.
    pub epoch: u32,
    /// Best selection score so far: per cent, or the validation loss with its sign turned.
    pub best: f64,
    /// Epoch that had it, counted from 1.
    pub best_epoch: u32,
}

/// Everything that a run needs to go on.
#[derive(Debug)]
pub struct State {
    /// The network as it learns.
    pub network: Network,
    /// The optimiser and its moments.
    pub optimiser: Optimiser,
    /// Where the run stands.
    pub progress: Progress,
    /// The loss's terms over the steps of the epoch that is under way.
    pub terms: Terms,
}

const META: &str = "paradise.progress";

/// Prefixes of the optimiser's tensors.
const FIRST: &str = "first.";
const SECOND: &str = "second.";
const AVERAGE: &str = "average.";
const RUNNING: &str = "running";

/// Writes a checkpoint atomically.
///
/// # Errors
/// With the path, if it cannot be written.
pub fn save(path: &Path, state: &State) -> Result<()> {
    let State { network, optimiser, progress, terms } = state;
    let names = network.architecture.parameters()?;
    let weights: Vec<Tensor> = network.variables.iter().map(|v| v.as_detached_tensor()).collect();
    let mut buffers = Vec::new();
    let parts =
        [("", &weights), (FIRST, &optimiser.first), (SECOND, &optimiser.second), (AVERAGE, &optimiser.average)];
    for (prefix, tensors) in parts {
        if tensors.is_empty() {
            continue;
        }
        for (p, numbers) in names.iter().zip(network.split(tensors)?) {
            buffers.push((format!("{prefix}{}", p.name), p.dims.clone(), bytes(&numbers)));
        }
    }
    let running = network.running()?;
    if !running.is_empty() {
        buffers.push((RUNNING.to_string(), vec![running.len()], bytes(&running)));
    }
    let views = buffers
        .iter()
        .map(|(name, dims, bytes)| Ok((name.clone(), TensorView::new(Dtype::F32, dims.clone(), bytes)?)))
        .collect::<Result<Vec<_>>>()?;
    let mut words =
        vec![u64::from(progress.epoch), optimiser.step, progress.best.to_bits(), u64::from(progress.best_epoch)];
    words.extend(terms.to_words());
    let line = words.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
    let meta = HashMap::from([(META.to_string(), line)]);
    files::write(path, &safetensors::serialize(views, Some(meta))?)
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Reads a checkpoint of `architecture` and an optimiser of these `settings`.
///
/// # Errors
/// With the path, if it is missing, damaged, of another architecture or optimiser, or holds a number that is not
/// finite.
pub fn load(path: &Path, architecture: Architecture, settings: Settings) -> Result<State> {
    let bytes = std::fs::read(path).with_context(|| format!("{}: cannot read", path.display()))?;
    let hint = "if it is damaged, remove the run's folder and train again";
    parse(&bytes, architecture, settings)
        .with_context(|| format!("{}: not a checkpoint of this run ({hint})", path.display()))
}

fn parse(bytes: &[u8], architecture: Architecture, settings: Settings) -> Result<State> {
    let (_, metadata) = SafeTensors::read_metadata(bytes)?;
    let line = metadata.metadata().as_ref().and_then(|m| m.get(META)).context("no progress record")?;
    let fields: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>().context("progress record")?;
    let [epoch, step, best, best_epoch, ref terms @ ..] = fields[..] else { bail!("progress record {line:?}") };
    let terms = Terms::from_words(terms).with_context(|| format!("progress record {line:?}"))?;
    let tensors = SafeTensors::deserialize(bytes)?;
    let read = |name: &str, dims: &[usize]| -> Result<Vec<f32>> {
        let view = tensors.tensor(name).with_context(|| format!("no tensor {name}"))?;
        ensure!(view.dtype() == Dtype::F32 && view.shape() == dims, "{name} is {:?}, not {dims:?}", view.shape());
        let v: Vec<f32> = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        ensure!(v.iter().all(|v| v.is_finite()), "{name} holds a value that is not finite");
        Ok(v)
    };
    let names = architecture.parameters()?;
    let group = |prefix: &str| -> Result<Vec<Vec<f32>>> {
        names.iter().map(|p| read(&format!("{prefix}{}", p.name), &p.dims)).collect()
    };
    let network = Network::from_numbers(architecture, group("")?)?;
    let moments = |prefix: &str| network.gather(&group(prefix)?);
    let running = network.running()?.len();
    if running > 0 {
        network.set_running(&read(RUNNING, &[running])?)?;
    }
    let mut optimiser = Optimiser::new(settings, &network.variables, network.decays()?)?;
    optimiser.step = step;
    optimiser.first = moments(FIRST)?;
    if !optimiser.second.is_empty() {
        optimiser.second = moments(SECOND)?;
    }
    if !optimiser.average.is_empty() {
        optimiser.average = moments(AVERAGE)?;
    }
    let progress =
        Progress { epoch: u32::try_from(epoch)?, best: f64::from_bits(best), best_epoch: u32::try_from(best_epoch)? };
    Ok(State { network, optimiser, progress, terms })
}

impl State {
    /// A run that has not begun.
    ///
    /// # Errors
    /// If the architecture is not consistent.
    pub fn new(architecture: Architecture, settings: Settings, seed: u64) -> Result<Self> {
        Self::beginning(Network::new(architecture, seed)?, settings)
    }

    /// A run that has not begun, at a network's weights.
    ///
    /// # Errors
    /// If the architecture is not consistent.
    pub fn beginning(network: Network, settings: Settings) -> Result<Self> {
        let optimiser = Optimiser::new(settings, &network.variables, network.decays()?)?;
        let progress = Progress { epoch: 0, best: f64::NEG_INFINITY, best_epoch: 0 };
        Ok(Self { network, optimiser, progress, terms: Terms::default() })
    }

    /// The network that is measured and served: of averaged weights, where there are any.
    ///
    /// # Errors
    /// If a tensor cannot be read.
    pub fn measured(&self) -> Result<Network> {
        if self.optimiser.average.is_empty() {
            return Ok(self.network.clone());
        }
        let averaged =
            Network::from_numbers(self.network.architecture.clone(), self.network.split(&self.optimiser.average)?)?;
        averaged.set_running(&self.network.running()?)?;
        averaged.on(self.network.device(), self.network.trunk.precision())
    }

    /// The same state on `device`, its convolutions at `precision`.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn on(self, device: &Device, precision: Precision) -> Result<Self> {
        Ok(Self { network: self.network.on(device, precision)?, optimiser: self.optimiser.on(device)?, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::resnet::ResNet;
    use crate::encoder::values;
    use paradise_engine::Shape;
    use paradise_nn::optimiser::Kind;

    fn architecture(latent: usize) -> Architecture {
        let net = ResNet { stem: 2, large: false, groups: vec![(3, 1), (4, 1)], latent };
        net.architecture(Shape::new(8, 8, 1), 3, [&[0.5], &[0.5]]).unwrap()
    }

    #[test]
    fn a_checkpoint_comes_back_whole_and_damage_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last.safetensors");
        for (kind, ema) in [(Kind::Sgd, 0.0), (Kind::Adam, 0.9)] {
            let settings = Settings { kind, momentum: 0.9, weight_decay: 0.0, clip: 0.0, ema };
            let mut state = State::new(architecture(2), settings, 5).unwrap();
            state.optimiser.step = 17;
            state.progress = Progress { epoch: 3, best: 88.25, best_epoch: 2 };
            let running: Vec<f32> = (0..state.network.running().unwrap().len()).map(|i| i as f32).collect();
            state.network.set_running(&running).unwrap();
            save(&path, &state).unwrap();
            let again = load(&path, architecture(2), settings).unwrap();
            assert_eq!((again.optimiser.step, again.progress), (17, state.progress));
            assert_eq!(again.network.running().unwrap(), running);
            assert_eq!(again.network.numbers().unwrap(), state.network.numbers().unwrap());
            let flat = |t: &[Tensor]| t.iter().map(|t| values(t).unwrap()).collect::<Vec<_>>();
            assert_eq!(flat(&again.optimiser.average), flat(&state.optimiser.average));
            assert_eq!(again.measured().unwrap().running().unwrap(), running);
            let other = format!("{:#}", load(&path, architecture(5), settings).unwrap_err());
            assert!(other.contains("last.safetensors") && other.contains("mu.weight"), "{other}");
            let bytes = std::fs::read(&path).unwrap();
            for cut in [0, 7, 100, bytes.len() - 1] {
                assert!(parse(&bytes[..cut], architecture(2), settings).is_err());
            }
        }
    }
}
