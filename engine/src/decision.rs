//! Accept or abstain: the thresholds and the reason.

use crate::record::{Fields, Record, Writer};
use serde::{Deserialize, Serialize};

/// What calibration images say of an answer: conformal p-values, in (0, 1]. That of an image like the calibration images is
/// small by chance alone: at most `p` in a share `p` of them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PValues {
    /// Of the picture's own appearance (picture typicality).
    pub picture: f32,
    /// Of the whole posterior, mu and sigma together (posterior typicality).
    pub posterior: f32,
    /// Of sigma alone (spread typicality).
    pub spread: f32,
    /// Of the rate.
    pub rate: f32,
    /// Of the posterior entropy, two-sided.
    pub entropy: f32,
    /// Of the predictive entropy: of how undecided the class is.
    pub predictive: f32,
    /// Of [`surprise`](Self::surprise): of picture, posterior and class together.
    pub combined: f32,
}

impl PValues {
    /// Those of what nothing is unusual about.
    pub const TYPICAL: Self =
        Self { picture: 1.0, posterior: 1.0, spread: 1.0, rate: 1.0, entropy: 1.0, predictive: 1.0, combined: 1.0 };

    /// `-ln(p_picture p_posterior p_predictive)`, Fisher's statistic but for a factor of two: large where several are small, none
    /// of which decides alone.
    pub fn surprise(&self) -> f32 {
        -(libm::logf(self.picture) + libm::logf(self.posterior) + libm::logf(self.predictive))
    }

    /// What surprises most: picture, posterior or class.
    fn weakest(&self) -> Reason {
        if self.picture <= self.posterior && self.picture <= self.predictive {
            Reason::UnfamiliarPicture
        } else if self.posterior <= self.predictive {
            Reason::AtypicalPosterior
        } else {
            Reason::UncertainClass
        }
    }
}

/// When to abstain. Fitted at export so that the share of calibration images abstained from for any reason is the
/// promised false-abstain rate; an operator may override each. A level of 0 leaves its test out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Thresholds {
    /// Abstain when the picture's p-value is below this, in [0, 1].
    pub picture_p_min: f32,
    /// Abstain when the posterior's p-value is below this, in [0, 1].
    pub posterior_p_min: f32,
    /// Abstain when the spread's p-value is below this, in [0, 1].
    pub spread_p_min: f32,
    /// Abstain when the rate's p-value is below this, in [0, 1].
    pub rate_p_min: f32,
    /// Abstain when the posterior entropy's two-sided p-value is below this, in [0, 1].
    pub entropy_p_min: f32,
    /// Abstain when the p-value of picture, posterior and class together is below this, in [0, 1].
    pub combined_p_min: f32,
    /// Abstain when the predictive entropy is above this, nats, >= 0.
    pub predictive_entropy_max_nats: f32,
}

impl Thresholds {
    /// Thresholds that accept everything that is a number.
    pub const NEVER: Self = Self {
        picture_p_min: 0.0,
        posterior_p_min: 0.0,
        spread_p_min: 0.0,
        rate_p_min: 0.0,
        entropy_p_min: 0.0,
        combined_p_min: 0.0,
        predictive_entropy_max_nats: f32::MAX,
    };

    /// The levels of p-values.
    fn levels(&self) -> [f32; 6] {
        let Self { picture_p_min, posterior_p_min, spread_p_min, rate_p_min, entropy_p_min, combined_p_min, .. } =
            *self;
        [picture_p_min, posterior_p_min, spread_p_min, rate_p_min, entropy_p_min, combined_p_min]
    }

    /// Whether every threshold is in its range.
    pub fn is_valid(&self) -> bool {
        self.levels().iter().all(|level| (0.0..=1.0).contains(level))
            && self.predictive_entropy_max_nats >= 0.0
            && self.predictive_entropy_max_nats.is_finite()
    }
}

impl Thresholds {
    /// See [`Record::read`].
    pub const fn read(fields: &mut Fields) -> Self {
        Self {
            picture_p_min: fields.f32(),
            posterior_p_min: fields.f32(),
            spread_p_min: fields.f32(),
            rate_p_min: fields.f32(),
            entropy_p_min: fields.f32(),
            combined_p_min: fields.f32(),
            predictive_entropy_max_nats: fields.f32(),
        }
    }
}

impl Record for Thresholds {
    const SIZE: usize = 28;

    fn read(fields: &mut Fields) -> Self {
        Self::read(fields)
    }

    fn write(&self, to: &mut Writer) {
        self.levels().iter().for_each(|level| {
            to.f32(*level);
        });
        to.f32(self.predictive_entropy_max_nats);
    }
}

/// Why a device does not trust an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// The picture looks like almost no calibration image: noise, a covered or blurred lens, another kind of camera.
    UnfamiliarPicture,
    /// The picture may look usual, but what the network makes of it does not.
    AtypicalPosterior,
    /// Picture and posterior are typical, but the class is not clear.
    UncertainClass,
}

impl Reason {
    /// A short stable name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::UnfamiliarPicture => "not a picture of the kind I was calibrated on",
            Self::AtypicalPosterior => "atypical posterior",
            Self::UncertainClass => "uncertain class",
        }
    }
}

/// What a device does with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    /// The class may be used.
    Accept,
    /// The class must not be used, and why; the first of several reasons in the order of [`Reason`].
    Abstain(Reason),
}

impl Decision {
    /// Applies the thresholds. A value that is NaN abstains.
    ///
    /// ```
    /// use paradise_engine::{Decision, PValues, Thresholds};
    /// let limits = Thresholds { picture_p_min: 0.02, predictive_entropy_max_nats: 1.0, ..Thresholds::NEVER };
    /// let usual = PValues {
    ///     picture: 0.4, posterior: 0.7, spread: 0.9, rate: 0.3, entropy: 0.2, predictive: 0.8, combined: 0.6
    /// };
    /// assert!(Decision::new(&limits, &usual, 0.1).is_accept());
    /// assert_eq!(Decision::new(&limits, &usual, 1.5).to_string(), "abstain: uncertain class");
    /// ```
    pub fn new(limits: &Thresholds, p: &PValues, predictive_entropy_nats: f32) -> Self {
        let passes = |value: f32, min: f32| value >= min;
        let posterior = passes(p.posterior, limits.posterior_p_min)
            && passes(p.spread, limits.spread_p_min)
            && passes(p.rate, limits.rate_p_min)
            && passes(p.entropy, limits.entropy_p_min);
        if !passes(p.picture, limits.picture_p_min) {
            Self::Abstain(Reason::UnfamiliarPicture)
        } else if !posterior {
            Self::Abstain(Reason::AtypicalPosterior)
        } else if !passes(limits.predictive_entropy_max_nats, predictive_entropy_nats) {
            Self::Abstain(Reason::UncertainClass)
        } else if !passes(p.combined, limits.combined_p_min) {
            Self::Abstain(p.weakest())
        } else {
            Self::Accept
        }
    }

    /// `accept` or `abstain`.
    pub fn name(&self) -> &'static str {
        if self.is_accept() { "accept" } else { "abstain" }
    }

    /// Why it abstains; none where it accepts.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Accept => None,
            Self::Abstain(reason) => Some(*reason),
        }
    }

    /// Whether the class may be used.
    pub fn is_accept(&self) -> bool {
        matches!(self, Self::Accept)
    }
}

impl core::fmt::Display for Reason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

impl core::fmt::Display for Decision {
    /// `accept`, or `abstain: ` and the reason.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Abstain(reason) => write!(f, "abstain: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Thresholds = Thresholds {
        picture_p_min: 0.01,
        posterior_p_min: 0.02,
        spread_p_min: 0.03,
        rate_p_min: 0.04,
        entropy_p_min: 0.05,
        combined_p_min: 0.06,
        predictive_entropy_max_nats: 1.0,
    };

    /// p-values in the order of the levels.
    fn p([picture, posterior, spread, rate, entropy, combined]: [f32; 6]) -> PValues {
        PValues { picture, posterior, spread, rate, entropy, combined, predictive: 0.5 }
    }

    #[test]
    fn each_threshold_decides_alone_and_equality_passes() {
        let decide = |values, predictive| Decision::new(&LIMITS, &p(values), predictive);
        assert_eq!(decide(LIMITS.levels(), 1.0), Decision::Accept);
        assert_eq!(decide([1.0; 6], 1.01), Decision::Abstain(Reason::UncertainClass));
        for at in 0..6 {
            let mut values = [1.0; 6];
            values[at] = LIMITS.levels()[at] - 0.001;
            let reason = match at {
                0 => Reason::UnfamiliarPicture,
                // Together: the class, at 0.5, is the least usual of the three.
                5 => Reason::UncertainClass,
                _ => Reason::AtypicalPosterior,
            };
            assert_eq!(decide(values, 0.0), Decision::Abstain(reason));
        }
        assert_eq!(decide([0.0; 6], 9.0), Decision::Abstain(Reason::UnfamiliarPicture));
    }

    #[test]
    fn nan_abstains() {
        for at in 0..6 {
            let mut values = [0.9; 6];
            values[at] = f32::NAN;
            assert!(!Decision::new(&Thresholds::NEVER, &p(values), 0.1).is_accept());
        }
        assert!(!Decision::new(&Thresholds::NEVER, &p([0.9; 6]), f32::NAN).is_accept());
        assert!(!Thresholds { spread_p_min: f32::NAN, ..LIMITS }.is_valid());
    }
}
