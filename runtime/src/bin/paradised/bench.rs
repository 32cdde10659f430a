//! `paradised bench`: latency of one inference, batch 1, one thread.

use crate::arguments::Bench;
use anyhow::Context;
use paradise_engine::golden::Golden;
use paradise_runtime::{Bundle, pipeline};
use serde_json::json;
use std::time::Instant;

pub fn run(arguments: &Bench) -> anyhow::Result<u8> {
    let bundle = Bundle::open(&arguments.model.model)?;
    let mut backend = pipeline::load(&bundle, arguments.model.backend)?;
    let path = bundle.path("selftest.bin");
    let golden = Golden::parse(bundle.file("selftest.bin")?).with_context(|| path.display().to_string())?;
    let images: Vec<&[u8]> = golden.header().cases.iter().map(|c| golden.bytes(c.image)).collect();
    let mut times = Vec::with_capacity(arguments.runs as usize);
    let warm = images.len().max(20);
    for i in 0..warm + arguments.runs as usize {
        let began = Instant::now();
        backend.answer(images[i % images.len()], &mut |_, _| {})?;
        if i >= warm {
            times.push(began.elapsed().as_secs_f64() * 1e6);
        }
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    let (min, p50, p99) = (times[0], at(0.5), at(0.99));
    let kind = arguments.model.backend;
    if arguments.json {
        let report = json!({
            "model": bundle.name(), "backend": kind, "runs": times.len(),
            "min_us": min, "p50_us": p50, "p99_us": p99,
        });
        println!("{report}");
    } else {
        println!("{} on {kind}: {} inferences, batch 1, one thread", bundle.name(), times.len());
        println!("  min {min:.1} us   p50 {p50:.1} us   p99 {p99:.1} us");
    }
    Ok(0)
}
