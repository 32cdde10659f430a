//! The firmware in QEMU answers the golden images bit for bit as the host does.

use paradise_engine::golden::{Golden, crc32};
use paradise_engine::{Model, Workspace, classify};
use paradise_runtime::Bundle;
use paradise_tests::{root, shipped, skipped, text};
use std::process::{Command, Stdio};

/// What the firmware must log for each golden image, computed here.
fn expected() -> Vec<String> {
    let bundle = Bundle::open(&shipped()).expect("the shipped bundle");
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
            "golden {i} class {} rate {} bits {:08x} H {:08x} outputs {crc:08x} {}",
            model.label(a.class),
            a.rate_nats,
            a.rate_nats.to_bits(),
            a.posterior_entropy_nats.to_bits(),
            if a.decision.is_accept() { "accept" } else { "abstain" }
        ));
    }
    lines
}

#[test]
fn qemu_equals_the_host_bit_for_bit() {
    if skipped("firmware", "qemu_equals_the_host_bit_for_bit") {
        return;
    }
    let image = root().join("firmware/target/thumbv7em-none-eabihf/release/paradise-firmware");
    let print = root().join("target/tools/bin/defmt-print");
    for (path, how) in [(&image, "make firmware"), (&print, "make firmware")] {
        assert!(path.exists(), "{} is missing: run `{how}`, or set PARADISE_SKIP=firmware", path.display());
    }
    let mut qemu = Command::new("timeout")
        .args(["120", "qemu-system-arm", "-cpu", "cortex-m4", "-machine", "mps2-an386", "-nographic"])
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
    let golden: Vec<&str> = log.lines().filter_map(|l| l.find("golden ").map(|at| &l[at..])).collect();
    let expected = expected();
    assert_eq!(golden[..expected.len()], expected);
    assert!(log.contains(&format!("done: {} golden images equal bit for bit", expected.len())));
}
