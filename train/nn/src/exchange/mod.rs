//! A mini-batch that several processes share.
//!
//! Each *rank* computes whole tasks of it. Partial sums are added in the order of tasks, whichever rank has them, so that all ranks
//! come to the bits of one process. What ranks tell each other goes through an [`Exchange`]; nothing else knows of them.
//!
//! | file | what it holds |
//! |---|---|
//! | `share` | which images are a rank's; sums over all tasks, values of all images |
//! | `later` | sums that are needed only at the end of a pass, and travel while it goes on |
//! | `talk` | whether ranks agree, are well, or were asked to stop |
//! | `meter` | bytes and seconds of an exchange |
//! | `threads` | ranks that are threads, for tests |

mod later;
mod meter;
mod share;
mod talk;
mod threads;

pub use meter::{Measured, Metered};
pub use share::Share;
pub use talk::{all_same, all_well, any_says, gather_texts, total};
pub use threads::{Threads, on_threads};

pub(crate) use later::{Later, Sum, add_weights};
pub(crate) use share::add_parts;

use anyhow::Result;
use bytemuck::Pod;
use std::fmt::Debug;
use std::ops::Range;

/// Messages that do not wait for each other: each arrives in the order in which it was posted on its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Running sums, to the next rank.
    Sums,
    /// Sums that are whole, around all ranks.
    Totals,
}

impl Lane {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Sums, Self::Totals];
}

/// Bytes that may be posted and not taken yet, of one rank.
pub const POSTED: usize = 160 << 20;

/// What ranks tell each other.
pub trait Exchange: Debug + Send + Sync {
    /// How many there are.
    fn ranks(&self) -> usize;

    /// Which one this is.
    fn rank(&self) -> usize;

    /// Which one this is among those on its machine.
    fn local_rank(&self) -> usize {
        0
    }

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

    /// Brings the bytes of all ranks to every rank: `all` are those of rank 0, 1, ... side by side, each ending where `ends` says, and
    /// this rank's are there already.
    ///
    /// # Errors
    /// If a rank is gone.
    fn gather(&self, all: &mut [u8], ends: &[usize]) -> Result<()> {
        (0..self.ranks()).try_for_each(|rank| self.broadcast(rank, &mut all[place(ends, rank)]))
    }

    /// Sends bytes to another rank without waiting for it to take them; at most [`POSTED`] wait.
    ///
    /// # Errors
    /// If that rank is gone.
    fn post(&self, lane: Lane, to: usize, bytes: &[u8]) -> Result<()>;

    /// Takes as many bytes as another rank has posted, or waits for them where told to; whether they came.
    ///
    /// # Errors
    /// If that rank is gone, or posted another number.
    fn take(&self, lane: Lane, from: usize, bytes: &mut [u8], wait: bool) -> Result<bool>;
}

/// Where the part of a rank stands among parts that end at `ends`.
pub fn place(ends: &[usize], rank: usize) -> Range<usize> {
    let begin = if rank == 0 { 0 } else { ends[rank - 1] };
    begin..ends[rank]
}

/// As many values of every rank, in their order.
///
/// # Errors
/// If a rank is gone.
pub(crate) fn each_rank<T: Pod>(exchange: &dyn Exchange, own: &[T]) -> Result<Vec<T>> {
    let mut all = vec![T::zeroed(); exchange.ranks() * own.len()];
    all[exchange.rank() * own.len()..][..own.len()].copy_from_slice(own);
    let ends: Vec<usize> = (1..=exchange.ranks()).map(|ranks| ranks * size_of_val(own)).collect();
    exchange.gather(bytemuck::cast_slice_mut(&mut all), &ends)?;
    Ok(all)
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

    fn post(&self, _: Lane, to: usize, bytes: &[u8]) -> Result<()> {
        self.send(to, bytes)
    }

    fn take(&self, _: Lane, from: usize, bytes: &mut [u8], _: bool) -> Result<bool> {
        self.receive(from, bytes).map(|()| true)
    }
}
