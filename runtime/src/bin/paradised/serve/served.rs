//! A model that is served: the way to its workers, and what is known of it without asking there. When the last holder lets go of it, they
//! answer what waits and end.

use super::here::is_small;
use super::listen;
use super::meters::{Meters, Signs};
use super::watched::{Watched, Watching};
use super::worker::{Failure, Fresh, Job, Limits, Refused, Workers};
use crate::gpio::Pins;
use anyhow::Context;
use paradise_engine::Shape;
use paradise_engine::image::ImagePolicy;
use paradise_runtime::oip::Pictures;
use paradise_runtime::selftest::Report;
use paradise_runtime::watch::Lockstep;
use paradise_runtime::{Backend, Bundle, Rule, Verdict};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Why pictures have no verdicts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Something is wrong with a picture.
    Picture(String),
    /// As many requests wait as may.
    Busy,
    /// Nobody answers any more, and why.
    Down(String),
    /// The worker lost this request.
    Lost(String),
    /// There was no answer in time.
    Late,
}

impl Refusal {
    /// In words.
    pub fn why(&self) -> &str {
        match self {
            Self::Picture(why) | Self::Lost(why) | Self::Down(why) => why,
            Self::Busy => "the model is busy",
            Self::Late => "the model did not answer in time",
        }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Picture(why) => Self::Picture(why),
            Failure::Worker(why) => Self::Lost(why),
        }
    }
}

/// A model with its workers.
pub struct Served {
    /// The model's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its bundle's fingerprint.
    pub bundle: String,
    /// Since when it serves.
    pub since: Instant,
    /// Extents of its input.
    pub input: Shape,
    /// How pictures become its inputs.
    pub policy: ImagePolicy,
    /// Names of its classes.
    pub labels: Vec<String>,
    /// Runs the self-test of its bundle on this device, beside what it serves.
    pub test: Test,
    /// Opens its bundle.
    pub open: Open,
    /// Whether its whole self-test was run here, not the brief part alone.
    pub whole: AtomicBool,
    /// What is watched of it.
    pub watched: Arc<Watched>,
    makers: Option<f64>,
    fresh: Fresh,
    workers: Workers,
    meters: Meters,
}

/// The back ends of a model.
pub struct Crew {
    /// One for each worker.
    pub workers: Vec<Box<dyn Backend>>,
    /// Those that answer short requests where they arrive.
    pub callers: Vec<Box<dyn Backend>>,
    /// What they share, where they are the engine.
    pub lockstep: Option<Lockstep>,
}

/// How a model is served.
pub struct Terms {
    /// What decides about its answers.
    pub rule: Rule,
    /// The share of ordinary pictures that may be abstained from, if the maker promised one.
    pub makers: Option<f64>,
    /// The board's pins.
    pub pins: Pins,
    /// What its requests may take.
    pub limits: Limits,
    /// How closely it is watched.
    pub watching: Watching,
    /// Opens its bundle.
    pub open: Open,
}

/// Opens the bundle of a model that serves, if it is still there as it was.
pub type Open = Arc<dyn Fn() -> anyhow::Result<Bundle> + Send + Sync>;

/// The share of ordinary pictures that may be abstained from, as the site or the maker promised.
fn promised(rule: &Rule, makers: Option<f64>) -> Option<f64> {
    rule.site().map(|site| site.promised_percent() / 100.0).or(makers)
}

/// A self-test.
pub type Test = Arc<dyn Fn() -> anyhow::Result<Report> + Send + Sync>;

impl Served {
    /// Starts its workers; where a back end is lost, `fresh` loads another.
    ///
    /// # Errors
    /// If there is no back end.
    pub fn start(
        (version, bundle): (&str, String),
        crew: Crew,
        fresh: Fresh,
        terms: Terms,
        test: Test,
    ) -> anyhow::Result<Self> {
        let Crew { workers, callers, mut lockstep } = crew;
        let Terms { rule, makers, pins, limits, watching, open } = terms;
        let (mut name, mut input, mut labels) = (String::new(), Shape::new(0, 0, 0), Vec::new());
        let (mut watched, mut policy) = (None, None);
        workers.first().context("no back end")?.with_model(&mut |model| {
            let signs = Signs::new(model.header().name, version);
            watched = Some(Watched::new(model, (lockstep.take(), &rule), promised(&rule, makers), watching, signs));
            name = model.header().name.to_string();
            input = model.header().input;
            policy = Some(model.header().policy);
            labels = (0..model.header().classes.into()).map(|class| model.label(class).to_string()).collect();
        });
        let meters = Meters::new(&name, version);
        let watched = Arc::new(watched.context("no model")?);
        let workers =
            Workers::start([workers, callers], fresh.clone(), rule, pins, limits, (meters.clone(), watched.clone()));
        Ok(Self {
            name,
            version: version.to_string(),
            bundle,
            since: Instant::now(),
            input,
            policy: policy.context("no model")?,
            labels,
            test,
            whole: AtomicBool::new(true),
            watched,
            makers,
            fresh,
            open,
            workers,
            meters,
        })
    }

    /// What decides about its answers.
    pub fn rule(&self) -> Arc<Rule> {
        self.workers.rule()
    }

    /// Decides otherwise from the next answer on.
    ///
    /// # Errors
    /// If the model cannot be read.
    pub fn decide_by(&self, rule: Rule) -> anyhow::Result<()> {
        let backend = self.another()?;
        backend.with_model(&mut |model| self.watched.decides_by(model, &rule, promised(&rule, self.makers)));
        self.workers.decide_by(rule);
        Ok(())
    }

    /// Another back end of it, for questions that no answer holds.
    ///
    /// # Errors
    /// If it cannot be loaded.
    pub fn another(&self) -> anyhow::Result<Box<dyn Backend>> {
        (self.fresh)()
    }

    /// Whether pictures are answered.
    pub fn is_up(&self) -> bool {
        self.workers.is_up()
    }

    /// Why it does not answer, where it does not. A fault is known here before the sentry has written it down and taken the model out
    /// of service.
    pub fn why_down(&self) -> String {
        let fault = self.watched.fault();
        fault.map_or_else(|| "its workers are down; the log says why".into(), |why| format!("fault: {why}"))
    }

    /// How often its back end was replaced.
    pub fn replaced(&self) -> u64 {
        self.workers.health().replaced()
    }

    /// Gives up workers that hang.
    pub fn replace_hung(&self, longest: Duration) {
        self.workers.replace_hung(longest);
    }

    /// Threads that answer where they were asked, and have computed for longer than this.
    pub fn callers_hung(&self, longest: Duration) -> usize {
        self.workers.callers_hung(longest)
    }

    /// A verdict on each picture.
    ///
    /// # Errors
    /// The first that has none, or why none has.
    pub async fn ask(&self, pictures: Pictures) -> Result<Vec<Verdict>, Refusal> {
        let began = Instant::now();
        let outcome = self.wait(pictures, began).await;
        self.meters.ended(outcome.as_deref().ok(), began.elapsed());
        outcome
    }

    async fn wait(&self, pictures: Pictures, since: Instant) -> Result<Vec<Verdict>, Refusal> {
        self.meters.waits();
        let small = is_small(&pictures);
        if small && let Some(answered) = self.workers.here(&pictures) {
            return answered.map_err(Refusal::from);
        }
        let (reply, receive) = oneshot::channel();
        if let Err(refused) = self.workers.push(Job { pictures, small, since, reply }) {
            self.meters.waits_not();
            return Err(match refused {
                Refused::Full => Refusal::Busy,
                Refused::Stopped => Refusal::Down(self.why_down()),
            });
        }
        match tokio::time::timeout(listen::ANSWER, receive).await {
            Ok(Ok(Ok(verdicts))) => Ok(verdicts),
            Ok(Ok(Err(failure))) => Err(failure.into()),
            Ok(Err(_)) => Err(Refusal::Lost("the worker stopped".into())),
            Err(_) => Err(Refusal::Late),
        }
    }
}
