//! A few threads that share one inference: who is there takes part, who is not is not waited for.

// What is handed from thread to thread: each block says why it is still there.
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::boxed::Box;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::vec::Vec;

/// How long a thread looks for the next job before it sleeps: longer than what one thread does alone between two layers,
/// and than a busy service takes from one picture to the next.
const WATCHFUL: Duration = Duration::from_micros(150);

/// How much longer than its own work a caller waits for a helper before it believes that the system took it off its core.
const PATIENCE: Duration = Duration::from_micros(100);

/// Looks between two rests. A core that rests at every look is taken for one that waits for another virtual machine's, and a
/// hypervisor gives it away: from a few hundred cycles apart on it does not (Intel SDM 3C, "PAUSE-loop exiting").
const LOOKS: u32 = 32;

/// Jobs that it does alone then.
const ALONE: u32 = 100;

/// In [`Shared::state`]: how many helpers have joined the job, whether one may still join, and the number of the job.
const JOINED: u64 = 0xffff;
const OPEN: u64 = 1 << 16;
const JOB: u64 = 1 << 17;

/// What a job is: called by each member with its number.
type Work = dyn Fn(usize) + Sync;

struct Shared {
    state: AtomicU64,
    /// Helpers that have left the job.
    left: AtomicUsize,
    /// Written where no job is open and nobody is in one.
    work: UnsafeCell<*const Work>,
    asleep: Vec<AtomicBool>,
    panicked: AtomicBool,
    ended: AtomicBool,
}

// SAFETY: `work` is written by the one that holds the team while no job is open and nobody is in one, and read by those who
// have joined one; the state orders both.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

/// Threads that run the parts of one inference together: the caller's, and helpers of its own. Jobs take no lock and allocate
/// nothing; a helper sleeps when there has been none for a while.
///
/// ```
/// use paradise_engine::{Model, Memory, Prepared, Team, Watch};
/// let bytes = include_bytes!("../../../models/fashion-mnist-small/model.pmq");
/// let prepared = Prepared::new(&Model::parse(bytes).unwrap());
/// let mut alone = Memory::new(&prepared);
/// let mut together = Memory::with_team(&prepared, Team::new(2));
/// let image = [7; 28 * 28];
/// let one = alone.classify(&prepared, &image, Watch::Nobody).unwrap().mu.to_vec();
/// assert_eq!(together.classify(&prepared, &image, Watch::Nobody).unwrap().mu, one);
/// ```
pub struct Team {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    /// Jobs that the caller does alone, after a helper held it up.
    alone: u32,
    trial: Trial,
}

/// Whether a short work is sooner done together: the cores of a machine may be far apart, or busy with something else, and then it
/// is not. Both ways are timed now and then.
#[derive(Debug, Default)]
struct Trial {
    works: u32,
    /// Nanoseconds of late: alone, together.
    took: [u64; 2],
}

/// Of so many short works, two are done alone and two together, the second of each timed; the rest in the faster way.
const TRIED: u32 = 64;

impl Trial {
    /// Whether the next work is to be done together, and whether its time counts.
    fn next(&mut self) -> (bool, bool) {
        let n = self.works % TRIED;
        self.works = self.works.wrapping_add(1);
        let [alone, together] = self.took;
        match n {
            0..2 => (false, n == 1),
            2..4 => (true, n == 3),
            // Of two that take the same, the one that leaves a core to others.
            _ => (together + together / 32 < alone, false),
        }
    }

    fn took(&mut self, together: bool, time: Duration) {
        let (own, time) = (&mut self.took[usize::from(together)], time.as_nanos() as u64);
        // One that was interrupted says little.
        *own = if *own == 0 { time } else { (3 * *own + time.min(2 * *own)) / 4 };
    }
}

impl Team {
    /// Most members.
    pub const MOST: usize = 64;

    /// A team of so many members, the caller among them: at least 1, at most [`Team::MOST`].
    pub fn new(members: usize) -> Self {
        Self::starting(members, |_| {})
    }

    /// The same, whose helpers, from 1 on, first call `start` with their number: to be pinned to a core, say.
    ///
    /// # Panics
    /// If the system starts no thread.
    pub fn starting(members: usize, start: impl Fn(usize) + Send + Sync + 'static) -> Self {
        let helpers = members.clamp(1, Self::MOST) - 1;
        let idle: &'static Work = &|_| {};
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            left: AtomicUsize::new(0),
            work: UnsafeCell::new(idle),
            asleep: (0..helpers).map(|_| AtomicBool::new(false)).collect(),
            panicked: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        let start = Arc::new(start);
        let helper = |i: usize| {
            let (shared, start) = (shared.clone(), start.clone());
            let named = thread::Builder::new().name(std::format!("helper-{}", i + 1));
            let started = named.spawn(move || {
                start(i + 1);
                shared.help(i);
            });
            started.unwrap_or_else(|e| panic!("a thread to share inferences with: {e}"))
        };
        let helpers = (0..helpers).map(helper).collect();
        Self { shared, helpers, alone: 0, trial: Trial::default() }
    }

    /// Members, the caller among them.
    pub fn members(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Has a short work done by `work`, with this team or without it, whichever has been faster of late.
    pub fn briefly(&mut self, work: impl FnOnce(Option<&mut Self>)) {
        let (together, counts) = self.trial.next();
        let began = counts.then(Instant::now);
        work(together.then_some(&mut *self));
        if let Some(began) = began {
            self.trial.took(together, began.elapsed());
        }
    }

    /// Has `work` called by the caller, as member 0, and by every helper that comes before the caller has returned from it;
    /// ends when all of them have returned. What is to be done is for `work` to hand out.
    ///
    /// # Panics
    /// If a call did.
    pub fn run(&mut self, work: &(dyn Fn(usize) + Sync)) {
        if self.helpers.is_empty() || self.alone > 0 {
            self.alone = self.alone.saturating_sub(1);
            return work(0);
        }
        let shared = &*self.shared;
        // SAFETY: no job is open and nobody is in one: this function ends every job that it opens, and its borrow excludes
        // another call. The reference is forgotten before this function returns.
        unsafe { *shared.work.get() = core::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const Work>(work) };
        shared.left.store(0, Ordering::Relaxed);
        let job = (shared.state.load(Ordering::Relaxed) & !(JOINED | OPEN)).wrapping_add(JOB);
        shared.state.store(job | OPEN, Ordering::SeqCst);
        for (asleep, helper) in shared.asleep.iter().zip(&self.helpers) {
            if asleep.load(Ordering::SeqCst) {
                helper.thread().unpark();
            }
        }
        let began = Instant::now();
        let own = catch_unwind(AssertUnwindSafe(|| work(0)));
        let joined = shared.state.fetch_and(!OPEN, Ordering::AcqRel) & JOINED;
        let (mut looks, mut late) = (0u32, None);
        while shared.left.load(Ordering::Acquire) < joined as usize {
            looks = looks.wrapping_add(1);
            if !looks.is_multiple_of(LOOKS) {
                continue;
            }
            core::hint::spin_loop();
            if looks.is_multiple_of(32 * LOOKS) {
                // The first time that is longer than its own work took, and than any helper's should.
                let limit = *late.get_or_insert_with(|| 3 * began.elapsed() + PATIENCE);
                if began.elapsed() > limit {
                    self.alone = ALONE;
                    thread::yield_now();
                }
            }
        }
        if let Err(panic) = own {
            shared.panicked.store(false, Ordering::Relaxed);
            resume_unwind(panic);
        }
        if shared.panicked.swap(false, Ordering::Relaxed) {
            resume_unwind(Box::new("a thread that shared an inference panicked"));
        }
    }
}

impl Shared {
    /// What helper `i` does until the team ends.
    fn help(&self, i: usize) {
        let mut last = 0;
        let mut since = Instant::now();
        let mut looks = 0u32;
        loop {
            let state = self.state.load(Ordering::SeqCst);
            if state & OPEN != 0 && state & !(JOINED | OPEN) != last {
                let entered = self.state.compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Relaxed);
                if entered.is_ok() {
                    // SAFETY: the job was open when this helper was counted in, so whoever opened it waits until it has left.
                    let work = unsafe { &**self.work.get() };
                    if catch_unwind(AssertUnwindSafe(|| work(i + 1))).is_err() {
                        self.panicked.store(true, Ordering::Relaxed);
                    }
                    self.left.fetch_add(1, Ordering::Release);
                    last = state & !(JOINED | OPEN);
                    (since, looks) = (Instant::now(), 0);
                }
                continue;
            }
            if self.ended.load(Ordering::Relaxed) {
                return;
            }
            looks = looks.wrapping_add(1);
            if !looks.is_multiple_of(LOOKS) {
                continue;
            }
            core::hint::spin_loop();
            if !looks.is_multiple_of(8 * LOOKS) || since.elapsed() < WATCHFUL {
                continue;
            }
            self.asleep[i].store(true, Ordering::SeqCst);
            // Whoever opens a job from here on sees that this helper sleeps, and wakes it.
            let state = self.state.load(Ordering::SeqCst);
            if (state & OPEN == 0 || state & !(JOINED | OPEN) == last) && !self.ended.load(Ordering::SeqCst) {
                thread::park();
            }
            self.asleep[i].store(false, Ordering::SeqCst);
            (since, looks) = (Instant::now(), 0);
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        for helper in self.helpers.drain(..) {
            helper.thread().unpark();
            // A helper catches every panic of its work.
            let _ = helper.join();
        }
    }
}

impl fmt::Debug for Team {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Team").field("members", &self.members()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    /// Hands out `n` numbers; how often each was done, and by how many members.
    fn shared_out(team: &mut Team, n: usize) -> (Vec<usize>, usize) {
        let next = AtomicUsize::new(0);
        let done: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
        let came = AtomicUsize::new(0);
        team.run(&|_| {
            came.fetch_add(1, Ordering::Relaxed);
            while let Some(done) = done.get(next.fetch_add(1, Ordering::Relaxed)) {
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
        (done.into_iter().map(AtomicUsize::into_inner).collect(), came.into_inner())
    }

    #[test]
    fn everything_is_done_once_however_many_come() {
        for members in [1, 2, 3, 7] {
            let mut team = Team::new(members);
            assert_eq!(team.members(), members);
            for n in 0..300 {
                let (done, came) = shared_out(&mut team, n);
                assert!(
                    done == vec![1; n] && (1..=members).contains(&came),
                    "{members} members, {n}: {done:?} by {came}"
                );
            }
        }
    }

    #[test]
    fn a_short_work_is_done_in_the_faster_way() {
        for (alone, together) in [(100, 60), (100, 99), (60, 100)] {
            let mut trial = Trial::default();
            let mut chosen = [0, 0];
            for n in 0..10 * TRIED {
                let (joined, counts) = trial.next();
                if counts {
                    trial.took(joined, Duration::from_nanos(if joined { together } else { alone }));
                }
                chosen[usize::from(joined)] += u32::from(n % TRIED >= 4);
            }
            let faster = usize::from(100 * together < 97 * alone);
            assert_eq!((chosen[faster], chosen[1 - faster]), (10 * (TRIED - 4), 0), "{alone}, {together}");
        }
    }

    #[test]
    fn helpers_come_also_when_they_slept() {
        let mut team = Team::new(2);
        for _ in 0..5 {
            thread::sleep(3 * WATCHFUL);
            // A helper that was late in the job before, as under an emulator, is called again at once here.
            team.alone = 0;
            let met = AtomicUsize::new(0);
            // The caller stays until the helper is there, or there never is one.
            let limit = Instant::now() + Duration::from_secs(20);
            team.run(&|_| {
                met.fetch_add(1, Ordering::SeqCst);
                while met.load(Ordering::SeqCst) < 2 && Instant::now() < limit {
                    thread::yield_now();
                }
            });
            assert_eq!(met.into_inner(), 2);
        }
    }

    #[test]
    fn a_helper_that_held_the_caller_up_is_left_alone_for_a_while() {
        let mut team = Team::new(2);
        let came = |team: &mut Team, is_late: bool| {
            let met = AtomicUsize::new(0);
            let limit = Instant::now() + Duration::from_secs(20);
            let alone = team.alone > 0;
            let began = Instant::now();
            team.run(&|member| {
                met.fetch_add(1, Ordering::SeqCst);
                while !alone && met.load(Ordering::SeqCst) < 2 && Instant::now() < limit {
                    thread::yield_now();
                }
                if member == 1 && is_late {
                    // By far longer than the caller's own part, however long an emulator made that.
                    thread::sleep(10 * began.elapsed() + Duration::from_millis(100));
                }
            });
            met.into_inner()
        };
        assert_eq!(came(&mut team, true), 2);
        assert_eq!(team.alone, ALONE);
        (0..ALONE).for_each(|_| assert_eq!(came(&mut team, false), 1));
        assert_eq!(came(&mut team, false), 2);
    }

    #[test]
    fn a_panic_ends_the_job_and_not_the_team() {
        let mut team = Team::new(2);
        for whose in [0, 1] {
            let limit = Instant::now() + Duration::from_secs(20);
            let met = AtomicUsize::new(0);
            team.alone = 0;
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                team.run(&|member| {
                    met.fetch_add(1, Ordering::SeqCst);
                    while met.load(Ordering::SeqCst) < 2 && Instant::now() < limit {
                        thread::yield_now();
                    }
                    assert_ne!(member, whose, "as was to be shown");
                });
            }));
            assert!(outcome.is_err(), "member {whose}");
        }
        assert_eq!(shared_out(&mut team, 100).0, vec![1; 100]);
    }
}
