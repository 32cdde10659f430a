//! The one thread that owns the back end, behind a bounded queue.

use crate::gpio::Pins;
use paradise_engine::Thresholds;
use paradise_runtime::{Backend, Verdict};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// A picture that waits, and where its answer goes.
pub struct Job {
    /// The picture.
    pub bytes: Vec<u8>,
    /// Verdict, or why there is none.
    pub reply: oneshot::Sender<Result<Verdict, String>>,
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

/// Starts the worker. It ends when every queue handle is dropped and what waits is answered.
pub fn start(
    mut backend: Box<dyn Backend>,
    thresholds: Thresholds,
    mut pins: Pins,
    waiting: usize,
) -> (Queue, JoinHandle<()>) {
    let (sender, receiver): (_, Receiver<Job>) = sync_channel(waiting);
    let thread = std::thread::spawn(move || {
        for job in receiver {
            let outcome = backend.picture(&job.bytes, Some(&thresholds)).map_err(|e| e.to_string());
            if let Err(error) = pins.show(outcome.as_ref().ok()) {
                tracing::error!("GPIO: {error:#}");
            }
            // The client may have gone; its answer is then nobody's.
            let _ = job.reply.send(outcome);
        }
    });
    (Queue(sender), thread)
}
