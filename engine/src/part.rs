//! What of the engine a program may leave out: operations and kinds of covariance that its model has not. Each is a feature of this
//! crate, and all are on unless a chip's build says otherwise; [`Lowered::embedded`](crate::Lowered::embedded) refuses, while
//! compiling, a model that needs one that is off.

use crate::header::{Covariance, Header};
use crate::layer::{Layer, Op};
use crate::whitening::Directions;

/// A part of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Part {
    /// Convolutions that no kernels of a [layout](crate::lowered::Layout) compute, such as grouped ones.
    Conv,
    /// [`Op::Dense`].
    Dense,
    /// [`Op::Affine`] that stands alone.
    Affine,
    /// [`Op::Add`] that stands alone.
    Add,
    /// [`Op::AvgPool`].
    AvgPool,
    /// [`Op::MaxPool`].
    MaxPool,
    /// [`Covariance::Diagonal`].
    Diagonal,
    /// [`Covariance::Shared`].
    Shared,
    /// [`Covariance::PerClass`].
    PerClass,
    /// [`Directions::Principal`].
    Principal,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 10] = [
        Self::Conv,
        Self::Dense,
        Self::Affine,
        Self::Add,
        Self::AvgPool,
        Self::MaxPool,
        Self::Diagonal,
        Self::Shared,
        Self::PerClass,
        Self::Principal,
    ];

    /// Whether this build has it.
    pub const fn is_built(self) -> bool {
        match self {
            Self::Conv => cfg!(feature = "conv"),
            Self::Dense => cfg!(feature = "dense"),
            Self::Affine => cfg!(feature = "affine"),
            Self::Add => cfg!(feature = "add"),
            Self::AvgPool => cfg!(feature = "avg-pool"),
            Self::MaxPool => cfg!(feature = "max-pool"),
            Self::Diagonal => cfg!(feature = "diagonal"),
            Self::Shared => cfg!(feature = "shared"),
            Self::PerClass => cfg!(feature = "per-class"),
            Self::Principal => cfg!(feature = "principal"),
        }
    }

    /// The feature's name.
    pub const fn feature(self) -> &'static str {
        match self {
            Self::Conv => "conv",
            Self::Dense => "dense",
            Self::Affine => "affine",
            Self::Add => "add",
            Self::AvgPool => "avg-pool",
            Self::MaxPool => "max-pool",
            Self::Diagonal => "diagonal",
            Self::Shared => "shared",
            Self::PerClass => "per-class",
            Self::Principal => "principal",
        }
    }

    /// What computes a layer on its own.
    pub(crate) const fn of_layer(layer: &Layer) -> Self {
        match layer.op {
            Op::Conv { .. } => Self::Conv,
            Op::Dense { .. } => Self::Dense,
            Op::Affine { .. } => Self::Affine,
            Op::Add { .. } => Self::Add,
            Op::AvgPool { .. } => Self::AvgPool,
            Op::MaxPool { .. } => Self::MaxPool,
        }
    }
}

/// Several parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts(u16);

impl Parts {
    /// Those that a model's confidence needs.
    pub(crate) const fn of_confidence(header: &Header) -> Self {
        let parts = Self(0).with(match header.mixture.covariance {
            Covariance::Diagonal { .. } => Part::Diagonal,
            Covariance::Shared { .. } => Part::Shared,
            Covariance::PerClass { .. } => Part::PerClass,
        });
        let typicality = &header.typicality;
        let spread = match &typicality.spread {
            Some(spread) => spread.directions,
            None => typicality.posterior.directions,
        };
        match (typicality.posterior.directions, spread, typicality.picture.directions) {
            (Directions::Triangle(_), Directions::Triangle(_), Directions::Triangle(_)) => parts,
            _ => parts.with(Part::Principal),
        }
    }

    /// These and another.
    pub(crate) const fn with(self, part: Part) -> Self {
        Self(self.0 | 1 << part as u8)
    }

    /// Whether a part is among them.
    pub const fn has(self, part: Part) -> bool {
        self.0 & 1 << part as u8 != 0
    }

    /// Whether this build has all of them.
    pub const fn are_built(self) -> bool {
        let mut i = 0;
        while i < Part::ALL.len() {
            if self.has(Part::ALL[i]) && !Part::ALL[i].is_built() {
                return false;
            }
            i += 1;
        }
        true
    }
}
