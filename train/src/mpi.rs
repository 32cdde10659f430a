//! Ranks that a cluster's launcher started (`mpirun`, `srun`): MPI's messages as an [`Exchange`].

use ::mpi::Threading;
use ::mpi::environment::Universe;
use ::mpi::topology::SimpleCommunicator;
use ::mpi::traits::*;
use anyhow::{Context, Result, ensure};
use paradise_nn::exchange::Exchange;
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
        let (universe, threads) =
            ::mpi::initialize_with_threading(Threading::Serialized).context("MPI was joined before")?;
        ensure!(threads >= Threading::Serialized, "this MPI can only be called from one thread ({threads:?})");
        let world = SimpleCommunicator::world();
        let (rank, ranks) = (usize::try_from(world.rank())?, usize::try_from(world.size())?);
        Ok(Self { _universe: universe, world: Arc::new(World { rank, ranks }) })
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
}

/// A rank in MPI's numbers.
fn number(rank: usize) -> Result<i32> {
    i32::try_from(rank).with_context(|| format!("rank {rank} is past MPI's numbers"))
}

impl Exchange for World {
    fn ranks(&self) -> usize {
        self.ranks
    }

    fn rank(&self) -> usize {
        self.rank
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
            let status = process.receive_into(part);
            let (got, len) = (status.count(u8::equivalent_datatype()), part.len());
            ensure!(usize::try_from(got)? == len, "rank {from} sent {got} bytes instead of {len}");
        }
        Ok(())
    }

    fn broadcast(&self, from: usize, bytes: &mut [u8]) -> Result<()> {
        let world = SimpleCommunicator::world();
        let process = world.process_at_rank(number(from)?);
        bytes.chunks_mut(MESSAGE).for_each(|part| process.broadcast_into(part));
        Ok(())
    }
}
