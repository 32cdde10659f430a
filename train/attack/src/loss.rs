//! What attacks raise: losses of one image's logits, with their gradients.

/// Keeps quotients finite, as AutoAttack's losses have it.
const TINY: f64 = 1e-12;

/// A loss of logits.
///
/// ```
/// use paradise_attack::loss::{Aim, Loss};
/// let mut gradient = [0.0; 3];
/// let margin = Loss::Margin.value(&[2.0, 1.5, 0.0], Aim { label: 0, target: None }, &mut gradient);
/// assert_eq!((margin, gradient), (-0.5, [-1.0, 1.0, 0.0]));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Cross-entropy of the label.
    CrossEntropy,
    /// `max_{i != y} z_i - z_y`; `z_t - z_y` towards a target.
    Margin,
    /// Difference of logits ratio (Croce & Hein, 2020): the margin over `z_1 - z_3`, or `z_1 - (z_3 + z_4) / 2` towards a
    /// target, z_k being the k-th largest. Needs 3 classes, 4 with a target.
    Dlr,
}

/// What an image's class should become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aim {
    /// Its class.
    pub label: usize,
    /// The class that is wanted instead, or any other.
    pub target: Option<usize>,
}

impl Loss {
    /// Fewest classes for which the loss is defined.
    pub fn classes(self, targeted: bool) -> usize {
        match self {
            Self::Dlr if targeted => 4,
            Self::Dlr => 3,
            _ => 2,
        }
    }

    /// The loss of each row of logits `[n][classes]` under its aim, and the gradients `[n][classes]`.
    ///
    /// # Panics
    /// As [`Loss::value`].
    pub fn rows(self, logits: &[f32], aims: impl ExactSizeIterator<Item = Aim>) -> (Vec<f64>, Vec<f32>) {
        let mut gradients = vec![0.0; logits.len()];
        let classes = logits.len() / aims.len().max(1);
        let rows = logits.chunks_exact(classes.max(1)).zip(gradients.chunks_exact_mut(classes.max(1)));
        let values = aims.zip(rows).map(|(aim, (z, gradient))| self.value(z, aim, gradient)).collect();
        (values, gradients)
    }

    /// The loss, and its gradient in `gradient` `[classes]`.
    ///
    /// # Panics
    /// If there are fewer than [`Loss::classes`], or label and target are not among them.
    pub fn value(self, logits: &[f32], aim: Aim, gradient: &mut [f32]) -> f64 {
        let z = |i: usize| f64::from(logits[i]);
        gradient.fill(0.0);
        let Aim { label, target } = aim;
        if self == Self::CrossEntropy {
            // Towards a target: minus the target's cross-entropy.
            let (own, sign) = target.map_or((label, 1.0), |t| (t, -1.0));
            let top = (0..logits.len()).map(z).fold(f64::MIN, f64::max);
            let total: f64 = (0..logits.len()).map(|i| (z(i) - top).exp()).sum();
            for (i, g) in gradient.iter_mut().enumerate() {
                *g = (sign * ((z(i) - top).exp() / total - f64::from(u8::from(i == own)))) as f32;
            }
            return sign * (top + total.ln() - z(own));
        }
        let order = descending(logits);
        let other = target.unwrap_or(if order[0] == label { order[1] } else { order[0] });
        let margin = z(other) - z(label);
        let mut add = |i: usize, v: f64| gradient[i] += v as f32;
        if self == Self::Margin {
            add(other, 1.0);
            add(label, -1.0);
            return margin;
        }
        let low: &[usize] = if target.is_some() { &order[2..4] } else { &order[2..3] };
        let spread = z(order[0]) - low.iter().map(|i| z(*i)).sum::<f64>() / low.len() as f64 + TINY;
        add(other, 1.0 / spread);
        add(label, -1.0 / spread);
        let by_spread = -margin / (spread * spread);
        add(order[0], by_spread);
        low.iter().for_each(|i| add(*i, -by_spread / low.len() as f64));
        margin / spread
    }
}

/// Classes from the largest logit to the smallest; of equal ones the first comes first.
///
/// ```
/// assert_eq!(paradise_attack::loss::descending(&[0.1, 3.0, 2.0]), [1, 2, 0]);
/// ```
pub fn descending(logits: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The losses as their papers write them, in f64.
    fn by_definition(loss: Loss, z: &[f64], Aim { label, target }: Aim) -> f64 {
        let mut sorted = z.to_vec();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let best = (0..z.len()).filter(|i| *i != label).map(|i| z[i]).fold(f64::MIN, f64::max);
        let p = |i: usize| z[i].exp() / z.iter().map(|v| v.exp()).sum::<f64>();
        match (loss, target) {
            (Loss::CrossEntropy, None) => -p(label).ln(),
            (Loss::CrossEntropy, Some(t)) => p(t).ln(),
            (Loss::Margin, None) => best - z[label],
            (Loss::Margin, Some(t)) => z[t] - z[label],
            (Loss::Dlr, None) => -(z[label] - best) / (sorted[0] - sorted[2] + 1e-12),
            (Loss::Dlr, Some(t)) => -(z[label] - z[t]) / (sorted[0] - (sorted[2] + sorted[3]) / 2.0 + 1e-12),
        }
    }

    proptest! {
        #[test]
        fn values_and_gradients_equal_their_definitions(
            z in proptest::collection::vec(-8.0f32..8.0, 4..12), label in 0usize..4, shift in 1usize..4, targeted: bool,
        ) {
            let wide: Vec<f64> = z.iter().map(|v| f64::from(*v)).collect();
            let mut sorted = wide.clone();
            sorted.sort_by(f64::total_cmp);
            // At ties the losses have corners.
            prop_assume!(sorted.windows(2).all(|w| w[1] - w[0] > 1e-3));
            let aim = Aim { label, target: targeted.then_some((label + shift) % 4) };
            for loss in [Loss::CrossEntropy, Loss::Margin, Loss::Dlr] {
                let mut gradient = vec![f32::NAN; z.len()];
                let value = loss.value(&z, aim, &mut gradient);
                let exact = by_definition(loss, &wide, aim);
                prop_assert!((value - exact).abs() <= 1e-9 * exact.abs().max(1.0), "{loss:?} {value} {exact}");
                for (i, g) in gradient.iter().enumerate() {
                    let moved = |h: f64| {
                        let mut z = wide.clone();
                        z[i] += h;
                        by_definition(loss, &z, aim)
                    };
                    let numeric = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                    prop_assert!((f64::from(*g) - numeric).abs() <= 1e-4 * numeric.abs().max(1.0), "{loss:?} {i} {g} {numeric}");
                }
            }
        }
    }

    #[test]
    fn equal_logits_are_finite() {
        let mut gradient = [0.0; 4];
        for loss in [Loss::CrossEntropy, Loss::Margin, Loss::Dlr] {
            for target in [None, Some(2)] {
                let value = loss.value(&[1.0; 4], Aim { label: 1, target }, &mut gradient);
                assert!(value.is_finite() && gradient.iter().all(|g| g.is_finite()), "{loss:?} {gradient:?}");
            }
        }
    }
}
