//! Progress of long work: a bar on a terminal; elsewhere nothing, or a line now and then.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::cell::RefCell;
use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Whether another process speaks for this one.
static HUSHED: AtomicBool = AtomicBool::new(false);

/// From now on nothing is shown: another process shows how far all of them are.
pub fn hush() {
    HUSHED.store(true, Ordering::Relaxed);
}

fn is_hushed() -> bool {
    HUSHED.load(Ordering::Relaxed)
}

/// A bar of `length` steps on standard error.
pub fn bar(length: u64, name: &str) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() && !is_hushed() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let style = ProgressStyle::with_template("{prefix:12} {bar:40} {percent:>3} % {elapsed} (eta {eta}) {msg}");
    ProgressBar::with_draw_target(Some(length), target)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_prefix(name.to_string())
}

/// How long passes between two lines where there is no terminal.
const BETWEEN: Duration = Duration::from_secs(20);

/// Lines in place of a bar, for a log.
pub struct PeriodicLog(Instant);

impl PeriodicLog {
    /// The first is due after twenty seconds.
    pub fn from_now() -> Self {
        Self(Instant::now())
    }

    /// A line on standard error, where `bar` is not seen and the last line was twenty seconds ago.
    pub fn show(&mut self, bar: &ProgressBar, line: impl FnOnce() -> String) {
        if bar.is_hidden() && !is_hushed() && self.0.elapsed() > BETWEEN {
            self.0 = Instant::now();
            tracing::info!("{}", line());
        }
    }
}

/// A bar where it is seen, else lines with what is left; shared by threads.
pub struct Watched {
    bar: ProgressBar,
    lines: Mutex<PeriodicLog>,
    name: String,
    began: Instant,
}

impl Watched {
    /// Over `length` steps.
    pub fn new(length: u64, name: &str) -> Self {
        let lines = Mutex::new(PeriodicLog::from_now());
        Self { bar: bar(length, name), lines, name: name.into(), began: Instant::now() }
    }

    /// So many more are done.
    pub fn inc(&self, n: u64) {
        self.bar.inc(n);
        let (done, all) = (self.bar.position(), self.bar.length().unwrap_or(0));
        let left = self.began.elapsed().as_secs_f64() / done.max(1) as f64 * all.saturating_sub(done) as f64;
        let mut lines = self.lines.lock().unwrap_or_else(|e| e.into_inner());
        lines.show(&self.bar, || format!("{}: {done} of {all}, about {} left", self.name, spoken(left)));
    }

    /// All is done.
    pub fn close(&self) {
        self.bar.finish_and_clear();
    }
}

/// Work in units of several kinds, some much longer than others: what is left is known from what each kind took.
pub struct Pace {
    bar: ProgressBar,
    state: RefCell<State>,
}

struct State {
    /// Of each kind: units that are left, units that were timed, their seconds.
    kinds: Vec<(usize, usize, f64)>,
    done: usize,
    all: usize,
    began: Instant,
    lines: PeriodicLog,
}

impl Pace {
    /// Over units of these kinds, of which `there` are done already.
    pub fn new(kinds: impl Iterator<Item = usize>, there: usize) -> Self {
        let mut counts: Vec<(usize, usize, f64)> = Vec::new();
        let mut all = 0;
        for kind in kinds {
            if counts.len() <= kind {
                counts.resize(kind + 1, (0, 0, 0.0));
            }
            counts[kind].0 += 1;
            all += 1;
        }
        let bar = bar(all as u64, "evaluate").with_style(
            ProgressStyle::with_template("{prefix} {bar:32} {pos}/{len} {elapsed} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        if there > 0 && !is_hushed() {
            tracing::info!("{there} of {all} units of work are there already");
        }
        let state = State { kinds: counts, done: 0, all, began: Instant::now(), lines: PeriodicLog::from_now() };
        Self { bar, state: RefCell::new(state) }
    }

    /// A unit was there already.
    pub fn skip(&self, kind: usize) {
        let mut state = self.state.borrow_mut();
        state.kinds[kind].0 -= 1;
        state.done += 1;
        self.bar.inc(1);
    }

    /// A unit begins.
    pub fn begin(&self, name: &str) {
        let mut state = self.state.borrow_mut();
        state.began = Instant::now();
        let left = state.left().map_or_else(String::new, |s| format!("about {} left", spoken(s)));
        self.bar.set_message(format!("{name}  {left}"));
        let State { done, all, lines, .. } = &mut *state;
        lines.show(&self.bar, || format!("{done} of {all} units done, {left}; now {name}"));
    }

    /// It ended.
    pub fn end(&self, kind: usize) {
        let mut state = self.state.borrow_mut();
        let seconds = state.began.elapsed().as_secs_f64();
        let (left, timed, total) = &mut state.kinds[kind];
        (*left, *timed, *total) = (*left - 1, *timed + 1, *total + seconds);
        state.done += 1;
        self.bar.inc(1);
    }

    /// All is done, or interrupted.
    pub fn close(&self) {
        self.bar.finish_and_clear();
    }
}

impl State {
    /// Seconds that are left; kinds that were not timed yet count as the mean of those that were.
    fn left(&self) -> Option<f64> {
        let (timed, total) = self.kinds.iter().fold((0, 0.0), |(n, s), k| (n + k.1, s + k.2));
        let mean = (timed > 0).then(|| total / timed as f64)?;
        Some(self.kinds.iter().map(|&(left, n, s)| left as f64 * if n > 0 { s / n as f64 } else { mean }).sum())
    }
}

/// `45 s`, `12 min`, `3.5 h`.
///
/// ```
/// use paradise_support::progress::spoken;
/// assert_eq!([spoken(45.0), spoken(720.0), spoken(12600.0)], ["45 s", "12 min", "3.5 h"]);
/// ```
pub fn spoken(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_follows_each_kinds_own_time() {
        let state = |kinds| State { kinds, done: 0, all: 0, began: Instant::now(), lines: PeriodicLog::from_now() };
        assert_eq!(state(vec![(3, 0, 0.0)]).left(), None);
        // 2 left at 5 s each, 1 left at the mean of 3 units that took 13 s.
        let left = state(vec![(2, 2, 10.0), (0, 1, 3.0), (1, 0, 0.0)]).left().unwrap();
        assert!((left - (10.0 + 13.0 / 3.0)).abs() < 1e-9);
        assert_eq!([spoken(45.2), spoken(600.0), spoken(7200.0)], ["45 s", "10 min", "2.0 h"]);
    }
}
