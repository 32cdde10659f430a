//! A microcontroller that classifies, over a serial port or TCP: `paradise-link`'s messages from the host's side.
//!
//! Every request is repeated until it has a reply; the chip does nothing twice, so that is safe.

mod error;
mod port;

pub use error::McuError;
pub use port::{Port, open};

use paradise_link::message::{CHUNK, Counters, State};
use paradise_link::{Answer, Ask, Frames, MAX_FRAME, Reply, Request, VERSION, Vector, Verdict, frame};
use serde::Serialize;
use std::time::{Duration, Instant};

/// How often a request is sent before a chip is given up.
const TRIES: u32 = 8;

/// What a chip says of itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Info {
    /// The model's name, cut to 32 bytes.
    pub model: String,
    /// SHA-256 of its `model.pmq`, in hexadecimal.
    pub hash: String,
    /// The board.
    pub board: String,
    /// The kernels.
    pub kernels: String,
    /// Version of the firmware.
    pub version: String,
    /// Height, width and channels of a picture.
    pub input: [u16; 3],
    /// Latent dimension.
    pub latent: u16,
    /// Classes.
    pub classes: u16,
    /// Bytes of the model's activations.
    pub arena: u32,
    /// Bytes of its other memory.
    pub scratch: u32,
    /// The most stack that was used so far, bytes.
    pub stack_used: u32,
    /// The stack, bytes.
    pub stack: u32,
    /// What the chip is doing.
    pub state: State,
    /// Checks of its self-test.
    pub checks: u8,
    /// Why it last started.
    pub reset: String,
}

/// How a check of the self-test ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// Whether it passed; `None` if it was not run.
    pub passed: Option<bool>,
    /// What it found.
    pub found: u32,
    /// What that was held to.
    pub held_to: u32,
}

/// A chip.
pub struct Mcu {
    port: Box<dyn Port>,
    frames: Frames,
    number: u32,
    /// How long a reply may take before its request is sent again.
    patience: Duration,
}

impl Mcu {
    /// Greets the chip behind a port.
    ///
    /// # Errors
    /// If it does not answer, or speaks another version.
    pub fn greet(port: Box<dyn Port>) -> Result<Self, McuError> {
        let mut mcu = Self { port, frames: Frames::new(), number: 0, patience: Duration::from_millis(700) };
        // What is left of an earlier session ends here.
        mcu.port.write_all(&[0])?;
        match mcu.ask(Ask::Hello { version: VERSION }, |answer| match answer {
            Answer::Hello { version } => Some(version),
            _ => None,
        }) {
            Ok(VERSION) => Ok(mcu),
            Ok(other) => Err(McuError::Version { chip: other, host: VERSION }),
            Err(McuError::Refused(paradise_link::Refusal::Version)) => {
                Err(McuError::Version { chip: 0, host: VERSION })
            }
            Err(error) => Err(error),
        }
    }

    /// One request: `read` takes what it needs from the answer, `None` if that is of another kind.
    fn ask<T>(&mut self, ask: Ask, mut read: impl FnMut(Answer) -> Option<T>) -> Result<T, McuError> {
        self.number = self.number.wrapping_add(1);
        let mut line = [0; MAX_FRAME];
        let len = frame::write(&Request { number: self.number, ask }, &mut line)?;
        for _ in 0..TRIES {
            self.port.write_all(&line[..len])?;
            let until = Instant::now() + self.patience;
            while let Some(byte) = self.port.read_byte(until)? {
                let Some(payload) = self.frames.push(byte) else { continue };
                match frame::read::<Reply>(payload) {
                    // An answer to a request that was given up, or sent twice.
                    Some(reply) if reply.number != self.number => {}
                    Some(Reply { answer: Ok(answer), .. }) => return read(answer).ok_or(McuError::Unexpected),
                    Some(Reply { answer: Err(refusal), .. }) => return Err(McuError::Refused(refusal)),
                    None => {}
                }
            }
        }
        Err(McuError::Silent { tries: TRIES, each: self.patience })
    }

    /// What the chip is.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn info(&mut self) -> Result<Info, McuError> {
        self.ask(Ask::Info, |answer| {
            let Answer::Info(info) = answer else { return None };
            let [arena, scratch, stack_used, stack] = info.memory;
            Some(Info {
                model: info.model.into(),
                hash: info.hash.iter().map(|byte| format!("{byte:02x}")).collect(),
                board: info.board.into(),
                kernels: info.kernels.into(),
                version: info.version.into(),
                input: info.input,
                latent: info.sizes[0],
                classes: info.sizes[1],
                arena,
                scratch,
                stack_used,
                stack,
                state: info.state,
                checks: info.checks,
                reset: info.reset.into(),
            })
        })
    }

    /// The name of a class.
    ///
    /// # Errors
    /// If it does not answer, or has no such class.
    pub fn label(&mut self, class: u16) -> Result<String, McuError> {
        self.ask(
            Ask::Label(class),
            |answer| if let Answer::Label(label) = answer { Some(label.into()) } else { None },
        )
    }

    /// The verdict on a picture, u8 `[h][w][c]`.
    ///
    /// # Errors
    /// If it does not answer, or does not take the picture.
    pub fn classify(&mut self, picture: &[u8]) -> Result<Verdict, McuError> {
        for (i, bytes) in picture.chunks(CHUNK).enumerate() {
            let at = (i * CHUNK) as u32;
            self.ask(Ask::Picture { at, bytes }, |answer| matches!(answer, Answer::Taken).then_some(()))?;
        }
        let crc = paradise_engine::golden::crc32_bytes(picture);
        self.ask(Ask::Classify { crc }, |answer| if let Answer::Verdict(v) = answer { Some(v) } else { None })
    }

    /// A vector of the last verdict, of so many numbers.
    ///
    /// # Errors
    /// If it does not answer, or has another number.
    pub fn vector(&mut self, which: Vector, len: usize) -> Result<Vec<f32>, McuError> {
        let mut all = Vec::with_capacity(len);
        while all.len() < len {
            let from = all.len() as u16;
            let more = self.ask(Ask::Vector { which, from }, |answer| {
                let Answer::Numbers(bytes) = answer else { return None };
                let number = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                Some(bytes.chunks_exact(4).map(number).collect::<Vec<f32>>())
            })?;
            if more.is_empty() {
                return Err(McuError::Unexpected);
            }
            all.extend(more);
        }
        Ok(all)
    }

    /// What has been counted since the chip started.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn counters(&mut self) -> Result<Counters, McuError> {
        self.ask(Ask::Counters, |answer| if let Answer::Counters(counters) = answer { Some(counters) } else { None })
    }

    /// Runs the whole self-test, calling `progress` with each check as it ends.
    ///
    /// # Errors
    /// If the chip does not answer, or its fault is latched already.
    pub fn self_test(&mut self, mut progress: impl FnMut(&Check)) -> Result<Vec<Check>, McuError> {
        self.wait()?;
        self.ask(Ask::SelfTest, |answer| matches!(answer, Answer::Done).then_some(()))?;
        let mut shown = 0;
        loop {
            let info = self.info()?;
            let checks: Vec<Check> = (0..info.checks).map(|at| self.check(at)).collect::<Result<_, _>>()?;
            let over = info.state != State::Testing;
            // A check that was not run is known as such only when all is over.
            while let Some(check) = checks.get(shown).filter(|check| over || check.passed.is_some()) {
                progress(check);
                shown += 1;
            }
            if over {
                return Ok(checks);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until the chip tests itself no longer, as it does when it starts; what it is doing then.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn wait(&mut self) -> Result<State, McuError> {
        loop {
            match self.info()?.state {
                State::Testing => std::thread::sleep(Duration::from_millis(100)),
                state => return Ok(state),
            }
        }
    }

    /// How a check stands.
    ///
    /// # Errors
    /// If the chip does not answer, or has no such check.
    pub fn check(&mut self, at: u8) -> Result<Check, McuError> {
        self.ask(Ask::Check(at), |answer| {
            let Answer::Check(check) = answer else { return None };
            let [found, held_to] = check.found;
            Some(Check { name: check.name.into(), passed: check.passed, found, held_to })
        })
    }

    /// Makes a check fail when it runs next, in firmware that was built for that.
    ///
    /// # Errors
    /// If it does not answer, or was not.
    pub fn inject(&mut self, check: u8) -> Result<(), McuError> {
        self.ask(Ask::Inject(check), |answer| matches!(answer, Answer::Done).then_some(()))
    }

    /// Starts the chip anew, and greets it again.
    ///
    /// # Errors
    /// If it does not answer, before or after.
    pub fn restart(&mut self) -> Result<(), McuError> {
        self.ask(Ask::Restart, |answer| matches!(answer, Answer::Done).then_some(()))?;
        self.frames = Frames::new();
        self.number = 0;
        self.ask(Ask::Hello { version: VERSION }, |answer| matches!(answer, Answer::Hello { .. }).then_some(()))
    }
}
