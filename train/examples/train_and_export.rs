//! Images of one's own, from arrays to a bundle that devices run.
//!
//!     cargo run --release --example train_and_export -- OUT

use anyhow::{Context, Result};
use paradise_data::{Calibration, Dataset, Splits, Training, WHOLE};
use paradise_engine::Shape;
use paradise_train::config::{Config, Select};
use paradise_train::export::{CardSettings, export};
use paradise_train::fit::{RunFolder, fit};
use paradise_train::objective::Kind;
use std::path::Path;

/// Bars that lie, and bars that stand, of any width and place: 12 x 12 luma.
fn bars(n: usize, seed: usize) -> Result<Dataset> {
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    for i in 0..n {
        let (class, from, width) = (i % 2, (i / 2 * 7 + seed) % 8, 2 + (i / 2 * 5 + seed) % 3);
        let bright = |x: usize, y: usize| (from..from + width).contains(if class == 0 { &y } else { &x });
        let noise = |k: usize| ((k * 2654435761 + i * 97 + seed) >> 7) as u8 % 60;
        images.extend((0..144).map(|k| if bright(k % 12, k / 12) { 190 + noise(k) } else { noise(k) }));
        labels.push(class as u16);
    }
    Dataset::new(Shape::new(12, 12, 1), images, labels)
}

fn main() -> Result<()> {
    let out = std::env::args().nth(1).context("usage: train_and_export OUT")?;
    let names = vec!["lies".to_string(), "stands".to_string()];
    let splits =
        Splits::new(Training::Memory(bars(1200, 1)?), Calibration::HeldOut(200), bars(200, 5)?, names, WHOLE, |n| {
            format!("{n} bars of our own")
        })?;
    let mut config = Config::demo(Kind::ParadisePm);
    (config.fit.epochs, config.fit.batch, config.fit.peak_rate) = (10, 32, 5e-3);
    (config.fit.select, config.data.validation, config.objective.gamma) = (Select::Clean, 100, 1.0);
    (config.encoder.channels, config.encoder.hidden, config.encoder.latent) = (Some([6, 8]), Some(16), Some(4));
    let run = Path::new(&out).with_extension("run");
    let fitted = fit(&config, &splits, &RunFolder::new(&run), false, &Default::default())?;
    let settings = CardSettings { n: 100, checked: 0, ..CardSettings::default() };
    // The card says that the images were ours.
    println!("{}", export(&fitted.network, &config, &splits, Path::new(&out), &settings)?);
    Ok(())
}
