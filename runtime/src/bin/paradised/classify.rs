//! `paradised classify`.

use crate::arguments::Classify;
use crate::gpio::Pins;
use crate::threads::loaded;
use paradise_picture::PictureError;
use paradise_runtime::say;
use paradise_runtime::{Bundle, Verdict};
use serde::Serialize;
use std::path::Path;
use std::time::Instant;

/// A line of `--json`.
#[derive(Serialize)]
struct Answered<'a> {
    image: String,
    #[serde(flatten)]
    verdict: &'a Verdict,
    latency_us: u64,
}

/// A picture file, or standard input for `-`.
fn read(path: &Path) -> Result<Vec<u8>, PictureError> {
    if path == Path::new("-") {
        return paradise_picture::read_from(std::io::stdin().lock(), 0);
    }
    paradise_picture::read(path)
}

/// Classifies every picture; a bad one is reported and the rest go on, and the exit code is then 2.
pub fn run(arguments: &Classify) -> anyhow::Result<u8> {
    let bundle = Bundle::open(&arguments.model.model)?;
    let kind = arguments.model.backend;
    let mut backend = loaded(&arguments.threads.threads(kind)?, &bundle, kind)?;
    let rule = arguments.thresholds.over(arguments.site.rule(backend.as_ref())?)?;
    let mut pins = Pins::open(arguments.pins.gpio.as_deref())?;
    let mut code = 0;
    for path in &arguments.images {
        let began = Instant::now();
        let outcome =
            read(path).map_err(anyhow::Error::from).and_then(|bytes| Ok(backend.picture(&bytes, Some(&rule))?));
        pins.show(outcome.as_ref().ok())?;
        match outcome {
            Ok(verdict) if arguments.json => {
                let latency_us = began.elapsed().as_micros() as u64;
                let line = Answered { image: path.display().to_string(), verdict: &verdict, latency_us };
                say!("{}", serde_json::to_string(&line)?);
            }
            Ok(v) => say!(
                "{}: {} {:.1} %  {}  (p of picture {:.3}, posterior {:.3}, spread {:.3}, class {:.3}, all {:.3}; rate {:.2}, H {:.2}, predictive entropy {:.3} nats)",
                path.display(),
                v.label,
                100.0 * v.score,
                v.decision,
                v.p.picture,
                v.p.posterior,
                v.p.spread,
                v.p.predictive,
                v.p.combined,
                v.rate_nats,
                v.posterior_entropy_nats,
                v.predictive_entropy_nats,
            ),
            Err(error) => {
                eprintln!("paradised: {}: {error:#}", path.display());
                code = crate::BAD_INPUT;
            }
        }
    }
    Ok(code)
}
