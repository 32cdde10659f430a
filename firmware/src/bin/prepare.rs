//! prepare BUNDLE BOARD OUT: what a firmware carries, in folder OUT: the bundle's model, lowered for the board's core, its self-test
//! at a chip's size, what this machine finds with both, the features of the engine that it needs, and the board's memory; an error with the numbers if it does not fit.

use paradise_engine::golden::{Golden, reduced};
use paradise_engine::lowered::{Layout, Lowered, Memory, lower};
use paradise_engine::part::Part;
use paradise_engine::selftest::Chip;
use paradise_engine::selftest::drift::{Drift, Reference};
use paradise_engine::selftest::square::Square;
use paradise_engine::{Model, Sizes};
use paradise_firmware::checks::SEED;
use std::error::Error;
use std::path::Path;
use std::{env, fs};

/// Golden images, and probes of each set, that a chip's self-test keeps.
const KEPT: [usize; 2] = [4, 12];
/// Images that are attacked and queries for each; the radius, in 1/255, is the first of these at which one is broken.
const ATTACK: [u16; 2] = [4, 32];
const RADII: [u16; 6] = [8, 16, 24, 32, 48, 64];
/// Images of the drift check, and draws behind its reference.
const DRIFT: [usize; 2] = [8, 40];
/// What code, stack and everything but model and self-test take at most: 52 KiB of flash; RAM beside the model's own.
const CODE: usize = 52 << 10;
const STATE_AND_STACK: usize = 6 << 10;
type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [bundle, board, out] = &arguments[..] else { return Err("usage: prepare BUNDLE BOARD OUT".into()) };
    let (bundle, out) = (Path::new(bundle), Path::new(out));
    let script = format!("boards/{board}.x");
    let memory = fs::read_to_string(&script).map_err(|e| format!("{script}: {e}"))?;
    let layout = if board == "mps3-an547" { Layout::Mve } else { Layout::Dsp };
    fs::create_dir_all(out)?;
    let carried = carried(bundle, layout, out).map_err(|e| format!("{}: {e}", bundle.display()))?;
    fits(board, &memory, &bundle.display().to_string(), &carried)?;
    write(&out.join("memory.x"), memory.as_bytes())?;
    // Where cortex-m-rt looks for the chip's handlers; the board's own file names them.
    write(&out.join("device.x"), b"")?;
    write(&out.join("kept.x"), &fs::read("boards/kept.x")?)
}

/// Writes a file unless it is so already: what has not changed is not built again.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    if fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let part = path.with_extension("part");
    fs::write(&part, bytes)?;
    Ok(fs::rename(part, path)?)
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
        Ok(fs::read(bundle.join(name)).map_err(|e| format!("{name}: {e}"))?)
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
    write(&out.join("model.bin"), &lowered)?;
    write(&out.join("golden.bin"), &golden)?;
    write(&out.join("expected.rs"), expected.as_bytes())?;
    let parts = Part::ALL.into_iter().filter(|part| model.parts().has(*part));
    let features: Vec<String> = parts.map(|part| format!("paradise-engine/{}", part.feature())).collect();
    write(&out.join("features"), features.join(",").as_bytes())?;
    Ok(Carried { model: lowered.len(), golden: golden.len(), sizes })
}

/// Rust that says what this machine finds.
fn expected(model: &Lowered, golden: &Golden, arena: &mut [i8], scratch: &mut [u32]) -> Result<String, Failure> {
    let set = golden.header().probes.get(0).ok_or("selftest.bin has no probes")?;
    let images: Vec<&[u8]> = golden.bytes(set.images).chunks_exact(golden.header().image_bytes as usize).collect();
    let mut device = Chip { lowered: model, memory: Memory { arena, scratch } };
    let [attacked, queries] = ATTACK;
    let attacked = attacked.min(images.len() as u16);
    let (mut eps, mut broken) = (0, 0);
    for radius in RADII {
        (eps, broken) = (radius, 0);
        for (i, image) in images.iter().take(attacked.into()).enumerate() {
            let label = golden.u32s(set.labels).at(i) as usize;
            let mut attack = Square::new((image, model.model().header().input), label, eps as u8, queries, SEED);
            broken += loop {
                if let Some(broken) = attack.step(&mut device)? {
                    break u16::from(broken);
                }
            };
        }
        if broken > 0 {
            break;
        }
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
    let Reference { mean, std } = Reference::of(&means);
    Ok(format!(
        "Expected {{ attack: [{attacked}, {eps}, {queries}, {broken}], drift_images: {count}, \
         drift: Reference {{ mean: {mean:?}f32, std: {std:?}f32 }} }}"
    ))
}

/// Whether it fits the board's memory, by the board's own linker script.
fn fits(board: &str, memory: &str, bundle: &str, carried: &Carried) -> Result<(), Failure> {
    let region = |name: &str| -> Result<usize, Failure> {
        let line =
            memory.lines().find(|l| l.trim_start().starts_with(name)).ok_or(format!("{board}.x has no {name}"))?;
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
