//! What is watched of a model that serves: by its workers, each picture and each answer; by the sentry, what lies in memory.

use super::lock::locked;
use super::meters::{Signs, micros};
use paradise_engine::Model;
use paradise_engine::calibration::Tables;
use paradise_runtime::watch::{Area, Drift, Eye, Lockstep, Round, Shift, Sight};
use paradise_runtime::{Rule, Verdict};
use serde_json::{Value, json};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// How closely.
#[derive(Debug, Clone, Copy)]
pub struct Watching {
    /// The time of a round through memory.
    pub round: Duration,
    /// How often pictures should come, if anyone says so.
    pub longest: Option<Duration>,
}

/// A round through memory, and when its next slice is due.
struct Paced {
    round: Round,
    due: Instant,
    between: Duration,
    whole: Duration,
    longest: Duration,
}

/// A model under watch.
pub struct Watched {
    lockstep: Option<Lockstep>,
    memory: Mutex<Paced>,
    eye: Mutex<Eye>,
    drift: Mutex<Drift>,
    /// What the sentry saw last.
    seen: Mutex<(Sight, Vec<Shift>)>,
    fault: OnceLock<String>,
    signs: Signs,
    /// The time of a round through memory.
    round: Duration,
}

/// Looks at a slice of memory if one is due.
fn step(paced: &mut Paced, now: Instant) -> Result<(), String> {
    if now < paced.due {
        return Ok(());
    }
    paced.due = now + paced.between;
    let began = Instant::now();
    let outcome = paced.round.step();
    paced.longest = paced.longest.max(began.elapsed());
    outcome.map_err(|changed| changed.to_string())
}

fn paced(areas: Vec<Area>, time: Duration, now: Instant) -> Paced {
    let round = Round::new(areas);
    let [between, whole] = round.pace(time);
    Paced { round, due: now, between, whole, longest: Duration::ZERO }
}

/// A round through memory that belongs to no model.
pub struct Beat(Paced);

impl Beat {
    /// Of these areas.
    pub fn new(areas: Vec<Area>, time: Duration) -> Self {
        Self(paced(areas, time, Instant::now()))
    }

    /// Looks at a slice if one is due; when the next is.
    ///
    /// # Errors
    /// What changed.
    pub fn step(&mut self, now: Instant) -> Result<Instant, String> {
        step(&mut self.0, now).map(|()| self.0.due)
    }

    /// The time that a round takes.
    pub fn whole(&self) -> Duration {
        self.0.whole
    }
}

/// What lies in memory of a model and of what decides about it.
fn areas(lockstep: Option<&Lockstep>, rule: &Rule) -> Vec<Area> {
    let mut areas: Vec<Area> = lockstep.iter().map(|lockstep| Area::Model(lockstep.fast().slices())).collect();
    areas.push(rule.clone().into());
    areas
}

fn drift(model: &Model, rule: &Rule, promised: Option<f64>) -> Drift {
    let own = Tables::of(model);
    Drift::new(rule.tables().unwrap_or(&own), promised)
}

impl Watched {
    /// A model as it is in memory now; `promised`: the share of ordinary pictures that may be abstained from.
    pub fn new(
        model: &Model,
        (lockstep, rule): (Option<Lockstep>, &Rule),
        promised: Option<f64>,
        watching: Watching,
        signs: Signs,
    ) -> Self {
        let now = Instant::now();
        let memory = paced(areas(lockstep.as_ref(), rule), watching.round, now);
        let drift = drift(model, rule, promised);
        signs.round(memory.whole);
        Self {
            lockstep,
            memory: Mutex::new(memory),
            eye: Mutex::new(Eye::new(watching.longest, now)),
            drift: Mutex::new(drift),
            seen: Mutex::default(),
            fault: OnceLock::new(),
            signs,
            round: watching.round,
        }
    }

    /// Another rule decides from now on: its numbers are watched, and answers compared with what it says.
    pub fn decides_by(&self, model: &Model, rule: &Rule, promised: Option<f64>) {
        *locked(&self.memory) = paced(areas(self.lockstep.as_ref(), rule), self.round, Instant::now());
        *locked(&self.drift) = drift(model, rule, promised);
    }

    /// A worker sees an input.
    pub fn sees(&self, input: &[u8]) {
        locked(&self.eye).see(input, Instant::now());
    }

    /// A worker answers.
    pub fn answers(&self, verdict: &Verdict) {
        locked(&self.drift).add(&verdict.p, verdict.is_accept());
    }

    /// Something is wrong with this device; the first that is said stays.
    pub fn faults(&self, why: String) {
        let _ = self.fault.set(why);
    }

    /// What is wrong, if anything is.
    pub fn fault(&self) -> Option<&str> {
        self.fault.get().map(String::as_str)
    }

    /// Looks at a slice of memory if one is due; when the next is.
    pub fn step(&self, now: Instant) -> Instant {
        let mut memory = locked(&self.memory);
        if let Err(why) = step(&mut memory, now) {
            self.faults(why);
        }
        memory.due
    }

    /// Looks at pictures and answers of late: what is otherwise than before, in words.
    pub fn look(&self, now: Instant) -> Vec<String> {
        let (sight, shifts) = (locked(&self.eye).sight(now), locked(&self.drift).shifts());
        let mut seen = locked(&self.seen);
        let mut news = Vec::new();
        if sight != seen.0 {
            news.push(format!("pictures: {}", sight.name()));
        }
        for shift in &shifts {
            let before = seen.1.iter().any(|before| before.of == shift.of && before.alarm);
            if shift.alarm != before {
                let state = if shift.alarm { "is not as over the calibration images" } else { "is as usual again" };
                news.push(format!("drift: {} {state} ({:.3})", shift.of, shift.index));
            }
        }
        let memory = locked(&self.memory);
        self.signs.shows(sight, &shifts, memory.round.rounds(), micros(memory.longest));
        if let Some(lockstep) = &self.lockstep {
            self.signs.checked(lockstep.checked());
        }
        *seen = (sight, shifts);
        news
    }

    /// How answers of late stand to those over the calibration images.
    pub fn shifts(&self) -> Vec<Shift> {
        locked(&self.seen).1.clone()
    }

    /// What is known, for programs.
    pub fn report(&self) -> Value {
        let (sight, shifts) = locked(&self.seen).clone();
        let memory = locked(&self.memory);
        json!({
            "pictures": sight,
            "drift": shifts,
            "answers_checked": self.lockstep.as_ref().map(Lockstep::checked),
            "memory_rounds": memory.round.rounds(),
            "memory_round_seconds": memory.whole.as_secs_f64(),
        })
    }
}
