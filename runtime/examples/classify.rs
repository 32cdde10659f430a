//! Classifies a picture file: a bundle, a back end, a verdict.
//!
//!     cargo run --release --example classify -- models/fashion-mnist-small PICTURE

use paradise_runtime::{BackendKind, Bundle, load};
use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [bundle, picture] = &arguments[..] else { return Err("usage: classify BUNDLE PICTURE".into()) };
    // Every file of the bundle is compared with its manifest before anything uses it.
    let bundle = Bundle::open(Path::new(bundle))?;
    let mut backend = load(&bundle, BackendKind::Int8)?;
    let verdict = backend.picture(&paradise_picture::read(Path::new(picture))?, None)?;
    println!("{} ({:.1} %): {}", verdict.label, 100.0 * verdict.score, verdict.decision);
    println!("rate {:.2} nats, posterior entropy {:.2} nats", verdict.rate_nats, verdict.posterior_entropy_nats);
    Ok(())
}
