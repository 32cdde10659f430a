//! The int8 engine against LiteRT, ONNX Runtime and OpenVINO on the same networks, int8, batch 1, one thread, all taking
//! turns in one run: `make bench-engine`.
//!
//! Ours is the whole answer of a device: pixels to class, rate, entropies and decision. The peers run the same float
//! network from image to logits, quantised by their own tools, and what their Python binding costs on an empty network is
//! taken off their times. Where `make aarch64` has built the engine, the table also counts its instructions in QEMU, which
//! say nothing of latency. Ends with `ratio NAME OURS/PEER` lines, below 1: ours is better.

use paradise_data::{Dataset, Splits, Training};
use paradise_engine::image::{Geometry, ImagePolicy, Polarity};
use paradise_engine::{Model, Shape};
use paradise_evaluate::prediction::int8;
use paradise_runtime::int8::Int8;
use paradise_runtime::profile;
use paradise_runtime::{Backend, BackendKind, Bundle, load};
use paradise_support::random::{self, Purpose};
use paradise_train::confidence;
use paradise_train::config::encoder::{Encoder, Kind};
use paradise_train::encoder::Network;
use paradise_train::export::float_onnx;
use paradise_train::quantise::assemble::Identity;
use paradise_train::quantise::plain;
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use tract_onnx::prelude::*;
use turns::{Outcome, Side, median};

mod turns;

/// Networks, rows and columns of their images, how often the two sides take turns, and inferences a turn.
const NETS: [(&str, Kind, u16, usize, usize); 5] = [
    ("resnet-8", Kind::ResNet8, 32, 20, 400),
    ("resnet-20", Kind::ResNet20, 32, 20, 150),
    ("wrn-16-4", Kind::Wrn16x4, 32, 15, 20),
    ("wrn-28-10", Kind::Wrn28x10, 32, 9, 3),
    ("mobilenet-25", Kind::MobileNet25, 96, 20, 300),
];

const PEERS: [&str; 3] = ["litert", "onnxruntime", "openvino"];

/// Images behind ranges and confidence.
const IMAGES: usize = 60;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let [python, only @ ..] = &arguments[..] else {
        println!(
            "usage: cargo bench --bench engine -- PYTHON|alone [NET|tract...]; PYTHON has benches/peers.txt installed"
        );
        return Ok(());
    };
    let peers = (python != "alone").then_some(python.as_str());
    let wanted = |name: &str| only.is_empty() || only.iter().any(|o| o == name);
    let mut ratios = Vec::new();
    println!(
        "{:12} {:>9} {:>12} {:>9} {:>9} {:>9} {:>12} {:>9}",
        "net", "MMAC", "kernels", "ours ms", "of peak", "litert", "onnxruntime", "openvino"
    );
    for (net, kind, extent, turns, runs) in NETS {
        if wanted(net) {
            compare(peers, (net, kind), extent, [turns, runs], &mut ratios)?;
        }
    }
    if wanted("tract") {
        ratios.push(tract(&turns::root().join("models/fashion-mnist-small"))?);
    }
    ratios.iter().filter(|(_, r)| r.is_finite()).for_each(|(name, ratio)| println!("ratio {name} {ratio:.3}"));
    Ok(())
}

/// The float back end against tract called directly on the same file and a tensor that is ready: the ratio says what
/// pixels to floats, rate, entropies and decision cost.
fn tract(bundle: &Path) -> Outcome<(String, f64)> {
    let bundle = Bundle::open(bundle)?;
    let mut ours = load(&bundle, BackendKind::Tract)?;
    let input = Model::parse(bundle.file("model.pmq")?)?.header().input;
    let dims = [1, input.c, input.h, input.w].map(usize::from);
    let peer = tract_onnx::onnx()
        .model_for_read(&mut &bundle.file("encoder.onnx")?[..])?
        .with_input_fact(0, f32::fact(dims).into())?
        .into_optimized()?
        .into_runnable()?;
    let images = pictures(input);
    let tensors: Vec<TValue> = (0..IMAGES)
        .map(|i| {
            let pixels: Vec<f32> = images.image(i).iter().map(|p| f32::from(*p) / 255.0).collect();
            // One channel: NCHW and NHWC are the same.
            Ok(Tensor::from_shape(&dims, &pixels)?.into())
        })
        .collect::<TractResult<_>>()?;
    let [mut our_seconds, mut peer_seconds] = [Vec::new(), Vec::new()];
    for i in 0..20_000 {
        let began = Instant::now();
        ours.answer(images.image(i % IMAGES), &mut |_, _| {})?;
        our_seconds.push(began.elapsed().as_secs_f64());
        let began = Instant::now();
        peer.run(tvec!(tensors[i % IMAGES].clone()))?;
        peer_seconds.push(began.elapsed().as_secs_f64());
    }
    let (a, b) = (1e6 * median(&our_seconds), 1e6 * median(&peer_seconds));
    println!("{}: float back end {a:.1} us, tract called directly {b:.1} us", bundle.name());
    Ok(("float-back-end-vs-tract-called-directly".into(), a / b))
}

/// Instructions of one inference on an emulated aarch64 CPU, by a set of kernels: what two more cost than one.
fn instructions(folder: &Path, cpu: &str, set: &str) -> Outcome<u64> {
    let target = turns::root().join("target/aarch64");
    let built = target.join("aarch64-unknown-linux-gnu/release/examples/kernels");
    let (plugin, log) = (target.join("instructions.so"), folder.join("instructions.log"));
    let executed = |n: &str| -> Outcome<u64> {
        let status = Command::new("qemu-aarch64")
            .args(["-L", "/usr/aarch64-linux-gnu", "-cpu", cpu, "-d", "plugin", "-plugin"])
            .arg(&plugin)
            .arg("-D")
            .arg(&log)
            .arg(&built)
            .args([folder.join("model.pmq"), folder.join("images.bin")])
            .args([set, n])
            .status()?;
        if !status.success() {
            return Err(format!("{} on {cpu}: {status}", built.display()).into());
        }
        Ok(std::fs::read_to_string(&log)?.trim().parse()?)
    };
    Ok((executed("3")? - executed("1")?) / 2)
}

/// Random pictures: what they show matters to nobody here.
fn pictures(shape: Shape) -> Dataset {
    let mut rng = random::stream(0, Purpose::Noise, 0, 0, 0);
    let images = (0..IMAGES * shape.len() as usize).map(|_| random::below(&mut rng, 256) as u8).collect();
    Dataset { shape, images, labels: (0..IMAGES).map(|i| (i % 10) as u16).collect() }
}

/// The network with fresh weights: as `encoder.onnx` and as `model.pmq`.
fn models(name: &str, kind: Kind, images: &Dataset) -> Outcome<[Vec<u8>; 2]> {
    let architecture = Encoder { kind, ..Encoder::default() }.architecture(images.shape, 10)?;
    let network = Network::new(architecture, 0)?.folded()?;
    let assembly = plain(&network, &images.head(10))?;
    let labels: Vec<String> = (0..10).map(|i| i.to_string()).collect();
    let identity = Identity {
        name: name.into(),
        labels: labels.clone(),
        policy: ImagePolicy { geometry: Geometry::Stretch, polarity: Polarity::AsTaken },
        made: None,
    };
    let splits = Splits {
        train: Training::Memory(images.clone()),
        calibration: images.clone(),
        test: images.clone(),
        labels,
        source: "random".into(),
        policy: identity.policy,
        read: false,
    };
    let model = confidence::fit(&assembly, &identity, &splits, 0.05, &int8::predict)?;
    Ok([float_onnx::encode(&network.frozen())?, model])
}

fn compare(
    peers: Option<&str>,
    (net, kind): (&str, Kind),
    extent: u16,
    [turns, runs]: [usize; 2],
    ratios: &mut Vec<(String, f64)>,
) -> Outcome<()> {
    let images = pictures(Shape::new(extent, extent, 3));
    let [float, bytes] = models(net, kind, &images)?;
    let macs = Model::parse(&bytes)?.header().total_macs();
    let folder = std::env::temp_dir().join(format!("paradise-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("model.pmq"), &bytes)?;
    let mut sets = Int8::new(bytes)?.with_every_kernel();
    // The scalar kernels are no contender, and slow.
    sets.pop();
    std::fs::write(folder.join("encoder.onnx"), float)?;
    std::fs::write(folder.join("images.bin"), &images.images)?;
    let script = turns::script("engine.py");
    let mut peers = peers.map(|python| Side::start(Command::new(python).arg(script).arg(&folder))).transpose()?;
    let mut ours = vec![Vec::new(); sets.len()];
    let mut peaks = vec![Vec::new(); sets.len()];
    let mut theirs = vec![Vec::new(); PEERS.len()];
    for _ in 0..turns {
        for ((int8, seconds), peaks) in sets.iter_mut().zip(&mut ours).zip(&mut peaks) {
            peaks.push(profile::peak(int8));
            // One unmeasured inference, for the caches.
            int8.answer(images.image(0), &mut |_, _| {})?;
            for i in 0..runs {
                let began = Instant::now();
                int8.answer(images.image(i % IMAGES), &mut |_, _| {})?;
                seconds.push(began.elapsed().as_secs_f64());
            }
        }
        if let Some(peers) = &mut peers {
            for (peer, seconds) in PEERS.iter().zip(&mut theirs) {
                seconds.extend(peers.turn(&format!("{peer} {runs}"))?);
            }
        }
    }
    let theirs: Vec<f64> = theirs.iter().map(|s| if s.is_empty() { f64::NAN } else { 1e3 * median(s) }).collect();
    let found = peers.map(Side::finish).transpose()?;
    print!("{}", found.unwrap_or_default().replace(';', "\n"));
    for (cpu, set) in [("max", "neon-i8mm"), ("max", "neon-dotprod"), ("cortex-a57", "neon")] {
        match instructions(&folder, cpu, set) {
            Ok(count) => println!(
                "{net:12} {:>9.1} {set:>12} {count:>9} instructions, {:.3} a product",
                macs as f64 / 1e6,
                count as f64 / macs as f64
            ),
            Err(why) => println!("{net:12} {:>9.1} {set:>12} not counted: {why}", macs as f64 / 1e6),
        }
    }
    std::fs::remove_dir_all(&folder)?;
    for ((int8, seconds), peaks) in sets.iter().zip(&ours).zip(&peaks) {
        let ours = 1e3 * median(seconds);
        let kernels = int8.kernels();
        let share = 100.0 * macs as f64 / 1e6 / ours / median(peaks);
        print!("{net:12} {:>9.1} {kernels:>12} {ours:>9.4} {share:>7.0} %", macs as f64 / 1e6);
        println!(" {:>9.4} {:>12.4} {:>9.4}", theirs[0], theirs[1], theirs[2]);
        for (peer, theirs) in PEERS.iter().zip(&theirs) {
            ratios.push((format!("{net}-{kernels}-vs-{peer}"), ours / theirs));
        }
    }
    Ok(())
}
