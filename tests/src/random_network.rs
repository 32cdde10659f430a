//! Random int8 networks and images, the same for the same seed.

use crate::window;
use paradise_engine::Shape;
use paradise_engine::image::{Geometry, ImagePolicy, Polarity};
use paradise_engine::whitening::pack;
use paradise_support::random::{self, Purpose};
use paradise_train::confidence::white;
use paradise_train::confidence::written::{Confidence, Covariance};
use paradise_train::quantise::assemble::{Assembly, Identity, Linear, Quantisation};

/// Draws for one random network, from the project's own keyed generator.
struct Dice {
    seed: u64,
    at: u64,
}

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.at += 1;
        random::below(&mut random::stream(self.seed, Purpose::Noise, 7, self.at, 0), n)
    }

    fn real(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.below(1 << 20) as f32 / (1 << 20) as f32
    }

    fn quantisation(&mut self) -> Quantisation {
        let zero_point = [-128, -127, -1, 0, 1, 127, 17][self.below(7)];
        Quantisation { scale: self.real(0.01, 0.1), zero_point }
    }

    /// Weights at both ends and between; scales that spread the outputs over the int8 range.
    fn linear(&mut self, rows: usize, width: usize) -> Linear {
        let weight = (0..rows * width).map(|_| match self.below(8) {
            0 => 127,
            1 => -127,
            _ => self.below(255) as i8,
        });
        let weight: Vec<i8> = weight.map(|w| if w == -128 { 0 } else { w }).collect();
        let bias = (0..rows).map(|_| self.below(20_001) as i32 - 10_000).collect();
        let typical = 60.0 * 75.0 * (width as f32).sqrt();
        let scale = (0..rows).map(|_| self.real(20.0, 120.0) / typical).collect();
        Linear { weight, bias, scale }
    }
}

/// Confidence in five dimensions, of each form that a model may have.
fn confidence(dice: &mut Dice) -> Confidence {
    let mut confidence = Confidence::placeholder(5).expect("there are dimensions");
    let kind = dice.below(3);
    if kind == 0 {
        return confidence;
    }
    // Fewer means than are compared side by side, and more.
    let components = [3, 11][dice.below(2)];
    let vectors: Vec<Vec<f32>> = (0..60).map(|_| (0..10).map(|_| dice.real(-2.0, 2.0)).collect()).collect();
    let labelled = vectors.iter().zip(0u16..).map(|(v, i)| (&v[..], i % components));
    confidence.posterior = white::fit(10, labelled, None).expect("finite");
    confidence.spread = None;
    let triangle = pack(5, |row, column| if row == column { 1.5 } else { 0.25 });
    let n = usize::from(components);
    confidence.mixture.log_weight = vec![(1.0 / f32::from(components)).ln(); n];
    confidence.mixture.mean = (0..5 * n).map(|_| dice.real(-1.0, 1.0)).collect();
    confidence.mixture.covariance = match kind {
        1 => Covariance::Shared { centre: vec![0.1; 5], triangle, half_precision: vec![1.2; 5], half_log_det: -2.0 },
        _ => Covariance::PerClass {
            triangle: triangle.repeat(n),
            half_precision: vec![1.2; 5 * n],
            half_log_det: (0..n).map(|_| dice.real(-2.0, 0.5)).collect(),
        },
    };
    confidence
}

/// `model.pmq` of a random network that holds every operation at least once, residual blocks among them.
///
/// # Panics
/// If it would not be valid.
pub fn network(seed: u64) -> Vec<u8> {
    let mut dice = Dice { seed, at: 0 };
    let channels = [1, 3][dice.below(2)];
    let input = Shape::new(9 + dice.below(8) as u16, 9 + dice.below(8) as u16, channels);
    let mut net = Assembly::new(input);
    let mut x = 0;
    for step in 0..4 {
        let shape = net.shape(x);
        let relu = dice.below(2) == 1;
        let kernel = [1, 2, 3, 5][dice.below(4)];
        let sliding = window(kernel, 1 + dice.below(2) as u16, dice.below(3).min(kernel as usize) as u16);
        let Some([h, w]) = sliding.output(shape) else { continue };
        // Dense, depthwise, or any groups between.
        let divisors: Vec<u16> = (1..=shape.c).filter(|g| shape.c.is_multiple_of(*g)).collect();
        let groups = if step > 0 { [1, shape.c, divisors[dice.below(divisors.len())]][dice.below(3)] } else { 1 };
        let own = [1, 2, 3, 5, 8][dice.below(5)];
        let out = groups * if groups == 1 { own + 3 } else { own.min(1 + 48 / groups) };
        let width = usize::from(kernel * kernel * (shape.c / groups));
        let rows = dice.linear(out.into(), width);
        let y = dice.quantisation();
        x = net.conv(x, sliding, groups, &rows, relu, Shape::new(h, w, out), y);
        if net.shape(x).h.min(net.shape(x).w) < 4 {
            break;
        }
    }
    let c = usize::from(net.shape(x).c);
    let mul: Vec<f32> = (0..c).map(|_| dice.real(-2.0, 2.0)).collect();
    let add: Vec<f32> = (0..c).map(|_| dice.real(-60.0, 60.0)).collect();
    let (y, relu) = (dice.quantisation(), dice.below(2) == 1);
    let affine = net.affine(x, &mul, &add, relu, y);
    let (y, relu) = (dice.quantisation(), dice.below(2) == 1);
    let mut sum = net.add(affine, x, relu, y);
    // Pre-activation blocks: the convolution is read by the sum alone, the sum by a per-channel map and the next sum.
    let mut input = sum;
    for _ in 0..2 {
        let rows = dice.linear(c, 9 * c);
        let (y, relu) = (dice.quantisation(), dice.below(2) == 1);
        let branch = net.conv(input, window(3, 1, 1), 1, &rows, relu, net.shape(sum), y);
        let (y, relu) = (dice.quantisation(), dice.below(2) == 1);
        let operands = if dice.below(2) == 0 { [branch, sum] } else { [sum, branch] };
        sum = net.add(operands[0], operands[1], relu, y);
        let (y, relu) = (dice.quantisation(), dice.below(2) == 1);
        let mapped = net.affine(sum, &mul, &add, relu, y);
        match dice.below(3) {
            0 => sum = mapped,
            1 => sum = net.add(mapped, sum, relu, y),
            // The next convolution alone reads what is mapped.
            _ => {}
        }
        input = if sum == mapped { sum } else { mapped };
    }
    if input != sum {
        let (y, relu) = (dice.quantisation(), dice.below(2) == 1);
        sum = net.add(input, sum, relu, y);
    }
    // Two pools without padding take two rows and columns away.
    let small = net.shape(sum).h.min(net.shape(sum).w) < 3;
    let pool = window(2, 1, if small { 1 } else { dice.below(2) as u16 });
    let pooled = |s: Shape| pool.output(s).map(|[h, w]| Shape::new(h, w, s.c)).expect("2 x 2 fits");
    let most = net.max_pool(sum, pool, pooled(net.shape(sum)));
    let (shape, y) = (pooled(net.shape(most)), dice.quantisation());
    let mean = net.avg_pool(most, pool, shape, y);
    let rows = dice.linear(12, net.shape(mean).len() as usize);
    let (y, relu) = (dice.quantisation(), dice.below(2) == 1);
    net.dense(mean, &rows, relu, y);
    let (mu, s) = (dice.linear(5, 12), dice.linear(5, 12));
    let shrink = |l: &Linear| Linear { scale: l.scale.iter().map(|s| s * 0.02).collect(), ..l.clone() };
    net.heads(&shrink(&mu), &shrink(&s));
    let weights: Vec<f32> = (0..15).map(|_| dice.real(-2.0, 2.0)).collect();
    net.classifier(&weights, &[0.1, -0.2, 0.3]);
    let identity = Identity {
        name: "random".into(),
        labels: ["a", "b", "c"].map(String::from).to_vec(),
        policy: ImagePolicy { geometry: Geometry::Stretch, polarity: Polarity::AsTaken },
        made: None,
    };
    let confidence = confidence(&mut dice);
    net.finish(&identity, &confidence).expect("a valid random network")
}

/// Random u8 images of so many bytes, an all-black and an all-white one.
pub fn images(n: u64, bytes: usize) -> Vec<Vec<u8>> {
    let image = |i| {
        let mut rng = random::stream(3, Purpose::Noise, 9, i, 0);
        (0..bytes).map(|_| random::below(&mut rng, 256) as u8).collect()
    };
    (0..n).map(image).chain([vec![0; bytes], vec![255; bytes]]).collect()
}
