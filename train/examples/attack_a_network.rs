//! Trains a small network on images of one's own and attacks it with AutoAttack, in one call.
//!
//!     cargo run --release --example attack_a_network

use anyhow::Result;
use paradise_attack::{Ball, Victim, autoattack, pixels, samples};
use paradise_data::embedded;
use paradise_support::statistics::Proportion;
use paradise_train::config::Config;
use paradise_train::encoder::LogitModel;
use paradise_train::fit::{RunFolder, fit};
use paradise_train::objective::Kind;

fn main() -> Result<()> {
    let splits = embedded::subset()?;
    let mut config = Config::demo(Kind::ParadisePm);
    (config.fit.epochs, config.encoder.channels, config.encoder.hidden) = (2, Some([8, 12]), Some(32));
    config.data.train_images = 0;
    let folder = std::env::temp_dir().join(format!("attack_a_network-{}", std::process::id()));
    let fitted = fit(&config, &splits, &RunFolder::new(&folder), false, &Default::default())?;
    std::fs::remove_dir_all(&folder)?;

    // As it is served: batch norms folded, from pixels to logits in one graph.
    let model = LogitModel::new(&fitted.network)?;
    let set = splits.test.head(60);
    let pixels = pixels(&set);
    let attempts = autoattack(Victim::White(&model), Ball::linf(8.0 / 255.0), &samples(&set, &pixels), 0)?;
    println!("AutoAttack, l_inf 8/255: {}", Proportion::of(attempts.iter().map(|a| !a.broken)));
    Ok(())
}
