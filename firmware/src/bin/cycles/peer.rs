//! CMSIS-NN's instructions for MLPerf Tiny's ResNet-8, layer by layer: commit 99f736a6 (v7.0.0-43), arm-none-eabi-gcc 12.2.1 -O3, counted
//! in QEMU 7.2. The lowest of three builds is taken: as it is, with its inline assembly for requantisation, with single rounding.

use crate::Figures;
use paradise_engine::lowered::Step;
use paradise_engine::{Model, Op};

/// Of one core: the whole network and its layers in order, a residual sum after the convolution that ours computes it with.
struct Peer {
    whole: u64,
    stem: u64,
    /// 16 to 16; 16 to 32 by 2; 32 to 32; 1x1 by 2; 32 to 64 by 2; 64 to 64; 1x1 by 2.
    convolutions: [u64; 7],
    sums: [u64; 3],
    pool: u64,
}

/// `b` with `__restrict` is the lowest whole network that was found on an M4.
const M4: Peer = Peer {
    whole: 28_447_848,
    stem: 2_028_666,
    convolutions: [5_382_027, 2_464_792, 4_487_822, 527_240, 2_160_683, 4_127_334, 404_488],
    sums: [913_530, 456_826, 228_474],
    pool: 26_592,
};
const M33: Peer = Peer {
    whole: 28_568_539,
    stem: 2_008_607,
    convolutions: [5_379_640, 2_463_643, 4_490_892, 526_535, 2_161_456, 4_127_044, 403_775],
    sums: [913_527, 456_823, 228_471],
    pool: 26_590,
};
const M55: Peer = Peer {
    whole: 4_717_202,
    stem: 595_449,
    convolutions: [910_837, 385_895, 594_985, 139_602, 278_656, 484_441, 80_474],
    sums: [188_561, 94_353, 47_249],
    pool: 5_070,
};

/// Prints our instructions over the peer's.
pub fn ratios(core: &str, steps: &[Step], model: &Model, figures: &[Figures]) {
    let peer = match core {
        "m4" | "m7" => M4,
        "m33" => M33,
        "m55" => M55,
        _ => return,
    };
    let mut sums = peer.sums.iter();
    for (step, f) in steps.iter().zip(figures) {
        let layer = model.header().layers.at(step.layer.into());
        let [x, y] = [layer.inputs[0], step.layer + 1].map(|i| model.header().activations.at(i.into()).shape);
        let Op::Conv { window, .. } = layer.op else {
            if matches!(layer.op, Op::AvgPool { .. }) {
                println!(
                    "ratio {core} instructions {} / CMSIS-NN {:.3}",
                    layer.op,
                    f.instructions as f64 / peer.pool as f64
                );
            }
            continue;
        };
        let [one_to_one, half, mid, thin, last_half, last, last_thin] = peer.convolutions;
        let theirs = match (x.c, y.c, window.kernel[0], window.stride[0]) {
            (3, 16, ..) => peer.stem,
            (16, 16, ..) => one_to_one,
            (16, 32, 3, 2) => half,
            (32, 32, ..) => mid,
            (16, 32, 1, _) => thin,
            (32, 64, 3, 2) => last_half,
            (64, 64, ..) => last,
            (32, 64, 1, _) => last_thin,
            _ => continue,
        };
        let sum = if step.sum.is_some() { *sums.next().unwrap_or(&0) } else { 0 };
        let after = if sum > 0 { " and its sum" } else { "" };
        println!(
            "ratio {core} instructions {} {}x{}x{} to {}{after} / CMSIS-NN {:.3}",
            layer.op,
            x.h,
            x.w,
            x.c,
            y.c,
            f.instructions as f64 / (theirs + sum) as f64
        );
    }
    if let Some(whole) = figures.last() {
        println!(
            "ratio {core} instructions ResNet-8, all that follows the network too / CMSIS-NN {:.3}",
            whole.instructions as f64 / peer.whole as f64
        );
    }
}
