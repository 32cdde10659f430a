//! Why an attack could not run.

use paradise_engine::Shape;

/// The outcome of everything here that can be refused.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an attack, or what it needs, was refused.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A radius is out of its range.
    Radius {
        /// Of the ball.
        norm: &'static str,
        /// The radius.
        eps: f32,
        /// The largest that means anything for such images.
        most: f32,
    },
    /// An image has another number of values than the model takes.
    Values {
        /// Its place among the samples.
        image: usize,
        /// Its values.
        got: usize,
        /// The model's.
        need: usize,
    },
    /// An image has values outside [0, 1], or NaN.
    Pixels {
        /// Its place among the samples.
        image: usize,
    },
    /// An image's class is none of the model's.
    Label {
        /// Its place among the samples.
        image: usize,
        /// Its class.
        label: usize,
        /// Classes of the model.
        classes: usize,
    },
    /// The model has too few classes.
    Classes {
        /// What needs them.
        what: String,
        /// The fewest.
        need: usize,
        /// The model's.
        got: usize,
    },
    /// The attack follows gradients, and the model gives none.
    NoGradients {
        /// The attack.
        attack: String,
    },
    /// The model gave another number of logits than a row for each image.
    Logits {
        /// How many it gave.
        got: usize,
        /// Images of the call.
        images: usize,
        /// Classes of the model.
        classes: usize,
    },
    /// Values of the model are NaN or infinite.
    NotFinite {
        /// Which values.
        what: &'static str,
    },
    /// Transfer attacks were named, and no model was given on which they craft their points.
    NoSurrogate,
    /// The surrogate takes other images than the model.
    SurrogateShape {
        /// What the surrogate takes.
        surrogate: Shape,
        /// What the model takes.
        model: Shape,
    },
    /// The surrogate has other classes than the model.
    SurrogateClasses {
        /// Of the surrogate.
        surrogate: usize,
        /// Of the model.
        model: usize,
    },
    /// An attack's name or its settings are not understood.
    Name(String),
    /// A setting is out of its range.
    Setting(String),
    /// An attack gave fewer answers than it was shown images.
    Lost {
        /// The attack.
        attack: String,
    },
    /// The model, or whoever weighs its outputs, failed.
    Model(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Whatever a model fails with.
    pub fn model(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Model(error.into())
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Radius { norm, eps, most } => write!(f, "{norm} eps {eps} is not in 0..={most}"),
            Self::Values { image, got, need } => write!(f, "image {image} has {got} values, the model takes {need}"),
            Self::Pixels { image } => write!(f, "image {image} has values outside [0, 1]"),
            Self::Label { image, label, classes } => {
                write!(f, "image {image} has class {label}, the model has {classes}")
            }
            Self::Classes { what, need, got } => write!(f, "{what} needs {need} classes, and the model has {got}"),
            Self::NoGradients { attack } => write!(f, "{attack} follows gradients, and this model gives none"),
            Self::Logits { got, images, classes } => {
                write!(f, "{got} logits for {images} images of {classes} classes")
            }
            Self::NotFinite { what } => write!(f, "the model's {what} are not finite"),
            Self::NoSurrogate => write!(f, "transfer attacks need a surrogate model, and none is given"),
            Self::SurrogateShape { surrogate, model } => {
                write!(f, "the surrogate takes images of {surrogate:?}, the model of {model:?}")
            }
            Self::SurrogateClasses { surrogate, model } => {
                write!(f, "the surrogate has {surrogate} classes, the model {model}")
            }
            Self::Name(why) | Self::Setting(why) => f.write_str(why),
            Self::Lost { attack } => write!(f, "{attack} lost an image"),
            Self::Model(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Model(error) => error.source(),
            _ => None,
        }
    }
}

/// Refuses a setting unless it holds.
pub(crate) fn setting(holds: bool, why: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Setting(why())) }
}
