//! What is watched while a model serves, for years perhaps: that the device computes as it should ([`Lockstep`], [`Round`]), that
//! the camera sees something ([`Eye`]), that the world is still the one that the model was calibrated on ([`Drift`]); and what is
//! remembered of it over restarts ([`Latch`], [`Journal`]).
//!
//! This is self-testing in the style of Class B of IEC 60730; nobody has certified it.

mod code;
mod drift;
mod eye;
mod journal;
mod latch;
mod lockstep;
mod round;

pub use code::Code;
pub use drift::{Drift, Shift};
pub use eye::{Eye, Sight};
pub use journal::{Broken, Entry, Journal};
pub use latch::{Fault, Latch};
pub use lockstep::Lockstep;
pub use round::{Area, Changed, Round};
