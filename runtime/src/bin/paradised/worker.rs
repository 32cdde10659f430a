//! The one thread that owns the back end, behind a bounded queue. A picture that makes the back end panic costs its own
//! answer: the worker takes a fresh back end and goes on, and the loss is counted.

use crate::gpio::Pins;
use paradise_runtime::pipeline::BackendError;
use paradise_runtime::{Backend, Rule, Verdict};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// Why a picture has no verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Something is wrong with the picture.
    Picture(String),
    /// Something is wrong here.
    Worker(String),
}

/// A picture that waits, and where its answer goes.
pub struct Job {
    /// The picture.
    pub bytes: Vec<u8>,
    /// Verdict, or why there is none.
    pub reply: oneshot::Sender<Result<Verdict, Failure>>,
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

/// Starts the worker over a back end that `fresh` loads, and loads again where one is lost. It ends when every queue handle
/// is dropped and what waits is answered, or when no back end can be loaded.
pub fn start(
    mut fresh: impl FnMut() -> anyhow::Result<Box<dyn Backend>> + Send + 'static,
    rule: Rule,
    mut pins: Pins,
    waiting: usize,
) -> anyhow::Result<(Queue, JoinHandle<()>, Arc<Health>)> {
    let (sender, receiver): (_, Receiver<Job>) = sync_channel(waiting);
    let mut backend = fresh()?;
    let health = Arc::new(Health::default());
    let ended = Ended(health.clone());
    let thread = std::thread::spawn(move || {
        let ended = ended;
        for job in receiver {
            // What a panic leaves behind is dropped whole.
            let run = AssertUnwindSafe(|| backend.picture(&job.bytes, Some(&rule)));
            let (outcome, lost) = match catch_unwind(run) {
                Ok(Ok(verdict)) => (Ok(verdict), false),
                Ok(Err(error @ BackendError::Picture(_))) => (Err(Failure::Picture(error.to_string())), false),
                Ok(Err(error)) => (Err(Failure::Worker(error.to_string())), false),
                Err(_) => {
                    ended.0.replaced.fetch_add(1, Ordering::Relaxed);
                    (Err(Failure::Worker("the back end failed on this picture and was replaced".into())), true)
                }
            };
            if let Err(error) = pins.show(outcome.as_ref().ok()) {
                tracing::error!("GPIO: {error:#}");
            }
            // The client may have gone; its answer is then nobody's.
            let _ = job.reply.send(outcome);
            if lost {
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
    Ok((Queue(sender), thread, health))
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

    fn ask(queue: &Queue) -> Result<Result<Verdict, Failure>, Refused> {
        let (reply, receive) = oneshot::channel();
        queue.push(Job { bytes: b"P5 1 1 255\n\0".to_vec(), reply })?;
        Ok(receive.blocking_recv().expect("an answer"))
    }

    fn never() -> Rule {
        Rule::from(Thresholds::NEVER)
    }

    #[test]
    fn a_lost_back_end_is_replaced_and_counted() {
        let fresh = || Ok(Box::new(Fragile) as Box<dyn Backend>);
        let (queue, thread, health) = start(fresh, never(), Pins::open(None).unwrap(), 4).unwrap();
        for lost in 1..4 {
            assert!(matches!(ask(&queue), Ok(Err(Failure::Worker(_)))));
            assert!(health.is_up());
            assert_eq!(health.replaced(), lost);
        }
        drop(queue);
        thread.join().unwrap();
        assert!(!health.is_up());
    }

    #[test]
    fn without_a_back_end_the_worker_is_down_and_says_so() {
        let mut left = 1;
        let fresh = move || {
            anyhow::ensure!(left > 0, "the bundle is gone");
            left -= 1;
            Ok(Box::new(Fragile) as Box<dyn Backend>)
        };
        let (queue, thread, health) = start(fresh, never(), Pins::open(None).unwrap(), 4).unwrap();
        assert!(matches!(ask(&queue), Ok(Err(Failure::Worker(_)))));
        thread.join().unwrap();
        assert!(!health.is_up());
        assert_eq!(ask(&queue), Err(Refused::Stopped));
    }
}
