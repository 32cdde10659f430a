//! What a camera shows, steadied: one odd frame turns nothing, and what is not known is said so with its reason.
//!
//! ```text
//!            k of n frames accept a class                 k of n abstain, none of them for it
//!  Unknown ------------------------------> Label(class) ------------------------------------> Unknown(why)
//!     ^                                        |
//!     +---- a frame ---- Unavailable(why) <----+  no frame for too long, the source is gone, the picture is frozen
//! ```

use paradise_engine::Reason;
use paradise_engine::steady::{MAX_VERDICTS, Steady};
use serde::Serialize;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Why nothing is known of what the camera sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unknown {
    /// Too few frames yet, or they do not agree.
    Undecided,
    /// The pictures look like none that the model was calibrated on: something is before the lens.
    Obstructed,
    /// The pictures look usual, and what the network makes of them does not.
    Atypical,
    /// The class is not clear.
    Uncertain,
    /// Nobody looked for too long: the last answer is no longer one.
    Expired,
}

impl From<Reason> for Unknown {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::UnfamiliarPicture => Self::Obstructed,
            Reason::AtypicalPosterior => Self::Atypical,
            Reason::UncertainClass => Self::Uncertain,
        }
    }
}

/// Why there is nothing to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unavailable {
    /// No frame has come yet.
    Starting,
    /// The source gives no frames.
    Gone,
    /// It gives the same one again and again.
    Frozen,
}

/// What is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "of")]
pub enum Standing {
    /// This class is before the camera.
    Label(usize),
    /// The camera sees something, and it is not known what.
    Unknown(Unknown),
    /// The camera sees nothing.
    Unavailable(Unavailable),
}

/// How many frames must agree, and how long an answer holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    /// So many...
    pub need: usize,
    /// ... of the last so many frames, at most [`MAX_VERDICTS`].
    pub of: usize,
    /// Another class takes the place of one that is known only if the frames for it give it this probability on average.
    pub sure: f32,
    /// Without an answer for longer, nothing is known any more.
    pub expires: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self { need: 2, of: 5, sure: 0.7, expires: Duration::from_secs(10) }
    }
}

/// A camera's standing, frame by frame.
///
/// ```
/// use paradise_runtime::camera::standing::{Standing, Steadied, Terms, Unavailable};
/// use std::time::Instant;
/// let now = Instant::now();
/// let mut camera = Steadied::new(Terms::default(), now).unwrap();
/// assert_eq!(camera.now(), Standing::Unavailable(Unavailable::Starting));
/// for _ in 0..2 {
///     camera.saw(Ok((7, 0.9)), now);
/// }
/// assert_eq!(camera.now(), Standing::Label(7));
/// ```
#[derive(Debug)]
pub struct Steadied {
    terms: Terms,
    votes: Steady,
    /// Reasons of the last frames, none where one was accepted.
    reasons: VecDeque<Option<Unknown>>,
    now: Standing,
    since: Instant,
    answered: Instant,
    /// The last class that was known, and until when.
    last: Option<(usize, Instant)>,
}

impl Steadied {
    /// A camera that has shown nothing yet; nothing for terms that cannot be kept.
    pub fn new(terms: Terms, now: Instant) -> Option<Self> {
        let Terms { need, of, sure, .. } = terms;
        let fits = 0 < need && need <= of && of <= MAX_VERDICTS && (0.0..1.0).contains(&sure);
        fits.then(|| Self {
            terms,
            votes: votes(&terms),
            reasons: VecDeque::with_capacity(of + 1),
            now: Standing::Unavailable(Unavailable::Starting),
            since: now,
            answered: now,
            last: None,
        })
    }

    /// What is known.
    pub fn now(&self) -> Standing {
        self.now
    }

    /// Since when.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// The last class that was known, and when it was so for the last time.
    pub fn last(&self) -> Option<(usize, Instant)> {
        self.last
    }

    /// A frame was answered: a class and its probability, or why not. Whether something else is known now.
    pub fn saw(&mut self, answer: Result<(usize, f32), Reason>, now: Instant) -> bool {
        self.answered = now;
        let accepted = answer.ok().and_then(|(class, probability)| Some((u16::try_from(class).ok()?, probability)));
        let steady = self.votes.push(accepted).map(usize::from);
        self.reasons.push_back(answer.err().map(Unknown::from));
        if self.reasons.len() > self.terms.of {
            self.reasons.pop_front();
        }
        let abstained = self.reasons.iter().flatten().count();
        let next = match (steady, self.now) {
            (Some(class), _) => Standing::Label(class),
            (None, _) if abstained >= self.terms.need => Standing::Unknown(self.why()),
            (None, Standing::Unknown(why)) => Standing::Unknown(why),
            (None, _) => Standing::Unknown(Unknown::Undecided),
        };
        self.becomes(next, now)
    }

    /// The reason of most of the frames that were abstained from, the first in the order of [`Reason`] where there are several.
    fn why(&self) -> Unknown {
        let count = |why: Unknown| self.reasons.iter().filter(|reason| **reason == Some(why)).count();
        let all = [Unknown::Obstructed, Unknown::Atypical, Unknown::Uncertain];
        all.into_iter().rev().max_by_key(|why| count(*why)).unwrap_or(Unknown::Undecided)
    }

    /// The source has no frames, or the same one. Whether something else is known now.
    pub fn lost(&mut self, why: Unavailable, now: Instant) -> bool {
        self.forget();
        self.becomes(Standing::Unavailable(why), now)
    }

    /// Time passes. Whether something else is known now.
    pub fn tick(&mut self, now: Instant) -> bool {
        let holds = matches!(self.now, Standing::Label(_));
        if !holds || now.saturating_duration_since(self.answered) <= self.terms.expires {
            return false;
        }
        self.forget();
        self.becomes(Standing::Unknown(Unknown::Expired), now)
    }

    fn forget(&mut self) {
        self.votes = votes(&self.terms);
        self.reasons.clear();
    }

    fn becomes(&mut self, next: Standing, now: Instant) -> bool {
        if let Standing::Label(class) = self.now {
            self.last = Some((class, now));
        }
        let is_other = next != self.now;
        if is_other {
            (self.now, self.since) = (next, now);
        }
        is_other
    }
}

/// No votes yet.
fn votes(terms: &Terms) -> Steady {
    Steady::new(terms.need, terms.of).sure(terms.sure)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn camera(need: usize, of: usize) -> (Steadied, Instant) {
        let now = Instant::now();
        let terms = Terms { need, of, expires: Duration::from_secs(2), ..Terms::default() };
        (Steadied::new(terms, now).unwrap(), now)
    }

    #[test]
    fn one_odd_frame_turns_nothing_and_an_occlusion_is_unknown_within_n_frames() {
        let (mut camera, now) = camera(3, 5);
        let label = Standing::Label(4);
        let seen: Vec<bool> = [4, 4, 4, 2, 4, 9, 4, 4].map(|class| camera.saw(Ok((class, 0.9)), now)).to_vec();
        // Undecided at the first frame, known at the third.
        assert_eq!(seen, [true, false, true, false, false, false, false, false]);
        assert_eq!(camera.now(), label);
        assert!(!camera.saw(Err(Reason::UncertainClass), now) && !camera.saw(Ok((4, 0.9)), now));
        let mut frames = 0;
        while camera.now() == label {
            camera.saw(Err(Reason::UnfamiliarPicture), now);
            frames += 1;
        }
        assert!(frames <= 5, "{frames}");
        assert_eq!((camera.now(), camera.last()), (Standing::Unknown(Unknown::Obstructed), Some((4, now))));
        // What was before it comes back as soon as k frames say so.
        for _ in 0..3 {
            camera.saw(Ok((4, 0.9)), now);
        }
        assert_eq!(camera.now(), label);
    }

    #[test]
    fn an_answer_expires_and_a_camera_that_is_lost_says_why() {
        let (mut camera, now) = camera(1, 1);
        assert!(camera.saw(Ok((1, 0.9)), now) && !camera.tick(now + Duration::from_secs(2)));
        let later = now + Duration::from_secs(3);
        assert!(camera.tick(later) && !camera.tick(later));
        assert_eq!((camera.now(), camera.since()), (Standing::Unknown(Unknown::Expired), later));
        assert!(camera.saw(Ok((1, 0.9)), later) && camera.lost(Unavailable::Frozen, later));
        assert_eq!(camera.now(), Standing::Unavailable(Unavailable::Frozen));
        assert!(!camera.tick(later + Duration::from_secs(9)), "that it is lost does not expire");
        assert!(Steadied::new(Terms { need: 4, of: 3, ..Terms::default() }, now).is_none());
        assert!(Steadied::new(Terms { need: 1, of: 99, ..Terms::default() }, now).is_none());
    }
}
