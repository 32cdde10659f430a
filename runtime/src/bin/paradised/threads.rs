//! `--threads` and `--pin`: the back ends of threads that share an inference.

use crate::arguments::ThreadArguments;
use paradise_engine::{Answer, Model};
use paradise_runtime::int8::Int8;
use paradise_runtime::pipeline::BackendError;
use paradise_runtime::threads::Threads;
use paradise_runtime::{Backend, BackendKind, Bundle, load};

impl ThreadArguments {
    /// The threads, if this machine and the back end have them.
    pub fn threads(&self, kind: BackendKind) -> anyhow::Result<Threads> {
        anyhow::ensure!(
            kind == BackendKind::Int8 || (self.threads == 1 && self.pin.is_empty()),
            "--threads and --pin are for --backend int8"
        );
        Threads::new(self.threads.into(), &self.pin).map_err(|why| anyhow::anyhow!("--pin: {why}"))
    }
}

/// A back end for the calling thread, which takes its place.
pub fn loaded(threads: &Threads, bundle: &Bundle, kind: BackendKind) -> anyhow::Result<Box<dyn Backend>> {
    threads.take_place(0);
    match kind {
        BackendKind::Int8 => Ok(Box::new(threads.share(Int8::load(bundle)?, 0))),
        kind => Ok(load(bundle, kind)?),
    }
}

/// A worker's back end, whose thread takes its place when it first answers.
pub struct Placed {
    backend: Box<dyn Backend>,
    place: Option<(Threads, usize)>,
}

impl Placed {
    /// The back end of the `worker`-th worker.
    pub fn new(backend: Box<dyn Backend>, threads: &Threads, worker: usize) -> Self {
        Self { backend, place: Some((threads.clone(), worker)) }
    }
}

impl Backend for Placed {
    fn kind(&self) -> BackendKind {
        self.backend.kind()
    }

    fn with_model(&self, read: &mut dyn FnMut(&Model)) {
        self.backend.with_model(read);
    }

    fn answer(&mut self, input: &[u8], read: &mut dyn FnMut(&Model, &Answer)) -> Result<(), BackendError> {
        if let Some((threads, worker)) = self.place.take() {
            threads.take_place(worker);
        }
        self.backend.answer(input, read)
    }
}
