//! An attack of one's own: an `impl Attack`, and `launch` does the rest (batches, threads, images that are wrong as they are).
//!
//!     cargo run --release --example add_an_attack

use paradise_attack::{Attack, Attempt, Ball, Function, Result, Sample, Victim, launch};
use paradise_engine::Shape;

/// All pixels brighter, or all darker: the corners of the ball along the diagonal.
struct Exposure;

impl Attack for Exposure {
    fn describe(&self) -> String {
        "exposure".into()
    }

    fn run(&self, victim: Victim, ball: Ball, samples: &[Sample], _seed: u64) -> Result<Vec<Attempt>> {
        let model = victim.classifier();
        samples
            .iter()
            .map(|sample| {
                let mut attempt = Attempt { broken: false, point: sample.clean.to_vec() };
                for change in [ball.eps, -ball.eps] {
                    let mut x: Vec<f32> = sample.clean.iter().map(|v| v + change).collect();
                    // Every attack ends inside ball and box.
                    ball.project(&mut x, sample.clean);
                    let logits = model.logits(&x)?;
                    let wrong = paradise_attack::loss::descending(&logits)[0] != sample.label;
                    if wrong {
                        attempt = Attempt { broken: true, point: x };
                    }
                }
                Ok(attempt)
            })
            .collect()
    }
}

fn main() -> Result<()> {
    let logits = |x: &[f32]| Ok(x.chunks_exact(2).flat_map(|x| [x[0] + x[1] - 1.0, 0.0]).collect());
    let model = Function { shape: Shape::new(1, 2, 1), classes: 2, logits };
    let images = [[0.51f32, 0.51], [0.8, 0.7]];
    let samples: Vec<Sample> = (0..2).map(|i| Sample { clean: &images[i], label: 0, key: i as u64 }).collect();
    let attempts = launch(&Exposure, Victim::Black(&model), Ball::linf(8.0 / 255.0), &samples, 0, &|_| ())?;
    for (image, attempt) in images.iter().zip(attempts) {
        println!("{image:?}: {}", if attempt.broken { "broken" } else { "held" });
    }
    Ok(())
}
