//! The firmware in QEMU, over its serial port as a host uses it: every answer is the host engine's, bit for bit; what is noise,
//! damage or a hang does what the page on microcontrollers says.

use paradise_engine::golden::Golden;
use paradise_engine::typicality::Distances;
use paradise_engine::{Model, PValues, Workspace, classify};
use paradise_link::frame;
use paradise_link::message::State;
use paradise_link::{Ask, MAX_FRAME, Request, Vector};
use paradise_runtime::Bundle;
use paradise_tests::chip::{BUNDLE, Board, Chip, M4, M55, boards, bundle, image};
use paradise_tests::{deep, program, root, shipped, skipped, text};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// RAM of every board in QEMU, bytes (`firmware/boards/`), and the most that a ResNet-8 may take of it.
const RAM: u32 = 60 << 10;
const MOST_RAM: u32 = 44 << 10;
/// Most flash of what is neither model nor images of the self-test.
const MOST_CODE: u64 = 48 << 10;

/// Images of the self-test and, as noise goes over them, as many as are wanted.
fn pictures(n: usize) -> Vec<Vec<u8>> {
    let bundle = Bundle::open(&bundle()).expect("a committed bundle");
    let golden = Golden::parse(bundle.file("selftest.bin").unwrap()).unwrap();
    let each = golden.header().image_bytes as usize;
    let sets = golden.header().probes;
    let mut all: Vec<Vec<u8>> =
        sets.iter().flat_map(|set| golden.bytes(set.images).chunks_exact(each)).map(<[u8]>::to_vec).collect();
    let mut state = 5u64;
    while all.len() < n {
        let from = all[all.len() % 40].clone();
        let noisy = from.iter().map(|v| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            v.wrapping_add((state >> 60) as u8)
        });
        all.push(noisy.collect());
    }
    all.truncate(n);
    all
}

#[test]
fn every_board_answers_as_the_host_bit_for_bit() {
    if skipped("firmware", "every_board_answers_as_the_host_bit_for_bit") {
        return;
    }
    let pictures = pictures(if deep() { 200 } else { 20 });
    let bundle = Bundle::open(&bundle()).expect("a committed bundle");
    let model = Model::parse(bundle.file("model.pmq").unwrap()).unwrap();
    std::thread::scope(|scope| {
        for board in boards() {
            let (pictures, model) = (&pictures, &model);
            scope.spawn(move || equal(board, pictures, model));
        }
    });
}

/// Bytes of flash that hold neither the model nor images of the self-test.
fn code(board: Board, image: &Path) -> u64 {
    let sections =
        Command::new("readelf").args(["--section-headers", "--wide"]).arg(image).output().expect("readelf runs");
    let flash = [".vector_table", ".start_block", ".text", ".rodata", ".data", ".program_hash"];
    let (mut sum, mut seen) = (0, 0);
    for line in text(&sections).0.lines() {
        // [ n] name type address offset size
        let mut fields = line.split(']').nth(1).unwrap_or("").split_whitespace();
        let name = fields.next().unwrap_or("");
        if flash.contains(&name) {
            sum += u64::from_str_radix(fields.nth(3).expect("a size"), 16).expect("in hexadecimal");
            seen += 1;
        }
    }
    assert!(seen >= 4, "{}: not an image", image.display());
    let carried = root().join("firmware/target/carried").join(board.name).join(BUNDLE);
    let bytes = |name: &str| std::fs::metadata(carried.join(name)).expect("what it carries").len();
    sum - bytes("model.bin") - bytes("golden.bin")
}

#[test]
fn one_command_goes_from_a_bundle_to_a_classification_in_little_flash() {
    if skipped("firmware", "one_command_goes_from_a_bundle_to_a_classification_in_little_flash") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let picture = folder.path().join("p.ppm");
    std::fs::write(&picture, [b"P6 32 32 255\n", &pictures(3)[2][..]].concat()).expect("written");
    let paradised = program("paradised").get_program().to_owned();
    let said = Command::new(root().join("firmware/qemu.sh"))
        .env("PARADISED", paradised)
        .env("BOARD", M4.name)
        .arg(bundle())
        .arg("classify")
        .arg(&picture)
        .output()
        .expect("runs");
    let (out, errors) = text(&said);
    let host =
        program("paradised").arg("classify").arg("--model").arg(bundle()).arg(&picture).output().expect("runs");
    let label =
        |line: &str| line.split(": ").nth(1).and_then(|rest| rest.split_whitespace().next()).map(str::to_owned);
    assert!(said.status.success() && label(&out).is_some(), "{out}{errors}");
    assert_eq!(label(&out), label(&text(&host).0));
    for (board, folder) in
        [(M4, M4.name.to_string()), (M4, format!("{}-inject", M4.name)), (M55, format!("{}-inject", M55.name))]
    {
        let code = code(board, &image(&folder));
        println!("{folder}: {code} bytes of flash without model and self-test images");
        assert!(code <= MOST_CODE, "{folder}: {code} bytes of code");
    }
    let nowhere = Command::new(root().join("firmware/qemu.sh")).env("BOARD", "rp2350").args(["x", "info"]).output();
    let nowhere = nowhere.expect("runs");
    assert!(nowhere.status.code() == Some(2) && text(&nowhere).1.contains("mps2-an500"));
}

fn equal(board: Board, pictures: &[Vec<u8>], model: &Model) {
    let chip = Chip::start(board);
    let mut mcu = chip.greet();
    assert_eq!(mcu.wait().expect("it starts"), State::Ready, "{}", board.name);
    let (mut arena, mut floats) = (vec![0; model.header().arena_bytes as usize], vec![0.0; model.float_len()]);
    let p = |p: &PValues| [p.picture, p.posterior, p.spread, p.rate, p.entropy, p.predictive, p.combined];
    let distances = |d: &Distances| [d.posterior, d.spread, d.picture];
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<u32>>();
    let info = mcu.info().expect("it says what it is");
    let hash: String = model.hash().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((info.hash, info.board.as_str()), (hash, board.name));
    let mut accepted = 0;
    for picture in pictures {
        let verdict = mcu.classify(picture).unwrap_or_else(|e| panic!("{}: {e}", board.name));
        let mut memory = Workspace { arena: &mut arena, floats: &mut floats };
        let answer = classify(model, picture, &mut memory, &mut |_, _| {}).unwrap();
        let entropies = [answer.posterior_entropy_nats, answer.predictive_entropy_nats, answer.rate_nats];
        assert_eq!(usize::from(verdict.class), answer.class);
        assert_eq!(verdict.decision, answer.decision);
        assert_eq!(bits(&p(&verdict.p)), bits(&p(&answer.p)));
        assert_eq!(bits(&distances(&verdict.distances)), bits(&distances(&answer.distances)));
        let got = [verdict.posterior_entropy_nats, verdict.predictive_entropy_nats, verdict.rate_nats];
        assert_eq!(bits(&got), bits(&entropies));
        let vectors =
            [(Vector::Mu, answer.mu), (Vector::LogSigma, answer.log_sigma), (Vector::Logits, answer.logits)];
        for (which, want) in vectors {
            assert_eq!(bits(&mcu.vector(which, want.len()).expect("its numbers")), bits(want), "{which:?}");
        }
        accepted += u32::from(answer.decision.is_accept());
    }
    let counters = mcu.counters().expect("its counters");
    assert_eq!((counters.classified, counters.accepted), (pictures.len() as u32, accepted));
    assert_eq!((counters.overrun, counters.restarts), (0, 1), "the watchdog was proven by one restart");
    // All of RAM that the image takes: what is static is what is left of it for no stack, and the most stack that was used.
    let info = mcu.info().expect("it says what it is");
    let taken = RAM - info.stack + info.stack_used;
    println!("{}: {taken} bytes of RAM, {} of them stack", board.name, info.stack_used);
    assert!(taken <= MOST_RAM, "{}: {taken} bytes of RAM", board.name);
}

#[test]
fn the_self_test_passes_each_check_can_fail_and_a_fault_outlives_a_restart() {
    if skipped("firmware", "the_self_test_passes_each_check_can_fail_and_a_fault_outlives_a_restart") {
        return;
    }
    let board = M4;
    let chip = Chip::start(board);
    let mut mcu = chip.greet();
    let checks = mcu.self_test(|_| {}).expect("it tests itself");
    for check in &checks {
        assert_eq!(check.passed, Some(true), "{}: {} of {}", check.name, check.found, check.held_to);
    }
    drop(chip);
    let faults: Vec<u8> = if deep() { (0..checks.len() as u8).collect() } else { vec![3, 8] };
    for at in faults {
        let chip = Chip::start(board);
        let mut mcu = chip.greet();
        assert_eq!(mcu.wait().expect("it starts"), State::Ready);
        mcu.inject(at).expect("built for it");
        mcu.self_test(|_| {}).expect("it tests itself");
        let name = &checks[usize::from(at)].name;
        assert_eq!(mcu.info().unwrap().state, State::Fault, "{name} cannot fail");
        assert_eq!(mcu.check(at).unwrap().passed, Some(false), "{name}");
        assert!(mcu.classify(&pictures(1)[0]).is_err());
        mcu.restart().expect("it starts anew");
        assert_eq!(mcu.wait().expect("it starts"), State::Fault, "{name}: forgotten by a restart");
    }
}

#[test]
fn a_hang_is_bitten_an_overflow_is_a_fault_and_no_damaged_model_starts() {
    if skipped("firmware", "a_hang_is_bitten_an_overflow_is_a_fault_and_no_damaged_model_starts") {
        return;
    }
    for board in boards() {
        let chip = Chip::start(board);
        let mut mcu = chip.greet();
        assert_eq!(mcu.wait().expect("it starts"), State::Ready);
        mcu.inject(100).expect("built for it");
        // QEMU serves one line at a time.
        drop(mcu);
        // The watchdog takes four seconds.
        std::thread::sleep(Duration::from_secs(6));
        let mut mcu = chip.greet();
        assert_eq!(mcu.wait().expect("it starts"), State::Ready, "{}: a hang is no fault", board.name);
        let info = mcu.info().expect("it says why it started");
        assert_eq!((info.reset.as_str(), mcu.counters().unwrap().restarts), ("watchdog", 2), "{}", board.name);
        mcu.inject(101).expect("built for it");
        drop(mcu);
        let mut mcu = chip.greet();
        assert_eq!(mcu.wait().expect("it starts"), State::Fault, "{}: the stack overflowed unseen", board.name);
        assert!(mcu.classify(&pictures(1)[0]).is_err());
    }
    let faults = if deep() { 1000 } else { 20 };
    let log = tempfile::NamedTempFile::new().expect("a temporary file");
    let chip = Chip::logging(M4, log.reopen().expect("opens").into());
    let mut mcu = chip.greet();
    assert_eq!(mcu.wait().expect("it starts"), State::Ready);
    mcu.inject(110 + (faults / 10) as u8).expect("built for it");
    let said = format!("faults in flash: {faults} of {faults} refused with the fault line, whole afterwards: true");
    let image = image("mps2-an386-inject");
    let until = Instant::now() + Duration::from_secs(300);
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let print = root().join("target/tools/bin/defmt-print");
        let bytes = log.reopen().expect("opens");
        let printed = Command::new(print).arg("-e").arg(&image).stdin(bytes).output().expect("defmt-print runs");
        let (out, _) = text(&printed);
        if out.contains("faults in flash") {
            assert!(out.contains(&said), "{out}");
            break;
        }
        assert!(Instant::now() < until, "{out}");
    }
    assert!(mcu.classify(&pictures(1)[0]).is_ok(), "it classifies afterwards");
}

#[test]
fn noise_and_mutated_frames_never_stop_it() {
    if skipped("firmware", "noise_and_mutated_frames_never_stop_it") {
        return;
    }
    let chip = Chip::start(M4);
    assert_eq!(chip.greet().wait().expect("it starts"), State::Ready);
    let mut state = 11u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let mut stream = TcpStream::connect(&chip.address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_millis(1))).expect("a timeout");
    for round in 0..if deep() { 10_000 } else { 500 } {
        let mut line = [0; MAX_FRAME];
        let ask = match next() % 8 {
            0 => Ask::Hello { version: next() as u8 },
            1 => Ask::Info,
            2 => Ask::Picture { at: (next() % 4000) as u32, bytes: &[9; 77] },
            3 => Ask::Classify { crc: next() as u32 },
            4 => Ask::Vector { which: Vector::Mu, from: next() as u16 },
            5 => Ask::Counters,
            6 => Ask::Check(next() as u8),
            _ => Ask::Label(next() as u16),
        };
        let len = frame::write(&Request { number: next() as u32, ask }, &mut line).unwrap();
        let mut line = line[..len].to_vec();
        match next() % 4 {
            0 => line[next() % len] ^= 1 << (next() % 8),
            1 => line.truncate(next() % len),
            2 => line = (0..next() % 300).map(|_| next() as u8).collect(),
            _ => {}
        }
        stream.write_all(&line).expect("it listens");
        if round % 16 == 0 {
            // Its replies are read now and then, as a host that is busy does.
            let mut replies = [0; 4096];
            let _ = stream.read(&mut replies);
        }
    }
    stream.write_all(&[0]).expect("it listens");
    // What it has not read when a line is closed is lost: until it has nothing more to say.
    stream.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
    while stream.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {}
    drop(stream);
    let mut mcu = chip.greet();
    let counters = mcu.counters().expect("its counters");
    assert!(counters.damaged > 100, "{counters:?}");
    assert_eq!(counters.restarts, 1);
    assert!(mcu.classify(&pictures(1)[0]).is_ok(), "it classifies afterwards");
}

#[test]
fn the_commands_of_mlperf_tinys_runner_measure_it() {
    if skipped("firmware", "the_commands_of_mlperf_tinys_runner_measure_it") {
        return;
    }
    let chip = Chip::with(M4, "mlperf", Stdio::null());
    let mut stream = TcpStream::connect(&chip.address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    // As the runner does: a command, then lines until one that holds `m-ready`.
    let mut ask = |command: &str| {
        stream.write_all(format!("{command}%").as_bytes()).expect("sent");
        let mut said = String::new();
        let mut byte = [0];
        while !said.ends_with("m-ready\r\n") {
            stream.read_exact(&mut byte).unwrap_or_else(|e| panic!("{command}: {said}: {e}"));
            said.push(byte[0].into());
        }
        said
    };
    // The greeting, which may have gone to whoever connected first, and its own answer.
    while !ask("name").contains("m-name-dut-[paradise]") {}
    assert!(ask("profile").contains("m-model-[ic01]"));
    let picture = &pictures(3)[2];
    while !ask(&format!("db load {}", picture.len())).contains(&format!("m-[Expecting {} bytes]", picture.len())) {}
    let mut last = String::new();
    for part in picture.chunks(31) {
        last = ask(&format!("db {}", part.iter().map(|byte| format!("{byte:02x}")).collect::<String>()));
    }
    assert!(last.contains("m-load-done"), "{last}");
    let said = ask("infer 3 1");
    let of =
        |line: &str| said.lines().filter_map(|l| l.strip_prefix(line)).map(str::to_owned).collect::<Vec<String>>();
    let laps: Vec<u64> = of("m-lap-us-").iter().map(|us| us.parse().expect("microseconds")).collect();
    assert!(laps.len() == 2 && laps[1] > laps[0], "{said}");
    let results: Vec<f32> =
        of("m-results-[")[0].trim_end_matches(']').split(',').map(|p| p.parse().expect("a probability")).collect();
    let bundle = Bundle::open(&bundle()).expect("a committed bundle");
    let model = Model::parse(bundle.file("model.pmq").unwrap()).unwrap();
    let (mut arena, mut floats) = (vec![0; model.header().arena_bytes as usize], vec![0.0; model.float_len()]);
    let mut memory = Workspace { arena: &mut arena, floats: &mut floats };
    let answer = classify(&model, picture, &mut memory, &mut |_, _| {}).unwrap();
    assert_eq!(results.len(), answer.probabilities.len());
    for (got, want) in results.iter().zip(answer.probabilities) {
        assert!((got - want).abs() <= 0.000_51, "{results:?}");
    }
}

#[test]
fn the_command_line_asks_the_chip() {
    if skipped("firmware", "the_command_line_asks_the_chip") {
        return;
    }
    let chip = Chip::start(M4);
    let port = format!("tcp:{}", chip.address);
    let run = |arguments: &[&str]| {
        let output = program("paradised").args(["mcu", "--port", &port]).args(arguments).output().expect("runs");
        let (out, errors) = text(&output);
        (output.status.code(), out, errors)
    };
    let (code, out, errors) = run(&["info", "--json"]);
    assert_eq!(code, Some(0), "{errors}");
    let info: serde_json::Value = serde_json::from_str(&out).expect("one object");
    assert_eq!((&info["chip"]["board"], &info["chip"]["kernels"]), (&"mps2-an386".into(), &"dsp".into()));
    let (code, out, errors) = run(&["selftest"]);
    assert_eq!(code, Some(0), "{out}{errors}");
    assert!(out.contains("passed   golden images, bit for bit"), "{out}");
    // A picture goes the same way as to the daemon.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let picture = folder.path().join("p.ppm");
    std::fs::write(&picture, [b"P6 32 32 255\n", &pictures(3)[2][..]].concat()).expect("written");
    let (model, picture) = (bundle(), picture.to_string_lossy().into_owned());
    let model = model.to_string_lossy();
    let (code, out, errors) = run(&["classify", "--model", &model, "--json", &picture]);
    assert_eq!(code, Some(0), "{errors}");
    let chip: serde_json::Value = serde_json::from_str(&out).expect("one object");
    let host = program("paradised").args(["classify", "--model", &model, "--json", &picture]).output().expect("runs");
    let host: serde_json::Value = serde_json::from_str(&text(&host).0).expect("one object");
    for key in ["label", "class", "decision", "reason", "rate_nats", "picture_p", "predictive_p", "combined_p"] {
        assert_eq!(chip[key], host[key], "{key}");
    }
    let other = shipped().to_string_lossy().into_owned();
    let (code, _, errors) = run(&["classify", "--model", &other, &picture]);
    assert!(code == Some(2) && errors.contains("the chip runs"), "{errors}");
    let nowhere = program("paradised").args(["mcu", "--port", "/dev/no-such-port", "info"]).output().expect("runs");
    assert!(nowhere.status.code() == Some(2) && text(&nowhere).1.contains("/dev/no-such-port"));
}
