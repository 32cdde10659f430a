//! Ranks that are threads of one process.

use super::{Exchange, Lane};
use anyhow::{Context, Result, ensure};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};

/// Ranks that are threads of one process. An operation may wait for another rank, so each needs threads of its own.
#[derive(Debug)]
pub struct Threads {
    rank: usize,
    /// To each rank: what is sent, then what is posted on each lane.
    to: Vec<[Sender<Vec<u8>>; KINDS]>,
    from: Vec<[Mutex<Receiver<Vec<u8>>>; KINDS]>,
}

/// What is sent, and the lanes.
const KINDS: usize = 1 + Lane::ALL.len();

/// Messages that are sent.
const SENT: usize = 0;

fn posted(lane: Lane) -> usize {
    1 + lane as usize
}

impl Threads {
    /// So many ranks, in order.
    pub fn new(ranks: usize) -> Vec<Self> {
        let mut all: Vec<Self> = (0..ranks).map(|rank| Self { rank, to: Vec::new(), from: Vec::new() }).collect();
        for from in 0..ranks {
            for to in 0..ranks {
                let mut receivers = Vec::new();
                all[from].to.push(std::array::from_fn(|_| {
                    let (send, receive) = channel();
                    receivers.push(Mutex::new(receive));
                    send
                }));
                all[to].from.push(receivers.try_into().expect("a receiver of each kind"));
            }
        }
        all
    }

    fn put(&self, kind: usize, to: usize, bytes: &[u8]) -> Result<()> {
        self.to[to][kind].send(bytes.to_vec()).ok().with_context(|| format!("rank {to} is gone"))
    }

    fn get(&self, kind: usize, from: usize, bytes: &mut [u8], wait: bool) -> Result<bool> {
        let receiver = self.from[from][kind].lock().unwrap_or_else(PoisonError::into_inner);
        let there = match receiver.try_recv() {
            Err(TryRecvError::Empty) if wait => receiver.recv().ok(),
            Err(TryRecvError::Empty) => return Ok(false),
            outcome => outcome.ok(),
        };
        let there = there.with_context(|| format!("rank {from} is gone"))?;
        ensure!(there.len() == bytes.len(), "rank {from} sent {} bytes instead of {}", there.len(), bytes.len());
        bytes.copy_from_slice(&there);
        Ok(true)
    }
}

/// What `f` returns on each of so many ranks that are threads, in their order; each has a pool of one thread.
///
/// # Panics
/// If `f` does, or threads cannot be started.
pub fn on_threads<T: Send>(ranks: usize, f: impl Fn(Arc<dyn Exchange>) -> T + Sync) -> Vec<T> {
    let run = |exchange: Threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
        pool.install(|| f(Arc::new(exchange)))
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = Threads::new(ranks).into_iter().map(|exchange| scope.spawn(|| run(exchange))).collect();
        all.into_iter().map(|thread| thread.join().unwrap_or_else(|p| std::panic::resume_unwind(p))).collect()
    })
}

impl Exchange for Threads {
    fn ranks(&self) -> usize {
        self.to.len()
    }

    fn rank(&self) -> usize {
        self.rank
    }

    fn send(&self, to: usize, bytes: &[u8]) -> Result<()> {
        self.put(SENT, to, bytes)
    }

    fn receive(&self, from: usize, bytes: &mut [u8]) -> Result<()> {
        self.get(SENT, from, bytes, true).map(drop)
    }

    fn post(&self, lane: Lane, to: usize, bytes: &[u8]) -> Result<()> {
        self.put(posted(lane), to, bytes)
    }

    fn take(&self, lane: Lane, from: usize, bytes: &mut [u8], wait: bool) -> Result<bool> {
        self.get(posted(lane), from, bytes, wait)
    }

    fn broadcast(&self, from: usize, bytes: &mut [u8]) -> Result<()> {
        if self.rank == from {
            (0..self.ranks()).filter(|to| *to != from).try_for_each(|to| self.send(to, bytes))
        } else {
            self.receive(from, bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_that_is_gone_is_named() {
        let [one, two] = <[Threads; 2]>::try_from(Threads::new(2)).unwrap();
        drop(two);
        assert!(one.send(1, &[1]).unwrap_err().to_string().contains("rank 1"));
        assert!(one.receive(1, &mut [0]).unwrap_err().to_string().contains("rank 1"));
    }
}
