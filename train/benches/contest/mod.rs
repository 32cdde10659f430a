//! Ours and the peers' taking turns at one network: who takes part, and what of the CPU they may use.

use crate::turns::{self, Outcome, Side, median};
use crate::{IMAGES, models, pictures};
use paradise_data::Dataset;
use paradise_engine::{Model, Shape};
use paradise_runtime::Backend;
use paradise_runtime::int8::Int8;
use paradise_runtime::pipeline::BackendError;
use paradise_runtime::profile;
use paradise_runtime::threads::Threads;
use paradise_train::config::encoder::Kind;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

const PEERS: [&str; 3] = ["litert", "onnxruntime", "openvino"];

/// Threads that share an inference.
const THREADS: [usize; 2] = [1, 2];

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
pub struct Contest<'a> {
    net: &'a str,
    /// The Python that has the peers, if they take part.
    python: Option<&'a str>,
    /// Where the models and images lie.
    pub folder: PathBuf,
    images: Dataset,
    /// `model.pmq`.
    model: Vec<u8>,
    pub macs: u64,
}

impl<'a> Contest<'a> {
    /// Writes the models, the peers' too.
    pub fn new(python: Option<&'a str>, (net, kind): (&'a str, Kind), extent: u16) -> Outcome<Self> {
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
    pub fn time(&self, [turns, runs]: [usize; 2]) -> Outcome<Vec<(String, f64)>> {
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
