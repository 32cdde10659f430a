//! What is asked and answered.

use paradise_engine::typicality::Distances;
use paradise_engine::{Decision, PValues};
use serde::{Deserialize, Serialize};

/// The version of these messages; both sides must have the same.
pub const VERSION: u8 = 1;

/// Most bytes of a picture in one request.
pub const CHUNK: usize = 128;
/// Most numbers of a vector in one reply.
pub const NUMBERS: usize = 32;

/// What a host asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request<'a> {
    /// One more than the last request's; the same if that had no reply. A hello may begin anywhere.
    pub number: u32,
    /// The question.
    #[serde(borrow)]
    pub ask: Ask<'a>,
}

/// A question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Ask<'a> {
    /// The first request of a session.
    Hello {
        /// [`VERSION`].
        version: u8,
    },
    /// What the chip is.
    Info,
    /// The name of a class.
    Label(u16),
    /// A part of a picture, u8 `[h][w][c]`.
    Picture {
        /// The first byte.
        at: u32,
        /// At most [`CHUNK`] bytes.
        bytes: &'a [u8],
    },
    /// The verdict on the picture that was sent.
    Classify {
        /// CRC-32 of all its bytes.
        crc: u32,
    },
    /// Numbers of the last verdict.
    Vector {
        /// Which.
        which: Vector,
        /// The first; at most [`NUMBERS`] follow.
        from: u16,
    },
    /// What has been counted since the chip started.
    Counters,
    /// Begins a self-test; its outcome is in [`Ask::Check`].
    SelfTest,
    /// How a check of the self-test stands.
    Check(u8),
    /// Makes a check fail, to prove that it can: in firmware that was built for it.
    Inject(u8),
    /// Starts the chip anew.
    Restart,
}

/// A vector of the last verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Vector {
    /// Posterior means.
    Mu,
    /// Logarithms of the posterior's standard deviations.
    LogSigma,
    /// Logits.
    Logits,
}

/// What a chip answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply<'a> {
    /// The request's number.
    pub number: u32,
    /// The answer, or why there is none.
    #[serde(borrow)]
    pub answer: Result<Answer<'a>, Refusal>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Answer<'a> {
    /// To a hello: [`VERSION`].
    Hello {
        /// The chip's version.
        version: u8,
    },
    /// What the chip is.
    #[serde(borrow)]
    Info(Info<'a>),
    /// A class's name, cut to 64 bytes.
    Label(&'a str),
    /// The part of the picture is there.
    Taken,
    /// The verdict.
    Verdict(Verdict),
    /// f32 bits, little-endian.
    Numbers(&'a [u8]),
    /// What has been counted.
    Counters(Counters),
    /// How a check stands.
    Check(Check<'a>),
    /// It is done, or has begun.
    Done,
}

/// Why a request has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The chip speaks another version; it is in the answer to a hello.
    Version,
    /// No hello has been heard.
    Stranger,
    /// The request is of no known form.
    Unknown,
    /// It names what is not there.
    Range,
    /// The picture is not whole, or not what its checksum says.
    Picture,
    /// There has been no verdict.
    Nothing,
    /// A self-test is under way.
    Busy,
    /// A fault is latched: the chip does not classify.
    Fault,
}

/// What a chip is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Info<'a> {
    /// The model's name, cut to 32 bytes.
    pub model: &'a str,
    /// SHA-256 of its `model.pmq`.
    pub hash: [u8; 32],
    /// The board.
    pub board: &'a str,
    /// The kernels.
    pub kernels: &'a str,
    /// Version of the firmware.
    pub version: &'a str,
    /// Height, width and channels of a picture.
    pub input: [u16; 3],
    /// Latent dimension, classes.
    pub sizes: [u16; 2],
    /// Bytes of memory: arena, scratch, the most stack that was used, the stack.
    pub memory: [u32; 4],
    /// What it is doing.
    pub state: State,
    /// Checks of its self-test.
    pub checks: u8,
    /// Why it last started.
    pub reset: &'a str,
}

/// What a chip is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Testing itself.
    Testing,
    /// Classifying what it is given.
    Ready,
    /// A check failed: it does not classify.
    Fault,
}

/// The verdict on a picture; all numbers are those of the engine, bit for bit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Index of the class.
    pub class: u16,
    /// Accept, or why not.
    pub decision: Decision,
    /// What the steadied decision is: a class, or none.
    pub steady: Option<u16>,
    /// Rate, nats.
    pub rate_nats: f32,
    /// Posterior entropy, nats.
    pub posterior_entropy_nats: f32,
    /// Predictive entropy, nats.
    pub predictive_entropy_nats: f32,
    /// Squared distances.
    pub distances: Distances,
    /// p-values.
    pub p: PValues,
    /// What it took, in the board's ticks.
    pub ticks: u32,
}

/// What has been counted since the chip started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Pictures that were classified.
    pub classified: u32,
    /// Accepted.
    pub accepted: u32,
    /// Abstained from, by [`Reason`](paradise_engine::Reason) in its order: picture, atypical, uncertain.
    pub abstained: [u32; 3],
    /// Frames that were not whole.
    pub damaged: u32,
    /// Bytes that arrived faster than they were taken.
    pub overrun: u32,
    /// Of the last pictures, how many were answered, and abstained from: of at most as many as the chip keeps.
    pub recent: [u16; 2],
    /// Restarts since power was applied.
    pub restarts: u32,
}

/// How a check stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether it passed; `None` if it was not run.
    pub passed: Option<bool>,
    /// What was found, and what it was held to.
    pub found: [u32; 2],
}
