//! All randomness: ChaCha streams keyed by what they are for, so that no draw depends on batch size or resume.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal, StandardUniform};

/// What a stream is for; the numbers are part of every seeded result and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// Initial weights; the image is the parameter's index.
    Init = 1,
    /// Order of an epoch's images.
    Shuffle = 2,
    /// Shift and flip.
    Augment = 3,
    /// Samples z of the posterior.
    Posterior = 4,
    /// Perturbation x' of posterior matching.
    Matching = 5,
    /// Start of an attack; the draw is the restart.
    AttackStart = 6,
    /// Noise images and noisy probes.
    Noise = 7,
    /// Which images are held out for validation.
    Validation = 8,
    /// Which part of a picture is learned from.
    Part = 9,
    /// Start of an adversary while training.
    AdversaryStart = 10,
    /// Which class an attack wants.
    AttackTarget = 11,
    /// Points that an attack tries at random.
    AttackProbe = 12,
    /// Corruptions of images; the epoch is the kind, the draw the level.
    Corruption = 13,
    /// Noise of randomised smoothing; the epoch is 0 to choose a class and 1 to bound its share.
    Smoothing = 14,
    /// Which images a subset has; the image is the class.
    Subset = 15,
    /// Pictures that are synthesised from a network's aggregate posterior.
    Synthesis = 16,
}

/// What keeps streams of one purpose apart where there is no epoch: passed in its place. Like [`Purpose`]'s, these numbers are
/// part of every seeded result and never change.
pub mod branch {
    /// [`Purpose::AttackStart`](super::Purpose::AttackStart) of gradient attacks and Auto-PGD.
    pub const GRADIENT: u32 = 0;
    /// [`Purpose::AttackStart`](super::Purpose::AttackStart) of Square Attack.
    pub const SQUARE: u32 = 1;
    /// [`Purpose::AttackStart`](super::Purpose::AttackStart) of FAB.
    pub const FAB: u32 = 2;
    /// [`Purpose::AttackStart`](super::Purpose::AttackStart) of HopSkipJump.
    pub const HOP_SKIP_JUMP: u32 = 3;
    /// [`Purpose::AttackStart`](super::Purpose::AttackStart) of walks that are watched.
    pub const DIAGNOSIS: u32 = 4;
    /// [`Purpose::AttackStart`](super::Purpose::AttackStart) of the adaptive attack on abstention.
    pub const EVASION: u32 = 5;
    /// [`Purpose::AttackProbe`](super::Purpose::AttackProbe) of uniform noise.
    pub const UNIFORM_NOISE: u32 = 0;
    /// [`Purpose::AttackProbe`](super::Purpose::AttackProbe) of Gaussian noise.
    pub const GAUSSIAN_NOISE: u32 = 1;
    /// [`Purpose::AttackProbe`](super::Purpose::AttackProbe) of the masking checks' random points.
    pub const MASKING_PROBE: u32 = 9;
    /// [`Purpose::AttackProbe`](super::Purpose::AttackProbe) of a loss surface's random direction.
    pub const LOSS_SURFACE: u32 = 10;
    /// [`Purpose::Noise`](super::Purpose::Noise) of foreign images that are noise.
    pub const FOREIGN_NOISE: u32 = 1;
    /// [`Purpose::Noise`](super::Purpose::Noise) of foreign images that are shuffled.
    pub const FOREIGN_SHUFFLE: u32 = 2;
    /// [`Purpose::Noise`](super::Purpose::Noise) of foreign images that are normal noise.
    pub const FOREIGN_GAUSSIAN: u32 = 3;
    /// [`Purpose::Noise`](super::Purpose::Noise) of foreign images of one colour.
    pub const FOREIGN_FLAT: u32 = 4;
    /// [`Purpose::Smoothing`](super::Purpose::Smoothing) of the draws that choose a class.
    pub const SMOOTHING_CHOICE: u32 = 0;
    /// [`Purpose::Smoothing`](super::Purpose::Smoothing) of the draws that bound its share.
    pub const SMOOTHING_BOUND: u32 = 1;
    /// [`Purpose::Posterior`](super::Purpose::Posterior) of successive reconstructions.
    pub const RECONSTRUCTION: u32 = u32::MAX - 1;
    /// [`Purpose::Posterior`](super::Purpose::Posterior) of sampled inference.
    pub const SAMPLED_INFERENCE: u32 = u32::MAX;
}

/// The stream of (seed, purpose, epoch, image, draw).
///
/// ```
/// use paradise_support::random::{Purpose, stream, uniform};
/// let draw = |draw| uniform(&mut stream(0, Purpose::AttackStart, 0, 12, draw));
/// assert!(draw(0) == draw(0) && draw(0) != draw(1));
/// ```
pub fn stream(seed: u64, purpose: Purpose, epoch: u32, image: u64, draw: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..12].copy_from_slice(&(purpose as u32).to_le_bytes());
    key[12..16].copy_from_slice(&epoch.to_le_bytes());
    key[16..24].copy_from_slice(&image.to_le_bytes());
    key[24..].copy_from_slice(&draw.to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

/// A standard normal draw.
pub fn normal(rng: &mut ChaCha8Rng) -> f32 {
    StandardNormal.sample(rng)
}

/// A uniform draw from [0, 1).
pub fn uniform(rng: &mut ChaCha8Rng) -> f32 {
    StandardUniform.sample(rng)
}

/// A uniform integer in `0..n`; 0 for n = 0.
pub fn below(rng: &mut ChaCha8Rng, n: usize) -> usize {
    let draw: u64 = StandardUniform.sample(rng);
    ((u128::from(draw) * n as u128) >> 64) as usize
}

/// 1 or -1.
pub fn sign(rng: &mut ChaCha8Rng) -> f32 {
    if below(rng, 2) == 1 { 1.0 } else { -1.0 }
}

/// A uniformly random order of `0..n` (Fisher-Yates).
///
/// ```
/// use paradise_support::random::{Purpose, permutation, stream};
/// let order = permutation(&mut stream(0, Purpose::Shuffle, 3, 0, 0), 5);
/// assert_eq!(order.iter().sum::<usize>(), 0 + 1 + 2 + 3 + 4);
/// ```
pub fn permutation(rng: &mut ChaCha8Rng, n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, below(rng, i + 1));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_its_key() {
        let draw = |s, p, e, i, d| normal(&mut stream(s, p, e, i, d));
        let base = draw(1, Purpose::Noise, 2, 3, 4);
        assert_eq!(base, draw(1, Purpose::Noise, 2, 3, 4));
        for other in [
            draw(2, Purpose::Noise, 2, 3, 4),
            draw(1, Purpose::Init, 2, 3, 4),
            draw(1, Purpose::Noise, 3, 3, 4),
            draw(1, Purpose::Noise, 2, 4, 4),
            draw(1, Purpose::Noise, 2, 3, 5),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn draws_have_their_moments() {
        let mut rng = stream(7, Purpose::Noise, 0, 0, 0);
        let n = 200_000;
        let (mut sum, mut square, mut flat) = (0.0f64, 0.0f64, 0.0f64);
        for _ in 0..n {
            let x = f64::from(normal(&mut rng));
            sum += x;
            square += x * x;
            flat += f64::from(uniform(&mut rng));
        }
        let n = f64::from(n);
        // Five standard errors.
        assert!((sum / n).abs() < 5.0 / n.sqrt());
        assert!((square / n - 1.0).abs() < 5.0 * (2.0 / n).sqrt());
        assert!((flat / n - 0.5).abs() < 5.0 * (1.0 / 12.0 / n).sqrt());
    }

    #[test]
    fn a_permutation_holds_each_once() {
        let mut order = permutation(&mut stream(0, Purpose::Shuffle, 0, 0, 0), 257);
        assert_ne!(order, (0..257).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..257).collect::<Vec<_>>());
        assert!(permutation(&mut stream(0, Purpose::Shuffle, 0, 0, 0), 0).is_empty());
    }
}
