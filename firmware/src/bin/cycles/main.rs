//! cycles LOG BUNDLE NAME CORE: instructions and modelled cycles of an inference, layer by layer, from what `bench/profile.c` wrote;
//! where NAME is `plain`, beside CMSIS-NN's.

mod core;
mod peer;

use paradise_engine::Model;
use paradise_engine::lowered::{Layout, Lowered, lower};
use std::collections::BTreeMap;
use std::error::Error;
use std::{env, fs};

/// What ran between two markers.
#[derive(Default)]
struct Region {
    /// By address: executed, taken, symbol, disassembly.
    lines: BTreeMap<u64, (u64, u64, String)>,
}

/// A region's figures.
#[derive(Clone, Copy, Default)]
struct Figures {
    instructions: u64,
    cycles: u64,
    stalls: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [log, bundle, name, core] = &arguments[..] else { return Err("usage: cycles LOG BUNDLE NAME CORE".into()) };
    let bytes = fs::read(format!("{bundle}/model.pmq")).map_err(|e| format!("{bundle}/model.pmq: {e}"))?;
    let model = Model::parse(&bytes)?;
    let layout = if core == "m55" { Layout::Mve } else { Layout::Dsp };
    let lowered = lower(&model, layout)?;
    let steps = Lowered::parse(&lowered)?.steps();
    let regions = read(&fs::read_to_string(log).map_err(|e| format!("{log}: {e}"))?)?;
    // One a step, one for all that follows, and the whole.
    if regions.len() != steps.len() + 2 {
        return Err(format!("{log} has {} regions, and the model {} steps", regions.len(), steps.len()).into());
    }
    let figures: Vec<Figures> = regions.iter().map(|r| r.figures()).collect();
    println!("{name} on {core}: instructions, cycles at zero wait states, stalls of a NUCLEO-L4R5ZI's flash at most");
    for (step, f) in steps.iter().zip(&figures) {
        let layer = model.header().layers.at(step.layer.into());
        let (x, y) = (layer.inputs[0], step.stores() + 1);
        let [x, y] = [x, y].map(|i| model.header().activations.at(i.into()).shape);
        let with = [step.affine.map(|_| "affine before"), step.sum.map(|_| "sum after")];
        let with: Vec<&str> = with.into_iter().flatten().collect();
        let what = format!("{} {}x{}x{} to {}x{}x{} {}", layer.op, x.h, x.w, x.c, y.h, y.w, y.c, with.join(", "));
        println!("  {what:60} {:>12} {:>12} {:>10}", f.instructions, f.cycles, f.stalls);
    }
    let [rest, whole] = [figures[steps.len()], figures[steps.len() + 1]];
    println!(
        "  {:60} {:>12} {:>12} {:>10}",
        "heads, posterior, confidence, decision", rest.instructions, rest.cycles, rest.stalls
    );
    println!("  {:60} {:>12} {:>12} {:>10}", "whole inference", whole.instructions, whole.cycles, whole.stalls);
    let sums: u64 = regions[steps.len() + 1].by_symbol("sum");
    println!("  {:60} {:>12}", "of these in residual sums, requantisation before them too", sums);
    if name == "plain" {
        peer::ratios(core, &steps.iter().collect::<Vec<_>>(), &model, &figures);
    }
    if core == "m4" || core == "m33" {
        let silicon = if core == "m4" { core::ST_M4 } else { core::ST_M33 };
        println!(
            "ratio {core} {name} modelled cycles / X-CUBE-AI 10.2 on silicon {:.3}",
            whole.cycles as f64 / silicon
        );
    }
    Ok(())
}

impl Region {
    fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        let lines: Vec<(&u64, &(u64, u64, String))> = self.lines.iter().collect();
        for (i, (at, (executed, taken, text))) in lines.iter().enumerate() {
            let near = |j: usize, behind: bool| {
                // Its neighbour in memory, not only in what ran.
                let (other, (.., text)) = lines.get(j)?;
                let gap = if behind { *at - *other } else { *other - *at };
                (gap <= 4).then_some(&text[..])
            };
            let before = i.checked_sub(1).and_then(|j| near(j, true));
            let after = near(i + 1, false);
            figures.instructions += executed;
            figures.cycles += core::cycles(*executed, *taken, text, before, after);
            figures.stalls += core::stalls(*executed, *taken, text);
        }
        figures
    }

    /// Instructions of functions whose name has a part.
    fn by_symbol(&self, part: &str) -> u64 {
        let own = |text: &&String| {
            text.split('|').next().is_some_and(|symbol| symbol.contains(part) && symbol.starts_with("paradise_dsp"))
        };
        self.lines.values().filter(|(.., text)| own(&text)).map(|(executed, ..)| executed).sum()
    }
}

fn read(log: &str) -> Result<Vec<Region>, Box<dyn Error>> {
    let mut regions = Vec::new();
    for line in log.lines() {
        if line == "region" {
            regions.push(Region::default());
            continue;
        }
        let mut parts = line.splitn(4, ' ');
        let mut next = || parts.next().ok_or(format!("not a line of profile.c: {line}"));
        let (at, executed, taken, text) = (next()?, next()?, next()?, next()?);
        let region = regions.last_mut().ok_or("a line before the first region")?;
        let executed: u64 = executed.parse()?;
        region.lines.insert(u64::from_str_radix(at, 16)?, (executed, taken.parse()?, text.to_string()));
    }
    Ok(regions)
}
