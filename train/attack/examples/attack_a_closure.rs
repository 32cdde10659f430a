//! Attacks a model that is only a function from pixels to logits: Square Attack and random noise need no gradients.
//!
//!     cargo run --release --example attack_a_closure

use paradise_attack::{Ball, Function, Result, Sample, Victim, suite};
use paradise_engine::Shape;
use paradise_support::statistics::Proportion;

fn main() -> Result<()> {
    // Your model here. This one calls an image of 4 x 4 pixels bright or dark.
    let logits = |images: &[f32]| {
        let each = images.chunks_exact(16).flat_map(|x| {
            let mean = x.iter().sum::<f32>() / 16.0;
            [mean - 0.5, 0.5 - mean]
        });
        Ok(each.collect())
    };
    let model = Function { shape: Shape::new(4, 4, 1), classes: 2, logits };

    // Forty images, from dark to bright, each with its class.
    let images: Vec<Vec<f32>> = (0..40).map(|i| vec![0.3 + 0.01 * i as f32; 16]).collect();
    let samples: Vec<Sample> = images
        .iter()
        .enumerate()
        .map(|(i, clean)| Sample { clean, label: usize::from(clean[0] < 0.5), key: i as u64 })
        .collect();

    for eps in [0.0, 4.0, 8.0, 16.0] {
        let ball = Ball::linf(eps / 255.0);
        let attempts = suite::run("noise,square:200", Victim::Black(&model), ball, &samples, 0, None)?;
        println!("l_inf {eps:>2}/255: {} keep their class", Proportion::of(attempts.iter().map(|a| !a.broken)));
    }
    Ok(())
}
