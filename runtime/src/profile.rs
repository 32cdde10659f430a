//! Where an inference's time goes, layer by layer, beside the most that the CPU could do.

use crate::int8::Int8;
use crate::pipeline::BackendError;
use paradise_engine::Watch;
use std::time::Instant;

/// Layers that run in one go.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Their operations, joined by `+`, with kernel extents and stride.
    pub name: String,
    /// Rows, columns and channels of the last one's output.
    pub output: [u16; 3],
    /// Multiply-accumulates.
    pub macs: u64,
    /// Median time, microseconds.
    pub us: f64,
    /// The kernel that computes them: the instruction set, and which of its kernels.
    pub kernel: String,
}

impl Part {
    /// Multiply-accumulates a nanosecond.
    pub fn speed(&self) -> f64 {
        self.macs as f64 / (1e3 * self.us)
    }
}

/// An inference taken apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// The image's way into the memory, the layers in order, then heads, posterior and decision.
    pub parts: Vec<Part>,
    /// Most multiply-accumulates a nanosecond of the kernels' instructions on this CPU, measured.
    pub peak: f64,
}

impl Profile {
    /// Microseconds of all parts.
    pub fn us(&self) -> f64 {
        self.parts.iter().map(|p| p.us).sum()
    }

    /// Multiply-accumulates of all parts.
    pub fn macs(&self) -> u64 {
        self.parts.iter().map(|p| p.macs).sum()
    }

    /// Runs the images in turn, `runs` inferences in all, and takes medians.
    ///
    /// # Errors
    /// If an image has the wrong length.
    pub fn measure(int8: &mut Int8, images: &[&[u8]], runs: usize) -> Result<Self, BackendError> {
        let mut parts: Vec<Part> = Vec::new();
        let mut times: Vec<Vec<f64>> = Vec::new();
        for i in 0..runs.max(1) {
            let mut at = 0;
            let mut last = Instant::now();
            let mut groups = Vec::new();
            let mut after = |group| {
                let now = Instant::now();
                times.resize_with(times.len().max(at + 2), Vec::new);
                times[at].push((now - last).as_secs_f64() * 1e6);
                groups.push(group);
                at += 1;
                // What is done here is nobody's time.
                last = Instant::now();
            };
            int8.run(images[i % images.len()], Watch::Groups(&mut after), &mut |_, _| {})?;
            times[at].push(last.elapsed().as_secs_f64() * 1e6);
            if parts.is_empty() {
                parts = describe(int8, &groups);
            }
        }
        for (part, times) in parts.iter_mut().zip(&mut times) {
            times.sort_by(f64::total_cmp);
            part.us = times[times.len() / 2];
        }
        Ok(Self { parts, peak: peak(int8) })
    }
}

fn describe(int8: &Int8, groups: &[std::ops::Range<usize>]) -> Vec<Part> {
    let prepared = int8.prepared();
    let header = prepared.model().header();
    let part = |name: String, activation: usize, macs, kernel: &str| {
        let shape = header.activations.at(activation).shape;
        let kernel = format!("{} {kernel}", prepared.kernels()).trim_end().to_string();
        Part { name, output: [shape.h, shape.w, shape.c], macs, us: 0.0, kernel }
    };
    let group = |group: &std::ops::Range<usize>| {
        if group.is_empty() {
            return part("image".into(), 0, 0, "");
        }
        let names: Vec<String> = group.clone().map(|i| header.layers.at(i).op.to_string()).collect();
        let macs = group.clone().map(|i| header.macs(i)).sum();
        part(names.join(" + "), group.end, macs, prepared.kernel_of(group.start))
    };
    let mut parts: Vec<Part> = groups.iter().map(group).collect();
    let mut answer = part("heads, posterior, decision".into(), 0, header.head_macs(), "");
    answer.output = [1, 1, header.latent];
    parts.push(answer);
    parts
}

/// Most multiply-accumulates a nanosecond: the best of several short bursts out of registers.
pub fn peak(int8: &Int8) -> f64 {
    const BURSTS: usize = 20;
    let burst = |rounds| {
        let began = Instant::now();
        let products = int8.prepared().multiply_at_peak(rounds);
        products as f64 / began.elapsed().as_nanos().max(1) as f64
    };
    // About a millisecond each, whatever the instruction set.
    let rounds = (1e6 * burst(1000) / (int8.prepared().multiply_at_peak(1) as f64)).clamp(100.0, 1e7) as u32;
    (0..BURSTS).map(|_| burst(rounds)).fold(0.0, f64::max)
}
