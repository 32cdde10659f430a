//! The threads of a model, each with a back end of its own, behind a bounded queue. A picture that makes a back end panic costs its own
//! answer: the worker takes a fresh back end and goes on, and the loss is counted. A worker that hangs is given up for another.

use super::here::Here;
use super::lock::locked;
use super::meters::Meters;
use super::watched::Watched;
use crate::gpio::Pins;
use paradise_picture::{Picture, PictureError};
use paradise_runtime::oip::Pictures;
use paradise_runtime::pipeline::BackendError;
use paradise_runtime::{Backend, Rule, Verdict};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Why a picture has no verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Something is wrong with the picture.
    Picture(String),
    /// Something is wrong here.
    Worker(String),
}

/// Pictures that wait, and where the answer goes.
pub struct Job {
    /// The pictures.
    pub pictures: Pictures,
    /// Whether decoding them is short work.
    pub small: bool,
    /// Since when they wait.
    pub since: Instant,
    /// A verdict each, or why there is none.
    pub reply: oneshot::Sender<Result<Vec<Verdict>, Failure>>,
}

/// What the workers' condition is.
#[derive(Debug, Default)]
pub struct Health {
    /// Workers that take pictures.
    up: AtomicUsize,
    /// How often a back end was replaced.
    replaced: AtomicU64,
}

impl Health {
    /// Whether pictures are answered.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed) > 0
    }

    /// How often a back end was replaced.
    pub fn replaced(&self) -> u64 {
        self.replaced.load(Ordering::Relaxed)
    }
}

/// What a model's requests may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests that may wait.
    pub waiting: usize,
    /// Most bytes of memory while a picture is decoded.
    pub decoded: u64,
}

/// Loads a back end.
pub type Fresh = Arc<dyn Fn() -> anyhow::Result<Box<dyn Backend>> + Send + Sync>;

/// Why a picture was not queued.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// As many wait as may.
    Full,
    /// The worker is gone.
    Stopped,
}

/// What the workers of a model share.
struct Shared {
    /// Held by the one that waits for the next job.
    jobs: Mutex<Receiver<Job>>,
    fresh: Fresh,
    rule: Mutex<Arc<Rule>>,
    pins: Mutex<Pins>,
    limits: Limits,
    meters: Meters,
    watched: Arc<Watched>,
    health: Health,
    /// The clock of [`Desk::busy`].
    began: Instant,
    here: Here,
}

/// Where a worker sits.
#[derive(Default)]
struct Desk {
    /// Milliseconds, plus one, at which its job began; 0 while it waits.
    busy: AtomicU64,
    /// Whether it is no longer counted: it has ended, or was given up.
    gone: AtomicBool,
}

/// The workers of a model, behind its queue. They answer what waits and end when it is dropped.
pub struct Workers {
    queue: SyncSender<Job>,
    shared: Arc<Shared>,
    desks: Mutex<Vec<Arc<Desk>>>,
    /// Those who answer where they asked.
    callers: Mutex<Vec<Arc<Desk>>>,
}

impl Desk {
    /// Whether its job has taken longer than so many milliseconds.
    fn hangs(&self, now: u64, longest: u64) -> bool {
        let busy = self.busy.load(Ordering::Relaxed);
        busy != 0 && now.saturating_sub(busy) > longest
    }
}

impl Shared {
    fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64 + 1
    }

    /// A back end was lost.
    fn lost(&self) {
        self.health.replaced.fetch_add(1, Ordering::Relaxed);
        self.meters.lost();
    }

    /// A worker is no longer one: once.
    fn uncount(&self, desk: &Desk) {
        if !desk.gone.swap(true, Ordering::Relaxed) {
            self.health.up.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Whoever leaves a desk is uncounted, however that comes.
struct Seat(Arc<Shared>, Arc<Desk>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.uncount(&self.1);
    }
}

impl Workers {
    /// Starts a worker for each back end; those of `here` answer on the threads that ask. Where one is lost, `fresh` loads another.
    pub fn start(
        [backends, here]: [Vec<Box<dyn Backend>>; 2],
        fresh: Fresh,
        rule: Rule,
        pins: Pins,
        limits: Limits,
        (meters, watched): (Meters, Arc<Watched>),
    ) -> Self {
        let (queue, jobs) = sync_channel(limits.waiting);
        let (jobs, pins, health, began) = (Mutex::new(jobs), Mutex::new(pins), Health::default(), Instant::now());
        let shared = Arc::new(Shared {
            jobs,
            fresh,
            rule: Mutex::new(Arc::new(rule)),
            pins,
            limits,
            meters,
            watched,
            health,
            began,
            here: Here::new(here),
        });
        let workers = Self { queue, shared, desks: Mutex::default(), callers: Mutex::default() };
        for backend in backends {
            workers.seat(move |_| Ok(backend));
        }
        workers
    }

    /// A new worker with a back end that it loads.
    fn seat(&self, load: impl FnOnce(&Fresh) -> anyhow::Result<Box<dyn Backend>> + Send + 'static) {
        let desk = Arc::new(Desk::default());
        locked(&self.desks).push(desk.clone());
        self.shared.health.up.fetch_add(1, Ordering::Relaxed);
        let seat = Seat(self.shared.clone(), desk);
        std::thread::spawn(move || match load(&seat.0.fresh) {
            Ok(backend) => work(&seat, backend),
            Err(error) => tracing::error!("no back end can be loaded: {error:#}"),
        });
    }

    /// Answers small pictures at once, on this thread, if that is short.
    pub fn here(&self, pictures: &Pictures) -> Option<Result<Vec<Verdict>, Failure>> {
        let shared = &self.shared;
        if shared.watched.fault().is_some() {
            return None;
        }
        let mut backend = shared.here.take()?;
        let desk = Arc::new(Desk::default());
        let began = Instant::now();
        desk.busy.store(shared.now(), Ordering::Relaxed);
        locked(&self.callers).push(desk.clone());
        let (outcome, lost) = attempt(shared, backend.as_mut(), pictures);
        locked(&self.callers).retain(|other| !Arc::ptr_eq(other, &desk));
        let took = began.elapsed();
        shared.meters.computed(Duration::ZERO, took);
        // Without another there is one less here; the workers stay.
        if !lost {
            shared.here.give(backend);
            shared.here.took(took);
        } else if let Ok(fresh) = (shared.fresh)() {
            shared.here.give(fresh);
        }
        Some(outcome)
    }

    /// Callers that have computed for longer than this.
    pub fn callers_hung(&self, longest: Duration) -> usize {
        let (now, longest) = (self.shared.now(), longest.as_millis() as u64);
        locked(&self.callers).iter().filter(|desk| desk.hangs(now, longest)).count()
    }

    /// Queues pictures without waiting.
    pub fn push(&self, job: Job) -> Result<(), Refused> {
        if !self.is_up() {
            return Err(Refused::Stopped);
        }
        self.queue.try_send(job).map_err(|e| match e {
            TrySendError::Full(_) => Refused::Full,
            TrySendError::Disconnected(_) => Refused::Stopped,
        })
    }

    /// Whether they answer: one is there, and no fault was found.
    pub fn is_up(&self) -> bool {
        self.shared.health.is_up() && self.shared.watched.fault().is_none()
    }

    /// What decides about answers.
    pub fn rule(&self) -> Arc<Rule> {
        locked(&self.shared.rule).clone()
    }

    /// Decides otherwise from now on.
    pub fn decide_by(&self, rule: Rule) {
        *locked(&self.shared.rule) = Arc::new(rule);
    }

    /// Their condition.
    pub fn health(&self) -> &Health {
        &self.shared.health
    }

    /// Gives up workers that have had the same job for longer than this, each for a new one. A thread cannot be ended from
    /// outside: one that comes back after all ends then, its answer still its client's.
    pub fn replace_hung(&self, longest: Duration) {
        let (now, longest) = (self.shared.now(), longest.as_millis() as u64);
        let mut hung: Vec<Arc<Desk>> = Vec::new();
        locked(&self.desks).retain(|desk| {
            let keep = !desk.hangs(now, longest);
            if !keep {
                hung.push(desk.clone());
            }
            keep && !desk.gone.load(Ordering::Relaxed)
        });
        for desk in hung {
            self.shared.uncount(&desk);
            self.shared.lost();
            tracing::error!("a back end has computed for more than {longest} ms; it was replaced");
            self.seat(|fresh| fresh());
        }
    }
}

/// Takes jobs until the queue is closed, no back end can be loaded, or another sits here.
fn work(Seat(shared, desk): &Seat, mut backend: Box<dyn Backend>) {
    loop {
        let Ok(job) = locked(&shared.jobs).recv() else { return };
        let (waited, began) = (job.since.elapsed(), Instant::now());
        desk.busy.store(shared.now(), Ordering::Relaxed);
        let (outcome, lost) = attempt(shared, backend.as_mut(), &job.pictures);
        desk.busy.store(0, Ordering::Relaxed);
        shared.meters.computed(waited, began.elapsed());
        if job.small {
            shared.here.took(began.elapsed());
        }
        // The client may have gone; its answer is then nobody's.
        let _ = job.reply.send(outcome);
        if desk.gone.load(Ordering::Relaxed) {
            return;
        }
        if lost {
            match (shared.fresh)() {
                Ok(next) => {
                    backend = next;
                    tracing::error!("a picture made the back end panic; it was replaced");
                }
                Err(error) => {
                    return tracing::error!("the back end is lost and no other can be loaded: {error:#}");
                }
            }
        }
    }
}

/// [`answer`], and whether the back end was lost in it.
fn attempt(shared: &Shared, backend: &mut dyn Backend, pictures: &Pictures) -> (Result<Vec<Verdict>, Failure>, bool) {
    // What a panic leaves behind is dropped whole.
    match catch_unwind(AssertUnwindSafe(|| answer(backend, pictures, shared))) {
        Ok(outcome) => (outcome, false),
        Err(_) => {
            shared.lost();
            show(&shared.pins, None);
            (Err(Failure::Worker("the back end failed on this picture and was replaced".into())), true)
        }
    }
}

/// A verdict on each picture; the pins show each in turn.
fn answer(
    backend: &mut dyn Backend,
    pictures: &Pictures,
    Shared { rule, pins, limits, watched, .. }: &Shared,
) -> Result<Vec<Verdict>, Failure> {
    let shown = |number: usize, many: bool, outcome: Result<Verdict, BackendError>| {
        show(pins, outcome.as_ref().ok());
        outcome.map_err(|error| match error {
            BackendError::Picture(why) if many => Failure::Picture(format!("picture {number}: {why}")),
            BackendError::Picture(why) => Failure::Picture(why.to_string()),
            BackendError::Fault(why) => {
                watched.faults(why.clone());
                Failure::Worker(format!("fault: {why}"))
            }
            error => Failure::Worker(error.to_string()),
        })
    };
    let rule = locked(rule).clone();
    let judged = |backend: &mut dyn Backend, input: &[u8]| {
        watched.sees(input);
        let verdict = backend.verdict(input, Some(&rule))?;
        watched.answers(&verdict);
        Ok(verdict)
    };
    match pictures {
        Pictures::Encoded(files) => {
            let many = files.len() > 1;
            let files = files.iter().enumerate();
            files
                .map(|(i, bytes)| {
                    let fits = room(bytes, limits.decoded).map_err(BackendError::Picture);
                    let input = fits.and_then(|()| backend.input(bytes).map_err(BackendError::Picture));
                    shown(i, many, input.and_then(|input| judged(backend, &input)))
                })
                .collect()
        }
        Pictures::Ready(inputs) => {
            let mut each = 1;
            backend.with_model(&mut |model| each = model.header().input.len() as usize);
            let inputs = inputs.chunks(each).enumerate();
            inputs.map(|(i, input)| shown(i, true, judged(backend, input))).collect()
        }
    }
}

/// Refuses a picture whose decoding may take more memory than this.
pub fn room(bytes: &[u8], most: u64) -> Result<(), PictureError> {
    let need = Picture::memory(bytes)?;
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    if need <= most {
        return Ok(());
    }
    let [height, width] = Picture::size(bytes)?;
    Err(PictureError::Decode(format!(
        "{width} x {height} pixels take up to {} MiB to decode, and the limit is {} MiB (--max-decoded)",
        mib(need),
        mib(most)
    )))
}

fn show(pins: &Mutex<Pins>, verdict: Option<&Verdict>) {
    if let Err(error) = locked(pins).show(verdict) {
        tracing::error!("GPIO: {error:#}");
    }
}

#[cfg(test)]
mod tests;
