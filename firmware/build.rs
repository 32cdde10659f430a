//! What the image carries: the bundle's model, lowered for the board's core, its self-test at a chip's size, and what this
//! machine finds with both; and, on the bare-metal target only, the linker scripts where the linker finds them.

use paradise_engine::golden::{Golden, reduced};
use paradise_engine::lowered::{Layout, Lowered, Memory, lower};
use paradise_engine::selftest::drift::Drift;
use paradise_engine::selftest::square::Square;
use paradise_engine::selftest::Chip;
use paradise_engine::{Model, Sizes};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Folder of the bundle, set by `build.sh`; without it the one that the tests on the host use.
const BUNDLE: &str = "PARADISE_BUNDLE";
/// The board, set by `build.sh`; without it none, and a host's layout.
const BOARD: &str = "PARADISE_BOARD";
/// Golden images, and probes of each set, that a chip's self-test keeps.
const KEPT: [usize; 2] = [4, 12];
/// Images that are attacked, radius in 1/255, queries for each.
const ATTACK: [u16; 3] = [4, 8, 32];
/// Images of the drift check, and draws behind its reference.
const DRIFT: [usize; 2] = [8, 40];
/// What code, stack and everything but model and self-test take at most: 48 KiB of flash; RAM beside the model's own.
const CODE: usize = 48 << 10;
const STATE_AND_STACK: usize = 6 << 10;
/// The seed of the attack, as `checks::SEED`.
const SEED: u32 = 0x5eed;

type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    println!("cargo:rerun-if-env-changed={BUNDLE}");
    println!("cargo:rerun-if-env-changed={BOARD}");
    println!("cargo:rustc-check-cfg=cfg(armv8m)");
    if env::var("TARGET").is_ok_and(|target| target.starts_with("thumbv8m")) {
        println!("cargo:rustc-cfg=armv8m");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let bundle = env::var(BUNDLE).unwrap_or_else(|_| "../models/fashion-mnist-small".into());
    let board = env::var(BOARD).ok();
    let layout = if env::var_os("CARGO_FEATURE_MVE").is_some() { Layout::Mve } else { Layout::Dsp };
    let carried = carried(Path::new(&bundle), layout, &out).map_err(|e| format!("{bundle}: {e}"))?;
    if let Some(board) = board {
        let script = format!("boards/{board}.x");
        println!("cargo:rerun-if-changed={script}");
        let memory = fs::read_to_string(&script).map_err(|e| format!("{script}: {e}"))?;
        fits(&board, &memory, &bundle, &carried)?;
        fs::write(out.join("memory.x"), memory)?;
        fs::copy("boards/kept.x", out.join("kept.x"))?;
        println!("cargo:rerun-if-changed=boards/kept.x");
        println!("cargo:rustc-link-search={}", out.display());
        println!("cargo:rustc-link-arg-bins=-Tlink.x");
        println!("cargo:rustc-link-arg-bins=-Tdefmt.x");
    }
    Ok(())
}

/// Bytes of what is carried.
struct Carried {
    model: usize,
    golden: usize,
    sizes: Sizes,
}

/// Writes the lowered model, the reduced self-test and Rust that embeds them.
fn carried(bundle: &Path, layout: Layout, out: &Path) -> Result<Carried, Failure> {
    let file = |name: &str| -> Result<Vec<u8>, Failure> {
        let path = bundle.join(name).canonicalize().map_err(|e| format!("{name}: {e}"))?;
        println!("cargo:rerun-if-changed={}", path.display());
        Ok(fs::read(path)?)
    };
    let (model, golden) = (file("model.pmq")?, file("selftest.bin")?);
    let model = Model::parse(&model).map_err(|e| format!("model.pmq: {e}"))?;
    let golden = Golden::parse(&golden).map_err(|e| format!("selftest.bin: {e}"))?;
    let lowered = lower(&model, layout)?;
    let model = Lowered::parse(&lowered)?;
    let sizes = Sizes::of(&lowered);
    let (mut arena, mut scratch) = (vec![0; sizes.arena], vec![0; sizes.scratch]);
    let golden = reduced(&golden, KEPT, |image, label| {
        let mut memory = Memory { arena: &mut arena, scratch: &mut scratch };
        model.classify(image, &mut memory, &mut |_, _| {}).is_ok_and(|answer| answer.class as u32 == label)
    });
    let expected = expected(&model, &Golden::parse(&golden)?, &mut arena, &mut scratch)?;
    fs::write(out.join("model.bin"), &lowered)?;
    fs::write(out.join("golden.bin"), &golden)?;
    fs::write(out.join("carried.rs"), expected)?;
    Ok(Carried { model: lowered.len(), golden: golden.len(), sizes })
}

/// Rust that says what this machine finds.
fn expected(model: &Lowered, golden: &Golden, arena: &mut [i8], scratch: &mut [u32]) -> Result<String, Failure> {
    let set = golden.header().probes.get(0).ok_or("selftest.bin has no probes")?;
    let images: Vec<&[u8]> = golden.bytes(set.images).chunks_exact(golden.header().image_bytes as usize).collect();
    let mut device = Chip { lowered: model, memory: Memory { arena, scratch } };
    let [attacked, eps, queries] = ATTACK;
    let attacked = attacked.min(images.len() as u16);
    let mut broken = 0;
    for (i, image) in images.iter().take(attacked.into()).enumerate() {
        let label = golden.u32s(set.labels).at(i) as usize;
        let mut attack = Square::new((image, model.model().header().input), label, eps as u8, queries, SEED);
        broken += loop {
            if let Some(broken) = attack.step(&mut device)? {
                break u16::from(broken);
            }
        };
    }
    let [count, draws] = [DRIFT[0].min(images.len()), DRIFT[1]];
    let mut means = Vec::new();
    for draw in 0..draws as u32 {
        let mut drift = Drift::default();
        for (i, image) in images.iter().take(count).enumerate() {
            drift.step(&mut device, image, (draw * 7919).wrapping_add(i as u32))?;
        }
        means.push(drift.mean());
    }
    let mean = means.iter().sum::<f32>() / draws as f32;
    let std = (means.iter().map(|m| (m - mean).powi(2)).sum::<f32>() / (draws - 1) as f32).sqrt();
    Ok(format!(
        "Expected {{ attack: [{attacked}, {eps}, {queries}, {broken}], drift_images: {count}, \
         drift: Reference {{ mean: {mean:?}f32, std: {std:?}f32 }} }}"
    ))
}

/// Whether it fits the board's memory, by the board's own linker script.
fn fits(board: &str, memory: &str, bundle: &str, carried: &Carried) -> Result<(), Failure> {
    let region = |name: &str| -> Result<usize, Failure> {
        let line = memory.lines().find(|l| l.trim_start().starts_with(name)).ok_or(format!("{board}.x has no {name}"))?;
        let length = line.rsplit("LENGTH =").next().ok_or(format!("{board}.x: {line}"))?.trim();
        let (number, unit) = match length.strip_suffix('K') {
            Some(number) => (number, 1 << 10),
            None => (length.strip_suffix('M').unwrap_or(length), if length.ends_with('M') { 1 << 20 } else { 1 }),
        };
        Ok(number.trim().parse::<usize>().map_err(|e| format!("{board}.x: {line}: {e}"))? * unit)
    };
    let need = [
        ("flash", carried.model + carried.golden + CODE, region("FLASH")?),
        ("RAM", carried.sizes.arena + 4 * carried.sizes.scratch + STATE_AND_STACK, region("RAM")?),
    ];
    for (what, need, have) in need {
        if need > have {
            return Err(format!(
                "{bundle} does not fit {board}: it needs {need} bytes of {what} and there are {have} (model {}, self-test {}, \
                 code {CODE}; arena {}, scratch {}, state and stack {STATE_AND_STACK})",
                carried.model,
                carried.golden,
                carried.sizes.arena,
                4 * carried.sizes.scratch
            )
            .into());
        }
    }
    Ok(())
}
