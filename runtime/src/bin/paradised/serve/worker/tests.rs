//! Workers and callers over back ends that panic, hang, or cannot be replaced.

use super::super::here::is_small;
use super::super::meters::Signs;
use super::super::watched::Watching;
use super::*;
use paradise_engine::Thresholds;
use paradise_engine::{Answer, Model};
use paradise_runtime::BackendKind;

/// Panics at whatever picture it gets.
struct Fragile;

impl Backend for Fragile {
    fn kind(&self) -> BackendKind {
        BackendKind::Int8
    }

    fn with_model(&self, _: &mut dyn FnMut(&Model)) {
        panic!("as this test wants");
    }

    fn answer(&mut self, _: &[u8], _: &mut dyn FnMut(&Model, &Answer)) -> Result<(), BackendError> {
        unreachable!("with_model comes first")
    }
}

/// Does not come back until it is told to.
struct Stuck(Arc<AtomicBool>);

impl Backend for Stuck {
    fn kind(&self) -> BackendKind {
        BackendKind::Int8
    }

    fn with_model(&self, _: &mut dyn FnMut(&Model)) {
        while !self.0.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        panic!("as this test wants");
    }

    fn answer(&mut self, _: &[u8], _: &mut dyn FnMut(&Model, &Answer)) -> Result<(), BackendError> {
        unreachable!("with_model comes first")
    }
}

type Outcome = Result<Vec<Verdict>, Failure>;

fn sent(workers: &Workers) -> Result<oneshot::Receiver<Outcome>, Refused> {
    let (reply, receive) = oneshot::channel();
    let pictures = Pictures::Encoded(vec![b"P5 1 1 255\n\0".to_vec()]);
    workers.push(Job { pictures, small: true, since: Instant::now(), reply })?;
    Ok(receive)
}

fn ask(workers: &Workers) -> Result<Outcome, Refused> {
    sent(workers).map(|receive| receive.blocking_recv().expect("an answer"))
}

fn fragile() -> Box<dyn Backend> {
    Box::new(Fragile)
}

fn workers(backend: Box<dyn Backend>, fresh: Fresh) -> Workers {
    staffed([vec![backend], Vec::new()], fresh)
}

fn staffed(backends: [Vec<Box<dyn Backend>>; 2], fresh: Fresh) -> Workers {
    let limits = Limits { waiting: 4, decoded: 1 << 24 };
    let (rule, pins) = (Rule::from(Thresholds::NEVER), Pins::open(None).unwrap());
    let bytes = include_bytes!("../../../../../../models/fashion-mnist-small/model.pmq");
    let watching = Watching { round: Duration::from_secs(60), longest: None };
    let signs = Signs::new("m", "1");
    let watched = Watched::new(&Model::parse(bytes).unwrap(), (None, &rule), None, watching, signs);
    Workers::start(backends, fresh, rule, pins, limits, (Meters::new("m", "1"), Arc::new(watched)))
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_lost_back_end_is_replaced_and_counted() {
    let workers = workers(fragile(), Arc::new(|| Ok(fragile())));
    for lost in 1..4 {
        assert!(matches!(ask(&workers), Ok(Err(Failure::Worker(_)))));
        assert!(workers.health().is_up());
        assert_eq!(workers.health().replaced(), lost);
    }
    let shared = workers.shared.clone();
    drop(workers);
    until("they end with their queue", || !shared.health.is_up());
}

#[test]
fn without_a_back_end_the_worker_is_down_and_says_so() {
    let workers = workers(fragile(), Arc::new(|| anyhow::bail!("the bundle is gone")));
    assert!(matches!(ask(&workers), Ok(Err(Failure::Worker(_)))));
    until("it is down", || !workers.health().is_up());
    assert!(matches!(ask(&workers), Err(Refused::Stopped)));
}

#[test]
fn a_worker_that_hangs_is_given_up_for_another() {
    let free = Arc::new(AtomicBool::new(false));
    let workers = workers(Box::new(Stuck(free.clone())), Arc::new(|| Ok(fragile())));
    let hung = sent(&workers).unwrap();
    until("it is busy", || locked(&workers.desks)[0].busy.load(Ordering::Relaxed) != 0);
    workers.replace_hung(Duration::from_secs(60));
    assert_eq!(workers.health().replaced(), 0);
    std::thread::sleep(Duration::from_millis(30));
    workers.replace_hung(Duration::from_millis(10));
    assert_eq!((workers.health().replaced(), workers.health().up.load(Ordering::Relaxed)), (1, 1));
    // Another answers, and what comes back after all is counted once.
    assert!(matches!(ask(&workers), Ok(Err(Failure::Worker(_)))));
    free.store(true, Ordering::Relaxed);
    assert!(matches!(hung.blocking_recv(), Ok(Err(Failure::Worker(_)))));
    assert_eq!(workers.health().up.load(Ordering::Relaxed), 1);
}

fn small() -> Pictures {
    Pictures::Ready(vec![0; 784])
}

#[test]
fn a_caller_whose_back_end_is_lost_gets_another_and_what_is_large_goes_to_the_workers() {
    let workers = staffed([vec![fragile()], vec![fragile()]], Arc::new(|| Ok(fragile())));
    assert!(!is_small(&Pictures::Ready(vec![0; 1 << 20])), "too large");
    assert!(!is_small(&Pictures::Encoded(vec![b"P5 4000 4000 255\n".to_vec()])), "too many pixels");
    assert!(is_small(&small()));
    for lost in 1..4 {
        assert!(matches!(workers.here(&small()), Some(Err(Failure::Worker(_)))));
        assert_eq!(workers.health().replaced(), lost);
    }
    workers.shared.watched.faults("as this test wants".into());
    assert!(workers.here(&small()).is_none() && matches!(ask(&workers), Err(Refused::Stopped)));
}

#[test]
fn what_takes_long_is_no_longer_answered_where_it_arrives() {
    let workers = staffed([vec![fragile()], vec![fragile()]], Arc::new(|| Ok(fragile())));
    assert!(workers.here(&small()).is_some());
    (0..50).for_each(|_| workers.shared.here.took(Duration::from_millis(5)));
    assert!(workers.here(&small()).is_none());
    (0..50).for_each(|_| workers.shared.here.took(Duration::from_micros(20)));
    assert!(workers.here(&small()).is_some());
}

#[test]
fn a_caller_that_hangs_is_counted() {
    let free = Arc::new(AtomicBool::new(false));
    let stuck: Box<dyn Backend> = Box::new(Stuck(free.clone()));
    let workers = staffed([vec![fragile()], vec![stuck]], Arc::new(|| Ok(fragile())));
    std::thread::scope(|scope| {
        let hung = scope.spawn(|| workers.here(&small()));
        until("it hangs", || workers.callers_hung(Duration::from_millis(20)) == 1);
        assert_eq!(workers.callers_hung(Duration::from_secs(60)), 0);
        // The other back ends go on.
        assert!(workers.here(&small()).is_none() && matches!(ask(&workers), Ok(Err(Failure::Worker(_)))));
        free.store(true, Ordering::Relaxed);
        assert!(matches!(hung.join().unwrap(), Some(Err(Failure::Worker(_)))));
    });
    assert_eq!(workers.callers_hung(Duration::ZERO), 0);
}
