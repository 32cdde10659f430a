//! The processes that a cluster's launcher started together.

use anyhow::{Result, bail};
use paradise_nn::exchange::{Alone, Exchange};
use paradise_train::interrupt::Interrupted;
#[cfg(feature = "mpi")]
use paradise_train::mpi::Joined;
use std::sync::Arc;

/// What launchers tell a process of its number: Open MPI's, MPICH's and Slurm's own.
const SIZES: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"];

/// This process and those beside it.
pub struct Ranks {
    #[cfg(feature = "mpi")]
    joined: Option<Joined>,
    exchange: Arc<dyn Exchange>,
}

impl Ranks {
    /// Joins what a launcher started; alone without one.
    ///
    /// # Errors
    /// If MPI refuses, or this program was built without it and has others beside it.
    pub fn join() -> Result<Self> {
        let size = SIZES.iter().find_map(|name| std::env::var(name).ok()?.parse::<usize>().ok()).unwrap_or(1);
        if size == 1 {
            return Ok(Self {
                #[cfg(feature = "mpi")]
                joined: None,
                exchange: Arc::new(Alone),
            });
        }
        Self::among(size)
    }

    #[cfg(feature = "mpi")]
    fn among(size: usize) -> Result<Self> {
        let joined = Joined::new()?;
        let exchange = joined.world.clone();
        if exchange.ranks() != size {
            bail!(
                "the launcher started {size} processes, but MPI knows of {}: it is another MPI's launcher (with Slurm, try srun --mpi=pmix or pmi2)",
                exchange.ranks()
            );
        }
        Ok(Self { joined: Some(joined), exchange })
    }

    #[cfg(not(feature = "mpi"))]
    fn among(size: usize) -> Result<Self> {
        bail!("a launcher started {size} of these, which were built without MPI and would all do the same: make mpi")
    }

    /// How they talk.
    pub fn exchange(&self) -> &Arc<dyn Exchange> {
        &self.exchange
    }

    /// Whether this process speaks for all.
    pub fn speaks(&self) -> bool {
        self.exchange.rank() == 0
    }

    /// The outcome of work that all did; an error that others may not have ends them all.
    pub fn settle<T>(&self, outcome: Result<T>) -> Result<T> {
        #[cfg(feature = "mpi")]
        if let (Some(joined), Err(error)) = (&self.joined, &outcome)
            && !error.chain().any(|e| e.is::<Interrupted>())
        {
            eprintln!("train: rank {}: {error:#}", self.exchange.rank());
            joined.end_all(2);
        }
        match outcome {
            // All have stopped at the same step; one says so.
            Err(error) if error.chain().any(|e| e.is::<Interrupted>()) && !self.speaks() => {
                Err(error.context(Silent))
            }
            outcome => outcome,
        }
    }
}

/// An error of which another process has spoken.
#[derive(Debug)]
pub struct Silent;

impl std::fmt::Display for Silent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "as another rank says")
    }
}
