//! SGD with Nesterov momentum, Adam and AdamW over a network's variables, with their state in the open.

#[cfg(feature = "cuda")]
mod clip;
#[cfg(feature = "cuda")]
mod gpu;
mod host;
pub mod schedule;

use anyhow::Result;
use candle_core::{Device, Tensor, Var};
use host::Run;
use serde::{Deserialize, Serialize};

/// Which rule moves the variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Stochastic gradient descent with Nesterov momentum.
    Sgd,
    /// Adam (Kingma & Ba, 2014); weight decay is added to the gradient.
    Adam,
    /// AdamW (Loshchilov & Hutter, 2019); weight decay acts on the weights.
    AdamW,
}

/// A rule's numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// The rule.
    pub kind: Kind,
    /// Momentum of SGD.
    pub momentum: f64,
    /// Weight decay, on weights only.
    pub weight_decay: f64,
    /// Largest norm of all gradients together; 0 leaves them as they are.
    pub clip: f64,
    /// Share that an average of the weights keeps at each step; 0 for none.
    pub ema: f64,
}

/// A rule and its state over a list of variables.
#[derive(Debug)]
pub struct Optimiser {
    /// The rule's numbers.
    pub settings: Settings,
    /// Steps taken.
    pub step: u64,
    /// Momentum, or Adam's first moments: one a variable.
    pub first: Vec<Tensor>,
    /// Adam's second moments; empty for SGD.
    pub second: Vec<Tensor>,
    /// The average of each variable over the steps; empty without one.
    pub average: Vec<Tensor>,
    /// For each variable, 1 where weight decay applies.
    decays: Vec<Tensor>,
    /// The same as runs of equal numbers.
    runs: Vec<Vec<Run>>,
}

/// How weights move.
#[derive(Debug, Clone, Copy)]
enum Rule {
    Nesterov {
        rate: f32,
        momentum: f32,
    },
    /// `rate` holds the first moment's bias correction, `correction` is the second's; `shrink` is AdamW's decay.
    Adam {
        rate: f32,
        correction: f32,
        shrink: f32,
    },
}

/// The numbers of one update.
#[derive(Debug, Clone, Copy)]
struct Numbers {
    rule: Rule,
    /// What gradients are scaled with; on a GPU they were before, and this is 1.
    scale: f32,
    /// Weight decay that is added to the gradient.
    decay: f32,
    /// Share that an average keeps.
    keep: f32,
}

/// A variable, and what moves with it.
#[derive(Clone, Copy)]
struct State<'a> {
    variable: &'a Tensor,
    first: &'a Tensor,
    second: Option<&'a Tensor>,
    average: Option<&'a Tensor>,
}

impl Optimiser {
    /// Fresh state for `variables`; `decays` is 1 where weight decay applies.
    ///
    /// # Errors
    /// If candle cannot allocate.
    pub fn new(settings: Settings, variables: &[Var], decays: Vec<Tensor>) -> Result<Self> {
        let zeros = || variables.iter().map(|v| v.zeros_like()).collect::<candle_core::Result<Vec<_>>>();
        let average = if settings.ema > 0.0 {
            variables.iter().map(|v| v.as_detached_tensor().copy()).collect::<candle_core::Result<Vec<_>>>()?
        } else {
            Vec::new()
        };
        Ok(Self {
            settings,
            step: 0,
            first: zeros()?,
            second: if settings.kind == Kind::Sgd { Vec::new() } else { zeros()? },
            average,
            runs: decays.iter().map(Run::of).collect::<candle_core::Result<_>>()?,
            decays,
        })
    }

    /// The same state on `device`.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn on(self, device: &Device) -> Result<Self> {
        let all = |tensors: Vec<Tensor>| -> Result<Vec<Tensor>> {
            tensors.iter().map(|t| Ok(t.to_device(device)?)).collect()
        };
        Ok(Self {
            first: all(self.first)?,
            second: all(self.second)?,
            average: all(self.average)?,
            decays: all(self.decays)?,
            ..self
        })
    }

    /// One update at learning rate `rate`; returns the norm of all gradients together before clipping, f64 `[1]`: on a
    /// GPU its value is still on the way.
    ///
    /// # Errors
    /// If a gradient has another shape than its variable. A variable without gradient (the sigma head under
    /// `standard`) keeps its value.
    pub fn update(&mut self, variables: &[Var], gradients: &[Option<Tensor>], rate: f64) -> Result<Tensor> {
        self.step += 1;
        let gradients: Vec<Option<Tensor>> = gradients
            .iter()
            .map(|g| g.as_ref().map(Tensor::contiguous).transpose())
            .collect::<candle_core::Result<_>>()?;
        let numbers = self.numbers(rate)?;
        let states = variables.iter().enumerate().map(|(i, variable)| State {
            variable,
            first: &self.first[i],
            second: self.second.get(i),
            average: self.average.get(i),
        });
        let clip = self.settings.clip;
        #[cfg(feature = "cuda")]
        if variables.first().is_some_and(|v| v.device().is_cuda()) {
            let norm = clip::norm(&gradients.iter().flatten().collect::<Vec<_>>(), clip)?;
            for (state, (gradient, mask)) in states.zip(gradients.iter().zip(&self.decays)) {
                gpu::update(&numbers, &state, gradient.as_ref(), mask)?;
            }
            return Ok(norm);
        }
        // Clipping needs the norm first; otherwise one look at the gradients does both.
        let mut square = 0.0;
        let mut scale = 1.0;
        if clip > 0.0 {
            for gradient in gradients.iter().flatten() {
                square += host::square(gradient)?;
            }
            let norm = square.sqrt();
            scale = if norm > clip { clip / norm } else { 1.0 };
        }
        let numbers = Numbers { scale: scale as f32, ..numbers };
        for (state, (gradient, runs)) in states.zip(gradients.iter().zip(&self.runs)) {
            square += host::update(&numbers, &state, gradient.as_ref(), runs, clip == 0.0)?;
        }
        Ok(Tensor::new(&[square.sqrt()], &Device::Cpu)?)
    }

    /// The numbers of the update at step `self.step`.
    fn numbers(&self, rate: f64) -> Result<Numbers> {
        let Settings { kind, momentum, weight_decay, ema, .. } = self.settings;
        let rule = match kind {
            Kind::Sgd => Rule::Nesterov { rate: rate as f32, momentum: momentum as f32 },
            Kind::Adam | Kind::AdamW => {
                let power = i32::try_from(self.step)?;
                Rule::Adam {
                    rate: (rate / (1.0 - 0.9f64.powi(power))) as f32,
                    correction: (1.0 / (1.0 - 0.999f64.powi(power))) as f32,
                    shrink: if kind == Kind::AdamW { (rate * weight_decay) as f32 } else { 0.0 },
                }
            }
        };
        // Early in a run the average follows quickly instead of remembering the first weights.
        let keep = ema.min((1.0 + self.step as f64) / (10.0 + self.step as f64)) as f32;
        Ok(Numbers { rule, scale: 1.0, decay: if kind == Kind::AdamW { 0.0 } else { weight_decay as f32 }, keep })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paradise_support::random::{self, Purpose};

    /// Minimises `sum c_i x_i^2` for five steps; returns the variables and what the averages are.
    fn run(settings: Settings, steps: usize) -> (Vec<f32>, Vec<f32>) {
        let p = Var::new(&[1.0f32, -2.0], &Device::Cpu).unwrap();
        let scale = Tensor::new(&[3.0f32, -0.5], &Device::Cpu).unwrap();
        // Only the second value decays.
        let decays = [Tensor::new(&[0.0f32, 1.0], &Device::Cpu).unwrap()];
        let mut optimiser = Optimiser::new(settings, std::slice::from_ref(&p), decays.to_vec()).unwrap();
        for _ in 0..steps {
            let loss = (p.as_tensor() * &scale).unwrap().sqr().unwrap().sum_all().unwrap();
            let gradients = [loss.backward().unwrap().remove(&p)];
            optimiser.update(std::slice::from_ref(&p), &gradients, 0.1).unwrap();
        }
        let average = optimiser.average.first().map_or(Vec::new(), |a| a.to_vec1().unwrap());
        (p.to_vec1().unwrap(), average)
    }

    fn close(got: &[f32], exact: [f64; 2]) {
        for (g, e) in got.iter().zip(exact) {
            assert!((f64::from(*g) - e).abs() < 2e-5 * e.abs().max(1.0), "{got:?} {exact:?}");
        }
    }

    const CURVE: [f64; 2] = [9.0, 0.25];

    #[test]
    fn adam_and_adamw_equal_the_papers_algorithms_in_f64() {
        // Kingma & Ba (2014), algorithm 1; Loshchilov & Hutter (2019), algorithm 2.
        for kind in [Kind::Adam, Kind::AdamW] {
            let wd = 0.05;
            let (mut x, mut m, mut v) = ([1.0f64, -2.0], [0.0f64; 2], [0.0f64; 2]);
            for t in 1..=5 {
                for (i, c) in CURVE.into_iter().enumerate() {
                    let decays = if i == 1 { wd } else { 0.0 };
                    let mut g = 2.0 * c * x[i];
                    if kind == Kind::Adam {
                        g += decays * x[i];
                    }
                    m[i] = 0.9 * m[i] + 0.1 * g;
                    v[i] = 0.999 * v[i] + 0.001 * g * g;
                    let (mh, vh) = (m[i] / (1.0 - 0.9f64.powi(t)), v[i] / (1.0 - 0.999f64.powi(t)));
                    let shrink = if kind == Kind::AdamW { 0.1 * decays * x[i] } else { 0.0 };
                    x[i] -= 0.1 * mh / (vh.sqrt() + 1e-8) + shrink;
                }
            }
            let settings = Settings { kind, momentum: 0.0, weight_decay: wd, clip: 0.0, ema: 0.0 };
            close(&run(settings, 5).0, x);
        }
    }

    #[test]
    fn sgd_equals_nesterovs_rule_in_f64_with_clipping_and_an_average() {
        let (mut x, mut v) = ([1.0f64, -2.0], [0.0f64; 2]);
        let mut average = x;
        for t in 1..=6 {
            let g: Vec<f64> = (0..2).map(|i| 2.0 * CURVE[i] * x[i]).collect();
            let norm = (g[0] * g[0] + g[1] * g[1]).sqrt();
            for i in 0..2 {
                let g = g[i] * (3.0 / norm).min(1.0) + if i == 1 { 0.05 * x[i] } else { 0.0 };
                v[i] = 0.9 * v[i] + g;
                x[i] -= 0.1 * (g + 0.9 * v[i]);
                let keep = 0.5f64.min((1.0 + f64::from(t)) / (10.0 + f64::from(t)));
                average[i] = keep * average[i] + (1.0 - keep) * x[i];
            }
        }
        let settings = Settings { kind: Kind::Sgd, momentum: 0.9, weight_decay: 0.05, clip: 3.0, ema: 0.5 };
        let (got, averaged) = run(settings, 6);
        close(&got, x);
        close(&averaged, average);
    }

    #[test]
    fn many_numbers_move_as_one_by_one_wherever_decay_begins() {
        // More than a part, and runs of decay that begin and end anywhere.
        let n = 70_001;
        let mut rng = random::stream(1, Purpose::Noise, 0, 0, 0);
        let mut mask = Vec::new();
        while mask.len() < n {
            let factor = f32::from(mask.last() != Some(&1.0));
            mask.extend(vec![factor; (1 + random::below(&mut rng, 30_000)).min(n - mask.len())]);
        }
        let start: Vec<f32> = (0..n).map(|_| random::uniform(&mut rng) - 0.5).collect();
        let gradients: Vec<f32> = (0..n).map(|_| random::uniform(&mut rng) - 0.5).collect();
        for kind in [Kind::Sgd, Kind::Adam, Kind::AdamW] {
            for clip in [0.0, 10.0] {
                let tensor = |v: &[f32]| Tensor::new(v, &Device::Cpu).unwrap();
                let variables = [Var::from_tensor(&tensor(&start)).unwrap()];
                let settings = Settings { kind, momentum: 0.9, weight_decay: 0.5, clip, ema: 0.5 };
                let mut optimiser = Optimiser::new(settings, &variables, vec![tensor(&mask)]).unwrap();
                let norm = optimiser.update(&variables, &[Some(tensor(&gradients))], 0.1).unwrap();
                let exact = gradients.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
                assert!((norm.to_vec1::<f64>().unwrap()[0] / exact - 1.0).abs() < 1e-12);
                let scale = if clip > 0.0 { clip / exact } else { 1.0 };
                let moved = variables[0].to_vec1::<f32>().unwrap();
                let averages = optimiser.average[0].to_vec1::<f32>().unwrap();
                for i in 0..n {
                    let (w, decays) = (f64::from(start[i]), f64::from(0.5 * mask[i]));
                    let coupled = if kind == Kind::AdamW { 0.0 } else { decays };
                    let g = f64::from(gradients[i]) * scale + coupled * w;
                    // From a moment of zero; Adam's first step is the gradient's sign but for the 1e-8.
                    let next = match kind {
                        Kind::Sgd => w - 0.1 * (g + 0.9 * g),
                        Kind::Adam => w - 0.1 * g / (g.abs() + 1e-8),
                        Kind::AdamW => w - 0.1 * g / (g.abs() + 1e-8) - 0.1 * decays * w,
                    };
                    let keep = 2.0 / 11.0;
                    let average = keep * w + (1.0 - keep) * next;
                    // Where the gradient all but vanishes, its rounding decides.
                    let near = if kind == Kind::Sgd || g.abs() > 1e-4 { 1e-5 } else { 0.2 };
                    assert!((f64::from(moved[i]) - next).abs() < near, "{kind:?} {i}: {} {next}", moved[i]);
                    assert!((f64::from(averages[i]) - average).abs() < near, "{kind:?} {i}");
                }
            }
        }
    }
}
