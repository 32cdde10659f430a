//! Whole networks give the same bits by every set of kernels, layer by layer and run in one go.

use paradise_engine::golden::crc32;
use paradise_engine::lowered::{Layout, Memory, Work, lower};
use paradise_engine::{Layer, Lowered, Model, Prepared, Team, Watch, Workspace};
use paradise_tests::random_network::{images, network};
use paradise_tests::{bundles, deep, microcontroller_bundles, program, root, shipped, skipped, text, unrun};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Checksums of every layer where they are observed, and the bits of every output, on one thread or by a team.
fn answers(
    prepared: &Prepared,
    images: &[Vec<u8>],
    observed: bool,
    mut team: Option<&mut Team>,
) -> (Vec<u32>, Vec<u32>) {
    let model = prepared.model();
    let (mut arena, mut floats) = (vec![0; model.header().arena_bytes as usize], vec![0.0; model.float_len()]);
    let members = team.as_ref().map_or(1, |team| team.members());
    let mut scratch = vec![0x33; prepared.scratch_len_of(members)];
    let (mut layers, mut outputs) = (Vec::new(), Vec::new());
    for image in images {
        let mut memory = Workspace { arena: &mut arena, floats: &mut floats };
        let mut look = |_: usize, output: &[i8]| layers.push(crc32(output));
        let watch = if observed { Watch::Layers(&mut look) } else { Watch::Nobody };
        let a = match team.as_deref_mut() {
            Some(team) => prepared.classify_together(image, &mut memory, &mut scratch, watch, team),
            None => prepared.classify(image, &mut memory, &mut scratch, watch),
        };
        let a = a.expect("runs");
        outputs.extend(a.numbers().map(f32::to_bits));
    }
    (layers, outputs)
}

/// Compares every set of kernels of this CPU with the scalar ones; returns how many sets there are.
fn compare(bytes: &[u8], images: &[Vec<u8>], name: &str) -> usize {
    let model = Model::parse(bytes).expect("parses");
    let mut faster: Vec<Prepared> = Prepared::every(&model).collect();
    let scalar = faster.pop().expect("the scalar kernels");
    let (layers, outputs) = answers(&scalar, images, true, None);
    let mut team = Team::new(3);
    for prepared in &faster {
        let kernels = prepared.kernels();
        let got = answers(prepared, images, true, None);
        assert!(got.0 == layers && got.1 == outputs, "{name}: {kernels} differs");
        let got = answers(prepared, images, true, Some(&mut team));
        assert!(got.0 == layers && got.1 == outputs, "{name}: {kernels} differs by a team");
        for team in [None, Some(&mut team)] {
            let who = format!("{team:?}");
            let got = answers(prepared, images, false, team);
            assert!(got.1 == outputs, "{name}: {kernels} differs when layers run in one go, {who}");
        }
    }
    faster.len()
}

/// Sums that take an operand's place in the arena.
fn in_place(model: &Model) -> usize {
    let h = model.header();
    let takes = |(i, layer): &(usize, Layer)| {
        let y = h.activations.at(i + 1).range();
        layer.reads().len() == 2 && layer.inputs.iter().any(|x| h.activations.at(usize::from(*x)).range() == y)
    };
    h.layers.iter().enumerate().filter(takes).count()
}

/// Compares a model lowered for every microcontroller's layout with the scalar kernels; returns how many convolutions ran
/// with a map before them, and how many with a sum after.
fn compare_lowered(bytes: &[u8], images: &[Vec<u8>], name: &str) -> [usize; 2] {
    let model = Model::parse(bytes).expect("parses");
    let scalar = Prepared::every(&model).last().expect("the scalar kernels");
    let mut counted = [0; 2];
    for layout in Layout::ALL {
        let file = lower(&model, layout).expect("lowers");
        let lowered = Lowered::parse(&file).unwrap_or_else(|e| panic!("{name}, {}: {e}", layout.name()));
        assert_eq!(lowered.source(), model.hash());
        let header = lowered.model().header();
        let mut arena = vec![0; header.arena_bytes as usize];
        let mut scratch = vec![0x3333_3333; lowered.scratch_len()];
        for image in images {
            let (layers, outputs) = answers(&scalar, std::slice::from_ref(image), true, None);
            let mut memory = Memory { arena: &mut arena, scratch: &mut scratch };
            let mut stored = Vec::new();
            let mut look = |layer: usize, output: &[i8]| stored.push((layer, crc32(output)));
            let answer = lowered.classify(image, &mut memory, &mut look).expect("runs");
            let same = answer.numbers().map(f32::to_bits).eq(outputs);
            assert!(same, "{name}, lowered for {} differs", layout.name());
            assert!(stored.iter().all(|(layer, crc)| layers[*layer] == *crc), "{name}: {stored:?}");
            assert_eq!(stored.len(), lowered.steps().len());
        }
        for step in lowered.steps().iter().filter(|step| step.work == Work::Conv) {
            counted[0] += usize::from(step.affine.is_some());
            counted[1] += usize::from(step.sum.is_some());
        }
    }
    counted
}

#[test]
fn lowered_networks_are_equal() {
    let mut counted = [0; 2];
    for seed in 0..40 {
        let bytes = network(seed);
        let size = Model::parse(&bytes).expect("parses").header().input.len() as usize;
        let of_this = compare_lowered(&bytes, &images(3, size), &format!("network {seed}"));
        counted = [counted[0] + of_this[0], counted[1] + of_this[1]];
    }
    assert!(counted[0] > 4 && counted[1] > 10, "maps before and sums after: {counted:?}");
    for bundle in microcontroller_bundles() {
        let bytes = fs::read(bundle.join("model.pmq")).expect("is there");
        let size = Model::parse(&bytes).expect("parses").header().input.len() as usize;
        compare_lowered(&bytes, &images(1, size), &bundle.to_string_lossy());
    }
}

#[test]
fn random_networks_are_equal() {
    let (mut sums, mut sets) = (0, 0);
    for seed in 0..40 {
        let bytes = network(seed);
        let model = Model::parse(&bytes).expect("parses");
        sums += in_place(&model);
        let size = model.header().input.len() as usize;
        sets = compare(&bytes, &images(3, size), &format!("network {seed}"));
    }
    if sets == 0 {
        unrun("random_networks_are_equal", "an instruction set that has kernels");
    }
    assert!(sums > 5, "{sums} sums in place");
}

#[test]
fn an_inference_allocates_nothing() {
    let large = bundles().into_iter().find(|b| b.ends_with("cifar10-resnet20-pm")).expect("a bundle for teams");
    let [bytes, large] = [shipped(), large].map(|b| fs::read(b.join("model.pmq")).expect("is there"));
    for bytes in [bytes, network(3), large] {
        let model = Model::parse(&bytes).expect("parses");
        let image = vec![90; model.header().input.len() as usize];
        let (mut arena, mut floats) = (vec![0; model.header().arena_bytes as usize], vec![0.0; model.float_len()]);
        for prepared in Prepared::every(&model) {
            let mut scratch = vec![0; prepared.scratch_len()];
            let allocated = allocation_counter::measure(|| {
                let mut memory = Workspace { arena: &mut arena, floats: &mut floats };
                prepared.classify(&image, &mut memory, &mut scratch, Watch::Nobody).expect("runs");
            });
            assert_eq!(allocated.count_total, 0, "{}", prepared.kernels());
            let mut team = Team::new(2);
            let mut room = vec![0; prepared.scratch_len_of(2)];
            let allocated = allocation_counter::measure(|| {
                let mut memory = Workspace { arena: &mut arena, floats: &mut floats };
                prepared.classify_together(&image, &mut memory, &mut room, Watch::Nobody, &mut team).expect("runs");
            });
            assert_eq!(allocated.count_total, 0, "{} by a team", prepared.kernels());
            let short = prepared.scratch_len().saturating_sub(1);
            let mut memory = Workspace { arena: &mut arena, floats: &mut floats };
            let refused = prepared.classify(&image, &mut memory, &mut scratch[..short], Watch::Nobody);
            assert_eq!(refused.is_err(), prepared.scratch_len() > 0);
        }
    }
}

#[test]
fn every_shipped_network_is_equal() {
    let small = microcontroller_bundles();
    for bundle in bundles() {
        let bytes = fs::read(bundle.join("model.pmq")).expect("is there");
        let size = Model::parse(&bytes).expect("parses").header().input.len() as usize;
        // The scalar kernels take most of the time, and a wide network thirty times a small one's.
        let n = if small.contains(&bundle) { 60 } else { 4 };
        compare(&bytes, &images(n, size), &bundle.display().to_string());
    }
}

/// What the example `kernels` says of a model on an emulated CPU: the names of its sets, and their checksums.
fn on_aarch64(cpu: &str, model: &Path, images: &Path) -> Vec<(String, String)> {
    let path = root().join("target/aarch64/aarch64-unknown-linux-gnu/release/examples/kernels");
    assert!(path.exists(), "{} is missing: run `make aarch64`, or set PARADISE_SKIP=aarch64", path.display());
    let mut qemu = Command::new("qemu-aarch64");
    answered(qemu.args(["-L", "/usr/aarch64-linux-gnu", "-cpu", cpu]).arg(path).arg(model).arg(images))
}

fn answered(command: &mut Command) -> Vec<(String, String)> {
    let output = command.output().expect("the program starts");
    let (out, err) = text(&output);
    assert!(output.status.success(), "{out}{err}");
    let parts = |line: &str| line.split_once(' ').map(|(set, sums)| (set.to_string(), sums.to_string()));
    out.lines().filter_map(parts).collect()
}

#[test]
fn aarch64_gives_the_same_checksums() {
    if skipped("aarch64", "aarch64_gives_the_same_checksums") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (model, pictures) = (folder.path().join("model.pmq"), folder.path().join("images.u8"));
    // QEMU is slow: one network of each kind, or many and every bundle.
    let (networks, shipped) = if deep() { (8, bundles()) } else { (2, vec![shipped()]) };
    let mut bytes: Vec<Vec<u8>> = (0..networks).map(network).collect();
    bytes.extend(shipped.iter().map(|b| fs::read(b.join("model.pmq")).expect("is there")));
    let mut sets = BTreeSet::new();
    for (i, bytes) in bytes.iter().enumerate() {
        let size = Model::parse(bytes).expect("parses").header().input.len() as usize;
        fs::write(&model, bytes).expect("a writable folder");
        fs::write(&pictures, images(2, size).concat()).expect("a writable folder");
        let here = answered(program("examples/kernels").arg(&model).arg(&pictures));
        let truth = here.last().expect("the scalar kernels").1.clone();
        // The last two are outputs with each layer on its own, and run in one go.
        let outputs: Vec<&str> = truth.rsplit(' ').take(2).collect();
        assert_eq!(outputs[0], outputs[1]);
        // QEMU's `max` has dot products and matrix multiplication, a Cortex-A57 has neither.
        for (set, sums) in here.into_iter().chain(on_aarch64("max", &model, &pictures)).chain(on_aarch64(
            "cortex-a57",
            &model,
            &pictures,
        )) {
            assert_eq!(sums, truth, "network {i} by {set}");
            sets.insert(set);
        }
    }
    println!("{sets:?}");
    for set in ["neon", "neon-dotprod", "neon-i8mm", "scalar"] {
        assert!(sets.contains(set), "{set} did not run");
    }
}
