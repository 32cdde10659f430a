//! Why a chip gave no answer.

use paradise_link::Refusal;
use paradise_link::frame::TooLong;
use std::fmt;
use std::io;
use std::time::Duration;

/// Why a chip gave no answer.
#[derive(Debug)]
pub enum McuError {
    /// The port cannot be opened.
    Open {
        /// What was to be opened.
        port: String,
        /// Why not.
        why: io::Error,
    },
    /// The port failed.
    Port(io::Error),
    /// Nothing came back.
    Silent {
        /// How often the request was sent.
        tries: u32,
        /// How long each reply was waited for.
        each: Duration,
    },
    /// The chip speaks another version.
    Version {
        /// The chip's, 0 if it did not say.
        chip: u8,
        /// This program's.
        host: u8,
    },
    /// The chip refused.
    Refused(Refusal),
    /// The answer was of another kind than the question.
    Unexpected,
    /// A request does not fit a frame.
    TooLong(TooLong),
}

impl fmt::Display for McuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { port, why } => write!(f, "{port}: {why}"),
            Self::Port(why) => write!(f, "the port failed: {why}"),
            Self::Silent { tries, each } => {
                write!(f, "no reply to {tries} requests, {} ms each: is it this port, this speed?", each.as_millis())
            }
            Self::Version { chip, host } => write!(
                f,
                "the chip speaks version {chip} of the link and this program version {host}: build firmware and program from one \
                 source"
            ),
            Self::Refused(refusal) => f.write_str(match refusal {
                Refusal::Version => "the chip speaks another version of the link",
                Refusal::Stranger => "the chip has started anew and forgot this session",
                Refusal::Unknown => "the chip does not know this request, or was not built for it",
                Refusal::Range => "the chip has no such thing",
                Refusal::Picture => "the picture did not arrive whole",
                Refusal::Nothing => "there has been no verdict",
                Refusal::Busy => "the chip is testing itself",
                Refusal::Fault => {
                    "a fault is latched: the chip does not classify (`paradised mcu selftest` says which)"
                }
            }),
            Self::Unexpected => f.write_str("the chip answered something else"),
            Self::TooLong(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for McuError {}

impl From<io::Error> for McuError {
    fn from(why: io::Error) -> Self {
        Self::Port(why)
    }
}

impl From<TooLong> for McuError {
    fn from(error: TooLong) -> Self {
        Self::TooLong(error)
    }
}
