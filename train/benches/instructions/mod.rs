//! Instructions of one inference, ours and the peers': under valgrind, whose CPU has AVX2 and nothing beyond it, and on
//! emulated aarch64 CPUs without dot products, with them, and with matrix multiplication. What cores like those take for what was
//! counted there is modelled ([`cycles`]).
//!
//! Counts say nothing of latency, but they do not depend on who else uses this machine. What several inferences take more than one
//! is divided by how many more they were, so that loading costs nothing.

use crate::turns::{Outcome, root, script};
use cycles::Blocks;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

mod cycles;

/// Peers whose instructions can be counted on both.
const PEERS: [&str; 2] = ["litert", "onnxruntime"];

/// An aarch64 CPU.
struct Cpu {
    /// For QEMU.
    emulated: &'static str,
    /// Our set for it.
    set: &'static str,
    /// What `/proc/cpuinfo` says there, by which peers choose.
    part: &'static str,
    features: &'static str,
    /// Cores of these instructions that LLVM has a model of.
    models: &'static [&'static str],
}

const CPUS: [Cpu; 3] = [
    Cpu {
        emulated: "cortex-a72",
        set: "neon",
        part: "0xd08",
        features: "fp asimd evtstrm crc32 cpuid",
        models: &["cortex-a53", "cortex-a72"],
    },
    Cpu {
        emulated: "cortex-a76",
        set: "neon-dotprod",
        part: "0xd0b",
        features: "fp asimd evtstrm crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
        models: &["cortex-a55", "cortex-a76"],
    },
    Cpu {
        // Without vectors of 2,048 bits, which no board has.
        emulated: "max,sve=off,sme=off",
        set: "neon-i8mm",
        part: "0xd4f",
        features: "fp asimd evtstrm crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp asimdfhm i8mm bf16",
        models: &["cortex-a710"],
    },
];

/// What an inference executes.
#[derive(Default)]
struct Counts {
    all: u64,
    dots: u64,
    matrices: u64,
    /// Nearly all of it, on aarch64.
    blocks: Blocks,
}

/// Counts everything for a network whose models lie in `folder`; ratios of ours to each peer's.
pub fn compare(python: Option<&str>, net: &str, folder: &Path, macs: u64) -> Outcome<Vec<(String, f64)>> {
    let mut ratios = Vec::new();
    // Python does not start with the same number of instructions each time, so that small networks are counted often.
    let more = (2_500_000_000 / macs).clamp(1, 200) as usize;
    let said = |who: &str, on: &str, counts: &Outcome<Counts>| match counts {
        Ok(Counts { all, dots, matrices, .. }) => {
            let each = *all as f64 / macs as f64;
            println!(
                "  {who:>14} {on:>10} {all:>11} instructions, {each:.3} a product; {dots} dot, {matrices} matrix"
            );
        }
        Err(why) => println!("skipped: {who} on {on}: {why}"),
    };
    let ours = differ(more, &|n| valgrind(folder, "ours", &our_command(folder, "avx2", n, "target/release")));
    said("ours avx2", "valgrind", &ours);
    for peer in PEERS.iter().filter(|_| python.is_some()) {
        let run = |n: usize| {
            let mut all = vec![python.unwrap_or_default().to_string(), script("engine.py").display().to_string()];
            all.extend(["run".into(), folder.display().to_string(), peer.to_string(), n.to_string()]);
            all
        };
        let theirs = differ(more, &|n| valgrind(folder, peer, &run(n)));
        said(peer, "valgrind", &theirs);
        if theirs.is_ok() {
            println!("    {}", hottest(folder, peer).unwrap_or_else(|why| format!("its kernel is not known: {why}")));
        }
        if let (Ok(ours), Ok(theirs)) = (&ours, &theirs) {
            ratios.push((format!("{net}-avx2-instructions-vs-{peer}"), ours.all as f64 / theirs.all as f64));
        }
    }
    for Cpu { emulated: cpu, set, part, features, models } in CPUS {
        let run = |n: usize| our_command(folder, set, n, "target/aarch64/aarch64-unknown-linux-gnu/release");
        let own = differ(more, &|n| emulated(folder, cpu, Path::new("/usr/aarch64-linux-gnu"), &run(n)));
        said(&format!("ours {set}"), cpu, &own);
        let cycles = |counts: &Counts, model: &str| cycles::modelled(folder, &counts.blocks, counts.all, model);
        let there = std::fs::canonicalize(root().join("target/aarch64/peers"));
        for peer in PEERS.iter().filter(|_| python.is_some()) {
            let theirs = there.as_deref().map_err(|_| "make bench-engine unpacks them".into()).and_then(|there| {
                describe(there, part, features)?;
                let run = |n: usize| {
                    let mut all = vec![there.join("usr/bin/python3").display().to_string()];
                    all.extend([
                        script("engine.py").display().to_string(),
                        "run".into(),
                        folder.display().to_string(),
                    ]);
                    all.extend([peer.to_string(), n.to_string()]);
                    all
                };
                differ(more, &|n| emulated(folder, cpu, there, &run(n)))
            });
            said(peer, cpu, &theirs);
            if let (Ok(own), Ok(theirs)) = (&own, &theirs) {
                let name = format!("{net}-aarch64-{set}-instructions-vs-{peer}");
                ratios.push((name, own.all as f64 / theirs.all as f64));
                for model in models {
                    let (a, b) = match (cycles(own, model), cycles(theirs, model)) {
                        (Ok(a), Ok(b)) => (a, b),
                        (Err(why), _) | (_, Err(why)) => {
                            println!("skipped: modelled cycles of a {model} beside {peer}: {why}");
                            continue;
                        }
                    };
                    println!("    modelled cycles of a {model}: ours {a:.0}, {peer} {b:.0}");
                    ratios.push((format!("{net}-aarch64-{set}-modelled-cycles-of-{model}-vs-{peer}"), a / b));
                }
            }
        }
    }
    Ok(ratios)
}

/// What each of `more` further inferences takes.
fn differ(more: usize, count: &dyn Fn(usize) -> Outcome<Counts>) -> Outcome<Counts> {
    let (one, many) = (count(1)?, count(1 + more)?);
    let each = |of: fn(&Counts) -> u64| of(&many).saturating_sub(of(&one)) / more as u64;
    let mut counts = Counts { all: each(|c| c.all), dots: each(|c| c.dots), matrices: each(|c| c.matrices), ..many };
    for (block, runs) in &mut counts.blocks {
        *runs = (*runs - one.blocks.get(block).unwrap_or(&0.0)) / more as f64;
    }
    counts.blocks.retain(|_, runs| *runs > 0.0);
    Ok(counts)
}

/// The command for N of our inferences.
fn our_command(folder: &Path, set: &str, n: usize, built: &str) -> Vec<String> {
    let program = root().join(built).join("examples/kernels");
    let files = ["model.pmq", "images.bin"].map(|name| folder.join(name).display().to_string());
    [vec![program.display().to_string()], files.to_vec(), vec![set.into(), n.to_string()]].concat()
}

/// Runs a command and returns what it wrote to standard error.
fn run(command: &mut Command) -> Outcome<String> {
    // What a program hashes, and so how long that takes, is the same each time.
    let output = command.env("PYTHONHASHSEED", "0").output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    Err(format!("{command:?}: {}: {}", output.status, said.lines().last().unwrap_or_default()).into())
}

fn profile_of(folder: &Path, who: &str) -> PathBuf {
    folder.join(format!("callgrind.{who}"))
}

/// Instructions of a command on valgrind's CPU.
fn valgrind(folder: &Path, who: &str, command: &[String]) -> Outcome<Counts> {
    let profile = profile_of(folder, who);
    let mut outside = Command::new("valgrind");
    outside.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", profile.display())).args(command);
    let said = run(&mut outside)?;
    let collected = said.lines().filter_map(|line| line.split("Collected :").nth(1)).next_back();
    Ok(Counts { all: collected.ok_or("no count")?.trim().parse()?, ..Counts::default() })
}

/// Which function of a peer's took most, by its name, or, in a file without names, by the multiplications in its code.
fn hottest(folder: &Path, peer: &str) -> Outcome<String> {
    let output = Command::new("callgrind_annotate").arg(profile_of(folder, peer)).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let package = if peer == "litert" { "ai_edge_litert" } else { peer };
    let is_code = |line: &&str| line.contains("???:") && line.contains(&format!("/{package}/"));
    let line = text.lines().find(is_code).ok_or("none in its profile")?;
    let (count, rest) = line.split_once("???:").ok_or("no name")?;
    let (name, file) = rest.split_once(" [").ok_or("no file")?;
    let count = count.trim();
    let Some(at) = name.strip_prefix("0x") else { return Ok(format!("most in {name}, {count}")) };
    let at = u64::from_str_radix(at, 16)?;
    let disassembly = Command::new("objdump")
        .args([
            "-d",
            "--no-show-raw-insn",
            &format!("--start-address={at}"),
            &format!("--stop-address={}", at + 2048),
        ])
        .arg(file.trim_end_matches(']'))
        .output()?;
    let mut multiplications: BTreeMap<String, usize> = BTreeMap::new();
    for line in String::from_utf8_lossy(&disassembly.stdout).lines() {
        let mut words = line.split_whitespace().skip(1);
        let Some(name) = words.next().filter(|w| w.starts_with("vpmadd") || w.starts_with("vpdp")) else { continue };
        let register = if words.any(|w| w.contains("%ymm")) { "ymm" } else { "other" };
        *multiplications.entry(format!("{name} {register}")).or_default() += 1;
    }
    Ok(format!("most at {name}, {count}, whose first 2 KiB have {multiplications:?}"))
}

/// What programs under `root` read of the CPU; without it they read of this machine's.
fn describe(root: &Path, part: &str, features: &str) -> Outcome<()> {
    let cpus = root.join("sys/devices/system/cpu");
    std::fs::create_dir_all(root.join("proc"))?;
    std::fs::create_dir_all(&cpus)?;
    ["possible", "present", "online"].iter().try_for_each(|name| std::fs::write(cpus.join(name), "0\n"))?;
    let text = format!(
        "processor\t: 0\nFeatures\t: {features}\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\n\
         CPU part\t: {part}\nCPU revision\t: 1\n\n"
    );
    Ok(std::fs::write(root.join("proc/cpuinfo"), text)?)
}

/// Instructions of a command on an emulated aarch64 CPU.
fn emulated(folder: &Path, cpu: &str, system: &Path, command: &[String]) -> Outcome<Counts> {
    let (plugin, log) = (root().join("target/aarch64/count.so"), folder.join("instructions.log"));
    let mut outside = Command::new("qemu-aarch64");
    outside.arg("-L").arg(system).args(["-cpu", cpu, "-d", "plugin", "-plugin"]).arg(plugin).arg("-D").arg(&log);
    run(outside.args(command).env("PYTHONPATH", system.join("site")))?;
    let text = std::fs::read_to_string(&log)?;
    let mut lines = text.lines();
    let counts: Vec<u64> = lines.next().unwrap_or_default().split(' ').map(str::parse).collect::<Result<_, _>>()?;
    let [all, dots, matrices] = counts.try_into().map_err(|_| format!("{}: no three counts", log.display()))?;
    let mut blocks = Blocks::new();
    for line in lines {
        let (runs, codes) = line.split_once(' ').ok_or("a block without instructions")?;
        let codes = codes.split(' ').map(|code| u32::from_str_radix(code, 16)).collect::<Result<_, _>>()?;
        *blocks.entry(codes).or_default() += runs.parse::<f64>()?;
    }
    Ok(Counts { all, dots, matrices, blocks })
}
