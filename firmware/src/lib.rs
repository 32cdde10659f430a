//! The application without its board, so that it is tested on the host.
#![no_std]
#![forbid(unsafe_code)]

pub mod app;
