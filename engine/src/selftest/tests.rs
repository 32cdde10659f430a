use super::square::Square;
use super::trials::{Plan, Trials, broken_of, drift_of};
use super::*;
use crate::container::{self, BLOB};
use crate::golden::{KNOWN, MAGIC, VERSION, with_trials};
use std::{vec, vec::Vec};

const MODEL: &[u8] = include_bytes!("../../../models/fashion-mnist-small/model.pmq");
const GOLDEN: &[u8] = include_bytes!("../../../models/fashion-mnist-small/selftest.bin");

/// Runs a test to its end; the events and the last state.
fn run(model: &Model, golden: &Golden, arena: usize) -> (Vec<Event>, State<RunError>) {
    let (mut arena, mut floats) = (vec![0; arena], vec![0.0; model.float_len()]);
    let mut device = Scalar { model, memory: Workspace { arena: &mut arena, floats: &mut floats } };
    let mut test = SelfTest::new(golden);
    let mut events = Vec::new();
    while !test.is_over() {
        events.extend(test.step(&mut device));
    }
    (events, test.state())
}

#[test]
fn every_golden_image_is_answered() {
    let (model, golden) = (Model::parse(MODEL).unwrap(), Golden::parse(GOLDEN).unwrap());
    let arena = model.header().arena_bytes as usize;
    let (events, state) = run(&model, &golden, arena);
    assert_eq!(state, State::Done);
    assert_eq!(events.len(), golden.header().cases.len() + golden.header().probes.len());
    assert!(matches!(run(&model, &golden, arena - 1).1, State::Fault(Fault::Run(RunError::Arena { .. }))));
}

#[test]
fn probes_are_counted_as_they_are_and_too_few_right_are_a_fault() {
    let (model, good) = (Model::parse(MODEL).unwrap(), Golden::parse(GOLDEN).unwrap());
    let arena = model.header().arena_bytes as usize;
    let tallies: Vec<Tally> = run(&model, &good, arena)
        .0
        .into_iter()
        .filter_map(|event| if let Event::Probes(tally) = event { Some(tally) } else { None })
        .collect();
    assert_eq!(tallies.len(), good.header().probes.len());
    let (mut bytes, mut floats) = (vec![0; arena], vec![0.0; model.float_len()]);
    let mut memory = Workspace { arena: &mut bytes, floats: &mut floats };
    for (set, (tally, probes)) in tallies.iter().zip(good.header().probes.iter()).enumerate() {
        let each = good.header().image_bytes as usize;
        let right = good.bytes(probes.images).chunks_exact(each).enumerate().filter(|(i, image)| {
            let answer = classify(&model, image, &mut memory, &mut |_, _| {}).unwrap();
            answer.class as u32 == good.u32s(probes.labels).at(*i)
        });
        assert_eq!((tally.set, tally.n, tally.correct), (set, probes.n, right.count() as u16));
    }

    let mut bytes = GOLDEN.to_vec();
    let blob = container::open(GOLDEN, MAGIC, VERSION, KNOWN).unwrap().offset(BLOB).unwrap();
    let labels = good.header().probes.at(1).labels;
    for label in bytes[blob + labels.offset as usize..][..labels.len as usize].chunks_exact_mut(4) {
        label[0] = label[0].wrapping_add(1);
    }
    let seal = container::digest(&bytes);
    bytes[32..64].copy_from_slice(&seal);
    let wrong = Golden::parse(&bytes).unwrap();
    assert_eq!(run(&model, &wrong, arena).1, State::Fault(Fault::Probes { set: 1 }));
}

#[test]
fn a_driver_goes_on_past_a_fault_and_runs_a_part_alone() {
    let (model, golden) = (Model::parse(MODEL).unwrap(), Golden::parse(GOLDEN).unwrap());
    let arena = model.header().arena_bytes as usize;
    let (mut bytes, mut floats) = (vec![0; arena], vec![0.0; model.float_len()]);
    let mut device = Scalar { model: &model, memory: Workspace { arena: &mut bytes, floats: &mut floats } };
    let mut test = SelfTest::new(&golden);
    let last = golden.header().probes.len() - 1;
    test.seek(test.set(last));
    let mut events = 0;
    while !test.is_over() {
        events += usize::from(test.step(&mut device).is_some());
    }
    assert_eq!((events, test.state()), (1, State::Done));
}

#[test]
fn a_changed_model_is_a_fault_before_anything_runs() {
    let mut bytes = MODEL.to_vec();
    let good = Model::parse(MODEL).unwrap();
    bytes[good.blob_offset()] ^= 1;
    let bad = good.over_faulty_bytes(&bytes).unwrap();
    let (events, state) = run(&bad, &Golden::parse(GOLDEN).unwrap(), 1 << 20);
    assert_eq!((events.len(), state), (0, State::Fault(Fault::Model)));
}

/// A device of which one layer is off, or which keeps its layers to itself.
struct Other<'a, 'm> {
    inner: Scalar<'a, 'm>,
    wrong_layer: Option<usize>,
    exact: bool,
}

impl Subject for Other<'_, '_> {
    type Error = RunError;

    fn is_exact(&self) -> bool {
        self.exact
    }

    fn is_model(&self, hash: &[u8; 32]) -> bool {
        self.inner.is_model(hash)
    }

    fn shape(&self) -> Shape {
        self.inner.shape()
    }

    fn answer(
        &mut self,
        image: &[u8],
        layers: &mut dyn FnMut(usize, &[i8]),
        read: &mut dyn FnMut(&Answer),
    ) -> Result<usize, RunError> {
        let Some(wrong) = self.wrong_layer else {
            self.inner.answer(image, &mut |_, _| {}, read)?;
            return Ok(0);
        };
        let mut through = |layer: usize, output: &[i8]| match layer == wrong {
            true => layers(layer, &output[1..]),
            false => layers(layer, output),
        };
        self.inner.answer(image, &mut through, read)
    }
}

#[test]
fn a_layer_that_differs_is_named_and_floats_are_held_to_theirs() {
    let (model, golden) = (Model::parse(MODEL).unwrap(), Golden::parse(GOLDEN).unwrap());
    let end = |wrong_layer, exact| {
        let (mut bytes, mut floats) = (vec![0; model.header().arena_bytes as usize], vec![0.0; model.float_len()]);
        let memory = Workspace { arena: &mut bytes, floats: &mut floats };
        let mut device = Other { inner: Scalar { model: &model, memory }, wrong_layer, exact };
        let mut test = SelfTest::new(&golden);
        while !test.is_over() {
            test.step(&mut device);
        }
        test.state()
    };
    assert_eq!(end(Some(1), true), State::Fault(Fault::Layer { case: 0, layer: 1 }));
    assert_eq!(end(None, true), State::Done);
    // The int8 answers are not the float network's to four digits.
    assert!(matches!(end(None, false), State::Fault(Fault::Gap { case: 0, .. })));
}

#[test]
fn the_black_box_attack_stays_in_its_ball_breaks_what_is_fragile_and_repeats() {
    let (model, golden) = (Model::parse(MODEL).unwrap(), Golden::parse(GOLDEN).unwrap());
    let file = crate::lowered::lower(&model, crate::lowered::Layout::Dsp).unwrap();
    let lowered = Lowered::parse(&file).unwrap();
    let (mut arena, mut scratch) =
        (vec![0; lowered.model().header().arena_bytes as usize], vec![0; lowered.scratch_len()]);
    let set = golden.header().probes.at(0);
    let (each, shape) = (golden.header().image_bytes as usize, model.header().input);
    let mut broken = |eps: u8, seed: u32| {
        let mut device = Chip { lowered: &lowered, memory: Memory { arena: &mut arena, scratch: &mut scratch } };
        let mut count = 0;
        for (i, image) in golden.bytes(set.images).chunks_exact(each).enumerate().take(8) {
            let label = golden.u32s(set.labels).at(i) as usize;
            let mut attack = Square::new((image, shape), label, eps, 24, seed);
            let outcome = loop {
                let mut painted = vec![0u8; each];
                attack.paint(Some(5), &mut painted);
                assert!(painted.iter().zip(image).all(|(a, b)| a.abs_diff(*b) <= eps), "outside the ball");
                if let Some(outcome) = attack.step(&mut device).unwrap() {
                    break outcome;
                }
            };
            count += usize::from(outcome);
        }
        count
    };
    let wrong = broken(0, 1);
    assert!(wrong <= 2, "{wrong} of 8 clean images are wrong");
    assert!(broken(60, 1) > wrong + 3, "a large ball breaks most");
    assert_eq!(broken(24, 1), broken(24, 1));
}

#[test]
fn drift_is_a_mean_of_distances_that_agrees_with_its_own_draws() {
    let golden = Golden::parse(GOLDEN).unwrap();
    let image = golden.bytes(golden.header().cases.at(0).image);
    let mut noise = vec![0; image.len()];
    drift::noisy(image, 9, &mut noise);
    let changes: Vec<f64> = noise
        .iter()
        .zip(image)
        .filter(|(_, v)| (30..226).contains(*v))
        .map(|(a, b)| f64::from(*a) - f64::from(*b))
        .collect();
    let mean = changes.iter().sum::<f64>() / changes.len() as f64;
    let std = (changes.iter().map(|c| (c - mean) * (c - mean)).sum::<f64>() / changes.len() as f64).sqrt();
    assert!(mean.abs() < 2.0 && (7.0..10.0).contains(&std), "{mean} {std}");
    let reference = drift::Reference { mean: 10.0, std: 0.5 };
    assert!(reference.agrees(12.9) && !reference.agrees(13.1) && !reference.agrees(f32::NAN));
}

#[test]
fn trials_are_written_read_and_found_again() {
    let (model, golden) = (Model::parse(MODEL).unwrap(), Golden::parse(GOLDEN).unwrap());
    let file = crate::lowered::lower(&model, crate::lowered::Layout::Dsp).unwrap();
    let lowered = Lowered::parse(&file).unwrap();
    let (mut arena, mut scratch) =
        (vec![0; lowered.model().header().arena_bytes as usize], vec![0; lowered.scratch_len()]);
    let mut device = Chip { lowered: &lowered, memory: Memory { arena: &mut arena, scratch: &mut scratch } };
    let trials = Trials::of(&mut device, &golden, Plan::CHIP).unwrap();
    assert!((1..=4).contains(&trials.broken) && trials.drift.std > 0.0, "{trials:?}");
    let written = with_trials(GOLDEN, &trials).unwrap();
    let again = Golden::parse(&written).unwrap();
    assert_eq!(again.trials(), Ok(Some(trials)));
    assert!(again.header().cases.iter().eq(golden.header().cases.iter()));
    assert_eq!(broken_of(&mut device, &again, trials.plan, trials.eps), Ok(trials.broken));
    let fresh = drift_of(&mut device, &again, trials.plan.disturbed, 0xdead_beef).unwrap();
    assert!(trials.drift.agrees(fresh), "{fresh} {trials:?}");
    assert_eq!(with_trials(&written, &trials).unwrap(), written);
    let plan = Plan { attacked: 1000, ..trials.plan };
    assert!(with_trials(GOLDEN, &Trials { plan, ..trials }).is_err());
    let drift = drift::Reference { mean: f32::NAN, std: 1.0 };
    assert!(with_trials(GOLDEN, &Trials { drift, ..trials }).is_err());
}
