//! A float ONNX classifier from elsewhere, quantised into a bundle; what is not understood is named, node by node.
//!
//!     cargo run --release --example import_onnx -- classifier.onnx PICTURES OUT
//!
//! PICTURES holds `train/CLASS` and `test/CLASS`: ranges, confidence and the card's figures come from them.

use anyhow::{Result, bail};
use paradise_data::settings::Data;
use paradise_train::export::CardSettings;
use paradise_train::import::{Normalisation, import};
use std::path::Path;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, pictures, out] = &arguments[..] else { bail!("usage: import_onnx FILE PICTURES OUT") };
    // Classes are the folders by name; `labels` states another order, `geometry` how pictures of other shapes are cut.
    let data = Data { folder: pictures.into(), ..Data::default() };
    // Pixels in [0, 1]; name `mean` and `std` where the network was trained behind them.
    let normalisation = Normalisation::default();
    // A few figures, quickly: the default attacks 2,000 images and runs every masking check.
    let settings = CardSettings { n: 50, checked: 0, ..CardSettings::default() };
    let card = import(Path::new(file), &normalisation, &data, Path::new(out), &settings, false)?;
    println!("{card}");
    if let Some(same) = card.imported.and_then(|i| i.same_class) {
        println!("the file itself, run by tract, gives the same class on {same}");
    }
    Ok(())
}
