//! The firmware in QEMU self-tests every bundle with the host's answers, golden images bit for bit.

use paradise_engine::golden::{Golden, crc32};
use paradise_engine::{Model, Workspace, classify};
use paradise_runtime::Bundle;
use paradise_tests::{deep, microcontroller_bundles, root, shipped, skipped, text};
use std::path::Path;
use std::process::{Command, Stdio};

/// Most stack that parsing a model and its self-test may take on the chip, bytes.
const MOST_STACK: usize = 2048;

/// What the firmware must log after its first line, computed here.
fn expected(folder: &Path) -> Vec<String> {
    let bundle = Bundle::open(folder).expect("a committed bundle");
    let model = Model::parse(bundle.file("model.pmq").unwrap()).unwrap();
    let golden = Golden::parse(bundle.file("selftest.bin").unwrap()).unwrap();
    let (mut arena, mut floats) = (vec![0; model.header().arena_bytes as usize], vec![0.0; model.float_len()]);
    let mut lines = Vec::new();
    for (i, case) in golden.header().cases.iter().enumerate() {
        let mut memory = Workspace { arena: &mut arena, floats: &mut floats };
        let a = classify(&model, golden.bytes(case.image), &mut memory, &mut |_, _| {}).unwrap();
        let outputs = [a.mu, a.log_sigma, a.logits].concat();
        let crc = outputs.iter().fold(0u32, |crc, v| {
            let bytes: Vec<i8> = crc.to_le_bytes().into_iter().chain(v.to_le_bytes()).map(|b| b as i8).collect();
            crc32(&bytes)
        });
        lines.push(format!(
            "golden {i} class {} rate {} bits {:08x} H {:08x} outputs {crc:08x} distances {:08x} {:08x} {:08x} p of \
             picture {} posterior {} spread {} rate {} entropy {} class {} all {} {}",
            model.label(a.class),
            a.rate_nats,
            a.rate_nats.to_bits(),
            a.posterior_entropy_nats.to_bits(),
            a.distances.posterior.to_bits(),
            a.distances.spread.to_bits(),
            a.distances.picture.to_bits(),
            a.p.picture,
            a.p.posterior,
            a.p.spread,
            a.p.rate,
            a.p.entropy,
            a.p.predictive,
            a.p.combined,
            if a.decision.is_accept() { "accept" } else { "abstain" }
        ));
    }
    for probes in golden.header().probes.iter() {
        let (mut right, mut abstained) = (0, 0);
        for (i, image) in golden.bytes(probes.images).chunks_exact(golden.header().image_bytes as usize).enumerate() {
            let mut memory = Workspace { arena: &mut arena, floats: &mut floats };
            let a = classify(&model, image, &mut memory, &mut |_, _| {}).unwrap();
            right += usize::from(a.class as u32 == golden.u32s(probes.labels).at(i));
            abstained += usize::from(!a.decision.is_accept());
        }
        let (kind, n, need) = (probes.kind.name(), probes.n, probes.min_correct);
        let images = golden.header().origin.name();
        lines.push(format!("{kind} probes, {images}: {right} of {n} right (need {need}), {abstained} abstained"));
    }
    let (cases, sets) = (golden.header().cases.len(), golden.header().probes.len());
    lines.push(format!("done: {cases} golden images equal bit for bit, {sets} sets of probes passed"));
    lines
}

#[test]
fn qemu_equals_the_host_bit_for_bit() {
    if skipped("firmware", "qemu_equals_the_host_bit_for_bit") {
        return;
    }
    std::thread::scope(|scope| {
        // One that QEMU runs in seconds, or every one that a chip's flash holds.
        let all = if deep() { microcontroller_bundles() } else { vec![shipped()] };
        for bundle in all {
            scope.spawn(move || equal_in_qemu(&bundle));
        }
    });
}

fn equal_in_qemu(bundle: &Path) {
    let image = root().join("firmware/target/images").join(bundle.file_name().expect("a bundle has a name"));
    let print = root().join("target/tools/bin/defmt-print");
    for (path, how) in [(&image, "make firmware"), (&print, "make firmware")] {
        assert!(path.exists(), "{} is missing: run `{how}`, or set PARADISE_SKIP=firmware", path.display());
    }
    let mut qemu = Command::new("timeout")
        .args(["600", "qemu-system-arm", "-cpu", "cortex-m4", "-machine", "mps2-an386", "-nographic"])
        .args(["-display", "none", "-monitor", "none", "-serial", "none"])
        .args(["-semihosting-config", "enable=on,target=native", "-kernel"])
        .arg(&image)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("qemu-system-arm starts");
    let log = qemu.stdout.take().expect("a pipe");
    let printed = Command::new(&print).arg("-e").arg(&image).stdin(log).output().expect("defmt-print runs");
    let status = qemu.wait().expect("qemu ends");
    let (log, errors) = text(&printed);
    println!("{log}{errors}");
    assert!(status.success(), "qemu: {status}");
    let logged: Vec<&str> = log.lines().filter_map(|l| l.strip_prefix("INFO ")).map(str::trim).collect();
    let stack = logged[0].rsplit_once("parsed with ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
    let stack: usize = stack.unwrap_or_else(|| panic!("{}", logged[0]));
    assert!(stack <= MOST_STACK, "parsing took {stack} bytes of stack");
    assert_eq!(logged[1..], expected(bundle));
}
