//! l2 certificates by randomised smoothing (Cohen et al., 2019): a class that a majority of Gaussian perturbations give
//! cannot change within a radius that is proved at a chosen level.

use crate::batches::in_batches;
use crate::error::{Result, setting};
use crate::loss::descending;
use crate::model::Classifier;
use crate::outcome::pixels;
use paradise_data::Dataset;
use paradise_support::random::{self, Purpose, branch};
use paradise_support::statistics::{Proportion, normal_quantile, proportion_lower_bound};
use serde::{Deserialize, Serialize};

/// What is certified, and how surely.
///
/// ```
/// use paradise_attack::certificate::Smoothing;
/// let smoothing = Smoothing { sigma: 0.25, n: 1000, ..Smoothing::default() };
/// // With a thousand draws no radius beyond this can be proved.
/// assert!((0.5..0.7).contains(&smoothing.best_radius()));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Smoothing {
    /// Standard deviation of the noise on each value, in [0, 1] pixel units.
    pub sigma: f64,
    /// Draws that choose the class.
    pub n0: usize,
    /// Draws that bound its share.
    pub n: usize,
    /// Chance that a certificate is wrong.
    pub alpha: f64,
    /// Of the draws.
    pub seed: u64,
}

impl Default for Smoothing {
    fn default() -> Self {
        Self { sigma: 0.12, n0: 100, n: 100_000, alpha: 0.001, seed: 0 }
    }
}

/// One image's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// The smoothed class; none where no class is sure to have a majority.
    pub class: Option<usize>,
    /// No perturbation shorter than this, l2, changes it.
    pub radius: f64,
}

impl Smoothing {
    /// Refuses what cannot be meant.
    ///
    /// # Errors
    /// With the setting and its range.
    pub fn check(&self) -> Result<()> {
        setting(self.sigma > 0.0 && self.sigma <= 10.0, || format!("sigma {} is not in (0, 10]", self.sigma))?;
        setting(self.alpha > 0.0 && self.alpha < 0.5, || format!("alpha {} is not in (0, 0.5)", self.alpha))?;
        setting((1..=100_000_000).contains(&self.n), || format!("{} draws are not in 1..=100000000", self.n))?;
        setting((1..=self.n).contains(&self.n0), || {
            format!("{} draws that choose are not in 1..={}", self.n0, self.n)
        })?;
        Ok(())
    }

    /// The largest radius that these numbers can prove: every draw agrees.
    pub fn best_radius(&self) -> f64 {
        self.radius(self.n as u64)
    }

    fn radius(&self, count: u64) -> f64 {
        let p = proportion_lower_bound(count, self.n as u64, self.alpha);
        if p > 0.5 { self.sigma * normal_quantile(p) } else { 0.0 }
    }

    /// Certifies image `i` of a set.
    ///
    /// # Errors
    /// If the model fails.
    pub fn certify(&self, model: &dyn Classifier, set: &Dataset, i: usize) -> Result<Certificate> {
        let clean = pixels(&set.select(&[i]));
        let chosen = self.votes(model, &clean, i as u64, branch::SMOOTHING_CHOICE, self.n0)?;
        let best = (0..chosen.len()).max_by_key(|c| (chosen[*c], std::cmp::Reverse(*c))).unwrap_or(0);
        let votes = self.votes(model, &clean, i as u64, branch::SMOOTHING_BOUND, self.n)?;
        let radius = self.radius(votes[best]);
        Ok(Certificate { class: (radius > 0.0).then_some(best), radius })
    }

    /// How often each class is given under fresh noise.
    fn votes(&self, model: &dyn Classifier, clean: &[f32], key: u64, round: u32, n: usize) -> Result<Vec<u64>> {
        let draws: Vec<u64> = (0..n as u64).collect();
        let classes = model.classes();
        let batch = |draws: &[u64]| {
            let noisy = |draw: &u64| {
                let mut rng = random::stream(self.seed, Purpose::Smoothing, round, key, *draw);
                let sigma = self.sigma as f32;
                clean.iter().map(|c| c + sigma * random::normal(&mut rng)).collect::<Vec<f32>>()
            };
            let images: Vec<f32> = draws.iter().flat_map(noisy).collect();
            Ok(model.logits(&images)?.chunks_exact(classes).map(|z| descending(z)[0]).collect())
        };
        let mut votes = vec![0; classes];
        for class in in_batches(model, &draws, 1, batch)? {
            let class: usize = class;
            votes[class] += 1;
        }
        Ok(votes)
    }
}

/// The share of images whose class is right and certified at each radius.
pub fn certified(certificates: &[Certificate], labels: &[u16], radii: &[f64]) -> Vec<Proportion> {
    let right = |r: f64| {
        let one = move |(c, l): (&Certificate, &u16)| c.class == Some(usize::from(*l)) && c.radius >= r;
        Proportion::of(certificates.iter().zip(labels).map(one))
    };
    radii.iter().map(|r| right(*r)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Function;
    use paradise_engine::Shape;

    #[test]
    fn a_linear_models_certificates_hold_and_come_close() {
        // Two classes by the sign of the mean of four pixels over one half: the distance to the boundary is exact.
        let logits = |x: &[f32]| Ok(x.chunks_exact(4).flat_map(|x| [x.iter().sum::<f32>() - 2.0, 0.0]).collect());
        let model = Function { shape: Shape::new(2, 2, 1), classes: 2, logits };
        let images: Vec<u8> = [100u8, 120, 135, 150, 200].iter().flat_map(|v| [*v; 4]).collect();
        let set = Dataset::new(model.shape, images, vec![1, 1, 0, 0, 0]).unwrap();
        let smoothing = Smoothing { n: 20_000, sigma: 0.25, ..Smoothing::default() };
        let mut all = Vec::new();
        for i in 0..set.len() {
            let c = smoothing.certify(&model, &set, i).unwrap();
            let distance = (4.0 * f64::from(set.image(i)[0]) / 255.0 - 2.0).abs() / 2.0;
            assert!(c.radius <= distance, "{i} {c:?} {distance}");
            // What 20,000 draws leave open, at a chance of a thousandth.
            assert!(c.radius >= (distance.min(smoothing.best_radius()) - 0.04).max(0.0), "{i} {c:?} {distance}");
            all.push(c);
        }
        let shares = certified(&all, &set.labels, &[0.0, 0.1, 10.0]);
        assert_eq!(shares.iter().map(|s| s.correct).collect::<Vec<_>>(), [5, 3, 0]);
        assert_eq!(smoothing.certify(&model, &set, 2).unwrap(), all[2]);
    }

    #[test]
    fn a_coin_is_abstained_from_and_settings_are_checked() {
        let logits = |x: &[f32]| Ok(x.iter().flat_map(|x| [x - 0.5, 0.5 - x]).collect());
        let model = Function { shape: Shape::new(1, 1, 1), classes: 2, logits };
        let set = Dataset::new(model.shape, vec![128], vec![0]).unwrap();
        let smoothing = Smoothing { n: 1000, ..Smoothing::default() };
        assert_eq!(smoothing.certify(&model, &set, 0).unwrap(), Certificate { class: None, radius: 0.0 });
        for bad in [
            Smoothing { sigma: 0.0, ..smoothing },
            Smoothing { alpha: 0.5, ..smoothing },
            Smoothing { n: 0, ..smoothing },
            Smoothing { n0: 2000, ..smoothing },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        // The supplement's noise of 12/255 can prove 0.179 at most (Cohen et al.'s n and alpha).
        let small = Smoothing { sigma: 12.0 / 255.0, ..Smoothing::default() };
        assert!((small.best_radius() - 0.179).abs() < 0.001, "{}", small.best_radius());
    }
}
