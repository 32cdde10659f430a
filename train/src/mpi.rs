//! Ranks that a cluster's launcher started (`mpirun`, `srun`): MPI's messages as an [`Exchange`].

use ::mpi::datatype::PartitionMut;
use ::mpi::environment::Universe;
use ::mpi::point_to_point::Status;
use ::mpi::topology::SimpleCommunicator;
use ::mpi::traits::*;
use ::mpi::{Count, Tag, Threading};
use anyhow::{Context, Result, ensure};
use paradise_nn::exchange::{Exchange, Lane, POSTED, place};
use std::sync::Arc;

/// Bytes of a message at most: MPI counts them in 31 bits.
const MESSAGE: usize = 1 << 30;

/// This process as one of MPI's; leaves them when dropped.
pub struct Joined {
    _universe: Universe,
    /// All of them.
    pub world: Arc<dyn Exchange>,
}

impl Joined {
    /// Joins the processes of the launcher; alone where there is none.
    ///
    /// # Errors
    /// If MPI was joined before, or cannot be called from several threads in turn.
    pub fn new() -> Result<Self> {
        let (mut universe, threads) =
            ::mpi::initialize_with_threading(Threading::Serialized).context("MPI was joined before")?;
        ensure!(threads >= Threading::Serialized, "this MPI can only be called from one thread ({threads:?})");
        // What is posted is copied there; each message has a head of its own.
        universe.set_buffer_size(POSTED + POSTED / 8);
        let world = SimpleCommunicator::world();
        let (rank, ranks) = (usize::try_from(world.rank())?, usize::try_from(world.size())?);
        let local_rank = usize::try_from(world.split_shared(world.rank()).rank())?;
        Ok(Self { _universe: universe, world: Arc::new(World { rank, ranks, local_rank }) })
    }

    /// Ends all processes at once: what one of them does where it cannot go on and the others may be waiting for it.
    pub fn end_all(&self, code: i32) -> ! {
        SimpleCommunicator::world().abort(code)
    }
}

/// All processes of the launcher. A communicator is bound to a thread, so each call takes one; operations call in turn, since each
/// needs what the last one brought.
#[derive(Debug)]
struct World {
    rank: usize,
    ranks: usize,
    /// Among those that share this one's memory.
    local_rank: usize,
}

/// A rank in MPI's numbers.
fn number(rank: usize) -> Result<i32> {
    i32::try_from(rank).with_context(|| format!("rank {rank} is past MPI's numbers"))
}

/// What marks the messages of a lane; those that are sent have 0.
fn tag(lane: Lane) -> Tag {
    1 + lane as Tag
}

/// Refuses a message of another length.
fn check(from: usize, status: &Status, len: usize) -> Result<()> {
    let got = status.count(u8::equivalent_datatype());
    ensure!(usize::try_from(got)? == len, "rank {from} sent {got} bytes instead of {len}");
    Ok(())
}

impl Exchange for World {
    fn ranks(&self) -> usize {
        self.ranks
    }

    fn rank(&self) -> usize {
        self.rank
    }

    fn local_rank(&self) -> usize {
        self.local_rank
    }

    // MPI's own handler ends all processes where one is gone.

    fn send(&self, to: usize, bytes: &[u8]) -> Result<()> {
        let world = SimpleCommunicator::world();
        let process = world.process_at_rank(number(to)?);
        bytes.chunks(MESSAGE).for_each(|part| process.send(part));
        Ok(())
    }

    fn receive(&self, from: usize, bytes: &mut [u8]) -> Result<()> {
        let world = SimpleCommunicator::world();
        let process = world.process_at_rank(number(from)?);
        for part in bytes.chunks_mut(MESSAGE) {
            let status = process.receive_into_with_tag(part, 0);
            check(from, &status, part.len())?;
        }
        Ok(())
    }

    fn broadcast(&self, from: usize, bytes: &mut [u8]) -> Result<()> {
        let world = SimpleCommunicator::world();
        let process = world.process_at_rank(number(from)?);
        bytes.chunks_mut(MESSAGE).for_each(|part| process.broadcast_into(part));
        Ok(())
    }

    fn gather(&self, all: &mut [u8], ends: &[usize]) -> Result<()> {
        if all.is_empty() {
            return Ok(());
        }
        if all.len() > MESSAGE {
            return (0..self.ranks).try_for_each(|rank| self.broadcast(rank, &mut all[place(ends, rank)]));
        }
        let places = || (0..self.ranks).map(|rank| place(ends, rank));
        let counts: Vec<Count> = places().map(|p| Count::try_from(p.len())).collect::<Result<_, _>>()?;
        let begins: Vec<Count> = places().map(|p| Count::try_from(p.start)).collect::<Result<_, _>>()?;
        // Never without memory: the address of an empty vector is Open MPI's mark for a buffer that stands elsewhere.
        let mut own = Vec::with_capacity(all.len());
        own.extend_from_slice(&all[place(ends, self.rank)]);
        let mut parts = PartitionMut::new(all, counts, begins);
        SimpleCommunicator::world().all_gather_varcount_into(&own[..], &mut parts);
        Ok(())
    }

    fn post(&self, lane: Lane, to: usize, bytes: &[u8]) -> Result<()> {
        ensure!(bytes.len() <= MESSAGE, "a message of {} bytes cannot be posted", bytes.len());
        SimpleCommunicator::world().process_at_rank(number(to)?).buffered_send_with_tag(bytes, tag(lane));
        Ok(())
    }

    fn take(&self, lane: Lane, from: usize, bytes: &mut [u8], wait: bool) -> Result<bool> {
        let world = SimpleCommunicator::world();
        let process = world.process_at_rank(number(from)?);
        let status = if wait {
            process.receive_into_with_tag(bytes, tag(lane))
        } else {
            match process.immediate_matched_probe_with_tag(tag(lane)) {
                Some((message, _)) => message.matched_receive_into(bytes),
                None => return Ok(false),
            }
        };
        check(from, &status, bytes.len())?;
        Ok(true)
    }
}
