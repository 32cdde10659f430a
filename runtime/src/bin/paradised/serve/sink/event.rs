//! What is told of a camera: something else is known of it than before.

use jiff::Timestamp;
use paradise_runtime::Verdict;
use paradise_runtime::camera::standing::{Standing, Steadied, Unavailable, Unknown};
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;

/// What is known of a camera.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Known {
    /// `label`, `unknown` or `unavailable`.
    pub state: &'static str,
    /// The class, where it is known.
    pub label: Option<String>,
    /// Its index.
    pub class: Option<usize>,
    /// Why nothing is known: `undecided`, `obstructed`, `atypical`, `uncertain`, `expired`; `starting`, `gone`, `frozen`.
    pub reason: Option<&'static str>,
    /// Since when.
    pub since: Timestamp,
    /// The last class that was known, and when it was so for the last time.
    pub last: Option<Last>,
}

/// A class that was known.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Last {
    /// The class.
    pub label: String,
    /// Its index.
    pub class: usize,
    /// When it was known for the last time.
    pub at: Timestamp,
}

fn unknown(why: Unknown) -> &'static str {
    match why {
        Unknown::Undecided => "undecided",
        Unknown::Obstructed => "obstructed",
        Unknown::Atypical => "atypical",
        Unknown::Uncertain => "uncertain",
        Unknown::Expired => "expired",
    }
}

fn unavailable(why: Unavailable) -> &'static str {
    match why {
        Unavailable::Starting => "starting",
        Unavailable::Gone => "gone",
        Unavailable::Frozen => "frozen",
    }
}

/// The time of day at an instant.
fn at(then: Instant) -> Timestamp {
    let ago = jiff::SignedDuration::try_from(then.elapsed()).unwrap_or_default();
    Timestamp::now().saturating_sub(ago).unwrap_or_default()
}

impl Known {
    /// Of a camera that was not looked at yet.
    pub fn starting() -> Self {
        let (state, reason) = ("unavailable", Some(unavailable(Unavailable::Starting)));
        Self { state, label: None, class: None, reason, since: Timestamp::now(), last: None }
    }

    /// As a camera stands; `labels`: the names of the model's classes.
    pub fn of(camera: &Steadied, labels: &[String]) -> Self {
        let name = |class: usize| labels.get(class).cloned().unwrap_or_else(|| class.to_string());
        let (state, class, reason) = match camera.now() {
            Standing::Label(class) => ("label", Some(class), None),
            Standing::Unknown(why) => ("unknown", None, Some(unknown(why))),
            Standing::Unavailable(why) => ("unavailable", None, Some(unavailable(why))),
        };
        let last = camera.last().map(|(class, then)| Last { label: name(class), class, at: at(then) });
        Self { state, label: class.map(name), class, reason, since: at(camera.since()), last }
    }
}

/// Something else is known of a camera than before.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    /// Another for each event, also after a restart: who gets one twice can tell.
    pub id: String,
    /// When.
    pub time: Timestamp,
    /// The camera.
    pub camera: String,
    /// The model.
    pub model: String,
    /// Its version.
    pub version: String,
    /// What is known.
    #[serde(flatten)]
    pub known: Known,
    /// The answer that turned it, where one did.
    pub answer: Option<Arc<Verdict>>,
}
