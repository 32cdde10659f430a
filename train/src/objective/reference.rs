//! Adversarial training and TRADES: what the robust objectives are compared with.

use super::{Batch, Loss, Objective};
use crate::encoder::Encoder;
use anyhow::Result;
use candle_core::Tensor;
use candle_nn::loss::cross_entropy;
use candle_nn::ops::log_softmax;

impl Objective {
    /// Cross-entropy at the points that an adversary finds.
    pub(super) fn adversarial_training(&self, encoder: &Encoder, batch: &Batch) -> Result<Loss> {
        let points = self.misleading(&encoder.frozen(), batch)?;
        Ok(Loss::of(cross_entropy(&encoder.logits(&points)?, batch.labels)?))
    }

    /// Points of the ball where the cross-entropy of mu is large; `frozen` is the frozen view.
    pub(super) fn misleading(&self, frozen: &Encoder, batch: &Batch) -> Result<Tensor> {
        let labels = batch.own_labels()?;
        self.adversary.ascend(frozen, batch, |encoder, x| {
            // The sum, so that each image's gradient is its own whatever the batch.
            Ok((cross_entropy(&encoder.logits(x)?, &labels)? * batch.own.len() as f64)?)
        })
    }

    /// Clean cross-entropy, and the divergence at the points where it is large.
    pub(super) fn trades(&self, encoder: &Encoder, batch: &Batch) -> Result<Loss> {
        let m = batch.ids.len();
        let frozen = encoder.frozen();
        let reference = frozen.logits(batch.images)?;
        let points =
            self.adversary.ascend(&frozen, batch, |encoder, x| divergence(&reference, &encoder.logits(x)?))?;
        let logits = encoder.logits(&Tensor::cat(&[batch.images, &points], 0)?)?;
        let (clean, moved) = (logits.narrow(0, 0, m)?, logits.narrow(0, m, m)?);
        let mut loss = Loss::of(cross_entropy(&clean, batch.labels)?);
        let term = (divergence(&clean, &moved)? / m as f64)?;
        loss.weigh(&term, self.gamma)?;
        loss.divergence = Some(term);
        Ok(loss)
    }
}

/// Sum of `KL(softmax a || softmax b)` over rows, nats.
fn divergence(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (a, b) = (log_softmax(a, 1)?, log_softmax(b, 1)?);
    Ok((a.exp()? * (&a - &b)?)?.sum_all()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn the_divergence_equals_f64() {
        let (a, b) = ([[1.0f32, -2.0, 0.5], [0.0, 3.0, 3.0]], [[0.0f32, 0.0, 0.0], [-1.0, 2.0, 9.0]]);
        let softmax = |l: &[f32; 3]| {
            let e = l.map(|v| f64::from(v).exp());
            e.map(|v| v / e.iter().sum::<f64>())
        };
        let pair = |(a, b): (&[f32; 3], &[f32; 3])| {
            softmax(a).iter().zip(softmax(b)).map(|(p, q)| p * (p / q).ln()).sum::<f64>()
        };
        let exact: f64 = a.iter().zip(&b).map(pair).sum();
        let tensor = |v: &[[f32; 3]; 2]| Tensor::new(v, &Device::Cpu).unwrap();
        assert!(
            (f64::from(divergence(&tensor(&a), &tensor(&b)).unwrap().to_scalar::<f32>().unwrap()) - exact).abs()
                < 1e-5
        );
    }
}
