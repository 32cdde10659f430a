//! The application on a board in memory, over the link that a host uses.

extern crate std;
use super::*;
use paradise_engine::Model;
use paradise_engine::golden::reduced;
use paradise_engine::lowered::{Layout, lower};
use paradise_engine::selftest::drift::{Drift, Reference};
use paradise_engine::selftest::square::Square;
use paradise_link::{MAX_FRAME, Reply};
use std::cell::RefCell;
use std::rc::Rc;
use std::vec::Vec;
use std::{boxed::Box, format, vec};

const MODEL: &[u8] = include_bytes!("../../../models/fashion-mnist-small/model.pmq");
const GOLDEN: &[u8] = include_bytes!("../../../models/fashion-mnist-small/selftest.bin");
/// Of the attack and the drift of [`expected`].
const IMAGES: u16 = 3;

/// The model as a chip has it.
fn lowered() -> &'static Lowered<'static> {
    let bytes: &'static [u8] = lower(&Model::parse(MODEL).unwrap(), Layout::Dsp).unwrap().leak();
    Box::leak(Box::new(Lowered::parse(bytes).unwrap()))
}

/// Its self-test at a chip's size.
fn golden() -> &'static Golden<'static> {
    let (model, whole) = (lowered(), Golden::parse(GOLDEN).unwrap());
    let (mut arena, mut scratch) = memory(model);
    let bytes: &'static [u8] = reduced(&whole, [2, 4], |image, label| {
        let mut memory = Memory { arena: &mut arena, scratch: &mut scratch };
        model.classify(image, &mut memory, &mut |_, _| {}).unwrap().class as u32 == label
    })
    .leak();
    Box::leak(Box::new(Golden::parse(bytes).unwrap()))
}

fn memory(model: &Lowered) -> (Vec<i8>, Vec<u32>) {
    (vec![0; model.model().header().arena_bytes as usize], vec![0; model.scratch_len()])
}

/// What this machine finds, as `prepare` computes it.
fn expected(model: &Lowered, golden: &Golden) -> Expected {
    let (mut arena, mut scratch) = memory(model);
    let mut device = Chip { lowered: model, memory: Memory { arena: &mut arena, scratch: &mut scratch } };
    let (set, each) = (golden.header().probes.at(0), golden.header().image_bytes as usize);
    let images: Vec<&[u8]> = golden.bytes(set.images).chunks_exact(each).take(IMAGES.into()).collect();
    let mut broken = 0;
    for (i, image) in images.iter().enumerate() {
        let label = golden.u32s(set.labels).at(i) as usize;
        let shape = model.model().header().input;
        let mut attack = Square::new((image, shape), label, 40, 10, crate::checks::SEED);
        broken += loop {
            if let Some(broken) = attack.step(&mut device).unwrap() {
                break u16::from(broken);
            }
        };
    }
    let means: Vec<f32> = (0..20u32)
        .map(|draw| {
            let mut drift = Drift::default();
            for (i, image) in images.iter().enumerate() {
                drift.step(&mut device, image, draw * 7919 + i as u32).unwrap();
            }
            drift.mean()
        })
        .collect();
    Expected { attack: [IMAGES, 40, 10, broken], drift_images: IMAGES, drift: Reference::of(&means) }
}

/// What the board was told, and what it has sent.
#[derive(Debug, Default)]
struct Seen {
    sent: Vec<u8>,
    lines: [bool; 3],
    beats: usize,
    fed: usize,
    safe: bool,
    ticks: u32,
    bounds_broken: bool,
}

/// A board in memory.
#[derive(Clone, Default)]
struct Mock(Rc<RefCell<Seen>>);

impl Board for Mock {
    fn name(&self) -> &'static str {
        "mock"
    }
    fn ticks(&mut self) -> u32 {
        self.0.borrow_mut().ticks += 7;
        self.0.borrow().ticks
    }
    fn ticks_a_second(&self) -> u32 {
        1_000_000
    }
    fn send(&mut self, bytes: &[u8]) {
        self.0.borrow_mut().sent.extend(bytes);
    }
    fn decide(&mut self, accept: bool, abstain: bool, fault: bool) {
        self.0.borrow_mut().lines = [accept, abstain, fault];
    }
    fn heartbeat(&mut self, _: bool) {
        self.0.borrow_mut().beats += 1;
    }
    fn watch(&mut self, _: u32) -> bool {
        true
    }
    fn feed(&mut self) {
        self.0.borrow_mut().fed += 1;
    }
    fn restart(&mut self) -> ! {
        panic!("restart")
    }
    fn safe_state(&mut self) {
        self.0.borrow_mut().safe = true;
    }
}

impl Hardware for Mock {
    fn program_is_whole(&mut self, spoil: bool) -> Option<bool> {
        Some(!spoil)
    }
    fn registers_hold(&mut self, spoil: bool) -> Option<bool> {
        Some(!spoil)
    }
    fn fpu_is_right(&mut self, spoil: bool) -> Option<bool> {
        Some(!spoil)
    }
    fn clocks_differ(&mut self, spoil: bool) -> Option<u32> {
        Some(if spoil { 500 } else { 3 })
    }
    fn stack(&mut self, spoil: bool) -> Option<[u32; 2]> {
        Some(if spoil { [100, 100] } else { [10, 100] })
    }
    fn memory_is_bounded(&mut self, spoil: bool) -> bool {
        !spoil && !self.0.borrow().bounds_broken
    }
    fn noise(&mut self) -> u32 {
        77
    }
}

/// An application and the host's side of its link.
struct Bench {
    app: App<'static, Mock>,
    board: Mock,
    number: u32,
}

fn bench(record: Record) -> Bench {
    let (lowered, golden) = (lowered(), golden());
    let (arena, scratch) = memory(lowered);
    let memory = Memory { arena: arena.leak(), scratch: scratch.leak() };
    let board = Mock::default();
    let app = App::new(Parts {
        board: board.clone(),
        lowered,
        memory,
        golden,
        expected: expected(lowered, golden),
        record,
        reset: Reset::Power,
        steady: [2, 3],
    });
    Bench { app, board, number: 0 }
}

/// A record of good memory and a watchdog that bites.
fn well() -> Record {
    Record::new().with_ram(1).with_bite(crate::latch::BITE_PROVEN)
}

impl Bench {
    /// Steps until nothing is under way.
    fn settle(&mut self) -> State {
        for _ in 0..10_000 {
            if self.app.state() != State::Testing {
                break;
            }
            self.app.step();
        }
        self.app.state()
    }

    /// Sends a request and reads the one reply, if there is one.
    fn send<T>(&mut self, number: u32, ask: Ask, read: impl FnOnce(Result<Answer, Refusal>) -> T) -> Option<T> {
        let mut line = [0; MAX_FRAME];
        let len = frame::write(&Request { number, ask }, &mut line).unwrap();
        line[..len].iter().for_each(|byte| {
            self.app.hear(*byte);
        });
        let sent = std::mem::take(&mut self.board.0.borrow_mut().sent);
        let mut frames = Frames::new();
        let mut read = Some(read);
        let mut got = None;
        for byte in sent {
            if let Some(payload) = frames.push(byte) {
                let reply: Reply = frame::read(payload).expect("a reply");
                assert_eq!(reply.number, number);
                got = read.take().map(|read| read(reply.answer));
            }
        }
        got
    }

    fn ask<T>(&mut self, ask: Ask, read: impl FnOnce(Result<Answer, Refusal>) -> T) -> T {
        self.number += 1;
        self.send(self.number, ask, read).expect("a reply")
    }

    fn hello(&mut self) {
        let hello = Ask::Hello { version: VERSION };
        assert!(self.ask(hello, |answer| matches!(answer, Ok(Answer::Hello { version: VERSION }))));
    }

    fn classify(&mut self, picture: &[u8]) -> Result<Verdict, Refusal> {
        for (i, bytes) in picture.chunks(CHUNK).enumerate() {
            let at = (i * CHUNK) as u32;
            self.ask(Ask::Picture { at, bytes }, |answer| match answer {
                Ok(Answer::Taken) => Ok(()),
                Err(refusal) => Err(refusal),
                _ => panic!("another answer"),
            })?;
        }
        self.ask(Ask::Classify { crc: crc32_bytes(picture) }, |answer| match answer {
            Ok(Answer::Verdict(verdict)) => Ok(verdict),
            Err(refusal) => Err(refusal),
            _ => panic!("another answer"),
        })
    }

    fn counters(&mut self) -> Counters {
        self.ask(Ask::Counters, |answer| match answer {
            Ok(Answer::Counters(counters)) => counters,
            _ => panic!("another answer"),
        })
    }
}

fn golden_image(i: usize) -> &'static [u8] {
    let golden: Golden<'static> = Golden::parse(GOLDEN).unwrap();
    golden.bytes(golden.header().cases.at(i).image)
}

#[test]
fn it_tests_itself_answers_as_the_engine_and_moves_its_lines() {
    let mut bench = bench(well());
    assert_eq!(bench.app.state(), State::Testing);
    bench.hello();
    assert_eq!(bench.classify(golden_image(0)), Err(Refusal::Busy));
    assert_eq!(bench.settle(), State::Ready);
    let model = lowered();
    let (mut arena, mut scratch) = memory(model);
    for i in 0..2 {
        let verdict = bench.classify(golden_image(i)).unwrap();
        let mut memory = Memory { arena: &mut arena, scratch: &mut scratch };
        let answer = model.classify(golden_image(i), &mut memory, &mut |_, _| {}).unwrap();
        assert_eq!(verdict.class, answer.class as u16);
        assert_eq!(verdict.decision, answer.decision);
        assert_eq!(verdict.rate_nats.to_bits(), answer.rate_nats.to_bits());
        assert_eq!(verdict.p, answer.p);
        let numbers = bench.ask(Ask::Vector { which: Vector::Mu, from: 3 }, |answer| match answer {
            Ok(Answer::Numbers(bytes)) => bytes.to_vec(),
            other => panic!("{other:?}"),
        });
        let mu: Vec<u8> = answer.mu[3..].iter().take(NUMBERS).flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(numbers, mu);
    }
    let counters = bench.counters();
    assert_eq!((counters.classified, counters.recent[0]), (2, 2));
    assert_eq!(counters.accepted + counters.abstained.iter().sum::<u32>(), 2);
    // The same picture twice is steady, if it is accepted.
    let verdict = (0..3).map(|_| bench.classify(golden_image(0)).unwrap()).last().unwrap();
    let accepted = verdict.decision == paradise_engine::Decision::Accept;
    assert_eq!(verdict.steady, accepted.then_some(verdict.class));
    assert_eq!(bench.board.0.borrow().lines, [accepted, !accepted, false]);
    let (beats, fed) = (bench.board.0.borrow().beats, bench.board.0.borrow().fed);
    bench.app.step();
    assert_eq!((bench.board.0.borrow().beats, bench.board.0.borrow().fed), (beats + 1, fed + 1));
}

#[test]
fn a_repeated_request_does_nothing_twice_and_an_old_one_nothing_at_all() {
    let mut bench = bench(well());
    bench.settle();
    assert_eq!(bench.ask(Ask::Info, |answer| answer.err()), Some(Refusal::Stranger));
    bench.hello();
    let picture = golden_image(0);
    bench.classify(picture).unwrap();
    let number = bench.number;
    let crc = crc32_bytes(picture);
    let again = bench.send(number, Ask::Classify { crc }, |answer| matches!(answer, Ok(Answer::Verdict(_))));
    assert_eq!((again, bench.counters().classified), (Some(true), 1));
    assert_eq!(bench.send(number - 1, Ask::Info, |_| ()), None, "late");
    // The picture is gone: it was read where it lay.
    assert_eq!(bench.ask(Ask::Classify { crc }, |answer| answer.err()), Some(Refusal::Picture));
    // Gaps, too much, another checksum.
    assert_eq!(bench.ask(Ask::Picture { at: 5, bytes: &[1] }, |answer| answer.err()), Some(Refusal::Range));
    assert!(bench.ask(Ask::Vector { which: Vector::Logits, from: 0 }, |answer| answer.is_ok()));
    assert_eq!(
        bench.ask(Ask::Vector { which: Vector::Logits, from: 999 }, |answer| answer.err()),
        Some(Refusal::Range)
    );
    assert_eq!(bench.ask(Ask::Label(9999), |answer| answer.err()), Some(Refusal::Range));
    assert_eq!(bench.ask(Ask::Check(200), |answer| answer.err()), Some(Refusal::Range));
    assert_eq!(bench.ask(Ask::Inject(0), |answer| answer.err()), Some(Refusal::Unknown), "not built for it");
    let wrong = Ask::Hello { version: VERSION + 1 };
    assert_eq!(bench.ask(wrong, |answer| answer.err()), Some(Refusal::Version));
    assert_eq!(bench.ask(Ask::Counters, |answer| answer.err()), Some(Refusal::Stranger));
}

#[test]
fn every_check_can_fail_and_a_fault_is_latched_across_restarts() {
    let mut whole = bench(well());
    whole.settle();
    whole.hello();
    assert!(whole.ask(Ask::SelfTest, |answer| matches!(answer, Ok(Answer::Done))));
    assert_eq!(whole.settle(), State::Ready);
    for at in 0..Check::ALL.len() {
        let (check, outcome) = whole.app.checks.outcome(at).unwrap();
        assert_eq!(outcome.passed, Some(true), "{}: {:?}", check.name(), outcome.found);
    }
    for check in Check::ALL {
        let mut bench = bench(well());
        bench.settle();
        bench.app.checks().spoil(Some(check));
        bench.hello();
        assert!(bench.ask(Ask::SelfTest, |answer| answer.is_ok()));
        assert_eq!(bench.settle(), State::Fault, "{} cannot fail", check.name());
        assert_eq!(bench.app.record().fault(), Some(check as u8), "{}", check.name());
        assert_eq!((bench.board.0.borrow().lines, bench.board.0.borrow().safe), ([false, false, true], true));
        assert_eq!(bench.classify(golden_image(0)), Err(Refusal::Fault));
        let (record, kept) = bench.app.record().sealed().after_restart();
        assert!(kept);
        let mut after = self::bench(record);
        assert_eq!((after.settle(), after.board.0.borrow().lines[2]), (State::Fault, true));
    }
}

#[test]
fn what_no_board_has_is_not_run_and_what_is_overwritten_is_a_fault() {
    let mut bench = bench(Record::new());
    assert_eq!(bench.settle(), State::Ready);
    for check in [Check::Ram, Check::Watchdog] {
        assert_eq!(bench.app.checks.outcome(check as usize).unwrap().1.passed, None, "{}", check.name());
    }
    bench.hello();
    bench.board.0.borrow_mut().bounds_broken = true;
    assert_eq!(bench.classify(golden_image(0)), Err(Refusal::Fault));
    assert_eq!(bench.app.record().fault(), Some(Check::Bounds as u8));
    let missed = self::bench(well().with_bite(crate::latch::BITE_MISSED)).settle();
    assert_eq!(missed, State::Fault, "a watchdog that does not bite");
    let bad = self::bench(well().with_ram(0x2000_0040)).settle();
    assert_eq!(bad, State::Fault, "a bad word of memory");
    assert!(!Reference { mean: 1.0, std: 0.1 }.agrees(2.0));
}

#[test]
fn random_and_mutated_frames_never_stop_it() {
    let mut bench = bench(well());
    bench.settle();
    let mut state = 1u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    for round in 0..10_000 {
        let mut line = vec![0; MAX_FRAME];
        let ask = match next() % 10 {
            0 => Ask::Hello { version: VERSION },
            1 => Ask::Info,
            2 => Ask::Picture { at: (next() % 900) as u32, bytes: &[7; 40] },
            3 => Ask::Classify { crc: next() as u32 },
            4 => Ask::Vector { which: Vector::Mu, from: (next() % 90) as u16 },
            5 => Ask::Counters,
            6 => Ask::Check(next() as u8),
            7 => Ask::Label(next() as u16),
            8 => Ask::Inject(next() as u8),
            _ => Ask::Picture { at: 0, bytes: &[] },
        };
        let request = Request { number: next() as u32, ask };
        let len = frame::write(&request, (&mut line[..]).try_into().unwrap()).unwrap();
        line.truncate(len);
        match next() % 4 {
            0 => {
                let at = next() % len;
                line[at] ^= 1 << (next() % 8);
            }
            1 => line.truncate(next() % len),
            2 => line = (0..next() % 700).map(|_| next() as u8).collect(),
            _ => {}
        }
        line.iter().for_each(|byte| {
            bench.app.hear(*byte);
        });
        if round % 100 == 0 {
            bench.app.overrun(3);
        }
        bench.app.step();
    }
    bench.app.hear(0);
    bench.board.0.borrow_mut().sent.clear();
    bench.settle();
    bench.number = 0x1000;
    bench.hello();
    assert!(bench.classify(golden_image(0)).is_ok());
    let counters = bench.counters();
    assert!(counters.damaged > 2000 && counters.overrun == 300, "{}", format!("{counters:?}"));
}
