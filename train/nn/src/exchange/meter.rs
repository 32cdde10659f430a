//! What an exchange costs.

use super::{Exchange, Lane, place};
use anyhow::Result;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// What was measured.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Measured {
    /// Bytes that this rank sent; of what goes to all ranks, what a ring sends.
    pub bytes: u64,
    /// Time in the exchange, waiting for other ranks included, seconds.
    pub seconds: f64,
}

/// An exchange that is measured.
#[derive(Debug)]
pub struct Metered {
    inner: Arc<dyn Exchange>,
    bytes: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Metered {
    /// Measures `inner` from now on.
    pub fn new(inner: Arc<dyn Exchange>) -> Self {
        Self { inner, bytes: AtomicU64::new(0), nanoseconds: AtomicU64::new(0) }
    }

    /// What was measured since the last call.
    pub fn lap(&self) -> Measured {
        let seconds = self.nanoseconds.swap(0, Ordering::Relaxed) as f64 / 1e9;
        Measured { bytes: self.bytes.swap(0, Ordering::Relaxed), seconds }
    }

    fn measure<T>(&self, bytes: usize, act: impl FnOnce(&dyn Exchange) -> Result<T>) -> Result<T> {
        let began = Instant::now();
        let outcome = act(&*self.inner);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.nanoseconds.fetch_add(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
        outcome
    }
}

impl Exchange for Metered {
    fn ranks(&self) -> usize {
        self.inner.ranks()
    }

    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn local_rank(&self) -> usize {
        self.inner.local_rank()
    }

    fn send(&self, to: usize, bytes: &[u8]) -> Result<()> {
        self.measure(bytes.len(), |inner| inner.send(to, bytes))
    }

    fn receive(&self, from: usize, bytes: &mut [u8]) -> Result<()> {
        self.measure(0, |inner| inner.receive(from, bytes))
    }

    fn broadcast(&self, from: usize, bytes: &mut [u8]) -> Result<()> {
        // The rank before the first one passes nothing on.
        let last = (from + self.ranks() - 1) % self.ranks() == self.rank();
        self.measure(if last { 0 } else { bytes.len() }, |inner| inner.broadcast(from, bytes))
    }

    fn gather(&self, all: &mut [u8], ends: &[usize]) -> Result<()> {
        // All but what the next rank had.
        let next = (self.rank() + 1) % self.ranks();
        self.measure(all.len() - place(ends, next).len(), |inner| inner.gather(all, ends))
    }

    fn post(&self, lane: Lane, to: usize, bytes: &[u8]) -> Result<()> {
        self.measure(bytes.len(), |inner| inner.post(lane, to, bytes))
    }

    fn take(&self, lane: Lane, from: usize, bytes: &mut [u8], wait: bool) -> Result<bool> {
        self.measure(0, |inner| inner.take(lane, from, bytes, wait))
    }
}

#[cfg(test)]
mod tests {
    use super::super::on_threads;
    use super::*;

    #[test]
    fn bytes_are_counted_once_and_time_passes() {
        let all = on_threads(3, |exchange| {
            let metered = Metered::new(exchange);
            metered.broadcast(1, &mut [0; 10]).unwrap();
            metered.gather(&mut [0; 6], &[1, 3, 6]).unwrap();
            metered.post(Lane::Sums, (metered.rank() + 1) % 3, &[0; 7]).unwrap();
            assert!(metered.take(Lane::Sums, (metered.rank() + 2) % 3, &mut [0; 7], true).unwrap());
            let measured = metered.lap();
            assert!(measured.seconds > 0.0 && metered.lap() == Measured::default());
            measured.bytes
        });
        assert_eq!(all, [4 + 7, 10 + 3 + 7, 10 + 5 + 7]);
    }
}
