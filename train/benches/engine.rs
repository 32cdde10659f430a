//! The int8 engine against LiteRT, ONNX Runtime and OpenVINO on the same networks, int8, batch 1, on one thread and on two, all
//! taking turns in one run: `make bench-engine`.
//!
//! Ours is the whole answer of a device: pixels to class, rate, entropies and decision. The peers run the same float
//! network from image to logits, quantised by their own tools, and what their Python binding costs on an empty network is
//! taken off their times. OpenVINO is also held to the instructions of smaller CPUs, as ours is: AVX2, and AVX-VNNI where this
//! CPU has it. Instructions, which say nothing of latency, are counted where that can be done: under valgrind, whose CPU ends with
//! AVX2, and in QEMU where `make aarch64` has built the engine (`instructions/`). Ends with `ratio NAME OURS/PEER` lines, below 1:
//! ours is better.

use contest::Contest;
use paradise_data::{Dataset, Splits, Training};
use paradise_engine::image::{Geometry, ImagePolicy, Polarity};
use paradise_engine::{Model, Shape};
use paradise_evaluate::prediction::int8;
use paradise_runtime::{BackendKind, Bundle, load};
use paradise_support::random::{self, Purpose};
use paradise_train::confidence;
use paradise_train::config::encoder::{Encoder, Kind};
use paradise_train::encoder::Network;
use paradise_train::export::float_onnx;
use paradise_train::quantise::assemble::Identity;
use paradise_train::quantise::plain;
use std::path::Path;
use std::time::Instant;
use tract_onnx::prelude::*;
use turns::{Outcome, median};

mod contest;
mod instructions;
mod turns;

/// Networks, rows and columns of their images, how often the two sides take turns, and inferences a turn.
const NETS: [(&str, Kind, u16, usize, usize); 5] = [
    ("resnet-8", Kind::ResNet8, 32, 20, 400),
    ("resnet-20", Kind::ResNet20, 32, 20, 150),
    ("wrn-16-4", Kind::Wrn16x4, 32, 15, 20),
    ("wrn-28-10", Kind::Wrn28x10, 32, 9, 3),
    ("mobilenet-25", Kind::MobileNet25, 96, 20, 300),
];

/// Instead of a network: nothing is timed.
const COUNT: &str = "instructions";

/// Images behind ranges and confidence.
const IMAGES: usize = 60;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let [python, only @ ..] = &arguments[..] else {
        println!(
            "usage: cargo bench --bench engine -- PYTHON|alone [{COUNT}] [NET|tract...]; PYTHON has benches/peers.txt installed"
        );
        return Ok(());
    };
    let peers = (python != "alone").then_some(python.as_str());
    let only: Vec<&str> = only.iter().map(String::as_str).collect();
    let wanted = |name: &str| only.iter().all(|o| *o == COUNT) || only.contains(&name);
    let mut ratios = Vec::new();
    for (net, kind, extent, turns, runs) in NETS {
        if wanted(net) {
            let contest = Contest::new(peers, (net, kind), extent)?;
            if !only.contains(&COUNT) {
                ratios.extend(contest.time([turns, runs])?);
            }
            ratios.extend(instructions::compare(peers, net, &contest.folder, contest.macs)?);
            std::fs::remove_dir_all(&contest.folder)?;
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
