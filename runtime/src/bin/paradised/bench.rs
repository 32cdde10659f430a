//! `paradised bench`: latency of one inference, batch 1, one thread, alone or in turns with the other back end.

use crate::arguments::Bench;
use crate::threads::loaded;
use anyhow::Context;
use paradise_engine::Model;
use paradise_engine::golden::Golden;
use paradise_runtime::bundle::{Bundle, MODEL, SELFTEST};
use paradise_runtime::int8::Int8;
use paradise_runtime::profile::{Part, Profile};
use paradise_runtime::say;
use paradise_runtime::{Backend, BackendKind, load};
use serde_json::json;
use std::time::Instant;

/// Untimed inferences first.
const WARM: usize = 20;

/// A back end under its name in reports.
struct Timed {
    name: String,
    backend: Box<dyn Backend>,
}

/// Sorted latencies of one back end, microseconds.
struct Latency {
    name: String,
    times: Vec<f64>,
}

impl Latency {
    fn at(&self, share: f64) -> f64 {
        self.times[((self.times.len() - 1) as f64 * share) as usize]
    }
}

/// Runs the bundle's golden images and prints minimum, median and 99th percentile; with `--versus` or
/// `--every-kernel`, the ratios of medians.
pub fn run(arguments: &Bench) -> anyhow::Result<u8> {
    let bundle = Bundle::open(&arguments.model.model)?;
    let path = bundle.path(SELFTEST);
    let golden = Golden::parse(bundle.file(SELFTEST)?).with_context(|| path.display().to_string())?;
    let images: Vec<&[u8]> = golden.header().cases.iter().map(|c| golden.bytes(c.image)).collect();
    // Refused here as everywhere; it costs an inference nothing.
    arguments
        .site
        .read(&Model::parse(bundle.file(MODEL)?).with_context(|| bundle.path(MODEL).display().to_string())?)?;
    let kind = arguments.model.backend;
    let threads = arguments.threads.threads(kind)?;
    threads.take_place(0);
    let engine = |option: &str| -> anyhow::Result<Int8> {
        anyhow::ensure!(kind == BackendKind::Int8, "{option} is for --backend int8");
        chosen(Int8::load(&bundle)?, arguments.kernels.as_deref())
    };
    if arguments.per_layer {
        let mut int8 = threads.share(engine("--per-layer")?, 0);
        let profile = Profile::measure(&mut int8, &images, arguments.runs as usize)?;
        per_layer(bundle.name(), &profile, threads.count(), arguments.json);
        return Ok(0);
    }
    if let Some(workers) = arguments.workers {
        let inputs: Vec<&[u8]> = images.iter().copied().cycle().take(arguments.runs as usize).collect();
        return throughput(bundle.name(), &engine("--workers")?, &inputs, workers.into(), arguments.json);
    }
    let mut backends = Vec::new();
    if arguments.every_kernel {
        for int8 in engine("--every-kernel")?.with_every_kernel() {
            let name = format!("int8-{}", int8.kernels());
            backends.push(Timed { name, backend: Box::new(threads.share(int8, 0)) });
        }
    } else if arguments.kernels.is_some() {
        let int8 = engine("--kernels")?;
        let name = format!("int8-{}", int8.kernels());
        backends.push(Timed { name, backend: Box::new(threads.share(int8, 0)) });
    } else {
        backends.push(Timed { name: kind.to_string(), backend: loaded(&threads, &bundle, kind)? });
    }
    if let Some(kind) = arguments.versus {
        backends.push(Timed { name: kind.to_string(), backend: load(&bundle, kind)? });
    }
    let latencies = match &arguments.picture {
        Some(path) => {
            let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
            let named = || path.display().to_string();
            measure(&mut backends, &[&bytes], arguments.runs as usize, &|backend, bytes| {
                backend.picture(bytes, None).map(drop).with_context(named)
            })?
        }
        None => measure(&mut backends, &images, arguments.runs as usize, &|backend, image| {
            Ok(backend.answer(image, &mut |_, _| {})?)
        })?,
    };
    for l in &latencies {
        let (min, p50, p99) = (l.times[0], l.at(0.5), l.at(0.99));
        if arguments.json {
            let runs = l.times.len();
            let report = json!({
                "model": bundle.name(), "backend": l.name, "threads": threads.count(), "runs": runs, "min_us": min,
                "p50_us": p50, "p99_us": p99,
            });
            say!("{report}");
        } else {
            let (on, runs) = (on(threads.count()), l.times.len());
            say!("{} on {}: {runs} inferences, batch 1, {on}", bundle.name(), l.name);
            say!("  min {min:.1} us   p50 {p50:.1} us   p99 {p99:.1} us");
        }
    }
    if let [ours, peers @ ..] = &latencies[..] {
        for peer in peers {
            say!("ratio {}-{}-vs-{} {:.3}", bundle.name(), ours.name, peer.name, ours.at(0.5) / peer.at(0.5));
        }
    }
    Ok(0)
}

/// So many threads, in words.
fn on(threads: usize) -> String {
    if threads == 1 { "one thread".into() } else { format!("{threads} threads") }
}

/// The engine with the set of kernels of that name.
fn chosen(int8: Int8, kernels: Option<&str>) -> anyhow::Result<Int8> {
    let Some(name) = kernels else { return Ok(int8) };
    let mut all = int8.with_every_kernel();
    let names = all.iter().map(Int8::kernels).collect::<Vec<_>>().join(", ");
    let at = all.iter().position(|one| one.kernels() == name);
    Ok(all.swap_remove(at.with_context(|| format!("--kernels {name}: this CPU has {names}"))?))
}

/// Prints images a second on one thread and on `threads`, the two taking turns.
fn throughput(name: &str, int8: &Int8, inputs: &[&[u8]], threads: usize, as_json: bool) -> anyhow::Result<u8> {
    const TURNS: usize = 7;
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..TURNS {
        for (threads, rates) in [1, threads].into_iter().zip(&mut rates) {
            let began = Instant::now();
            int8.answer_all(inputs, threads, &|_, _, _| {})?;
            rates.push(inputs.len() as f64 / began.elapsed().as_secs_f64());
        }
    }
    let [one, many] = rates.map(|mut r| {
        r.sort_by(f64::total_cmp);
        r[TURNS / 2]
    });
    if as_json {
        let report =
            json!({ "model": name, "threads": threads, "images_per_s": many, "images_per_s_one_thread": one });
        say!("{report}");
    } else {
        say!("{name} on int8: {many:.0} images/s on {threads} threads, {one:.0} on one");
    }
    say!("ratio {name}-time-on-{threads}-threads-vs-one {:.3}", one / many);
    Ok(0)
}

/// Prints where the time goes.
fn per_layer(name: &str, profile: &Profile, threads: usize, as_json: bool) {
    let (us, peak) = (profile.us(), profile.peak);
    if as_json {
        let part = |p: &Part| {
            json!({
                "part": p.name, "output": p.output, "macs": p.macs, "us": p.us, "share_of_peak": p.speed() / peak,
                "kernel": p.kernel,
            })
        };
        let parts: Vec<_> = profile.parts.iter().map(part).collect();
        say!("{}", json!({ "model": name, "threads": threads, "us": us, "peak_macs_per_ns": peak, "parts": parts }));
        return;
    }
    let on = on(threads);
    say!("{name} on int8, batch 1, {on}: medians; `+` runs in the registers of what stands before it");
    say!("{:<36} {:>14} {:>9} {:>9} {:>6} {:>8}  kernel", "part", "output", "MMAC", "us", "time", "of peak");
    let row = |name: &str, output: &str, macs: u64, part_us: f64, kernel: &str| {
        let (mmac, time) = (macs as f64 / 1e6, 100.0 * part_us / us);
        let share = match macs {
            0 => String::new(),
            _ => format!("{:.0} %", 100.0 * macs as f64 / (1e3 * part_us) / peak),
        };
        say!("{name:<36} {output:>14} {mmac:>9.3} {part_us:>9.2} {time:>4.0} % {share:>8}  {kernel}");
    };
    for p in &profile.parts {
        row(&p.name, &p.output.map(|v| v.to_string()).join(" x "), p.macs, p.us, &p.kernel);
    }
    row("all", "", profile.macs(), us, "");
    say!("peak {peak:.1} multiply-accumulates a nanosecond, measured out of registers");
}

/// What is timed.
type Run<'a> = dyn Fn(&mut dyn Backend, &[u8]) -> anyhow::Result<()> + 'a;

/// Times every back end on each image in turn, so that a drift of the machine's speed meets all alike.
fn measure(backends: &mut [Timed], images: &[&[u8]], runs: usize, run: &Run) -> anyhow::Result<Vec<Latency>> {
    let mut all: Vec<Latency> =
        backends.iter().map(|b| Latency { name: b.name.clone(), times: Vec::with_capacity(runs) }).collect();
    for i in 0..WARM + runs {
        for (timed, latency) in backends.iter_mut().zip(&mut all) {
            let began = Instant::now();
            run(timed.backend.as_mut(), images[i % images.len()])?;
            if i >= WARM {
                latency.times.push(began.elapsed().as_secs_f64() * 1e6);
            }
        }
    }
    all.iter_mut().for_each(|l| l.times.sort_by(f64::total_cmp));
    Ok(all)
}
