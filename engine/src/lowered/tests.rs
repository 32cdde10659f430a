//! Lowered models against the models that they came from. Random networks are compared in `tests/kernels.rs`.

use super::*;
use crate::{Workspace, classify};
extern crate std;
use std::vec::Vec;
use std::{fs, vec};

fn bundle(name: &str) -> Vec<u8> {
    let path = std::format!("{}/../models/{name}/model.pmq", env!("CARGO_MANIFEST_DIR"));
    fs::read(path).expect("a committed bundle")
}

#[test]
fn answers_are_those_of_the_model_and_stored_layers_are_its_layers() {
    for name in ["fashion-mnist-small", "fashion-mnist-resnet8-am", "cifar10-resnet8-pm", "cifar10-resnet8-am"] {
        let bytes = bundle(name);
        let model = Model::parse(&bytes).unwrap();
        let image: Vec<u8> = (0..model.header().input.len()).map(|i| (i * i % 251) as u8).collect();
        let (mut arena, mut floats) = (vec![0; model.header().arena_bytes as usize], vec![0.0; model.float_len()]);
        let mut memory = Workspace { arena: &mut arena, floats: &mut floats };
        let mut layers: Vec<Vec<i8>> = Vec::new();
        let answer = classify(&model, &image, &mut memory, &mut |_, output| layers.push(output.to_vec())).unwrap();
        for layout in Layout::ALL {
            let file = lower(&model, layout).unwrap();
            let lowered = Lowered::parse(&file).unwrap_or_else(|e| panic!("{name}: {e}"));
            let mut arena = vec![0; lowered.model().header().arena_bytes as usize];
            let mut scratch = vec![0x5555_5555; lowered.scratch_len()];
            let mut memory = Memory { arena: &mut arena, scratch: &mut scratch };
            let mut seen = 0;
            let mut observe = |layer: usize, output: &[i8]| {
                seen += 1;
                assert!(layers[layer] == output, "{name}: layer {layer} differs");
            };
            let got = lowered.classify(&image, &mut memory, &mut observe).unwrap();
            assert!(got.numbers().map(f32::to_bits).eq(answer.numbers().map(f32::to_bits)), "{name}");
            assert_eq!((got.class, got.p, got.decision), (answer.class, answer.p, answer.decision));
            assert_eq!(seen, lowered.steps().len());
            let last = lowered.last(&scratch).unwrap();
            assert_eq!((last.mu, last.log_sigma, last.logits), (answer.mu, answer.log_sigma, answer.logits));
        }
    }
}
