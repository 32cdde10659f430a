//! The engine's bits are ONNX Runtime's: every tensor of random networks of every operation, and of a trained one.

use paradise_engine::Model;
use paradise_tests::random_network::{images, network};
use paradise_tests::{f32_bytes, fitted, referee, skipped, splits, tiny, write_case};
use paradise_train::encoder::batch;
use paradise_train::export::float_onnx;
use paradise_train::objective::Kind;
use std::fs;

#[test]
fn random_networks_of_every_operation_equal_onnx_runtime() {
    if skipped("python", "random_networks_of_every_operation_equal_onnx_runtime") {
        return;
    }
    let mut operations = std::collections::BTreeSet::new();
    let mut varied = Vec::new();
    for seed in 0..24 {
        let bytes = network(seed);
        let model = Model::parse(&bytes).expect("parses");
        operations.extend(model.header().layers.iter().map(|l| l.op.name()));
        let folder = tempfile::tempdir().expect("a temporary folder");
        write_case(&model, &images(4, model.header().input.len() as usize), folder.path());
        println!("network {seed}: {}", referee(&["int8", &folder.path().to_string_lossy()]));
        for layer in 1..=model.header().layers.len() {
            let tensor = fs::read(folder.path().join(format!("a{layer}.i8"))).expect("written above");
            varied.push(std::collections::BTreeSet::from_iter(tensor).len() > 8);
        }
    }
    let all = ["add", "affine", "avg-pool", "conv", "dense", "max-pool"];
    assert!(operations.iter().copied().eq(all), "{operations:?}");
    // Equality of constants would prove little.
    let lively = varied.iter().filter(|v| **v).count();
    assert!(3 * lively > 2 * varied.len(), "{lively} of {} tensors take more than eight values", varied.len());
}

#[test]
fn a_trained_float_encoder_equals_onnx_runtime() {
    if skipped("python", "a_trained_float_encoder_equals_onnx_runtime") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let splits = splits(3000);
    let run = fitted(&tiny(Kind::ParadisePm, 1), &splits, &folder.path().join("run"));
    let served = run.network.folded().unwrap();
    let encoder = served.frozen();
    let set = splits.test.head(200);
    let ids: Vec<usize> = (0..set.len()).collect();
    let encoding = encoder.encode(&batch(&set, &ids).unwrap()).unwrap();
    let flat = |t: candle_core::Tensor| f32_bytes(&t.flatten_all().unwrap().to_vec1::<f32>().unwrap());
    let put = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    let s = set.shape;
    put("case.json", serde_json::json!({ "n": set.len(), "input": [s.h, s.w, s.c] }).to_string().as_bytes());
    put("images.u8", &set.images);
    put("model.onnx", &float_onnx::encode(&encoder).unwrap());
    put("logits.f32", &flat(encoder.classify(&encoding.mu).unwrap()));
    put("log_sigma.f32", &flat(encoding.log_sigma));
    put("mu.f32", &flat(encoding.mu));
    println!("{}", referee(&["float", &folder.path().to_string_lossy()]));
}
