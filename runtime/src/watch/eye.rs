//! Whether the camera sees anything: the same picture again and again, a black one, one that is burnt out, or none at all.

use serde::Serialize;
use std::time::{Duration, Instant};

/// Pictures of the same bytes, one after the other, that are too many for a camera: its noise alone makes each another.
const FROZEN: u32 = 10;
/// What a value of a black picture is at most, but for [`OTHERS`] of them.
const BLACK: u8 = 16;
/// What a value of a burnt-out one is at least.
const WHITE: u8 = 250;
/// Share of values that may be otherwise, 1 in so many.
const OTHERS: usize = 50;

/// What the last pictures look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sight {
    /// As pictures do.
    #[default]
    Clear,
    /// The same bytes as the ones before, so often that no camera makes them.
    Frozen,
    /// Nearly all of it black: a cap, a dark room, no exposure.
    Black,
    /// Nearly all of it burnt out.
    Saturated,
    /// None came for longer than one should.
    Stale,
}

impl Sight {
    /// Every one, in the order in which they are shown.
    pub const ALL: [Self; 5] = [Self::Clear, Self::Frozen, Self::Black, Self::Saturated, Self::Stale];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clear => "clear",
            Self::Frozen => "frozen",
            Self::Black => "black",
            Self::Saturated => "saturated",
            Self::Stale => "stale",
        }
    }
}

/// Looks at every input of a model.
#[derive(Debug)]
pub struct Eye {
    longest: Option<Duration>,
    last: Instant,
    sum: u32,
    same: u32,
    sight: Sight,
}

impl Eye {
    /// Pictures should come at least this often, if anyone says so.
    pub fn new(longest: Option<Duration>, now: Instant) -> Self {
        Self { longest, last: now, sum: 0, same: 0, sight: Sight::Clear }
    }

    /// Sees an input, u8 of any extents.
    pub fn see(&mut self, input: &[u8], now: Instant) -> Sight {
        self.last = now;
        let sum = crc32fast::hash(input);
        self.same = if self.same > 0 && sum == self.sum { self.same.saturating_add(1) } else { 1 };
        self.sum = sum;
        let few = |is_other: fn(u8) -> bool| {
            let most = input.len() / OTHERS;
            input.iter().filter(|v| is_other(**v)).take(most + 1).count() <= most
        };
        self.sight = if few(|v| v > BLACK) {
            Sight::Black
        } else if few(|v| v < WHITE) {
            Sight::Saturated
        } else if self.same >= FROZEN {
            Sight::Frozen
        } else {
            Sight::Clear
        };
        self.sight
    }

    /// What it sees now, or that it sees nothing.
    pub fn sight(&self, now: Instant) -> Sight {
        let stale = self.longest.is_some_and(|longest| now.saturating_duration_since(self.last) > longest);
        if stale { Sight::Stale } else { self.sight }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_camera_does_not_make_is_named() {
        let start = Instant::now();
        let mut eye = Eye::new(Some(Duration::from_secs(5)), start);
        let picture = |seed| {
            let mut rng = fastrand::Rng::with_seed(seed);
            (0..3072).map(|_| rng.u8(40..220)).collect::<Vec<u8>>()
        };
        for seed in 0..20 {
            assert_eq!(eye.see(&picture(seed), start), Sight::Clear);
        }
        for same in 2..FROZEN {
            assert_eq!(eye.see(&picture(19), start), Sight::Clear, "{same}");
        }
        assert_eq!(eye.see(&picture(19), start), Sight::Frozen);
        assert_eq!(eye.see(&picture(20), start), Sight::Clear);
        // A cap lets a little through; a lamp leaves a corner.
        let mut dark = vec![9; 3072];
        dark[..50].fill(90);
        assert_eq!(eye.see(&dark, start), Sight::Black);
        let mut bright = vec![255; 3072];
        bright[..60].fill(10);
        assert_eq!(eye.see(&bright, start), Sight::Saturated);
        bright[..80].fill(10);
        assert_eq!(eye.see(&bright, start), Sight::Clear);
        let later = start + Duration::from_secs(6);
        assert_eq!((eye.sight(start), eye.sight(later)), (Sight::Clear, Sight::Stale));
        assert_eq!(Eye::new(None, start).sight(later), Sight::Clear);
    }
}
