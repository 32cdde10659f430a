//! The int8 engine against LiteRT, ONNX Runtime and OpenVINO on the same networks, int8, batch 1, one thread, all taking
//! turns in one run: `make bench-engine`.
//!
//! Ours is the whole answer of a device: pixels to class, rate, entropies and decision. The peers run the same float
//! network from image to logits, quantised by their own tools, and what their Python binding costs on an empty network is
//! taken off their times. Ends with `ratio NAME OURS/PEER` lines, below 1: ours is better.

use paradise_engine::image::{Fit, ImagePolicy};
use paradise_engine::{Model, Shape};
use paradise_runtime::Backend;
use paradise_runtime::int8::Int8;
use paradise_train::answer::int8;
use paradise_train::config::encoder::{Encoder, Kind};
use paradise_train::dataset::{Dataset, Splits, Training};
use paradise_train::encoder::Network;
use paradise_train::export::{confidence, float_onnx};
use paradise_train::quantise::{self, assemble::Identity};
use paradise_train::random::{self, Purpose};
use std::process::Command;
use std::time::Instant;
use turns::{Outcome, Side, median};

mod turns;

/// Networks, how often the two sides take turns, and inferences a turn.
const NETS: [(&str, Kind, usize, usize); 4] = [
    ("resnet-8", Kind::ResNet8, 20, 400),
    ("resnet-20", Kind::ResNet20, 20, 150),
    ("wrn-16-4", Kind::Wrn16x4, 15, 20),
    ("wrn-28-10", Kind::Wrn28x10, 9, 3),
];

const PEERS: [&str; 3] = ["litert", "onnxruntime", "openvino"];

/// Images behind ranges and confidence.
const IMAGES: usize = 60;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let [python, only @ ..] = &arguments[..] else {
        println!("usage: cargo bench --bench engine -- PYTHON [NET...]; PYTHON has benches/peers.txt installed");
        return Ok(());
    };
    let mut ratios = Vec::new();
    println!(
        "{:10} {:>9} {:>12} {:>9} {:>9} {:>12} {:>9}",
        "net", "MMAC", "kernels", "ours ms", "litert", "onnxruntime", "openvino"
    );
    for (net, kind, turns, runs) in NETS {
        if only.is_empty() || only.iter().any(|o| o == net) {
            compare(python, (net, kind), turns, runs, &mut ratios)?;
        }
    }
    ratios.iter().for_each(|(name, ratio)| println!("ratio {name} {ratio:.3}"));
    Ok(())
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
    let encoder = network.frozen();
    let assembly = quantise::quantise(&encoder, &quantise::ranges(&encoder, &images.head(10))?)?;
    let labels: Vec<String> = (0..10).map(|i| i.to_string()).collect();
    let identity = Identity {
        name: name.into(),
        labels: labels.clone(),
        policy: ImagePolicy { fit: Fit::Stretch, light_on_dark: false },
    };
    let splits = Splits {
        train: Training::Memory(images.clone()),
        calibration: images.clone(),
        test: images.clone(),
        labels,
        source: "random".into(),
    };
    let model = confidence::fit(&assembly, &identity, &splits, 0.05, &int8::records)?;
    Ok([float_onnx::encode(&encoder)?, model])
}

fn compare(
    python: &str,
    (net, kind): (&str, Kind),
    turns: usize,
    runs: usize,
    ratios: &mut Vec<(String, f64)>,
) -> Outcome<()> {
    let images = pictures(Shape::new(32, 32, 3));
    let [float, bytes] = models(net, kind, &images)?;
    let folder = std::env::temp_dir().join(format!("paradise-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("encoder.onnx"), float)?;
    std::fs::write(folder.join("images.bin"), &images.images)?;
    let macs = Model::parse(&bytes)?.header().total_macs();
    let mut sets = Int8::new(bytes)?.with_every_kernel();
    // The scalar kernels are no contender, and slow.
    sets.pop();
    if std::env::var("PROFILE").is_ok() {
        scratch_profile(&mut sets[0], images.image(0));
        return Ok(());
    }
    if std::env::var("QUICK").is_ok() {
        for s in sets.iter_mut() {
            let mut t = Vec::new();
            for i in 0..1000 {
                let began = Instant::now();
                s.answer(images.image(i % IMAGES), &mut |_, _| {})?;
                t.push(began.elapsed().as_secs_f64() * 1e6);
            }
            println!("{net} {} {:.2} us", s.kernels(), median(&t));
        }
        return Ok(());
    }
    let mut peers = Side::start(Command::new(python).arg(turns::script("engine.py")).arg(&folder))?;
    let mut ours = vec![Vec::new(); sets.len()];
    let mut theirs = vec![Vec::new(); PEERS.len()];
    for _ in 0..turns {
        for (int8, seconds) in sets.iter_mut().zip(&mut ours) {
            // One unmeasured inference, for the caches.
            int8.answer(images.image(0), &mut |_, _| {})?;
            for i in 0..runs {
                let began = Instant::now();
                int8.answer(images.image(i % IMAGES), &mut |_, _| {})?;
                seconds.push(began.elapsed().as_secs_f64());
            }
        }
        for (peer, seconds) in PEERS.iter().zip(&mut theirs) {
            seconds.extend(peers.turn(&format!("{peer} {runs}"))?);
        }
    }
    let theirs: Vec<f64> = theirs.iter().map(|s| 1e3 * median(s)).collect();
    print!("{}", peers.finish()?.replace(';', "\n"));
    std::fs::remove_dir_all(&folder)?;
    for (int8, seconds) in sets.iter().zip(&ours) {
        let ours = 1e3 * median(seconds);
        print!("{net:10} {:>9.1} {:>12} {ours:>9.4}", macs as f64 / 1e6, int8.kernels());
        println!(" {:>9.4} {:>12.4} {:>9.4}", theirs[0], theirs[1], theirs[2]);
        for (peer, theirs) in PEERS.iter().zip(&theirs) {
            ratios.push((format!("{net}-{}-vs-{peer}", int8.kernels()), ours / theirs));
        }
    }
    Ok(())
}

#[allow(dead_code)]
fn scratch_profile(int8: &mut Int8, image: &[u8]) {
    let n = int8.model().header().layers.len();
    let mut all = vec![Vec::new(); n + 1];
    for _ in 0..300 {
        let mut last = Instant::now();
        int8.observe(
            image,
            &mut |i, _| {
                let now = Instant::now();
                all[i].push((now - last).as_secs_f64() * 1e6);
                last = Instant::now();
            },
            &mut |_, _| {},
        )
        .unwrap();
        all[n].push(last.elapsed().as_secs_f64() * 1e6);
    }
    let h = int8.model().header().clone();
    for (i, t) in all.iter().enumerate() {
        let m = median(t);
        if i < n {
            let y = h.activations[i + 1].shape;
            println!(
                "{i:3} {:8} {:?} {:8.2} us  {:6.1} MAC/ns",
                h.layers[i].op.name(),
                (y.h, y.w, y.c),
                m,
                h.macs(i) as f64 / m / 1e3
            );
        } else {
            println!("rest {m:.2} us");
        }
    }
}
