//! Accept or abstain: the three thresholds and the reason.

use crate::record::{Fields, Record, Writer};
use serde::{Deserialize, Serialize};

/// When to abstain. Fitted at export so that the share of calibration images abstained for any reason is the
/// promised false-abstain rate; an operator may override each.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Thresholds {
    /// Abstain when the rate's p-value (typicality) is below this, in [0, 1].
    pub typicality_min: f32,
    /// Abstain when the posterior entropy's two-sided p-value is below this, in [0, 1].
    pub entropy_p_min: f32,
    /// Abstain when the predictive entropy is above this, nats, >= 0.
    pub predictive_entropy_max_nats: f32,
}

impl Thresholds {
    /// Whether every threshold is in its range.
    pub fn is_valid(&self) -> bool {
        (0.0..=1.0).contains(&self.typicality_min)
            && (0.0..=1.0).contains(&self.entropy_p_min)
            && self.predictive_entropy_max_nats >= 0.0
            && self.predictive_entropy_max_nats.is_finite()
    }
}

impl Record for Thresholds {
    const SIZE: usize = 12;

    fn read(fields: &mut Fields) -> Option<Self> {
        Some(Self {
            typicality_min: fields.f32()?,
            entropy_p_min: fields.f32()?,
            predictive_entropy_max_nats: fields.f32()?,
        })
    }

    fn write(&self, to: &mut Writer) {
        to.f32(self.typicality_min).f32(self.entropy_p_min).f32(self.predictive_entropy_max_nats);
    }
}

/// Why a device does not trust an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// The rate is larger than that of almost every calibration image.
    AtypicalRate,
    /// The posterior entropy is off, in either direction.
    AtypicalEntropy,
    /// The posterior is typical, but the class is not clear.
    UncertainClass,
}

impl Reason {
    /// A short stable name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::AtypicalRate => "atypical posterior: rate",
            Self::AtypicalEntropy => "atypical posterior: entropy",
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
    /// use paradise_engine::{Decision, Thresholds};
    /// let limits = Thresholds { typicality_min: 0.02, entropy_p_min: 0.02, predictive_entropy_max_nats: 1.0 };
    /// assert!(Decision::new(&limits, 0.4, 0.7, 0.1).is_accept());
    /// assert_eq!(Decision::new(&limits, 0.4, 0.7, 1.5).to_string(), "abstain: uncertain class");
    /// ```
    pub fn new(limits: &Thresholds, typicality: f32, entropy_p: f32, predictive_entropy_nats: f32) -> Self {
        let passes = |value: f32, min: f32| value >= min;
        if !passes(typicality, limits.typicality_min) {
            Self::Abstain(Reason::AtypicalRate)
        } else if !passes(entropy_p, limits.entropy_p_min) {
            Self::Abstain(Reason::AtypicalEntropy)
        } else if !passes(limits.predictive_entropy_max_nats, predictive_entropy_nats) {
            Self::Abstain(Reason::UncertainClass)
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

    const LIMITS: Thresholds =
        Thresholds { typicality_min: 0.02, entropy_p_min: 0.03, predictive_entropy_max_nats: 1.0 };

    #[test]
    fn each_threshold_decides_alone_and_equality_passes() {
        let decide = |t, h, p| Decision::new(&LIMITS, t, h, p);
        assert_eq!(decide(0.02, 0.03, 1.0), Decision::Accept);
        assert_eq!(decide(0.019, 0.5, 0.0), Decision::Abstain(Reason::AtypicalRate));
        assert_eq!(decide(0.5, 0.029, 0.0), Decision::Abstain(Reason::AtypicalEntropy));
        assert_eq!(decide(0.5, 0.5, 1.01), Decision::Abstain(Reason::UncertainClass));
        assert_eq!(decide(0.0, 0.0, 9.0), Decision::Abstain(Reason::AtypicalRate));
    }

    #[test]
    fn nan_abstains() {
        for at in 0..3 {
            let mut values = [0.9, 0.9, 0.1];
            values[at] = f32::NAN;
            assert!(!Decision::new(&LIMITS, values[0], values[1], values[2]).is_accept());
        }
        assert!(!Thresholds { typicality_min: f32::NAN, ..LIMITS }.is_valid());
    }
}
