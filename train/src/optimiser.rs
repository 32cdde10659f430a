//! Adam with its state in the open, and the one-cycle schedule.

use anyhow::{Context, Result};
use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// Adam (Kingma & Ba, 2014) over a list of variables.
#[derive(Debug)]
pub struct Adam {
    /// Steps taken.
    pub step: u64,
    /// First moments, one a variable.
    pub first: Vec<Tensor>,
    /// Second moments, one a variable.
    pub second: Vec<Tensor>,
}

impl Adam {
    /// Fresh state for `variables`.
    ///
    /// # Errors
    /// If candle cannot allocate.
    pub fn new(variables: &[Var]) -> Result<Self> {
        let zeros = || variables.iter().map(|v| v.zeros_like()).collect::<candle_core::Result<Vec<_>>>();
        Ok(Self { step: 0, first: zeros()?, second: zeros()? })
    }

    /// One update at learning rate `rate`.
    ///
    /// # Errors
    /// If a variable that the loss depends on has no gradient of its shape. A variable without gradient (the sigma
    /// head under `standard`) keeps its value.
    pub fn update(&mut self, variables: &[Var], gradients: &GradStore, rate: f64) -> Result<()> {
        self.step += 1;
        let power = i32::try_from(self.step).context("more than 2^31 steps")?;
        let (bias_1, bias_2) = (1.0 - BETA_1.powi(power), 1.0 - BETA_2.powi(power));
        for (i, variable) in variables.iter().enumerate() {
            let Some(g) = gradients.get(variable) else { continue };
            self.first[i] = ((&self.first[i] * BETA_1)? + (g * (1.0 - BETA_1))?)?.detach();
            self.second[i] = ((&self.second[i] * BETA_2)? + (g.sqr()? * (1.0 - BETA_2))?)?.detach();
            let scale = ((&self.second[i] / bias_2)?.sqrt()? + EPSILON)?;
            let change = ((&self.first[i] * (rate / bias_1))? / scale)?;
            variable.set(&(variable.as_tensor() - change)?.detach())?;
        }
        Ok(())
    }
}

/// The learning rate of step `step` of `steps`: a cosine from peak / 25 up to the peak over the first 30 %, and a
/// cosine down to peak / 250,000 (Smith's one-cycle, with the usual constants).
pub fn one_cycle(peak: f64, step: u64, steps: u64) -> f64 {
    let (start, end) = (peak / 25.0, peak / 250_000.0);
    let at = step as f64 / steps.max(1) as f64;
    let cosine = |from: f64, to: f64, t: f64| to + (from - to) * 0.5 * (1.0 + (std::f64::consts::PI * t).cos());
    if at < 0.3 { cosine(start, peak, at / 0.3) } else { cosine(peak, end, ((at - 0.3) / 0.7).min(1.0)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn adam_equals_the_papers_algorithm_in_f64() {
        // Kingma & Ba (2014), algorithm 1, written out for two parameters.
        let p = Var::new(&[1.0f32, -2.0], &Device::Cpu).unwrap();
        let scale = Tensor::new(&[3.0f32, -0.5], &Device::Cpu).unwrap();
        let mut adam = Adam::new(std::slice::from_ref(&p)).unwrap();
        let (mut x, mut m, mut v) = ([1.0f64, -2.0], [0.0f64; 2], [0.0f64; 2]);
        for t in 1..=5 {
            let loss = (p.as_tensor() * &scale).unwrap().sqr().unwrap().sum_all().unwrap();
            adam.update(std::slice::from_ref(&p), &loss.backward().unwrap(), 0.1).unwrap();
            for (i, c) in [9.0, 0.25].into_iter().enumerate() {
                let g = 2.0 * c * x[i];
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.999 * v[i] + 0.001 * g * g;
                let (mh, vh) = (m[i] / (1.0 - 0.9f64.powi(t)), v[i] / (1.0 - 0.999f64.powi(t)));
                x[i] -= 0.1 * mh / (vh.sqrt() + 1e-8);
            }
        }
        for (got, exact) in p.to_vec1::<f32>().unwrap().iter().zip(x) {
            assert!((f64::from(*got) - exact).abs() < 1e-5, "{got} {exact}");
        }
    }

    #[test]
    fn one_cycle_rises_and_falls() {
        let rates: Vec<f64> = (0..=100).map(|s| one_cycle(1.0, s, 100)).collect();
        assert!((rates[0] - 0.04).abs() < 1e-12 && (rates[30] - 1.0).abs() < 1e-12 && rates[100] < 1e-5);
        assert!(rates[..30].windows(2).all(|w| w[0] < w[1]) && rates[30..].windows(2).all(|w| w[0] > w[1]));
    }
}
