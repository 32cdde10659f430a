//! prepare BUNDLE BOARD OUT: what a firmware carries, in folder OUT: the bundle's model, lowered for the board's core, its self-test
//! at a chip's size, what this machine finds with both, the features of the engine that it needs, and the board's memory; an error with the numbers if it does not fit.

use paradise_engine::golden::{Golden, reduced};
use paradise_engine::lowered::{Layout, Lowered, Memory, lower};
use paradise_engine::part::Part;
use paradise_engine::selftest::Chip;
use paradise_engine::selftest::drift::Reference;
use paradise_engine::selftest::trials::{Plan, Trials};
use paradise_engine::{Model, Sizes};
use std::error::Error;
use std::path::Path;
use std::{env, fs};

/// Golden images, and probes of each set, that a chip's self-test keeps.
const KEPT: [usize; 2] = [4, 12];
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
    let mut device = Chip { lowered: model, memory: Memory { arena, scratch } };
    let Trials { plan, eps, broken, drift } = Trials::of(&mut device, golden, Plan::CHIP)?;
    let (Plan { attacked, queries, disturbed }, Reference { mean, std }) = (plan, drift);
    Ok(format!(
        "Expected {{ attack: [{attacked}, {eps}, {queries}, {broken}], drift_images: {disturbed}, \
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
