//! Cycles that LLVM's models of Cortex cores give the instructions which were counted (`llvm-mca`).
//!
//! Each block of instructions is taken for a loop of its own, its data for nearby: what a core could do, not what a board does. Our
//! engine and its peers are judged by the same rules.

use crate::turns::Outcome;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Instructions that run one after the other, and how often they did.
pub type Blocks = BTreeMap<Vec<u32>, f64>;

/// How often the modelled core repeats each block.
const REPEATS: u32 = 100;

/// The part of the instructions that must be in blocks that LLVM has a model of.
const LEAST: f64 = 0.8;

/// Cycles of so many `instructions`, of which `blocks` are nearly all: what the blocks take, and the rest at their pace.
pub fn modelled(folder: &Path, blocks: &Blocks, instructions: u64, cpu: &str) -> Outcome<f64> {
    let codes: Vec<u8> = blocks.keys().flatten().flat_map(|code| code.to_le_bytes()).collect();
    let binary = folder.join("blocks.bin");
    std::fs::write(&binary, codes)?;
    let disassembly =
        said(Command::new("aarch64-linux-gnu-objdump").args(["-D", "-bbinary", "-maarch64"]).arg(&binary))?;
    let mut lines =
        disassembly.lines().filter_map(|line| line.split_once(":\t")?.1.split_once('\t')).map(|(_, text)| text);
    let mut texts = Vec::new();
    for block in blocks.keys() {
        let mut text = String::from("# LLVM-MCA-BEGIN\n");
        for _ in block {
            let line = lines.next().ok_or("objdump left instructions out")?;
            // Calls would be given a hundred cycles.
            let leaves = ["bl\t", "blr\t", "ret", "svc\t"].iter().any(|leaves| line.starts_with(leaves));
            text += if leaves { "nop" } else { line.split("//").next().unwrap_or_default() };
            text += "\n";
        }
        texts.push(text + "# LLVM-MCA-END\n");
    }
    let listing = folder.join("blocks.s");
    let cycles: Vec<Option<f64>> = match of_listing(&listing, &texts, cpu) {
        Ok(all) => all.into_iter().map(Some).collect(),
        // Some block has an instruction that LLVM has no model of, an atomic one for instance.
        Err(_) => {
            texts.iter().map(|text| of_listing(&listing, std::slice::from_ref(text), cpu).ok()?.pop()).collect()
        }
    };
    let known = || blocks.iter().zip(&cycles).filter_map(|((block, runs), cycles)| Some((block, runs, (*cycles)?)));
    let covered: f64 = known().map(|(block, runs, _)| block.len() as f64 * runs).sum();
    let taken: f64 = known().map(|(_, runs, cycles)| runs * cycles).sum();
    if covered < LEAST * instructions as f64 {
        return Err(format!("llvm-mca: {covered:.0} of {instructions} instructions").into());
    }
    Ok(taken * instructions as f64 / covered)
}

/// Cycles of one repetition of each block.
fn of_listing(listing: &Path, texts: &[String], cpu: &str) -> Outcome<Vec<f64>> {
    std::fs::write(listing, texts.concat())?;
    let mut model = Command::new("llvm-mca");
    model.args(["-mtriple=aarch64", "-mattr=+v8.5a,+dotprod,+i8mm", "-instruction-info=0", "-resource-pressure=0"]);
    let report = said(model.arg(format!("-mcpu={cpu}")).arg(format!("-iterations={REPEATS}")).arg(listing))?;
    let cycles: Vec<f64> = report
        .lines()
        .filter_map(|line| line.strip_prefix("Total Cycles:"))
        .map(|n| Ok(n.trim().parse::<f64>()? / f64::from(REPEATS)))
        .collect::<Outcome<_>>()?;
    if cycles.len() != texts.len() {
        return Err(format!("llvm-mca: {} of {} blocks", cycles.len(), texts.len()).into());
    }
    Ok(cycles)
}

/// What a command writes.
fn said(command: &mut Command) -> Outcome<String> {
    let output = command.output().map_err(|e| format!("{:?}: {e}", command.get_program()))?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?);
    }
    let why = String::from_utf8_lossy(&output.stderr);
    let why = why.lines().find(|line| line.contains("error")).unwrap_or_default();
    Err(format!("{:?}: {}: {why}", command.get_program(), output.status).into())
}
