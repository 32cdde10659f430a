//! The application without its board, so that it is tested on the host.
//!
//! [`app`] is the state machine, [`checks`] the self-test, [`board`] what both need of a board. [`recent`] and
//! [`latch`] are what they remember. [`mlperf`] takes another runner's commands in place of the link.
#![no_std]
#![forbid(unsafe_code)]

pub mod app;
pub mod board;
pub mod checks;
pub mod latch;
pub mod mlperf;
pub mod recent;
