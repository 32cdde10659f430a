//! The table of a network: every stage with its output, parameters and multiply-accumulates.

use super::Architecture;
use anyhow::Result;
use paradise_engine::Shape;
use paradise_nn::graph::{Op, Parameter};
use std::fmt::Write;

fn name(op: &Op) -> String {
    let relu = if op.relu() { " + relu" } else { "" };
    let window = |w: &paradise_engine::layer::Window| format!("{}x{} /{}", w.kernel[0], w.kernel[1], w.stride[0]);
    match op {
        Op::Normalise { .. } => "normalise".into(),
        Op::Conv { window: w, groups, residual, .. } => {
            let groups = if *groups > 1 { format!(" in {groups} groups") } else { String::new() };
            let sum = residual.map_or(String::new(), |r| format!(" + activation {r}"));
            format!("conv {}{groups}{sum}{relu}", window(w))
        }
        Op::Transposed { window: w, .. } => format!("transposed conv {}{relu}", window(w)),
        Op::BatchNorm { .. } => format!("batch norm{relu}"),
        Op::Affine { .. } => format!("affine{relu}"),
        Op::AvgPool { window: w } => format!("average pool {}", window(w)),
        Op::MaxPool { window: w } => format!("max pool {}", window(w)),
        Op::Add { other, .. } => format!("add activation {other}{relu}"),
        Op::Dense { .. } => format!("dense{relu}"),
    }
}

impl Architecture {
    /// One line a stage and head, and the sums.
    ///
    /// # Errors
    /// If the graph is not consistent.
    pub fn table(&self) -> Result<String> {
        let mut text = String::new();
        let mut line = |stage: &str, what: &str, output: &str, parameters: u64, macs: u64| {
            let _ = writeln!(text, "{stage:>10}  {what:<34} {output:>14} {parameters:>12} {macs:>15}");
        };
        let extents = |s: Shape| format!("{} x {} x {}", s.h, s.w, s.c);
        let count = |p: &[Parameter]| p.iter().map(|p| p.len() as u64).sum::<u64>();
        let mut sums = [0u64; 2];
        for (graph, part) in
            [Some((&self.graph, "")), self.decoder.as_ref().map(|d| (d, "decoder "))].iter().flatten()
        {
            let stages = graph.stages.iter().zip(graph.parameters(self.init)?).zip(graph.macs()?);
            for (i, ((stage, parameters), macs)) in stages.enumerate() {
                let own = count(&parameters);
                let what = format!("{} of {}", name(&stage.op), stage.x);
                line(&format!("{part}{}", i + 1), &what, &extents(graph.shapes()?[i + 1]), own, macs);
                sums = [sums[0] + own, sums[1] + macs];
            }
        }
        for pair in self.head_parameters()?.chunks_exact(2) {
            let (own, macs) = (count(pair), pair[0].len() as u64);
            line("", pair[0].name.trim_end_matches(".weight"), &pair[1].len().to_string(), own, macs);
            sums = [sums[0] + own, sums[1] + macs];
        }
        line("", "all", "", sums[0], sums[1]);
        Ok(format!(
            "{:>10}  {:<34} {:>14} {:>12} {:>15}\n{text}",
            "activation", "operation", "output", "parameters", "MACs"
        ))
    }
}
