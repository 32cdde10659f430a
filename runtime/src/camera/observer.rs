//! A camera from its frames to what is known: which frames are worth an inference, what their answers add up to, and whether there still
//! is a camera.
//!
//! ```text
//! frame --same as before?--> frozen
//!       --gate: moved? asked for? due?--> pace --> classify --> standing
//! no frame for too long, source lost --> unavailable
//! ```

use super::gate::{Cells, Counts, Gate};
use super::pace::Pace;
use super::standing::{Standing, Steadied, Terms, Unavailable, Unknown};
use super::{gate, standing};
use paradise_engine::Reason;
use std::time::{Duration, Instant};

/// How a camera is looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// When the gate lets frames pass; `None`: it always does.
    pub gate: Option<gate::Settings>,
    /// Whether frames are classified that nobody asked for.
    pub unasked: bool,
    /// Frames that are classified in a second: usually, and while a decision is pending.
    pub per_second: [f64; 2],
    /// How decisions are steadied.
    pub terms: Terms,
    /// So many equal frames are a frozen camera; 0: none are.
    pub frozen: u32,
    /// Without a frame for longer, the camera is gone.
    pub silence: Duration,
}

/// A camera under observation.
#[derive(Debug)]
pub struct Observer {
    settings: Settings,
    gate: Option<Gate>,
    pace: Pace,
    standing: Steadied,
    frame: Instant,
    digest: Option<u32>,
    /// Equal frames, the last one included.
    same: u32,
    frames: u64,
    passed: u64,
}

impl Observer {
    /// Of a camera that has shown nothing yet; nothing for [`Terms`] that cannot be kept.
    pub fn new(settings: Settings, now: Instant) -> Option<Self> {
        let [usual, hurried] = settings.per_second;
        Some(Self {
            settings,
            gate: settings.gate.map(Gate::new),
            pace: Pace::new(usual, hurried),
            standing: Steadied::new(settings.terms, now)?,
            frame: now,
            digest: None,
            same: 0,
            frames: 0,
            passed: 0,
        })
    }

    /// What is known.
    pub fn standing(&self) -> &Steadied {
        &self.standing
    }

    /// Frames that came and those that were classified; changes, where the gate looks.
    pub fn counts(&self) -> Counts {
        let changes = self.gate.as_ref().map_or(0, |gate| gate.counts().changes);
        Counts { frames: self.frames, passed: self.passed, changes }
    }

    /// A frame came: a digest of all its pixels, the cells of its region. `asked`: somebody wants it classified. Whether it is to be
    /// classified, and whether something else is known now.
    pub fn frame(&mut self, digest: u32, cells: &Cells, asked: bool, now: Instant) -> (bool, bool) {
        self.frame = now;
        self.frames += 1;
        self.same = if self.digest == Some(digest) { self.same.saturating_add(1) } else { 1 };
        self.digest = Some(digest);
        if self.settings.frozen > 0 && self.same >= self.settings.frozen {
            return (false, self.standing.lost(Unavailable::Frozen, now));
        }
        let state = self.standing.now();
        let is_back = matches!(state, Standing::Unavailable(_));
        if let Some(gate) = self.gate.as_mut().filter(|_| is_back) {
            gate.begin();
        }
        // The gate sees every frame, or its idea of what is usual would have holes.
        let passes = self.gate.as_mut().is_none_or(|gate| gate.passes(cells, now));
        let wanted = asked || self.settings.unasked && passes;
        let pending = is_back
            || matches!(state, Standing::Unknown(Unknown::Undecided | Unknown::Expired))
            || self.gate.as_ref().is_some_and(Gate::is_following);
        let classify = wanted && (self.pace.may(now, pending) || asked);
        if classify {
            self.passed += 1;
            self.gate.iter_mut().for_each(|gate| gate.took(now));
        }
        (classify, self.standing.tick(now))
    }

    /// What the model made of a frame: a class and its probability, or why not. Whether something else is known now.
    pub fn answered(&mut self, answer: Result<(usize, f32), Reason>, now: Instant) -> bool {
        self.standing.saw(answer, now)
    }

    /// The source is lost. Whether something else is known now.
    pub fn lost(&mut self, now: Instant) -> bool {
        self.digest = None;
        self.standing.lost(standing::Unavailable::Gone, now)
    }

    /// Time passes without a frame. Whether something else is known now.
    pub fn tick(&mut self, now: Instant) -> bool {
        let gone = matches!(self.standing.now(), Standing::Unavailable(_));
        if !gone && now.saturating_duration_since(self.frame) > self.settings.silence {
            return self.lost(now);
        }
        self.standing.tick(now)
    }
}

#[cfg(test)]
mod tests {
    use super::super::gate::SIDE;
    use super::*;

    const FRAME: Duration = Duration::from_millis(200);

    fn settings() -> Settings {
        Settings {
            gate: Some(gate::Settings::default()),
            unasked: true,
            per_second: [2.0, 20.0],
            terms: Terms::default(),
            frozen: 10,
            silence: 2 * FRAME,
        }
    }

    fn cells(light: u8) -> Cells {
        std::array::from_fn(|i| light + (i % SIDE) as u8)
    }

    #[test]
    fn a_frozen_camera_is_said_within_ten_frames_and_comes_back_with_the_first_other_frame() {
        let start = Instant::now();
        let mut observer = Observer::new(settings(), start).unwrap();
        let mut now = start;
        for digest in 0..5 {
            now += FRAME;
            if observer.frame(digest, &cells(90), false, now).0 {
                observer.answered(Ok((3, 0.9)), now);
            }
        }
        assert_eq!(observer.standing().now(), Standing::Label(3));
        let mut equal = 0;
        while observer.standing().now() == Standing::Label(3) {
            now += FRAME;
            equal += 1;
            observer.frame(4, &cells(90), false, now);
        }
        assert!(equal <= 10, "{equal}");
        assert_eq!(observer.standing().now(), Standing::Unavailable(Unavailable::Frozen));
        for (digest, state) in [(9, Standing::Unknown(Unknown::Undecided)), (10, Standing::Label(3))] {
            now += FRAME;
            assert!(observer.frame(digest, &cells(90), false, now).0, "the gate would not have let it pass");
            observer.answered(Ok((3, 0.9)), now);
            assert_eq!(observer.standing().now(), state);
        }
    }

    #[test]
    fn a_silent_source_is_gone_after_two_intervals() {
        let start = Instant::now();
        let mut observer = Observer::new(settings(), start).unwrap();
        assert!(observer.frame(1, &cells(90), false, start).0);
        observer.answered(Ok((3, 0.9)), start);
        assert!(!observer.tick(start + 2 * FRAME));
        let late = start + 2 * FRAME + Duration::from_millis(1);
        assert!(observer.tick(late) && !observer.tick(late + FRAME));
        assert_eq!(observer.standing().now(), Standing::Unavailable(Unavailable::Gone));
    }

    #[test]
    fn what_is_asked_for_is_classified_and_nothing_else_where_nobody_watches() {
        let start = Instant::now();
        let mut observer = Observer::new(Settings { gate: None, unasked: false, ..settings() }, start).unwrap();
        let mut classified = Vec::new();
        for k in 0..20u32 {
            let now = start + FRAME * k;
            if observer.frame(k, &cells(90), k % 7 == 3, now).0 {
                classified.push(k);
                observer.answered(Ok((3, 0.9)), now);
            }
        }
        assert_eq!(classified, [3, 10, 17]);
    }

    #[test]
    fn more_is_classified_while_a_change_is_pending() {
        let start = Instant::now();
        let ten_a_second = Duration::from_millis(100);
        let mut observer = Observer::new(settings(), start).unwrap();
        let mut classified = Vec::new();
        for k in 0..100u32 {
            let now = start + ten_a_second * k;
            let light = if k < 50 { 90 } else { 90 - 40 * u8::from(k % 2 == 0) };
            // Only a part of the region changes, or it would be the light.
            let mut frame = cells(90);
            frame[..20].copy_from_slice(&cells(light)[..20]);
            if observer.frame(k, &frame, false, now).0 {
                classified.push(k);
                observer.answered(Ok((3, 0.9)), now);
            }
        }
        let within = |range: std::ops::Range<u32>| classified.iter().filter(|k| range.contains(k)).count();
        assert!(within(10..50) <= 1, "{classified:?}");
        assert_eq!(within(50..100), 50, "{classified:?}");
    }
}
