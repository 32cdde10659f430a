//! The engine's bits are ONNX Runtime's: every tensor of random networks of every operation, and of a trained one.

use paradise_engine::image::{Fit, ImagePolicy};
use paradise_engine::{Model, Shape, Thresholds};
use paradise_tests::{f32_bytes, fitted, referee, skipped, splits, tiny, window, write_case};
use paradise_train::export::float_onnx;
use paradise_train::objective::Kind;
use paradise_train::quantise::assemble::{Assembly, Confidence, Identity, Linear, Quantisation};
use paradise_train::random::{self, Purpose};
use std::fs;

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

/// A random network that holds every operation at least once.
fn network(seed: u64) -> Vec<u8> {
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
        let groups = if step > 0 && shape.c.is_multiple_of(2) { [1, 2, shape.c][dice.below(3)] } else { 1 };
        let out = groups * (1 + dice.below(4) as u16) * 2;
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
    let sum = net.add(affine, x, relu, y);
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
        policy: ImagePolicy { fit: Fit::Stretch, light_on_dark: false },
    };
    let confidence = Confidence {
        log_weight: vec![0.0],
        mean: vec![0.0; 5],
        log_std: vec![0.0; 5],
        half_precision: vec![0.5; 5],
        rates: vec![0.0],
        entropies: vec![0.0],
        thresholds: Thresholds { typicality_min: 0.0, entropy_p_min: 0.0, predictive_entropy_max_nats: 9.0 },
    };
    net.finish(&identity, &confidence).expect("a valid random network")
}

fn random_images(n: u64, bytes: usize) -> Vec<Vec<u8>> {
    let image = |i| {
        let mut rng = random::stream(3, Purpose::Noise, 9, i, 0);
        (0..bytes).map(|_| random::below(&mut rng, 256) as u8).collect()
    };
    (0..n).map(image).chain([vec![0; bytes], vec![255; bytes]]).collect()
}

#[test]
fn random_networks_of_every_operation_equal_onnx_runtime() {
    if skipped("python", "random_networks_of_every_operation_equal_onnx_runtime") {
        return;
    }
    let mut operations = std::collections::BTreeSet::new();
    let mut varied = Vec::new();
    for seed in 0..24 {
        let bytes = network(seed);
        let model = Model::parse(&bytes).expect("parses");
        operations.extend(model.header().layers.iter().map(|l| l.op.name()));
        let folder = tempfile::tempdir().expect("a temporary folder");
        write_case(&model, &random_images(4, model.header().input.len() as usize), folder.path());
        println!("network {seed}: {}", referee(&["int8", &folder.path().to_string_lossy()]));
        for layer in 1..=model.header().layers.len() {
            let tensor = fs::read(folder.path().join(format!("a{layer}.i8"))).expect("written above");
            varied.push(std::collections::BTreeSet::from_iter(tensor).len() > 8);
        }
    }
    let all = ["add", "affine", "avg-pool", "conv", "dense", "max-pool"];
    assert!(operations.iter().copied().eq(all), "{operations:?}");
    // Equality of constants would prove little.
    let lively = varied.iter().filter(|v| **v).count();
    assert!(3 * lively > 2 * varied.len(), "{lively} of {} tensors take more than eight values", varied.len());
}

#[test]
fn a_trained_float_encoder_equals_onnx_runtime() {
    if skipped("python", "a_trained_float_encoder_equals_onnx_runtime") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let splits = splits(3000);
    let run = fitted(&tiny(Kind::ParadisePm, 1), &splits, &folder.path().join("run"));
    let served = run.network.folded().unwrap();
    let encoder = served.frozen();
    let set = splits.test.head(200);
    let ids: Vec<usize> = (0..set.len()).collect();
    let encoding = encoder.encode(&set.batch(&ids).unwrap()).unwrap();
    let flat = |t: candle_core::Tensor| f32_bytes(&t.flatten_all().unwrap().to_vec1::<f32>().unwrap());
    let put = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    let s = set.shape;
    put("case.json", serde_json::json!({ "n": set.len(), "input": [s.h, s.w, s.c] }).to_string().as_bytes());
    put("images.u8", &set.images);
    put("model.onnx", &float_onnx::encode(&encoder).unwrap());
    put("logits.f32", &flat(encoder.classify(&encoding.mu).unwrap()));
    put("log_sigma.f32", &flat(encoding.log_sigma));
    put("mu.f32", &flat(encoding.mu));
    println!("{}", referee(&["float", &folder.path().to_string_lossy()]));
}
