//! From a camera's bytes to what is known of what it sees, without sockets, devices or threads.
//!
//! ```text
//! bytes --mjpeg--> pictures --gate--> those in which something changed --model--> answers --standing--> label, unknown, unavailable
//! ```

pub mod gate;
pub mod mjpeg;
pub mod standing;
