//! What a host and a microcontroller that classifies say to each other over a serial port.
//!
//! ```text
//! Request --postcard--> payload --CRC-32--> payload, crc --COBS--> frame without zeros, 0     and back for a Reply
//! ```
//! [`message`] is what is said, [`frame`] how it travels. Every frame stands for itself: after noise, loss or overrun a
//! receiver goes on with the frame after the next zero. A request has a number; a chip answers a number that it has answered
//! already with the same bytes and does nothing twice, so a host may repeat whatever had no reply.
//!
//! ```
//! use paradise_link::{Ask, Frames, MAX_FRAME, Request, frame};
//!
//! let request = Request { number: 7, ask: Ask::Hello { version: paradise_link::VERSION } };
//! let mut line = [0; MAX_FRAME];
//! let sent = frame::write(&request, &mut line)?;
//! let mut frames = Frames::new();
//! // Noise, and a zero that ends it; then the request.
//! let heard = [&[0x55, 0x12, 0][..], &line[..sent]].concat();
//! let mut understood = 0;
//! for byte in heard {
//!     if let Some(payload) = frames.push(byte) {
//!         assert_eq!(frame::read::<Request>(payload), Some(request.clone()));
//!         understood += 1;
//!     }
//! }
//! assert_eq!((understood, frames.damaged()), (1, 1));
//! # Ok::<(), frame::TooLong>(())
//! ```
#![cfg_attr(not(test), no_std)]
#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod frame;
pub mod message;

pub use frame::{Frames, MAX_FRAME, MAX_PAYLOAD};
pub use message::{Answer, Ask, Check, Counters, Info, Refusal, Reply, Request, State, VERSION, Vector, Verdict};
