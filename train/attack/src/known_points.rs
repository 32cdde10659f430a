//! Points that other evaluations found, tried on this model: what breaks one model is a hint for its twin. Two robust
//! accuracies are compared fairly once each model has been shown what broke the other.

use crate::attack::{Attack, Attempt, Sample, Victim};
use crate::error::Result;
use crate::loss::descending;
use crate::threat::Ball;
use std::collections::HashMap;

/// Points by image, each tried in turn; one that leaves the ball is projected onto it.
#[derive(Debug, Clone, Default)]
pub struct KnownPoints {
    points: HashMap<u64, Vec<Vec<f32>>>,
    found_on: Vec<String>,
}

impl KnownPoints {
    /// Adds points f32 `[h][w][c]` in [0, 1] that broke the model `found_on`, each with its image's key.
    pub fn add(&mut self, found_on: &str, points: impl IntoIterator<Item = (u64, Vec<f32>)>) {
        self.found_on.push(found_on.to_string());
        for (key, point) in points {
            self.points.entry(key).or_default().push(point);
        }
    }

    /// Whether no evaluation was added.
    pub fn is_empty(&self) -> bool {
        self.found_on.is_empty()
    }

    fn try_all(&self, victim: Victim, ball: Ball, sample: &Sample) -> Result<Attempt> {
        let Some(points) = self.points.get(&sample.key) else { return Ok(Attempt::none(sample)) };
        let model = victim.classifier();
        let mut all = points.concat();
        all.chunks_exact_mut(sample.clean.len()).for_each(|x| ball.project(x, sample.clean));
        let logits = model.logits(&all)?;
        let mut tries = all.chunks_exact(sample.clean.len()).zip(logits.chunks_exact(model.classes()));
        let broken = tries.find(|(_, z)| descending(z)[0] != sample.label);
        Ok(broken.map_or_else(|| Attempt::none(sample), |(x, _)| Attempt { broken: true, point: x.to_vec() }))
    }
}

impl Attack for KnownPoints {
    fn describe(&self) -> String {
        format!("points found on {}", self.found_on.join(" and "))
    }

    fn run(&self, victim: Victim, ball: Ball, samples: &[Sample], _seed: u64) -> Result<Vec<Attempt>> {
        samples.iter().map(|sample| self.try_all(victim, ball, sample)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch;
    use crate::model::Function;
    use paradise_engine::Shape;

    #[test]
    fn the_first_point_that_breaks_an_image_counts_after_projection() {
        // Class 0 where the sum of two pixels is at least 1.
        let logits = |x: &[f32]| Ok(x.chunks_exact(2).flat_map(|x| [x[0] + x[1] - 1.0, 0.0]).collect());
        let model = Function { shape: Shape::new(1, 2, 1), classes: 2, logits };
        let images = [[0.55f32, 0.5], [0.55, 0.5], [0.9, 0.9], [0.55, 0.5], [0.2, 0.2]];
        let keys = [7, 8, 9, 10, 11];
        let samples: Vec<Sample> =
            images.iter().zip(keys).map(|(clean, key)| Sample { clean, label: 0, key }).collect();
        let mut known = KnownPoints::default();
        // On the way of 7 is a point that changes nothing; 8's is too far and still works at the border.
        known.add("a", [(7, vec![0.6, 0.5]), (7, vec![0.5, 0.45]), (8, vec![0.0, 0.0]), (9, vec![0.0, 0.0])]);
        known.add("b", [(7, vec![0.45, 0.5])]);
        assert_eq!(known.describe(), "points found on a and b");
        let ball = Ball::linf(0.1);
        let attempts = launch(&known, Victim::Black(&model), ball, &samples, 0, &|_| ()).unwrap();
        let broken: Vec<bool> = attempts.iter().map(|a| a.broken).collect();
        // 10 has no point, 11 is wrong as it is.
        assert_eq!(broken, [true, true, false, false, true]);
        assert_eq!(attempts[0].point, [0.5, 0.45]);
        assert!(attempts.iter().zip(&samples).all(|(a, s)| ball.holds(&a.point, s.clean)));
        assert!((attempts[1].point[0] - 0.45).abs() < 1e-6);
    }
}
