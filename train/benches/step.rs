//! One training step against PyTorch's, the two taking turns in one run: `make bench-train`.
//!
//! A step is the forward pass, the backward pass and an SGD-Nesterov update of a mini-batch of 128. Both sides run in
//! processes of their own, so that peak memory is each one's own. Ends with `ratio NAME OURS/PEER` lines, below 1: ours
//! is better.

use candle_core::{Device, Tensor};
use candle_nn::loss::cross_entropy;
use paradise_engine::Shape;
use paradise_nn::Precision;
use paradise_nn::device::{Choice, cpu_multiplies_bf16};
use paradise_nn::optimiser::{self, Settings};
use paradise_support::random::{self, Purpose};
use paradise_train::checkpoint::State;
use paradise_train::config::encoder::{Encoder, Kind};
use std::process::Command;
use std::time::Instant;
use turns::{Outcome, Side, median};

#[allow(dead_code)]
mod turns;

const NETS: [(&str, Kind); 6] = [
    ("small-conv", Kind::SmallConv),
    ("mlp-1000", Kind::Mlp1000),
    ("resnet-8", Kind::ResNet8),
    ("resnet-20", Kind::ResNet20),
    ("wrn-16-4", Kind::Wrn16x4),
    ("wrn-28-10", Kind::Wrn28x10),
];

/// Images a step.
const BATCH: usize = 128;

/// Which networks run how, by default: threads (then a precision), or a precision on the GPU.
struct Plan {
    nets: &'static [&'static str],
    how: &'static [&'static str],
}

const CPU: Plan =
    Plan { nets: &["small-conv", "mlp-1000", "resnet-8", "resnet-20", "wrn-16-4"], how: &["1", "2", "2-bf16"] };
const GPU: Plan = Plan { nets: &["resnet-20", "wrn-16-4", "wrn-28-10"], how: &["bf16", "tf32"] };

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    match &arguments[..] {
        [flag, net, how] if flag == "--serve" => serve(net, how),
        [flag, python, rest @ ..] if flag == "--gpu" => compare(python, rest, &GPU),
        [python, rest @ ..] => compare(python, rest, &CPU),
        [] => {
            println!(
                "usage: cargo bench --bench step -- [--gpu] PYTHON [NET...]; PYTHON has benches/requirements.txt installed"
            );
            Ok(())
        }
    }
}

/// Threads on the CPU, none for the GPU, and the precision.
fn parts(how: &str) -> (Option<&str>, &str) {
    match how.split_once('-') {
        Some((threads, precision)) => (Some(threads), precision),
        None if how.parse::<usize>().is_ok() => (Some(how), "f32"),
        None => (None, how),
    }
}

/// Our side of the protocol of `step.py`.
fn serve(net: &str, how: &str) -> Outcome<()> {
    let (threads, precision) = parts(how);
    let precision = match precision {
        "f32" => Precision::F32,
        "tf32" => Precision::Tf32,
        "bf16" => Precision::Bf16,
        other => return Err(format!("{other}: no such precision").into()),
    };
    let device = if threads.is_some() { Device::Cpu } else { Choice::Cuda.open()? };
    if let Some(threads) = threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads.parse()?).build_global()?;
    }
    let kind = NETS.iter().find(|n| n.0 == net).ok_or("no such network")?.1;
    let shape =
        if matches!(kind, Kind::SmallConv | Kind::Mlp1000) { Shape::new(28, 28, 1) } else { Shape::new(32, 32, 3) };
    let architecture = Encoder { kind, ..Encoder::default() }.architecture(shape, 10)?;
    let kind = optimiser::Kind::Sgd;
    let settings = Settings { kind, momentum: 0.9, weight_decay: 1e-4, clip: 0.0, ema: 0.0 };
    let mut state = State::new(architecture, settings, 0)?.on(&device, precision)?;
    let mut rng = random::stream(0, Purpose::Noise, 0, 0, 0);
    let pixels: Vec<f32> = (0..BATCH * shape.len() as usize).map(|_| random::uniform(&mut rng)).collect();
    let dims = (BATCH, usize::from(shape.h), usize::from(shape.w), usize::from(shape.c));
    let images = Tensor::from_vec(pixels, dims, &device)?;
    let labels: Vec<u32> = (0..BATCH).map(|_| random::below(&mut rng, 10) as u32).collect();
    let labels = Tensor::from_vec(labels, BATCH, &device)?;
    let mut step = || -> Outcome<()> {
        let learning = state.network.learning()?;
        let loss = cross_entropy(&learning.logits(&images)?, &labels)?;
        let gradients = learning.gradients(&state.network.variables, &loss)?;
        state.optimiser.update(&state.network.variables, &gradients, 0.01)?;
        Ok(())
    };
    step()?;
    println!("ready");
    for line in std::io::stdin().lines() {
        step()?;
        let n: usize = line?.trim().parse()?;
        let mut seconds = Vec::new();
        if device.is_cpu() {
            for _ in 0..n {
                let began = Instant::now();
                step()?;
                seconds.push(began.elapsed().as_secs_f64().to_string());
            }
        } else {
            // Steps are queued: their mean, n times.
            device.synchronize()?;
            let began = Instant::now();
            for _ in 0..n {
                step()?;
            }
            device.synchronize()?;
            seconds = vec![(began.elapsed().as_secs_f64() / n as f64).to_string(); n];
        }
        println!("{}", seconds.join(" "));
    }
    println!("{}", peak_mib()?);
    Ok(())
}

/// Whether a comparison in bf16 on the CPU says something: it needs AMX, and convolutions of 16 channels and more.
fn bf16_counts(net: &str) -> bool {
    if !cpu_multiplies_bf16() {
        println!("{net:12} skipped in bf16: this CPU has no AMX, or its system does not grant it");
    }
    cpu_multiplies_bf16() && !matches!(net, "small-conv" | "mlp-1000")
}

/// Peak resident memory of this process, MiB.
fn peak_mib() -> Outcome<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse::<f64>()? / 1024.0)
}

fn compare(python: &str, only: &[String], plan: &Plan) -> Outcome<()> {
    let script = turns::script("step.py");
    let mut ratios = Vec::new();
    println!(
        "{:12} {:>7} {:>12} {:>12} {:>7} {:>11} {:>11}",
        "net", "how", "ours ms", "PyTorch ms", "ratio", "ours MiB", "peer MiB"
    );
    let wanted = |n: &str| if only.is_empty() { plan.nets.contains(&n) } else { only.iter().any(|o| o == n) };
    for (net, _) in NETS.iter().filter(|n| wanted(n.0)) {
        for &how in plan.how {
            let (threads, precision) = parts(how);
            if threads.is_some() && precision == "bf16" && !bf16_counts(net) {
                continue;
            }
            let mut command = Command::new(std::env::current_exe()?);
            // As `train` sets them for itself.
            command.env("CANDLE_NUM_THREADS", "1").envs(threads.map(|n| ("RAYON_NUM_THREADS", n)));
            let mut ours = Side::start(command.args(["--serve", net, how]))?;
            let mut peer = Side::start(Command::new(python).arg(&script).args([net, how]))?;
            let (turns, steps) = match *net {
                _ if threads.is_none() => (5, 50),
                "wrn-16-4" | "wrn-28-10" => (3, 3),
                "small-conv" | "mlp-1000" => (8, 20),
                _ => (6, 4),
            };
            let [mut our_seconds, mut peer_seconds] = [Vec::new(), Vec::new()];
            for _ in 0..turns {
                // Each side runs one unmeasured step first, for the caches.
                our_seconds.extend(ours.turn(&steps.to_string())?);
                peer_seconds.extend(peer.turn(&steps.to_string())?);
            }
            let (a, b) = (1e3 * median(&our_seconds), 1e3 * median(&peer_seconds));
            let (ours_mib, peer_mib): (f64, f64) = (ours.finish()?.parse()?, peer.finish()?.parse()?);
            println!("{net:12} {how:>7} {a:>12.1} {b:>12.1} {:>7.2} {ours_mib:>11.0} {peer_mib:>11.0}", a / b);
            let Some(threads) = threads else {
                println!("{net} {how}: {:.0} images a second", BATCH as f64 / a * 1e3);
                ratios.push((format!("{net}-step-vs-pytorch-gpu-{how}"), a / b));
                continue;
            };
            let how = if precision == "f32" { threads.into() } else { format!("{precision}-{threads}") };
            ratios.push((format!("{net}-step-vs-pytorch-{how}-threads"), a / b));
            ratios.push((format!("{net}-peak-memory-vs-pytorch-{how}-threads"), ours_mib / peer_mib));
        }
    }
    for (name, ratio) in ratios {
        println!("ratio {name} {ratio:.3}");
    }
    Ok(())
}
