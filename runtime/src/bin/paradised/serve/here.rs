//! Short requests are answered on the thread that received them: handing a picture to another thread and its answer back takes longer
//! than a small network. What is long, or may be, goes to the workers.

use super::lock::locked;
use paradise_picture::Picture;
use paradise_runtime::Backend;
use paradise_runtime::oip::Pictures;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A request that takes longer, on average of late, delays others too much.
const SHORT: Duration = Duration::from_micros(300);
/// Most bytes of a request, encoded or not.
const BYTES: usize = 64 << 10;
/// Most pixels of a picture that is decoded.
const PIXELS: usize = 128 * 128;
/// A new time counts for one in so many.
const WEIGHT: u64 = 8;

/// Back ends for it, one for each thread that receives.
pub struct Here {
    spare: Mutex<Vec<Box<dyn Backend>>>,
    /// Nanoseconds that such a request takes, on average of late.
    takes: AtomicU64,
}

impl Here {
    /// With these back ends.
    pub fn new(spare: Vec<Box<dyn Backend>>) -> Self {
        Self { spare: Mutex::new(spare), takes: AtomicU64::new(0) }
    }

    /// A back end, if small pictures are to be answered here.
    pub fn take(&self) -> Option<Box<dyn Backend>> {
        if self.takes.load(Ordering::Relaxed) > SHORT.as_nanos() as u64 {
            return None;
        }
        locked(&self.spare).pop()
    }

    /// The back end comes back, or another in its place.
    pub fn give(&self, backend: Box<dyn Backend>) {
        locked(&self.spare).push(backend);
    }

    /// Small pictures took this time, here or with a worker.
    pub fn took(&self, time: Duration) {
        let (time, takes) = (time.as_nanos() as u64, self.takes.load(Ordering::Relaxed));
        // Two threads may both count from the same: it is an average.
        self.takes.store(takes - takes / WEIGHT + time / WEIGHT, Ordering::Relaxed);
    }
}

/// Whether decoding these pictures is short work; how long the network takes is counted.
pub fn is_small(pictures: &Pictures) -> bool {
    match pictures {
        Pictures::Ready(input) => input.len() <= BYTES,
        Pictures::Encoded(files) => match &files[..] {
            [file] if file.len() <= BYTES => Picture::size(file)
                .is_ok_and(|[height, width]| (height as usize).saturating_mul(width as usize) <= PIXELS),
            _ => false,
        },
    }
}
