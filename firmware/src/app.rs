//! What the chip does, as a state machine that its main loop steps and that tests drive on the host.
//!
//! ```text
//!   start --a fault is latched--------------------------------> Fault
//!     \--> Testing --every check passed or has no part--> Ready --SelfTest--> Testing
//!              \--one failed: latched, safe state, fault line--> Fault, also after a restart
//! ```
//! Ready, it answers requests: a picture in parts, a verdict, numbers. Accept and abstain lines follow the steadied decision.

use crate::board::{Board, Reset};
use crate::checks::{Check, Checks, Expected, Hardware};
use crate::latch::Record;
use crate::recent::Recent;
use paradise_engine::golden::{Golden, crc32_bytes};
use paradise_engine::lowered::{Lowered, Memory};
use paradise_engine::selftest::Chip;
use paradise_engine::steady::Steady;
use paradise_engine::{Decision, RunError};
use paradise_link::message::{CHUNK, NUMBERS};
use paradise_link::{Answer, Ask, Counters, Frames, Info, Refusal, Request, State, VERSION, Vector, Verdict, frame};

mod session;

use session::{Order, Session, number_of};

/// What the application is made of.
pub struct Parts<'a, B> {
    /// The board, and what it can be asked about the chip.
    pub board: B,
    /// The model.
    pub lowered: &'a Lowered<'a>,
    /// Of the sizes that it states.
    pub memory: Memory<'a>,
    /// Its self-test.
    pub golden: &'a Golden<'a>,
    /// What the maker's machine found.
    pub expected: Expected,
    /// What the last restart left, and why it was.
    pub record: Record,
    /// Why the chip started.
    pub reset: Reset,
    /// Verdicts that must agree, of how many.
    pub steady: [usize; 2],
}

/// What a step brought, for the log.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
    /// A check ended.
    Checked(Check, crate::checks::Outcome),
    /// One did not: the state is latched.
    Fault(Check),
    /// A picture was classified.
    Verdict(Verdict),
    /// The host asks for so many faults in the model's flash, one bit each, all of which a start must refuse: in firmware that was
    /// built for it.
    Faults(u32),
}

/// What [`Ask::Inject`] means beyond the checks: an inference that never ends, a stack that overflows, and, from the third on, tens
/// of faults in the model's flash.
#[cfg(feature = "inject")]
const HANG: u8 = 100;
#[cfg(feature = "inject")]
const OVERFLOW: u8 = 101;
#[cfg(feature = "inject")]
const FAULTS: u8 = 110;

/// The application.
pub struct App<'a, B> {
    board: B,
    lowered: &'a Lowered<'a>,
    memory: Memory<'a>,
    checks: Checks<'a>,
    record: Record,
    reset: Reset,
    state: State,
    frames: Frames,
    session: Session,
    steady: Steady,
    counters: Counters,
    recent: Recent,
    verdict: Option<Verdict>,
    /// Bytes of a picture that have arrived.
    picture: usize,
    beat: bool,
}

impl<'a, B: Board + Hardware> App<'a, B> {
    /// An application that begins to test itself, unless a fault is latched.
    pub fn new(parts: Parts<'a, B>) -> Self {
        let Parts { board, lowered, memory, golden, expected, record, reset, steady: [need, of] } = parts;
        let mut checks = Checks::new(golden, expected);
        let state = if record.fault().is_some() { State::Fault } else { State::Testing };
        checks.begin(false);
        let counters = Counters { restarts: record.restarts, ..Counters::default() };
        let mut app = Self {
            board,
            lowered,
            memory,
            checks,
            record,
            reset,
            state,
            frames: Frames::new(),
            session: Session::new(),
            steady: Steady::new(need, of),
            counters,
            recent: Recent::default(),
            verdict: None,
            picture: 0,
            beat: false,
        };
        if state == State::Fault {
            app.board.decide(false, false, true);
            app.board.safe_state();
        } else {
            app.board.decide(false, false, false);
        }
        app
    }

    /// What it is doing.
    pub fn state(&self) -> State {
        self.state
    }

    /// What a restart must find: write it down whenever it changes.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The board.
    pub fn board(&mut self) -> &mut B {
        &mut self.board
    }

    /// The self-test, for firmware that proves that its checks can fail.
    pub fn checks(&mut self) -> &mut Checks<'a> {
        &mut self.checks
    }

    /// Bytes arrived faster than they were taken, so many are lost.
    pub fn overrun(&mut self, lost: u32) {
        self.counters.overrun = self.counters.overrun.saturating_add(lost);
        self.frames.lost();
    }

    /// Takes a byte from the host, and answers the request that it ends.
    // Apart from `step`, so that the stack holds one of them at a time.
    #[inline(never)]
    pub fn hear(&mut self, byte: u8) -> Option<Event> {
        let payload = self.frames.push(byte)?;
        // The receiver's buffer is the request's memory, and the reply's is the session's: both are parts of the application.
        let mut copy = [0; paradise_link::MAX_PAYLOAD + 8];
        let payload = {
            let len = payload.len();
            copy[..len].copy_from_slice(payload);
            &copy[..len]
        };
        self.counters.damaged = self.frames.damaged();
        let request: Option<Request> = frame::read(payload);
        let Some(Request { number, ask }) = request else {
            // Whole but of no known form: its number, which comes first, may be read.
            let number = number_of(payload);
            self.reply(number, Err(Refusal::Unknown));
            return None;
        };
        let order = if matches!(ask, Ask::Hello { .. }) { Order::New } else { self.session.order(number) };
        match order {
            Order::New => return self.answer(number, &ask),
            Order::Again => self.board.send(self.session.reply()),
            Order::Late => {}
        }
        None
    }

    /// One step of what is under way: a check's, at most one image.
    #[inline(never)]
    pub fn step(&mut self) -> Option<Event> {
        self.beat = !self.beat;
        self.board.heartbeat(self.beat);
        self.board.feed();
        if self.state != State::Testing {
            return None;
        }
        let mut device =
            Chip { lowered: self.lowered, memory: Memory { arena: self.memory.arena, scratch: self.memory.scratch } };
        let ended = self.checks.step(&mut device, &mut self.board, &self.record);
        if let Some(failed) = self.checks.failed() {
            self.fail(failed);
            return Some(Event::Fault(failed));
        }
        if let Some(check) = ended {
            let outcome = self.checks.outcome(check as usize).map(|(_, outcome)| outcome).unwrap_or_default();
            if !self.checks.is_running() {
                self.state = State::Ready;
            }
            return Some(Event::Checked(check, outcome));
        }
        None
    }

    fn fail(&mut self, check: Check) {
        self.state = State::Fault;
        self.record = self.record.with_fault(check as u8);
        self.board.decide(false, false, true);
        self.board.safe_state();
    }

    /// Sends a reply and keeps it for a repeated request.
    fn reply(&mut self, number: u32, answer: Result<Answer, Refusal>) {
        self.session.keep(number, answer);
        self.board.send(self.session.reply());
    }

    fn answer(&mut self, number: u32, ask: &Ask) -> Option<Event> {
        let mut event = None;
        let known = self.session.is_open();
        let header = self.lowered.model().header();
        match ask {
            Ask::Hello { version: VERSION } => self.reply(number, Ok(Answer::Hello { version: VERSION })),
            Ask::Hello { .. } => {
                self.reply(number, Err(Refusal::Version));
                self.session.close();
            }
            _ if !known => {
                self.reply(number, Err(Refusal::Stranger));
                self.session.close();
            }
            Ask::Info => {
                let stack = self.board.stack(false).unwrap_or_default();
                let words = [header.arena_bytes, 4 * self.lowered.scratch_len() as u32, stack[0], stack[1]];
                let info = Info {
                    model: cut(header.name, 32),
                    hash: self.lowered.source(),
                    board: self.board.name(),
                    kernels: self.lowered.layout().name(),
                    version: env!("CARGO_PKG_VERSION"),
                    input: [header.input.h, header.input.w, header.input.c],
                    sizes: [header.latent, header.classes],
                    memory: words,
                    state: self.state,
                    checks: Check::ALL.len() as u8,
                    reset: self.reset.name(),
                };
                self.reply(number, Ok(Answer::Info(info)));
            }
            Ask::Label(class) if *class < header.classes => {
                let label = cut(self.lowered.model().label(usize::from(*class)), 64);
                self.reply(number, Ok(Answer::Label(label)));
            }
            Ask::Counters => {
                let recent = self.recent.counts();
                let counters = Counters { recent, ..self.counters };
                self.reply(number, Ok(Answer::Counters(counters)));
            }
            Ask::Check(at) => match self.checks.outcome(usize::from(*at)) {
                Some((check, outcome)) => {
                    let check =
                        paradise_link::Check { name: check.name(), passed: outcome.passed, found: outcome.found };
                    self.reply(number, Ok(Answer::Check(check)));
                }
                None => self.reply(number, Err(Refusal::Range)),
            },
            Ask::Restart => {
                self.reply(number, Ok(Answer::Done));
                self.board.restart();
            }
            #[cfg(feature = "inject")]
            Ask::Inject(at) if *at >= HANG => {
                self.reply(number, Ok(Answer::Done));
                match *at {
                    // As an inference that does not come back: nobody feeds the watchdog.
                    HANG => loop {
                        core::hint::spin_loop();
                    },
                    OVERFLOW => {
                        core::hint::black_box(deeper(u32::MAX));
                    }
                    tens => event = Some(Event::Faults(10 * u32::from(tens.saturating_sub(FAULTS)))),
                }
            }
            Ask::Inject(at) if cfg!(feature = "inject") => match Check::ALL.get(usize::from(*at)) {
                Some(check) => {
                    self.checks.spoil(Some(*check));
                    self.reply(number, Ok(Answer::Done));
                }
                None => self.reply(number, Err(Refusal::Range)),
            },
            Ask::Inject(_) => self.reply(number, Err(Refusal::Unknown)),
            Ask::Vector { which, from } => self.numbers(number, *which, usize::from(*from)),
            _ if self.state == State::Testing => self.reply(number, Err(Refusal::Busy)),
            _ if self.state == State::Fault => self.reply(number, Err(Refusal::Fault)),
            Ask::SelfTest => {
                (self.state, self.picture, self.verdict) = (State::Testing, 0, None);
                self.checks.begin(true);
                self.reply(number, Ok(Answer::Done));
            }
            Ask::Picture { at, bytes } => {
                let taken = self.take(*at as usize, bytes);
                self.reply(number, taken.map(|()| Answer::Taken));
            }
            Ask::Classify { crc } => {
                let verdict = self.classify(*crc);
                event = verdict.ok().map(Event::Verdict);
                self.reply(number, verdict.map(Answer::Verdict));
            }
            Ask::Label(_) => self.reply(number, Err(Refusal::Range)),
        }
        event
    }

    /// Takes a part of a picture, which goes to where the model reads it. A picture begins at 0 and has no gaps.
    fn take(&mut self, at: usize, bytes: &[u8]) -> Result<(), Refusal> {
        if at == 0 {
            (self.picture, self.verdict) = (0, None);
        }
        let place = self.lowered.input(self.memory.arena).map_err(|_| Refusal::Range)?;
        if at != self.picture || bytes.is_empty() || bytes.len() > CHUNK {
            return Err(Refusal::Range);
        }
        let to = place.get_mut(at..at + bytes.len()).ok_or(Refusal::Range)?;
        to.copy_from_slice(bytes);
        self.picture += bytes.len();
        Ok(())
    }

    fn classify(&mut self, crc: u32) -> Result<Verdict, Refusal> {
        let place = self.lowered.input(self.memory.arena).map_err(|_| Refusal::Range)?;
        let whole = core::mem::take(&mut self.picture) == place.len() && crc32_bytes(place) == crc;
        if !whole {
            return Err(Refusal::Picture);
        }
        let verdict = self.run().map_err(|_| Refusal::Range)?;
        if !self.board.memory_is_bounded(false) {
            self.fail(Check::Bounds);
            return Err(Refusal::Fault);
        }
        self.verdict = Some(verdict);
        Ok(verdict)
    }

    /// Classifies a picture outside of all counting and steadying, to measure that; `None` if the chip does not classify.
    pub fn measure(&mut self, picture: &[u8], see: &mut dyn FnMut(&paradise_engine::Answer)) -> Option<()> {
        self.board.feed();
        if self.state != State::Ready {
            return None;
        }
        let mut memory = Memory { arena: self.memory.arena, scratch: self.memory.scratch };
        see(&self.lowered.classify(picture, &mut memory, &mut |_, _| {}).ok()?);
        Some(())
    }

    /// Classifies the picture that is in its place; lines and counters follow.
    fn run(&mut self) -> Result<Verdict, RunError> {
        let begin = self.board.ticks();
        let mut memory = Memory { arena: self.memory.arena, scratch: self.memory.scratch };
        let answer = self.lowered.classify_placed(&mut memory, &mut |_, _| {})?;
        let mut verdict = Verdict {
            class: answer.class as u16,
            decision: answer.decision,
            steady: None,
            rate_nats: answer.rate_nats,
            posterior_entropy_nats: answer.posterior_entropy_nats,
            predictive_entropy_nats: answer.predictive_entropy_nats,
            distances: answer.distances,
            p: answer.p,
            ticks: 0,
        };
        verdict.ticks = self.board.ticks().wrapping_sub(begin);
        self.counters.classified += 1;
        let accepted = match verdict.decision {
            Decision::Accept => {
                self.counters.accepted += 1;
                Some(verdict.class)
            }
            Decision::Abstain(reason) => {
                self.counters.abstained[reason as usize] += 1;
                None
            }
        };
        self.recent.push(accepted.is_none());
        // How sure it is decides nothing here.
        verdict.steady = self.steady.push(accepted.map(|class| (class, 1.0)));
        self.board.decide(verdict.steady.is_some(), verdict.steady.is_none(), false);
        Ok(verdict)
    }

    fn numbers(&mut self, number: u32, which: Vector, from: usize) {
        let mut bytes = [0; 4 * NUMBERS];
        let found = match (self.verdict, self.lowered.last(self.memory.scratch)) {
            (Some(_), Ok(last)) => Ok(match which {
                Vector::Mu => last.mu,
                Vector::LogSigma => last.log_sigma,
                Vector::Logits => last.logits,
            }),
            _ => Err(Refusal::Nothing),
        };
        let count = found.and_then(|values| {
            let values = values.get(from..).filter(|values| !values.is_empty()).ok_or(Refusal::Range)?;
            for (to, value) in bytes.chunks_exact_mut(4).zip(values) {
                to.copy_from_slice(&value.to_le_bytes());
            }
            Ok(values.len().min(NUMBERS))
        });
        self.reply(number, count.map(|count| Answer::Numbers(&bytes[..4 * count])));
    }
}

/// Takes more stack than there is.
#[cfg(feature = "inject")]
#[inline(never)]
fn deeper(left: u32) -> u32 {
    let frame = core::hint::black_box([left; 32]);
    if left == 0 { frame[0] } else { deeper(left - 1).wrapping_add(core::hint::black_box(frame)[7]) }
}

/// At most so many bytes of a text, cut between characters.
fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or("")
}

#[cfg(test)]
mod tests;
