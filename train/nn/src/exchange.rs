//! A mini-batch that several processes share.
//!
//! Each *rank* computes whole tasks of it. Partial sums are added in the order of tasks, whichever rank has them, so that all ranks
//! come to the bits of one process. What ranks tell each other goes through an [`Exchange`]; nothing else knows of them.

use anyhow::{Context, Result, ensure};
use bytemuck::Pod;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

/// What ranks tell each other.
pub trait Exchange: Debug + Send + Sync {
    /// How many there are.
    fn ranks(&self) -> usize;

    /// Which one this is.
    fn rank(&self) -> usize;

    /// Sends bytes to another rank, where they arrive in this order.
    ///
    /// # Errors
    /// If that rank is gone.
    fn send(&self, to: usize, bytes: &[u8]) -> Result<()>;

    /// Waits for as many bytes of another rank.
    ///
    /// # Errors
    /// If that rank is gone, or sent another number.
    fn receive(&self, from: usize, bytes: &mut [u8]) -> Result<()>;

    /// Makes the bytes of every rank those of one.
    ///
    /// # Errors
    /// If a rank is gone.
    fn broadcast(&self, from: usize, bytes: &mut [u8]) -> Result<()>;
}

/// What each rank has to say, in their order.
///
/// # Errors
/// If a rank is gone.
pub fn gather_texts(exchange: &dyn Exchange, own: &str) -> Result<Vec<String>> {
    let (ranks, rank) = (exchange.ranks(), exchange.rank());
    if ranks == 1 {
        return Ok(vec![own.into()]);
    }
    let mut all = Vec::with_capacity(ranks);
    for from in 0..ranks {
        let mut len = if from == rank { own.len() as u64 } else { 0 };
        exchange.broadcast(from, bytemuck::bytes_of_mut(&mut len))?;
        let mut text = vec![0; usize::try_from(len)?];
        if from == rank {
            text.copy_from_slice(own.as_bytes());
        }
        if len > 0 {
            exchange.broadcast(from, &mut text)?;
        }
        all.push(String::from_utf8(text).with_context(|| format!("rank {from} sent no text"))?);
    }
    Ok(all)
}

/// The outcome of this rank, if all ranks are well.
///
/// # Errors
/// With this rank's own error, or the first other rank's and its number, so that none goes on alone.
pub fn all_well<T>(exchange: &dyn Exchange, own: Result<T>) -> Result<T> {
    if exchange.ranks() == 1 {
        return own;
    }
    let text = own.as_ref().err().map(|e| format!("{e:#}")).unwrap_or_default();
    let others = gather_texts(exchange, &text)?;
    let value = own?;
    match others.iter().position(|text| !text.is_empty()) {
        Some(rank) => anyhow::bail!("rank {rank}: {}", others[rank]),
        None => Ok(value),
    }
}

/// Refuses ranks that differ.
///
/// # Errors
/// With what differs, and the first two that do.
pub fn all_same(exchange: &dyn Exchange, what: &str, own: &str) -> Result<()> {
    let all = gather_texts(exchange, own)?;
    match all.iter().position(|text| *text != all[0]) {
        Some(rank) => anyhow::bail!("{what} differs: rank 0 has {}, rank {rank} has {}", all[0], all[rank]),
        None => Ok(()),
    }
}

/// Whether any rank says so.
///
/// # Errors
/// If a rank is gone.
pub fn any_says(exchange: &dyn Exchange, own: bool) -> Result<bool> {
    if exchange.ranks() == 1 {
        return Ok(own);
    }
    let (rank, ranks) = (exchange.rank(), exchange.ranks());
    let mut said = [u8::from(own)];
    if rank > 0 {
        let mut before = [0];
        exchange.receive(rank - 1, &mut before)?;
        said[0] |= before[0];
    }
    if rank + 1 < ranks {
        exchange.send(rank + 1, &said)?;
    }
    exchange.broadcast(ranks - 1, &mut said)?;
    Ok(said[0] > 0)
}

/// A rank's share of a mini-batch: neighbouring images, in whole tasks.
///
/// Several copies of a batch may lie side by side, as images and their perturbations do; then a rank has the same images of each.
#[derive(Debug, Clone)]
pub struct Share {
    exchange: Arc<dyn Exchange>,
    /// Where each rank's images begin, and where the last one's end.
    bounds: Vec<usize>,
}

impl Share {
    /// Of a batch of `images` in tasks of `grain`.
    ///
    /// # Errors
    /// If there are fewer tasks than ranks, or the last task is not whole.
    pub fn new(exchange: Arc<dyn Exchange>, images: usize, grain: usize) -> Result<Self> {
        let ranks = exchange.ranks();
        if ranks == 1 {
            return Ok(Self { exchange, bounds: vec![0, images] });
        }
        ensure!(
            images.is_multiple_of(grain),
            "a batch of {images} images cannot be shared: it is not made of whole tasks of {grain}"
        );
        let tasks = images / grain;
        ensure!(tasks >= ranks, "a batch of {images} images has {tasks} tasks of {grain}, too few for {ranks} ranks");
        let bounds = (0..=ranks).map(|r| r * tasks / ranks * grain).collect();
        Ok(Self { exchange, bounds })
    }

    /// How many ranks share it.
    pub fn ranks(&self) -> usize {
        self.exchange.ranks()
    }

    /// The images of this rank.
    pub fn own(&self) -> Range<usize> {
        self.of(self.exchange.rank())
    }

    fn of(&self, rank: usize) -> Range<usize> {
        self.bounds[rank]..self.bounds[rank + 1]
    }

    /// Images of the whole batch.
    pub fn images(&self) -> usize {
        self.bounds[self.ranks()]
    }

    /// How many copies of a batch `n` images of this rank belong to.
    ///
    /// # Errors
    /// If they are no whole number of its shares.
    pub fn copies(&self, n: usize) -> Result<usize> {
        let own = self.own().len();
        ensure!(n > 0 && n.is_multiple_of(own), "{n} images of a rank whose share of a batch is {own}");
        Ok(n / own)
    }

    /// What `add(copy, total)` of all ranks makes of zeros, copy after copy and in each of them rank after rank; all ranks get it.
    ///
    /// # Errors
    /// If a rank is gone.
    pub fn in_turn<T: Pod>(&self, copies: usize, len: usize, mut add: impl FnMut(usize, &mut [T])) -> Result<Vec<T>> {
        let mut total = vec![T::zeroed(); len];
        let (rank, ranks) = (self.exchange.rank(), self.ranks());
        let turns = copies * ranks;
        for copy in 0..copies {
            let turn = copy * ranks + rank;
            if ranks > 1 && turn > 0 {
                self.exchange.receive((rank + ranks - 1) % ranks, bytemuck::cast_slice_mut(&mut total))?;
            }
            add(copy, &mut total);
            if ranks > 1 && turn + 1 < turns {
                self.exchange.send((rank + 1) % ranks, bytemuck::cast_slice(&total))?;
            }
        }
        if ranks > 1 {
            self.exchange.broadcast(ranks - 1, bytemuck::cast_slice_mut(&mut total))?;
        }
        Ok(total)
    }

    /// The values of all ranks, in the order of their images: `own` are `[copies][own images][each]`.
    ///
    /// # Errors
    /// If a rank is gone, or the number of values is another.
    pub fn gather<T: Pod>(&self, own: &[T], each: usize) -> Result<Vec<T>> {
        let copies = self.copies(own.len().checked_div(each).context("values of no length")?)?;
        let (mut all, images) = (vec![T::zeroed(); copies * self.images() * each], self.images());
        for copy in 0..copies {
            for rank in 0..self.ranks() {
                let place = self.of(rank);
                let to = &mut all[(copy * images + place.start) * each..(copy * images + place.end) * each];
                if rank == self.exchange.rank() {
                    to.copy_from_slice(&own[copy * to.len()..][..to.len()]);
                }
                if self.ranks() > 1 {
                    self.exchange.broadcast(rank, bytemuck::cast_slice_mut(to))?;
                }
            }
        }
        Ok(all)
    }

    /// This rank's part of values `[copies][images][each]`.
    pub fn part<T: Copy>(&self, all: &[T], each: usize) -> Vec<T> {
        let (own, images) = (self.own(), self.images());
        all.chunks_exact(images * each).flat_map(|copy| &copy[own.start * each..own.end * each]).copied().collect()
    }
}

/// One process, all by itself.
#[derive(Debug, Clone, Copy)]
pub struct Alone;

impl Exchange for Alone {
    fn ranks(&self) -> usize {
        1
    }

    fn rank(&self) -> usize {
        0
    }

    fn send(&self, to: usize, _: &[u8]) -> Result<()> {
        anyhow::bail!("there is no rank {to} beside this one")
    }

    fn receive(&self, from: usize, _: &mut [u8]) -> Result<()> {
        anyhow::bail!("there is no rank {from} beside this one")
    }

    fn broadcast(&self, _: usize, _: &mut [u8]) -> Result<()> {
        Ok(())
    }
}

/// Ranks that are threads of one process. An operation may wait for another rank, so each needs threads of its own.
#[derive(Debug)]
pub struct Threads {
    rank: usize,
    to: Vec<Sender<Vec<u8>>>,
    from: Vec<Mutex<Receiver<Vec<u8>>>>,
}

impl Threads {
    /// So many ranks, in order.
    pub fn new(ranks: usize) -> Vec<Self> {
        let mut all: Vec<Self> = (0..ranks).map(|rank| Self { rank, to: Vec::new(), from: Vec::new() }).collect();
        for from in 0..ranks {
            for to in 0..ranks {
                let (send, receive) = channel();
                all[from].to.push(send);
                all[to].from.push(Mutex::new(receive));
            }
        }
        all
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
        self.to[to].send(bytes.to_vec()).ok().with_context(|| format!("rank {to} is gone"))
    }

    fn receive(&self, from: usize, bytes: &mut [u8]) -> Result<()> {
        let receiver = self.from[from].lock().unwrap_or_else(PoisonError::into_inner);
        let there = receiver.recv().with_context(|| format!("rank {from} is gone"))?;
        ensure!(there.len() == bytes.len(), "rank {from} sent {} bytes instead of {}", there.len(), bytes.len());
        bytes.copy_from_slice(&there);
        Ok(())
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
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn sums_are_added_in_order_and_values_gathered(
            ranks in 1usize..6, tasks in 1usize..9, grain in 1usize..5, copies in 1usize..4,
            values in proptest::collection::vec(-1e3f32..1e3, 3 * 64 * 5),
        ) {
            let (tasks, each) = (tasks.max(ranks), 3);
            let images = tasks * grain;
            let value = |copy: usize, image: usize| values[(copy * images + image) % values.len()];
            // Not associative in f32: another order has other bits.
            let want = (0..copies).flat_map(|c| (0..images).map(move |i| (c, i))).fold(0.0, |sum: f32, (c, i)| sum + value(c, i));
            let found = on_threads(ranks, |exchange| {
                let share = Share::new(exchange, images, grain).unwrap();
                let sum = share
                    .in_turn(copies, 1, |copy, total: &mut [f32]| share.own().for_each(|i| total[0] += value(copy, i)))
                    .unwrap();
                let own: Vec<f32> = (0..copies)
                    .flat_map(|copy| share.own().flat_map(move |i| [value(copy, i); 3]))
                    .collect();
                let all = share.gather(&own, each).unwrap();
                (sum[0].to_bits(), share.part(&all, each) == own, all)
            });
            let all: Vec<f32> = (0..copies).flat_map(|c| (0..images).flat_map(move |i| [value(c, i); 3])).collect();
            for (sum, own, gathered) in found {
                prop_assert_eq!(sum, want.to_bits());
                prop_assert!(own && gathered == all);
            }
        }
    }

    #[test]
    fn what_cannot_be_shared_is_refused_with_its_numbers() {
        on_threads(3, |exchange| {
            let refused = |images, grain| Share::new(exchange.clone(), images, grain).unwrap_err().to_string();
            assert!(refused(16, 8).contains("16 images has 2 tasks of 8, too few for 3 ranks"));
            assert!(refused(100, 8).contains("whole tasks of 8"));
            let share = Share::new(exchange.clone(), 24, 8).unwrap();
            assert!(share.copies(12).is_err() && share.copies(0).is_err());
            assert_eq!(share.copies(16).unwrap(), 2);
        });
        let alone = Share::new(Arc::new(Alone), 100, 8).unwrap();
        assert_eq!((alone.own(), alone.images()), (0..100, 100));
    }

    #[test]
    fn ranks_agree_or_say_how_they_differ() {
        on_threads(3, |exchange| {
            let rank = exchange.rank();
            let exchange = &*exchange;
            assert!(!any_says(exchange, false).unwrap() && any_says(exchange, rank == 1).unwrap());
            assert_eq!(all_well(exchange, Ok(rank)).unwrap(), rank);
            let own = if rank == 2 { Err(anyhow::anyhow!("no such file")) } else { Ok(()) };
            let told = all_well(exchange, own).unwrap_err().to_string();
            assert_eq!(told, if rank == 2 { "no such file" } else { "rank 2: no such file" });
            all_same(exchange, "the version", "1").unwrap();
            let told = all_same(exchange, "the version", if rank == 1 { "2" } else { "1" }).unwrap_err().to_string();
            assert_eq!(told, "the version differs: rank 0 has 1, rank 1 has 2");
        });
    }

    #[test]
    fn a_rank_that_is_gone_is_named() {
        let [one, two] = <[Threads; 2]>::try_from(Threads::new(2)).unwrap();
        drop(two);
        assert!(one.send(1, &[1]).unwrap_err().to_string().contains("rank 1"));
        assert!(one.receive(1, &mut [0]).unwrap_err().to_string().contains("rank 1"));
    }
}
