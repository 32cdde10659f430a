//! AutoAttack `standard` against torchattacks' on the same exported weights, images, CPU and threads, the two taking
//! turns: `make bench-attack`.
//!
//! Prints robust accuracies, how many images come out alike, and both times; ends with `ratio NAME OURS/PEER` lines,
//! below 1: ours is better. Exits with 1 where robust accuracy differs by more than 0.6 points, or outcomes agree on
//! fewer than 99 % (APGD-CE) or 98 % (Square) of the images.

use paradise_attack::Ball;
use paradise_attack::{Attempt, Victim, launch, pixels, samples, suite};
use paradise_data::Dataset;
use paradise_evaluate::prediction::classify;
use paradise_support::statistics::Proportion;
use paradise_train::config::parse_eps;
use paradise_train::encoder::LogitModel;
use paradise_train::export::float_onnx;
use paradise_train::fit::RunFolder;
use serde::Deserialize;
use std::error::Error;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Images of the comparison.
const IMAGES: usize = 500;
/// Threads of the runs that are timed.
const THREADS: [usize; 2] = [1, 2];

/// What the peer prints.
#[derive(Deserialize)]
struct Peer {
    clean: usize,
    broken: Vec<bool>,
    seconds: f64,
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let [python, eps, runs @ ..] = &arguments[..] else {
        println!("usage: cargo bench --bench autoattack -- PYTHON EPS RUN...; PYTHON has benches/requirements.txt");
        return Ok(());
    };
    let ball = Ball::linf(parse_eps(eps)?);
    let mut ratios = Vec::new();
    let mut holds = true;
    for run in runs {
        holds &= compare(python, ball, Path::new(run), &mut ratios)?;
    }
    ratios.iter().for_each(|(name, ratio)| println!("ratio {name} {ratio:.3}"));
    if !holds {
        return Err("a promise is not kept (see above)".into());
    }
    Ok(())
}

fn compare(python: &str, ball: Ball, run: &Path, ratios: &mut Vec<(String, f64)>) -> Outcome<bool> {
    let name = run.file_name().ok_or("not a run folder")?.to_string_lossy().into_owned();
    let folder = RunFolder::new(run);
    let config = folder.read_config()?;
    let splits = config.data.load()?;
    let (network, _) = folder.best_network(&config, &splits)?;
    let served = LogitModel::new(&network)?;
    let set = splits.test.head(IMAGES);
    let shared = tempfile::tempdir()?;
    let put = |file: &str, bytes: &[u8]| std::fs::write(shared.path().join(file), bytes);
    put("encoder.onnx", &float_onnx::encode(&network.folded()?.frozen())?)?;
    put("images.u8", &set.images)?;
    put("labels.u16", &set.labels.iter().flat_map(|l| l.to_le_bytes()).collect::<Vec<_>>())?;
    put("shape.json", format!("[{}, {}, {}, {}]", set.len(), set.shape.h, set.shape.w, set.shape.c).as_bytes())?;
    let clean = classify(&served, &set)?.correct_share();
    println!("{name}: {IMAGES} test images, l_inf eps {:.2}/255, clean {clean}", ball.eps * 255.0);
    let peer = |threads: usize, what: &str| -> Outcome<Peer> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/autoattack.py");
        let mut command = Command::new(python);
        command.arg(script).arg(shared.path()).arg(ball.eps.to_string()).arg(threads.to_string()).arg(what);
        command.env("OMP_NUM_THREADS", threads.to_string());
        let output = command.stderr(Stdio::inherit()).output()?;
        let text = String::from_utf8(output.stdout)?;
        let peer: Peer = serde_json::from_str(text.lines().last().ok_or("torchattacks printed nothing")?)?;
        if peer.clean != clean.correct {
            return Err(format!("clean: {} of {IMAGES} there, {} here", peer.clean, clean.correct).into());
        }
        Ok(peer)
    };
    let mut holds = true;
    for threads in THREADS {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        let began = Instant::now();
        let ours = pool.install(|| cascade(&served, ball, &set))?;
        let seconds = began.elapsed().as_secs_f64();
        let theirs = peer(threads, "standard")?;
        let [a, b] = [&ours, &theirs.broken].map(|broken| Proportion::of(broken.iter().map(|b| !b)));
        let apart = (a.percent() - b.percent()).abs();
        println!(
            "  standard, {threads} threads: ours {a} in {seconds:.1} s, torchattacks {b} in {:.1} s, same outcome {}",
            theirs.seconds,
            alike(&ours, &theirs.broken)
        );
        holds &= apart <= 0.6;
        ratios.push((format!("autoattack-{name}-{threads}-threads"), seconds / theirs.seconds));
    }
    for (what, least) in [("apgd-ce", 99.0), ("square", 98.0)] {
        let attack = suite::single(what, splits.labels.len(), None)?;
        let x = pixels(&set);
        let ours = launch(&*attack, Victim::White(&served), ball, &samples(&set, &x), 0, &|_| ())?;
        let ours: Vec<bool> = ours.iter().map(|a: &Attempt| a.broken).collect();
        let theirs = peer(2, what)?;
        let same = alike(&ours, &theirs.broken);
        let [a, b] = [&ours, &theirs.broken].map(|broken| Proportion::of(broken.iter().map(|b| !b)));
        println!("  {what} alone: ours {a}, torchattacks {b}, same outcome {same}");
        holds &= same.percent() >= least;
    }
    Ok(holds)
}

fn alike(a: &[bool], b: &[bool]) -> Proportion {
    Proportion::of(a.iter().zip(b).map(|(a, b)| a == b))
}

/// AutoAttack's order: each attack on the survivors of those before it.
fn cascade(served: &LogitModel, ball: Ball, set: &Dataset) -> anyhow::Result<Vec<bool>> {
    let x = pixels(set);
    let mut standing = samples(set, &x);
    let mut broken = vec![false; set.len()];
    for entry in suite::parse("autoattack", 10, None)? {
        let began = Instant::now();
        let n = standing.len();
        let attempts = launch(&*entry.attack, Victim::White(served), ball, &standing, 0, &|_| ())?;
        let mut fell = attempts.iter().map(|a| a.broken);
        standing.retain(|s| {
            let fell = fell.next().unwrap_or(false);
            broken[s.key as usize] |= fell;
            !fell
        });
        let seconds = began.elapsed().as_secs_f64();
        println!("    {:<26} {n} images, {} fell, {seconds:.1} s", entry.attack.describe(), n - standing.len());
    }
    Ok(broken)
}
