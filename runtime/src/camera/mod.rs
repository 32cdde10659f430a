//! What a camera needs, without sockets or threads: pictures out of a stream, the region that is looked at, whether anything has moved, how
//! often to classify, and a decision that one odd frame does not turn. [`observer`] puts them together.

pub mod gate;
pub mod mjpeg;
pub mod observer;
pub mod pace;
pub mod region;
pub mod standing;
pub mod yuyv;
