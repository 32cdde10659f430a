//! The int8 engine against LiteRT, ONNX Runtime and OpenVINO on the same networks, int8, batch 1, on one thread and on two, all
//! taking turns in one run: `make bench-engine`.
//!
//! Ours is the whole answer of a device: pixels to class, rate, entropies and decision. The peers run the same float
//! network from image to logits, quantised by their own tools, and what their Python binding costs on an empty network is
//! taken off their times. OpenVINO is also held to the instructions of smaller CPUs, as ours is: AVX2, and AVX-VNNI where this
//! CPU has it. Instructions, which say nothing of latency, are counted where that can be done: under valgrind, whose CPU ends with
//! AVX2, and in QEMU where `make aarch64` has built the engine (`instructions.rs`). Ends with `ratio NAME OURS/PEER` lines, below 1:
//! ours is better.

use paradise_data::{Dataset, Splits, Training};
use paradise_engine::image::{Geometry, ImagePolicy, Polarity};
use paradise_engine::{Model, Shape};
use paradise_evaluate::prediction::int8;
use paradise_runtime::int8::Int8;
use paradise_runtime::pipeline::BackendError;
use paradise_runtime::profile;
use paradise_runtime::threads::Threads;
use paradise_runtime::{Backend, BackendKind, Bundle, load};
use paradise_support::random::{self, Purpose};
use paradise_train::confidence;
use paradise_train::config::encoder::{Encoder, Kind};
use paradise_train::encoder::Network;
use paradise_train::export::float_onnx;
use paradise_train::quantise::assemble::Identity;
use paradise_train::quantise::plain;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use tract_onnx::prelude::*;
use turns::{Outcome, Side, median};

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

const PEERS: [&str; 3] = ["litert", "onnxruntime", "openvino"];

/// Threads that share an inference.
const THREADS: [usize; 2] = [1, 2];

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

/// What the peers may use of the CPU, and which of our sets stands against them.
struct Held {
    /// As ratios name it.
    name: &'static str,
    /// For oneDNN, which is OpenVINO's; LiteRT and ONNX Runtime cannot be held.
    onednn: Option<&'static str>,
    /// Our set.
    ours: String,
    peers: &'static [&'static str],
}

/// The whole CPU, and what of it smaller ones have; what this one has not is said to be skipped.
fn held(sets: &[String]) -> Vec<Held> {
    let mut all = vec![Held { name: "native", onednn: None, ours: sets[0].clone(), peers: &PEERS }];
    for (name, onednn, ours) in [("avx2-vnni", "AVX2_VNNI", "avx-vnni"), ("avx2", "AVX2", "avx2")] {
        if sets.iter().any(|set| set == ours) {
            all.push(Held { name, onednn: Some(onednn), ours: ours.into(), peers: &["openvino"] });
        } else {
            println!("skipped: {name}, which this CPU has not");
        }
    }
    all
}

/// The peers under one `Held` on so many threads.
struct Peers {
    held: usize,
    threads: usize,
    side: Side,
    /// For each, what inferences took.
    seconds: Vec<Vec<f64>>,
}

/// Our engine by one set on so many threads.
struct Ours {
    set: String,
    threads: Threads,
    int8: Int8,
    seconds: Vec<f64>,
    peaks: Vec<f64>,
}

impl Ours {
    /// Times so many inferences.
    fn turn(&mut self, images: &Dataset, runs: usize) -> Result<(), BackendError> {
        self.threads.take_place(0);
        self.peaks.push(profile::peak(&self.int8));
        // One unmeasured inference, for the caches.
        self.int8.answer(images.image(0), &mut |_, _| {})?;
        for i in 0..runs {
            let began = Instant::now();
            self.int8.answer(images.image(i % IMAGES), &mut |_, _| {})?;
            self.seconds.push(began.elapsed().as_secs_f64());
        }
        Ok(())
    }
}

/// A network on its way through the comparison.
struct Contest<'a> {
    net: &'a str,
    /// The Python that has the peers, if they take part.
    python: Option<&'a str>,
    /// Where the models and images lie.
    folder: PathBuf,
    images: Dataset,
    /// `model.pmq`.
    model: Vec<u8>,
    macs: u64,
}

impl<'a> Contest<'a> {
    /// Writes the models, the peers' too.
    fn new(python: Option<&'a str>, (net, kind): (&'a str, Kind), extent: u16) -> Outcome<Self> {
        let images = pictures(Shape::new(extent, extent, 3));
        let [float, model] = models(net, kind, &images)?;
        let macs = Model::parse(&model)?.header().total_macs();
        let folder = std::env::temp_dir().join(format!("paradise-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("model.pmq"), &model)?;
        std::fs::write(folder.join("encoder.onnx"), float)?;
        std::fs::write(folder.join("images.bin"), &images.images)?;
        println!("{net}: {:.1} million products", macs as f64 / 1e6);
        if let Some(python) = python {
            let prepared =
                Command::new(python).arg(turns::script("engine.py")).arg("prepare").arg(&folder).output()?;
            if !prepared.status.success() {
                let log = std::fs::read_to_string(folder.join("peers.log")).unwrap_or_default();
                return Err(format!("engine.py prepare: {}\n{log}", prepared.status).into());
            }
            print!("{}", String::from_utf8_lossy(&prepared.stdout).replace(';', "\n"));
        }
        Ok(Self { net, python, folder, images, model, macs })
    }

    /// Ours by every set, on one thread and on two.
    fn ours(&self) -> Outcome<Vec<Ours>> {
        let mut ours = Vec::new();
        for threads in THREADS {
            let mut sets = Int8::new(self.model.clone())?.with_every_kernel();
            // The scalar kernels are no contender, and slow.
            sets.pop();
            for int8 in sets {
                let set = int8.kernels().to_string();
                let threads = Threads::new(threads, &[])?;
                let int8 = threads.share(int8, 0);
                ours.push(Ours { set, threads, int8, seconds: Vec::new(), peaks: Vec::new() });
            }
        }
        Ok(ours)
    }

    /// The peers under each `Held`, on one thread and on two.
    fn peers(&self, held: &[Held]) -> Outcome<Vec<Peers>> {
        let mut peers = Vec::new();
        let Some(python) = self.python else { return Ok(peers) };
        for threads in THREADS {
            for (i, held) in held.iter().enumerate() {
                let mut command = Command::new(python);
                command.arg(turns::script("engine.py")).arg("time").arg(&self.folder);
                command.arg(threads.to_string()).args(held.peers);
                if let Some(isa) = held.onednn {
                    command.env("ONEDNN_MAX_CPU_ISA", isa);
                }
                let seconds = vec![Vec::new(); held.peers.len()];
                peers.push(Peers { held: i, threads, side: Side::start(&mut command)?, seconds });
            }
        }
        Ok(peers)
    }

    /// Lets all sides take turns; ratios of times.
    fn time(&self, [turns, runs]: [usize; 2]) -> Outcome<Vec<(String, f64)>> {
        let Self { net, macs, .. } = *self;
        let mut ours = self.ours()?;
        let sets: Vec<String> = ours.iter().filter(|o| o.threads.count() == 1).map(|o| o.set.clone()).collect();
        let held = held(&sets);
        let mut peers = self.peers(&held)?;
        for _ in 0..turns {
            for own in &mut ours {
                // A thread of its own: where it may run is not for the peers.
                std::thread::scope(|scope| scope.spawn(|| own.turn(&self.images, runs)).join())
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                    .map_err(|e| e.to_string())?;
            }
            for Peers { held: of, side, seconds, .. } in &mut peers {
                for (peer, seconds) in held[*of].peers.iter().zip(seconds) {
                    seconds.extend(side.turn(&format!("{peer} {runs}"))?);
                }
            }
        }
        let mut ratios = Vec::new();
        let plural =
            |threads: usize| if threads == 1 { "1-thread".to_string() } else { format!("{threads}-threads") };
        for Ours { set, threads, seconds, peaks, .. } in &ours {
            let (ms, peak, threads) = (1e3 * median(seconds), median(peaks), threads.count());
            let share = 100.0 * macs as f64 / 1e6 / ms / peak;
            println!("  ours {set:>16} {:>9} {ms:>9.4} ms {share:>5.0} % of one core's peak", plural(threads));
            let one = ours.iter().find(|o| o.set == *set && o.threads.count() == 1).filter(|_| threads > 1);
            ratios.extend(one.map(|one| {
                let name = format!("{net}-{set}-{}-vs-one", plural(threads));
                (name, median(seconds) / median(&one.seconds))
            }));
        }
        for Peers { held: of, threads, side, seconds } in peers {
            let Held { name, ours: set, peers, .. } = &held[of];
            for (peer, theirs) in peers.iter().zip(&seconds) {
                let theirs = median(theirs);
                println!("  {peer:>11} {name:>10} {:>9} {:>9.4} ms", plural(threads), 1e3 * theirs);
                let own =
                    ours.iter().find(|o| o.set == *set && o.threads.count() == threads).ok_or("a set of ours")?;
                let name = format!("{net}-{set}-{}-vs-{peer}-{name}", plural(threads));
                ratios.push((name, median(&own.seconds) / theirs));
            }
            println!("{}", side.finish()?.replace(';', "\n"));
        }
        Ok(ratios)
    }
}
