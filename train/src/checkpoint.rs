//! Checkpoints: weights, optimiser state and progress in one safetensors file. Randomness is keyed, so no generator
//! state is needed.

use crate::encoder::{Architecture, Network, values};
use crate::files;
use crate::optimiser::Adam;
use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor, Var};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::HashMap;
use std::path::Path;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Epochs finished.
    pub epoch: u32,
    /// Best selection score so far, in per cent.
    pub best: f64,
    /// Epoch that had it, counted from 1.
    pub best_epoch: u32,
}

const META: &str = "paradise.progress";

/// Writes a checkpoint atomically.
///
/// # Errors
/// With the path, if it cannot be written.
pub fn save(path: &Path, network: &Network, adam: &Adam, progress: &Progress) -> Result<()> {
    let names = network.architecture.parameters()?;
    let mut buffers = Vec::new();
    for (i, p) in names.iter().enumerate() {
        let state =
            [("", network.variables[i].as_tensor()), ("adam.m.", &adam.first[i]), ("adam.v.", &adam.second[i])];
        for (prefix, tensor) in state {
            let bytes: Vec<u8> = values(tensor)?.iter().flat_map(|v| v.to_le_bytes()).collect();
            buffers.push((format!("{prefix}{}", p.name), p.dims.clone(), bytes));
        }
    }
    let views = buffers
        .iter()
        .map(|(name, dims, bytes)| Ok((name.clone(), TensorView::new(Dtype::F32, dims.clone(), bytes)?)))
        .collect::<Result<Vec<_>>>()?;
    let line = format!("{} {} {} {}", progress.epoch, adam.step, progress.best.to_bits(), progress.best_epoch);
    let meta = HashMap::from([(META.to_string(), line)]);
    files::write(path, &safetensors::serialize(views, Some(meta))?)
}

/// Reads a checkpoint of `architecture`.
///
/// # Errors
/// With the path, if it is missing, damaged, of another architecture, or holds a number that is not finite.
pub fn load(path: &Path, architecture: Architecture) -> Result<(Network, Adam, Progress)> {
    let bytes = std::fs::read(path).with_context(|| format!("{}: cannot read", path.display()))?;
    parse(&bytes, architecture).with_context(|| format!("{}: not a checkpoint of this run", path.display()))
}

fn parse(bytes: &[u8], architecture: Architecture) -> Result<(Network, Adam, Progress)> {
    let (_, metadata) = SafeTensors::read_metadata(bytes)?;
    let line = metadata.metadata().as_ref().and_then(|m| m.get(META)).context("no progress record")?;
    let fields: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>().context("progress record")?;
    let [epoch, step, best, best_epoch] = fields[..] else { anyhow::bail!("progress record {line:?}") };
    let tensors = SafeTensors::deserialize(bytes)?;
    let read = |name: &str, dims: &[usize]| -> Result<Tensor> {
        let view = tensors.tensor(name).with_context(|| format!("no tensor {name}"))?;
        ensure!(view.dtype() == Dtype::F32 && view.shape() == dims, "{name} is {:?}, not {dims:?}", view.shape());
        let v: Vec<f32> = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        ensure!(v.iter().all(|v| v.is_finite()), "{name} holds a value that is not finite");
        Ok(Tensor::from_vec(v, dims, &Device::Cpu)?)
    };
    let (mut variables, mut first, mut second) = (Vec::new(), Vec::new(), Vec::new());
    for p in architecture.parameters()? {
        variables.push(Var::from_tensor(&read(&p.name, &p.dims)?)?);
        first.push(read(&format!("adam.m.{}", p.name), &p.dims)?);
        second.push(read(&format!("adam.v.{}", p.name), &p.dims)?);
    }
    let progress =
        Progress { epoch: u32::try_from(epoch)?, best: f64::from_bits(best), best_epoch: u32::try_from(best_epoch)? };
    Ok((Network { architecture, variables }, Adam { step, first, second }, progress))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::small_conv::SmallConv;
    use paradise_engine::Shape;

    fn architecture(latent: usize) -> Architecture {
        SmallConv { channels: [2, 3], hidden: 4, latent }.architecture(Shape::new(8, 8, 1), 3)
    }

    #[test]
    fn a_checkpoint_comes_back_whole_and_damage_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last.safetensors");
        let network = Network::new(architecture(2), 5).unwrap();
        let mut adam = Adam::new(&network.variables).unwrap();
        adam.step = 17;
        let progress = Progress { epoch: 3, best: 88.25, best_epoch: 2 };
        save(&path, &network, &adam, &progress).unwrap();
        let (again, state, where_at) = load(&path, architecture(2)).unwrap();
        assert_eq!((state.step, where_at), (17, progress));
        for (a, b) in network.variables.iter().zip(&again.variables) {
            assert_eq!(values(a).unwrap(), values(b).unwrap());
        }
        let other = format!("{:#}", load(&path, architecture(5)).unwrap_err());
        assert!(other.contains("last.safetensors") && other.contains("mu.weight"), "{other}");
        let bytes = std::fs::read(&path).unwrap();
        for cut in [0, 7, 100, bytes.len() - 1] {
            assert!(parse(&bytes[..cut], architecture(2)).is_err());
        }
    }
}
