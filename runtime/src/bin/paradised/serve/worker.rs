//! The one thread that owns a model's back end, behind a bounded queue. A picture that makes the back end panic costs its own
//! answer: the worker takes a fresh back end and goes on, and the loss is counted.

use super::meters::Meters;
use crate::gpio::Pins;
use paradise_picture::{Picture, PictureError};
use paradise_runtime::oip::Pictures;
use paradise_runtime::pipeline::BackendError;
use paradise_runtime::{Backend, Rule, Verdict};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Instant;
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
    /// Since when they wait.
    pub since: Instant,
    /// A verdict each, or why there is none.
    pub reply: oneshot::Sender<Result<Vec<Verdict>, Failure>>,
}

/// What the worker's condition is.
#[derive(Debug, Default)]
pub struct Health {
    /// Whether it takes no more pictures.
    down: AtomicBool,
    /// How often its back end was replaced.
    replaced: AtomicU64,
}

impl Health {
    /// Whether pictures are answered.
    pub fn is_up(&self) -> bool {
        !self.down.load(Ordering::Relaxed)
    }

    /// How often a back end was replaced.
    pub fn replaced(&self) -> u64 {
        self.replaced.load(Ordering::Relaxed)
    }
}

/// What a worker's requests may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests that may wait.
    pub waiting: usize,
    /// Most bytes of memory while a picture is decoded.
    pub decoded: u64,
}

/// The sending end; cloning shares the queue.
#[derive(Clone)]
pub struct Queue(SyncSender<Job>);

/// Why a picture was not queued.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// As many wait as may.
    Full,
    /// The worker is gone.
    Stopped,
}

impl Queue {
    /// Queues a picture without waiting.
    pub fn push(&self, job: Job) -> Result<(), Refused> {
        self.0.try_send(job).map_err(|e| match e {
            TrySendError::Full(_) => Refused::Full,
            TrySendError::Disconnected(_) => Refused::Stopped,
        })
    }
}

/// Sets the health down when the worker ends, however it does.
struct Ended(Arc<Health>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.down.store(true, Ordering::Relaxed);
    }
}

/// Starts the worker over a back end; where that is lost, `fresh` loads another. It ends when every queue handle is dropped and what
/// waits is answered, or when no back end can be loaded.
pub fn start(
    mut backend: Box<dyn Backend>,
    mut fresh: impl FnMut() -> anyhow::Result<Box<dyn Backend>> + Send + 'static,
    rule: Rule,
    mut pins: Pins,
    limits: Limits,
    meters: Meters,
) -> (Queue, Arc<Health>) {
    let (sender, receiver): (_, Receiver<Job>) = sync_channel(limits.waiting);
    let health = Arc::new(Health::default());
    let ended = Ended(health.clone());
    std::thread::spawn(move || {
        let ended = ended;
        for job in receiver {
            let (waited, began) = (job.since.elapsed(), Instant::now());
            // What a panic leaves behind is dropped whole.
            let run =
                AssertUnwindSafe(|| answer(backend.as_mut(), &job.pictures, (&rule, limits.decoded), &mut pins));
            let (outcome, lost) = match catch_unwind(run) {
                Ok(outcome) => (outcome, false),
                Err(_) => {
                    ended.0.replaced.fetch_add(1, Ordering::Relaxed);
                    show(&mut pins, None);
                    (Err(Failure::Worker("the back end failed on this picture and was replaced".into())), true)
                }
            };
            meters.computed(waited, began.elapsed());
            // The client may have gone; its answer is then nobody's.
            let _ = job.reply.send(outcome);
            if lost {
                meters.lost();
                match fresh() {
                    Ok(next) => {
                        backend = next;
                        tracing::error!("a picture made the back end panic; it was replaced");
                    }
                    Err(error) => {
                        tracing::error!("the back end is lost and no other can be loaded: {error:#}");
                        return;
                    }
                }
            }
        }
    });
    (Queue(sender), health)
}

/// A verdict on each picture; the pins show each in turn.
fn answer(
    backend: &mut dyn Backend,
    pictures: &Pictures,
    (rule, most): (&Rule, u64),
    pins: &mut Pins,
) -> Result<Vec<Verdict>, Failure> {
    let mut shown = |number: usize, many: bool, outcome: Result<Verdict, BackendError>| {
        show(pins, outcome.as_ref().ok());
        outcome.map_err(|error| match error {
            BackendError::Picture(why) if many => Failure::Picture(format!("picture {number}: {why}")),
            BackendError::Picture(why) => Failure::Picture(why.to_string()),
            error => Failure::Worker(error.to_string()),
        })
    };
    match pictures {
        Pictures::Encoded(files) => {
            let many = files.len() > 1;
            let files = files.iter().enumerate();
            files
                .map(|(i, bytes)| {
                    let fits = room(bytes, most).map_err(BackendError::Picture);
                    shown(i, many, fits.and_then(|()| backend.picture(bytes, Some(rule))))
                })
                .collect()
        }
        Pictures::Ready(inputs) => {
            let mut each = 1;
            backend.with_model(&mut |model| each = model.header().input.len() as usize);
            let inputs = inputs.chunks(each).enumerate();
            inputs.map(|(i, input)| shown(i, true, backend.verdict(input, Some(rule)))).collect()
        }
    }
}

/// Refuses a picture whose decoding may take more memory than this.
fn room(bytes: &[u8], most: u64) -> Result<(), PictureError> {
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

fn show(pins: &mut Pins, verdict: Option<&Verdict>) {
    if let Err(error) = pins.show(verdict) {
        tracing::error!("GPIO: {error:#}");
    }
}

#[cfg(test)]
mod tests {
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

    fn ask(queue: &Queue) -> Result<Result<Vec<Verdict>, Failure>, Refused> {
        let (reply, receive) = oneshot::channel();
        queue.push(Job {
            pictures: Pictures::Encoded(vec![b"P5 1 1 255\n\0".to_vec()]),
            since: Instant::now(),
            reply,
        })?;
        Ok(receive.blocking_recv().expect("an answer"))
    }

    fn never() -> Rule {
        Rule::from(Thresholds::NEVER)
    }

    const FEW: Limits = Limits { waiting: 4, decoded: 1 << 24 };

    fn fragile() -> Box<dyn Backend> {
        Box::new(Fragile)
    }

    /// Waits for the worker's end.
    fn has_ended(health: &Health) -> bool {
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while health.is_up() && std::time::Instant::now() < until {
            std::thread::yield_now();
        }
        !health.is_up()
    }

    #[test]
    fn a_lost_back_end_is_replaced_and_counted() {
        let (queue, health) =
            start(fragile(), || Ok(fragile()), never(), Pins::open(None).unwrap(), FEW, Meters::new("m", "1"));
        for lost in 1..4 {
            assert!(matches!(ask(&queue), Ok(Err(Failure::Worker(_)))));
            assert!(health.is_up());
            assert_eq!(health.replaced(), lost);
        }
        drop(queue);
        assert!(has_ended(&health));
    }

    #[test]
    fn without_a_back_end_the_worker_is_down_and_says_so() {
        let fresh = || anyhow::bail!("the bundle is gone");
        let (queue, health) = start(fragile(), fresh, never(), Pins::open(None).unwrap(), FEW, Meters::new("m", "1"));
        assert!(matches!(ask(&queue), Ok(Err(Failure::Worker(_)))));
        assert!(has_ended(&health));
        assert_eq!(ask(&queue), Err(Refused::Stopped));
    }
}
