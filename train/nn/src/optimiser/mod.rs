//! SGD with Nesterov momentum, Adam and AdamW over a network's variables, with their state in the open.

#[cfg(feature = "cuda")]
mod clip;
pub mod rule;
pub mod schedule;

use anyhow::Result;
use candle_core::{Device, Tensor, Var};
use rule::{Decay, Gather, Step};
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
        let Settings { kind, momentum, weight_decay, clip, ema } = self.settings;
        let gradients: Vec<Option<Tensor>> = gradients
            .iter()
            .map(|g| g.as_ref().map(Tensor::contiguous).transpose())
            .collect::<candle_core::Result<_>>()?;
        let (norm, scale) = norm(&gradients, clip)?;
        for (i, variable) in variables.iter().enumerate() {
            if let Some(gradient) = &gradients[i] {
                let coupled = if kind == Kind::AdamW { 0.0 } else { weight_decay };
                let decay = Decay { scale: scale as f32, weight: coupled as f32, mask: &self.decays[i] };
                match kind {
                    Kind::Sgd => {
                        let gather = Gather { keep: momentum as f32, take: 1.0, square: false, decay };
                        self.first[i].inplace_op3(gradient, variable, &gather)?;
                        let step = Step::Nesterov { rate: rate as f32, momentum: momentum as f32, decay };
                        variable.inplace_op3(gradient, &self.first[i], &step)?;
                    }
                    Kind::Adam | Kind::AdamW => {
                        let first = Gather { keep: 0.9, take: 0.1, square: false, decay };
                        let second = Gather { keep: 0.999, take: 0.001, square: true, decay };
                        self.first[i].inplace_op3(gradient, variable, &first)?;
                        self.second[i].inplace_op3(gradient, variable, &second)?;
                        let power = i32::try_from(self.step)?;
                        let step = Step::Adam {
                            rate: (rate / (1.0 - 0.9f64.powi(power))) as f32,
                            correction: (1.0 / (1.0 - 0.999f64.powi(power))) as f32,
                            shrink: if kind == Kind::AdamW { (rate * weight_decay) as f32 } else { 0.0 },
                            mask: &self.decays[i],
                        };
                        variable.inplace_op3(&self.first[i], &self.second[i], &step)?;
                    }
                }
            }
            if let Some(average) = self.average.get(i) {
                // Early in a run the average follows quickly instead of remembering the first weights.
                let keep = ema.min((1.0 + self.step as f64) / (10.0 + self.step as f64));
                average.inplace_op2(variable, &rule::Average { keep: keep as f32 })?;
            }
        }
        Ok(norm)
    }
}

/// Norm of all gradients together, f64 `[1]`, and what the rules still have to scale them with for a norm of `clip` at
/// most (0 for none); a GPU scales them at once.
fn norm(gradients: &[Option<Tensor>], clip: f64) -> Result<(Tensor, f64)> {
    let there: Vec<&Tensor> = gradients.iter().flatten().collect();
    #[cfg(feature = "cuda")]
    if there.first().is_some_and(|g| g.device().is_cuda()) {
        return Ok((clip::norm(&there, clip)?, 1.0));
    }
    let mut square = 0.0;
    for gradient in there {
        square += rule::square(gradient)?;
    }
    let norm = square.sqrt();
    let scale = if clip > 0.0 && norm > clip { clip / norm } else { 1.0 };
    Ok((Tensor::new(&[norm], &Device::Cpu)?, scale))
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
