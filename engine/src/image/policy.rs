//! How any picture becomes a model's input: the record in a bundle, and its sentence.

use crate::record::{Fields, Record, Writer};

/// What [`Geometry::Crop`] keeps is told in parts of this.
pub const ALL_PARTS: u16 = 10_000;

/// How a picture of another size or aspect ratio meets the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Geometry {
    /// Each axis is scaled on its own.
    Stretch,
    /// The largest centred part of the input's aspect ratio, or of that the centred share.
    Crop {
        /// Share of both sides of the largest part that is kept, in 1 / [`ALL_PARTS`]: 8750 is the usual 224 of 256.
        parts: u16,
    },
    /// The whole picture, as large as fits, in the middle; what is left of the input is black.
    Letterbox,
}

/// What is light and what is dark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Polarity {
    /// Values as the picture has them.
    AsTaken,
    /// The same; and the training images show light objects on black, so pictures of dark objects on light ground must be
    /// inverted by whoever takes them: nothing here guesses.
    LightOnDark,
    /// Every value v becomes 255 - v.
    Inverted,
}

/// The record in a bundle that says how pictures become inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImagePolicy {
    /// What to do about another size or aspect ratio.
    pub geometry: Geometry,
    /// Whether values are inverted.
    pub polarity: Polarity,
}

impl ImagePolicy {
    /// Whether it keeps a part of every picture.
    pub fn is_valid(&self) -> bool {
        !matches!(self.geometry, Geometry::Crop { parts } if !(1..=ALL_PARTS).contains(&parts))
    }
}

/// In plain words, as `inspect` prints it.
impl core::fmt::Display for ImagePolicy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.geometry {
            Geometry::Stretch => f.write_str("stretched to the input's size, whatever their shape")?,
            Geometry::Crop { parts: ALL_PARTS } => {
                f.write_str("cut to their largest centred part of the input's shape")?
            }
            Geometry::Crop { parts } => {
                let (whole, rest) = (parts / 100, parts % 100);
                write!(
                    f,
                    "cut to the centre, {whole}.{rest:02} % of the sides of their largest part of the input's shape"
                )?;
            }
            Geometry::Letterbox => f.write_str("kept whole, with black bars where their shape is another")?,
        }
        f.write_str(match self.polarity {
            Polarity::AsTaken => "; light and dark as taken",
            Polarity::LightOnDark => "; light and dark as taken: objects must be light on a dark ground",
            Polarity::Inverted => "; inverted, so that dark becomes light",
        })
    }
}

impl ImagePolicy {
    /// See [`Record::read`].
    pub const fn read(fields: &mut Fields) -> Self {
        let (geometry, polarity, parts) = (fields.u8(), fields.u8(), fields.u16());
        let geometry = match geometry {
            0 => Geometry::Stretch,
            1 => Geometry::Crop { parts },
            kind => {
                fields.require(kind == 2);
                Geometry::Letterbox
            }
        };
        fields.require(parts == 0 || matches!(geometry, Geometry::Crop { .. }));
        let polarity = match polarity {
            0 => Polarity::AsTaken,
            1 => Polarity::LightOnDark,
            kind => {
                fields.require(kind == 2);
                Polarity::Inverted
            }
        };
        Self { geometry, polarity }
    }
}

/// `geometry u8, polarity u8, parts u16` (0 where there is no crop).
impl Record for ImagePolicy {
    const SIZE: usize = 4;

    fn read(fields: &mut Fields) -> Self {
        Self::read(fields)
    }

    fn write(&self, to: &mut Writer) {
        let (geometry, parts) = match self.geometry {
            Geometry::Stretch => (0, 0),
            Geometry::Crop { parts } => (1, parts),
            Geometry::Letterbox => (2, 0),
        };
        to.u8(geometry).u8(self.polarity as u8).u16(parts);
    }
}
