//! Frames from a camera of one's own into a model: raw RGB pixels, not files, and a decision for the machine beside it.
//!
//!     cargo run --release --example custom_source -- models/cifar10-resnet8-pm

use paradise_engine::image::{Layout, Pixels, fit};
use paradise_runtime::{BackendKind, Bundle, load};
use std::error::Error;
use std::path::Path;

/// What a driver would deliver: frames of 320 x 240 pixels, three bytes each.
struct Camera(u8);

impl Iterator for Camera {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        self.0 = self.0.checked_add(64)?;
        // A bright square that moves over a dark floor.
        let bright = |x: usize, y: usize| (x / 40 + y / 40 + usize::from(self.0)).is_multiple_of(5);
        Some((0..240 * 320).flat_map(|i| [if bright(i % 320, i / 320) { 220 } else { 30 }; 3]).collect())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("usage: custom_source BUNDLE")?;
    let mut backend = load(&Bundle::open(Path::new(&folder))?, BackendKind::Int8)?;
    let (mut policy, mut shape) = (None, None);
    backend.with_model(&mut |model| (policy, shape) = (Some(model.header().policy), Some(model.header().input)));
    let (policy, shape) = (policy.ok_or("no model")?, shape.ok_or("no model")?);
    for (i, frame) in Camera(0).enumerate() {
        // The bundle's own geometry and polarity, in integers, as in training.
        let mut input = vec![0; shape.len() as usize];
        fit(&Pixels::new(320, 240, Layout::Rgb, &frame)?, &policy, shape, &mut input)?;
        let verdict = backend.verdict(&input, None)?;
        match verdict.is_accept() {
            true => println!("frame {i}: {}", verdict.label),
            false => println!("frame {i}: nothing to act on ({})", verdict.decision),
        }
    }
    Ok(())
}
