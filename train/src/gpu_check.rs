//! Whether a GPU computes what the CPU does, network by network: loss and every gradient of whole steps, and what attacks
//! see of the network that is served.

use crate::config::encoder::{Encoder as Settings, Kind as Net};
use crate::encoder::LogitModel;
use crate::encoder::{Architecture, Network, values};
use crate::objective::{Batch, Kind, Objective};
use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use paradise_attack::{Classifier, Differentiable};
use paradise_engine::Shape;
use paradise_nn::Precision;
use paradise_nn::device::Choice;
use paradise_support::random::{self, Purpose};

/// Images of a step.
const BATCH: usize = 32;

/// One comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Network, objective and precision.
    pub name: String,
    /// Relative difference of the loss.
    pub loss: f64,
    /// Largest difference of a parameter's gradient, relative to the largest value of either, and the parameter.
    pub gradient: (f64, String),
    /// The same of the images' gradient under the fixed network.
    pub images: f64,
    /// What they may differ by.
    pub limit: f64,
}

impl Row {
    /// Its largest difference.
    fn largest(&self) -> f64 {
        self.loss.max(self.gradient.0).max(self.images)
    }

    /// Whether nothing differs by more than the limit.
    pub fn holds(&self) -> bool {
        // A NaN is above every limit.
        [self.loss, self.gradient.0, self.images].iter().all(|d| *d <= self.limit)
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, loss, gradient: (gradient, parameter), images, limit } = self;
        let verdict = if self.holds() { "ok" } else { "DIFFERS" };
        write!(f, "{name:40} loss {loss:.1e}  gradients {gradient:.1e} ({parameter})  images {images:.1e}  ")?;
        write!(f, "limit {limit:.0e}  {verdict}")
    }
}

/// Bits of a product's factors that the limit of a precision counts on. f32 has more, but other sums end in other bits.
fn bits(precision: Precision) -> u32 {
    match precision {
        Precision::F32 => 20,
        Precision::Tf32 => 10,
        Precision::Bf16 => 7,
    }
}

/// How often a difference may be as large as what rounding the weights alone does on the CPU: activations are rounded, too.
const SLACK: f64 = 3.0;
/// What is always granted: where a ReLU is within rounding of its corner, either slope is right, and one alone does this.
const CORNER: f64 = 2e-2;

/// The weights, rounded to so many bits after the first.
fn rounded(network: &Network, bits: u32) -> Result<Network> {
    let cut = 23 - bits;
    let round = |v: f32| f32::from_bits((v.to_bits() + (1 << (cut - 1))) & !((1 << cut) - 1));
    let numbers = network.numbers()?.into_iter().map(|p| p.into_iter().map(round).collect()).collect();
    Network::from_numbers(network.architecture.clone(), numbers)
}

/// Compares every network and objective at every precision; `report` sees each row as it is done.
///
/// # Errors
/// If there is no GPU, or it refuses an operation.
pub fn run(mut report: impl FnMut(&Row)) -> Result<bool> {
    let device = Choice::Cuda.open()?;
    let mut all = true;
    let cases = [
        (Net::SmallConv, Shape::new(28, 28, 1), Kind::ParadisePm),
        (Net::Mlp1000, Shape::new(28, 28, 1), Kind::ParadiseUnsupervised),
        (Net::ConvCeleba, Shape::new(64, 64, 3), Kind::ParadiseUnsupervised),
        (Net::ResNet8, Shape::new(32, 32, 3), Kind::Dvib),
        (Net::ResNet20, Shape::new(32, 32, 3), Kind::Paradise),
        (Net::Wrn16x4, Shape::new(32, 32, 3), Kind::Standard),
        (Net::ResNet34, Shape::new(64, 64, 3), Kind::ParadisePm),
        (Net::MobileNet25, Shape::new(96, 96, 3), Kind::Standard),
    ];
    for (net, shape, kind) in cases {
        let settings = Settings { kind: net, ..Settings::default() };
        let decoder = if kind.is_unsupervised() { Some(settings.decoder(shape)?) } else { None };
        let classes = if kind.is_unsupervised() { 0 } else { 10 };
        let architecture = Architecture { decoder, ..settings.architecture(shape, classes)? };
        let network = Network::new(architecture, 1)?;
        let objective = Objective { kind, ..Objective::default() };
        let exact = step(&network, &objective, shape, &Device::Cpu)?;
        for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
            let near = step(&rounded(&network, bits(precision))?, &objective, shape, &Device::Cpu)?;
            let expected = compare(String::new(), &network, &exact, &near, 0.0)?;
            let got = step(&network.on(&device, precision)?, &objective, shape, &device)?;
            let name = format!("{net:?} {} {precision:?}", kind.name());
            let row = compare(name, &network, &exact, &got, CORNER.max(SLACK * expected.largest()))?;
            all &= row.holds();
            report(&row);
        }
        if classes > 0 {
            let served = LogitModel::new(&network)?;
            let exact = pull(&served)?;
            let name = format!("{net:?} under attack");
            let row = compare(name, &network, &exact, &pull(&served.on(&device)?)?, CORNER)?;
            all &= row.holds();
            report(&row);
        }
    }
    Ok(all)
}

/// A step's loss, the parameters' gradients in checkpoint order, and the images' under a fixed network.
struct Step {
    loss: f64,
    parameters: Vec<Vec<f32>>,
    images: Vec<f32>,
}

fn step(network: &Network, objective: &Objective, shape: Shape, device: &Device) -> Result<Step> {
    // A step moves the running statistics, which a copy on another device would take over.
    let running = network.running()?;
    let mut rng = random::stream(3, Purpose::Noise, 0, 0, 0);
    let pixels: Vec<f32> = (0..BATCH * shape.len() as usize).map(|_| random::uniform(&mut rng)).collect();
    let dims = (BATCH, usize::from(shape.h), usize::from(shape.w), usize::from(shape.c));
    let images = Tensor::from_vec(pixels, dims, device)?;
    let labels = Tensor::from_vec((0..BATCH as u32).map(|i| i % 10).collect::<Vec<_>>(), BATCH, device)?;
    let ids: Vec<usize> = (0..BATCH).collect();
    let batch =
        Batch { images: &images, labels: &labels, ids: &ids, own: 0..ids.len(), seed: 5, epoch: 0, share: 1.0 };
    let learning = network.learning()?;
    let loss = objective.loss(&learning, &batch)?;
    let gradients = learning.gradients(&network.variables, &loss.total)?;
    let full = gradients.into_iter().zip(&network.variables).map(|(g, v)| match g {
        Some(g) => Ok(g),
        None => v.zeros_like(),
    });
    let full = full.collect::<candle_core::Result<Vec<_>>>()?;
    let x = candle_core::Var::from_tensor(&images)?;
    let frozen = network.frozen();
    let grads = frozen.encode(&x)?.mu.sqr()?.sum_all()?.backward()?;
    let images = values(grads.get(&x).context("the images have no gradient")?)?;
    let loss = f64::from(loss.total.to_scalar::<f32>()?);
    network.set_running(&running)?;
    Ok(Step { loss, parameters: network.split(&full)?, images })
}

/// What attacks see: a weighed sum of the logits, and its gradient.
fn pull(served: &LogitModel) -> Result<Step> {
    let mut rng = random::stream(4, Purpose::Noise, 0, 0, 0);
    let pixels: Vec<f32> = (0..BATCH * served.shape().len() as usize).map(|_| random::uniform(&mut rng)).collect();
    let weights: Vec<f32> = (0..BATCH * served.classes()).map(|_| random::normal(&mut rng)).collect();
    let (logits, images) = served.pull(&pixels, &mut |_| Ok(weights.clone()))?;
    let loss = logits.iter().zip(&weights).map(|(z, w)| f64::from(*z) * f64::from(*w)).sum();
    Ok(Step { loss, parameters: Vec::new(), images })
}

/// Norm of the difference, relative to the norm of `exact`, or to `floor` where that is larger.
fn apart(exact: &[f32], got: &[f32], floor: f64) -> Result<f64> {
    ensure!(exact.len() == got.len(), "{} values beside {}", got.len(), exact.len());
    let difference = exact.iter().zip(got).map(|(a, b)| f64::from(*a) - f64::from(*b));
    Ok(norm(difference) / norm(exact.iter().map(|v| f64::from(*v))).max(floor))
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|v| v * v).sum::<f64>().sqrt()
}

/// Proportion of the whole gradient's norm below which a parameter's own is rounding: that of a bias before a batch norm, say.
const NOISE: f64 = 1e-2;

fn compare(name: String, network: &Network, exact: &Step, got: &Step, limit: f64) -> Result<Row> {
    let mut worst = (0.0, String::new());
    let floor = NOISE * norm(exact.parameters.iter().flatten().map(|v| f64::from(*v))).max(1e-8);
    for ((p, a), b) in network.architecture.parameters()?.iter().zip(&exact.parameters).zip(&got.parameters) {
        let apart = apart(a, b, floor)?;
        if worst.1.is_empty() || apart > worst.0 || apart.is_nan() {
            worst = (apart, p.name.clone());
        }
    }
    let loss = (exact.loss - got.loss).abs() / exact.loss.abs().max(1e-8);
    Ok(Row { name, loss, gradient: worst, images: apart(&exact.images, &got.images, 1e-8)?, limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_equals_itself_and_a_nan_is_seen() {
        let settings = Settings { kind: Net::SmallConv, ..Settings::default() };
        let shape = Shape::new(28, 28, 1);
        let network = Network::new(settings.architecture(shape, 10).unwrap(), 1).unwrap();
        let objective = Objective::default();
        let a = step(&network, &objective, shape, &Device::Cpu).unwrap();
        let mut b =
            step(&network.on(&Device::Cpu, Precision::F32).unwrap(), &objective, shape, &Device::Cpu).unwrap();
        let row = compare("same".into(), &network, &a, &b, 1e-9).unwrap();
        assert!(row.holds() && row.gradient.0 == 0.0, "{row}");
        b.parameters[2][0] = f32::NAN;
        assert!(!compare("nan".into(), &network, &a, &b, 1e-1).unwrap().holds());
        // Rounding to bf16 is seen; rounding to all bits but one is hardly.
        let differs = |bits| {
            let near = step(&rounded(&network, bits).unwrap(), &objective, shape, &Device::Cpu).unwrap();
            compare("rounded".into(), &network, &a, &near, 0.0).unwrap().largest()
        };
        assert!(differs(7) > 1e-2 && differs(22) < 1e-2, "{} {}", differs(7), differs(22));
    }
}
