//! The processes that a cluster's launcher started together.

use anyhow::{Context, Result, bail, ensure};
use paradise_nn::exchange::{Alone, Exchange, any_says};
use paradise_support::team::{Shard, Team};
use paradise_train::interrupt::Interrupted;
#[cfg(feature = "mpi")]
use paradise_train::mpi::Joined;
use std::sync::Arc;
#[cfg(feature = "mpi")]
use std::time::Duration;

/// What launchers tell a process of its number: Open MPI's, MPICH's and Slurm's own.
const SIZES: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"];

/// Between two ranks that would say the same.
#[cfg(feature = "mpi")]
const TURN: Duration = Duration::from_millis(300);

/// How many processes a launcher started together; one without a launcher.
fn started() -> usize {
    SIZES.iter().find_map(|name| std::env::var(name).ok()?.parse().ok()).unwrap_or(1)
}

/// How many of them are on this machine, this one included.
pub fn beside_here() -> usize {
    let named = ["OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "SLURM_STEP_TASKS_PER_NODE"];
    let number = |text: String| -> Option<usize> {
        // Slurm's `2(x3),1`: the first nodes' is the largest.
        text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok().filter(|n| *n > 0)
    };
    named.iter().find_map(|name| number(std::env::var(name).ok()?)).unwrap_or(1)
}

/// Refuses work that is one process's where a launcher started several.
///
/// # Errors
/// With their number.
pub fn alone() -> Result<()> {
    let size = started();
    ensure!(
        size == 1,
        "a launcher started {size} of these, and all would do the same: only fit, sweep, evaluate and certify share their work"
    );
    Ok(())
}

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
        let size = started();
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
        if exchange.rank() > 0 {
            paradise_support::progress::hush();
        }
        Ok(Self { joined: Some(joined), exchange })
    }

    #[cfg(not(feature = "mpi"))]
    fn among(size: usize) -> Result<Self> {
        bail!("a launcher started {size} of these, which were built without MPI and would all do the same: make mpi")
    }

    /// This process's part of work in units: that of its rank, of the shard `text` (`2/4`, or `auto` for a task of a job array).
    ///
    /// # Errors
    /// If the text is no shard, or there is no array.
    pub fn team(&self, text: &str) -> Result<RankTeam> {
        let outer = if text == "auto" {
            let array = Shard::of_array(|name| std::env::var(name).ok())?;
            let beside = (self.exchange.ranks() > 1).then_some(Shard::WHOLE);
            array.or(beside).context("--shard auto: this is no task of a Slurm job array (no SLURM_ARRAY_TASK_ID)")?
        } else {
            Shard::parse(text)?
        };
        Ok(RankTeam { exchange: self.exchange.clone(), outer })
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
            && !Interrupted::ended(error)
        {
            // What all find wrong is said once: by the first, which ends the others before it is their turn.
            std::thread::sleep(TURN * self.exchange.rank().min(10) as u32);
            eprintln!("train: rank {}: {}", self.exchange.rank(), super::hint::with_hint(error));
            joined.end_all(2);
        }
        match outcome {
            // All have stopped at the same step; one says so.
            Err(error) if Interrupted::ended(&error) && !self.speaks() => Err(error.context(Silent)),
            outcome => outcome,
        }
    }
}

/// Ranks that share the units of a shard.
#[derive(Debug)]
pub struct RankTeam {
    exchange: Arc<dyn Exchange>,
    outer: Shard,
}

impl Team for RankTeam {
    fn shard(&self) -> Shard {
        self.outer.split(Shard { index: self.exchange.rank(), of: self.exchange.ranks() })
    }

    fn meet(&self, stopped: bool) -> Result<bool> {
        any_says(&*self.exchange, stopped)
    }

    fn local(&self) -> usize {
        self.exchange.local_rank()
    }

    fn concludes(&self) -> bool {
        self.exchange.rank() == 0
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
