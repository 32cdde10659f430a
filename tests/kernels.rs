//! Whole networks give the same bits by every set of kernels, layer by layer and run in one go.

use paradise_engine::golden::crc32;
use paradise_engine::{Model, Prepared, Watch, Workspace};
use paradise_tests::random_network::{images, network};
use paradise_tests::shipped;
use std::fs;

/// Checksums of every layer where they are observed, and the bits of every output.
fn answers(prepared: &Prepared, images: &[Vec<u8>], observed: bool) -> (Vec<u32>, Vec<u32>) {
    let model = prepared.model();
    let (mut arena, mut floats) = (vec![0; model.header().arena_bytes as usize], vec![0.0; model.float_len()]);
    let mut scratch = vec![0x33; prepared.scratch_len()];
    let (mut layers, mut outputs) = (Vec::new(), Vec::new());
    for image in images {
        let mut memory = Workspace { arena: &mut arena, floats: &mut floats };
        let mut look = |_: usize, output: &[i8]| layers.push(crc32(output));
        let watch = if observed { Watch::Layers(&mut look) } else { Watch::Nobody };
        let a = prepared.classify(image, &mut memory, &mut scratch, watch).expect("runs");
        let floats = a.mu.iter().chain(a.sigma).chain(a.log_sigma).chain(a.logits).chain([&a.rate_nats]);
        outputs.extend(floats.map(|v| v.to_bits()));
    }
    (layers, outputs)
}

/// Compares every set of kernels of this CPU with the scalar ones; returns how many sets there are.
fn compare(bytes: &[u8], images: &[Vec<u8>], name: &str) -> usize {
    let model = Model::parse(bytes).expect("parses");
    let mut sets = 0;
    while Prepared::nth(&model, sets).kernels() != "scalar" {
        sets += 1;
    }
    let (layers, outputs) = answers(&Prepared::nth(&model, sets), images, true);
    for set in 0..sets {
        let prepared = Prepared::nth(&model, set);
        let got = answers(&prepared, images, true);
        assert!(got.0 == layers && got.1 == outputs, "{name}: {} differs", prepared.kernels());
        let got = answers(&prepared, images, false);
        assert!(got.1 == outputs, "{name}: {} differs when layers run in one go", prepared.kernels());
    }
    sets
}

#[test]
fn random_networks_are_equal() {
    for seed in 100..140 {
        let bytes = network(seed);
        let size = Model::parse(&bytes).expect("parses").header().input.len() as usize;
        let sets = compare(&bytes, &images(3, size), &format!("network {seed}"));
        if sets == 0 {
            eprintln!("skipped: this CPU has none of the instruction sets that have kernels");
        }
    }
}

#[test]
fn the_shipped_network_is_equal() {
    let bytes = fs::read(shipped().join("model.pmq")).expect("is there");
    compare(&bytes, &images(60, 28 * 28), "the shipped network");
}
