//! How many threads share one inference, and on which cores they run.
//!
//! Threads that share an inference and are put on one core by the system wait for each other there, and a scheduler that finds them
//! both busy with something warm leaves them. So each has cores of its own: by default every so-manieth that the process may use, so
//! that the system still chooses; where it is asked for, one.

use crate::int8::Int8;
use paradise_engine::Team;

/// The threads of one inference.
///
/// ```
/// use paradise_runtime::threads::Threads;
/// assert_eq!(Threads::new(2, &[])?.count(), 2);
/// assert!(Threads::new(2, &[99_999]).is_err());
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone)]
pub struct Threads {
    count: usize,
    pin: Vec<usize>,
    /// Cores that the process might use when this was made.
    cores: Vec<usize>,
}

impl Threads {
    /// So many threads, tied to these cores in turn, if there are some.
    ///
    /// # Errors
    /// With the core that this process may not use.
    pub fn new(count: usize, pin: &[usize]) -> Result<Self, String> {
        let cores = cores();
        match pin.iter().find(|core| !cores.contains(core)) {
            Some(core) => Err(format!("this process may not run on core {core}; it may on {cores:?}")),
            None => Ok(Self { count: count.clamp(1, Team::MOST), pin: pin.to_vec(), cores }),
        }
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Where the `member`-th of the threads of a worker may run; empty where the system is to choose.
    fn place(&self, worker: usize, member: usize) -> Vec<usize> {
        if !self.pin.is_empty() {
            return vec![self.pin[(worker * self.count + member) % self.pin.len()]];
        }
        if self.count == 1 || self.count > self.cores.len() {
            return Vec::new();
        }
        self.cores.iter().copied().skip(member).step_by(self.count).collect()
    }

    /// Puts the calling thread where the first of a worker's threads is to run. Cores that have gone since cost speed and no answer.
    pub fn take_place(&self, worker: usize) {
        run_on(&self.place(worker, 0));
    }

    /// Who shares the inferences of a worker; the caller's thread is one of them.
    pub fn team(&self, worker: usize) -> Team {
        let own = self.clone();
        Team::starting(self.count, move |member| run_on(&own.place(worker, member)))
    }

    /// The engine whose inferences the threads of a worker share.
    pub fn share(&self, int8: Int8, worker: usize) -> Int8 {
        int8.with_team(self.team(worker))
    }
}

/// The cores that this process may use.
#[cfg(target_os = "linux")]
fn cores() -> Vec<usize> {
    use rustix::thread::{CpuSet, sched_getaffinity};
    let allowed = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect()
}

/// Ties the calling thread to some cores; to none means that the system chooses.
#[cfg(target_os = "linux")]
fn run_on(cores: &[usize]) {
    use rustix::thread::{CpuSet, sched_setaffinity};
    if cores.is_empty() {
        return;
    }
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    // Cores that have gone are no reason not to answer.
    let _ = sched_setaffinity(None, &set);
}

#[cfg(not(target_os = "linux"))]
fn cores() -> Vec<usize> {
    Vec::new()
}

#[cfg(not(target_os = "linux"))]
fn run_on(_: &[usize]) {}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads(count: usize, pin: &[usize], cores: &[usize]) -> Threads {
        Threads { count, pin: pin.to_vec(), cores: cores.to_vec() }
    }

    #[test]
    fn threads_of_an_inference_share_no_core() {
        let two = threads(2, &[], &[0, 1, 4, 5]);
        assert_eq!((two.place(0, 0), two.place(0, 1)), (vec![0, 4], vec![1, 5]));
        let pinned = threads(2, &[5, 4, 1], &[0, 1, 4, 5]);
        assert_eq!([(0, 0), (0, 1), (1, 0), (1, 1)].map(|(w, m)| pinned.place(w, m)[0]), [5, 4, 1, 5]);
        // More threads than cores, or one: nothing to keep apart.
        assert!(threads(3, &[], &[0, 1]).place(0, 2).is_empty() && threads(1, &[], &[0, 1]).place(0, 0).is_empty());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_thread_takes_its_place() {
        let core = *cores().last().unwrap();
        let taken = std::thread::spawn(move || {
            Threads::new(2, &[core]).unwrap().take_place(0);
            cores()
        });
        assert_eq!(taken.join().unwrap(), [core]);
    }
}
