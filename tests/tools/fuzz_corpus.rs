//! Writes `engine/fuzz/corpus/`: the smallest random networks without and with grouped and with depthwise convolutions, under every
//! kind of covariance, and a self-test of one of them.

use paradise_engine::Model;
use paradise_engine::container::Blob;
use paradise_engine::golden::{self, About, Case, Draft, Encoded, Origin, ProbeKind, Probes};
use paradise_engine::layer::Op;
use paradise_engine::typicality::Distances;
use paradise_tests::random_network::network;
use paradise_tests::root;
use std::collections::BTreeSet;
use std::fs;

/// Whether a network has a depthwise convolution; `None` if all its convolutions have one group.
fn grouped(bytes: &[u8]) -> Option<bool> {
    let model = Model::parse(bytes).expect("parses");
    let header = model.header();
    let groups = header.layers.iter().enumerate().filter_map(|(i, layer)| match layer.op {
        Op::Conv { groups: groups @ 2.., .. } => {
            let [x, y] = [layer.inputs[0] as usize, i + 1].map(|a| header.activations.at(a).shape.c);
            Some(x == groups && y == groups)
        }
        _ => None,
    });
    groups.max()
}

fn main() {
    let folder = root().join("engine/fuzz/corpus");
    let mut all: Vec<(usize, u64)> = (0..200).map(|seed| (network(seed).len(), seed)).collect();
    all.sort_unstable();
    let covariance = |bytes: &[u8]| Model::parse(bytes).expect("parses").header().mixture.covariance.name();
    let mut kinds = BTreeSet::new();
    for (_, seed) in &all {
        let bytes = network(*seed);
        if kinds.insert((grouped(&bytes), covariance(&bytes))) {
            let data = paradise_engine_fuzz::input(&network(*seed)).expect("sealed");
            fs::write(folder.join(format!("network-{seed}")), data).expect("writable");
        }
    }
    let bytes = network(all[0].1);
    let model = Model::parse(&bytes).expect("parses");
    let h = model.header();
    let mut blob = Blob::default();
    let outputs = 2 * h.latent + h.classes;
    let (layers, image) = (h.layers.len(), h.input.len() as usize);
    let case = Case {
        image: blob.bytes(&vec![7; image]),
        crc: blob.u32s(&vec![1; layers]),
        int8_outputs: blob.f32s(&vec![0.5; outputs.into()]),
        float_outputs: blob.f32s(&vec![0.5; outputs.into()]),
        distances: Distances { posterior: 0.0, spread: 0.0, picture: 0.0 },
        rate_nats: 1.0,
        class: 0,
        accept: true,
    };
    let (images, labels) = (blob.bytes(&vec![3; 2 * image]), blob.u32s(&[0, 1]));
    let probes = Probes { kind: ProbeKind::Noisy, eps_pixels: 8.0, n: 2, images, labels, min_correct: 1 };
    let encoded =
        Encoded { file: blob.bytes(b"P5 1 1 255\n\0"), input_crc: 7, rate_nats: 1.0, class: 0, accept: true };
    let about = About {
        model: model.hash(),
        layers: layers as u16,
        image_bytes: image as u32,
        outputs,
        float_tolerance: 1e-4,
        origin: Origin::Synthesised,
    };
    let file = golden::emit(&Draft::new(about, &[case], &[encoded], &[probes]), &blob);
    fs::write(folder.join("self-test"), paradise_engine_fuzz::input(&file).expect("sealed")).expect("writable");
}
