//! The requests of a host, each answered once: a repeated one gets the reply that was lost, one that comes late gets none.

use paradise_link::{Answer, MAX_FRAME, Refusal, Reply, frame};

/// A host that was greeted, and the last reply to it.
pub(super) struct Session {
    last: Option<u32>,
    reply: [u8; MAX_FRAME],
    len: usize,
}

/// A request beside the one that was answered last.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// After it, or the first.
    New,
    /// The same.
    Again,
    /// Before it: a copy that was late.
    Late,
}

impl Session {
    /// With nobody.
    pub fn new() -> Self {
        Self { last: None, reply: [0; MAX_FRAME], len: 0 }
    }

    /// Whether a host was greeted.
    pub fn is_open(&self) -> bool {
        self.last.is_some()
    }

    /// Forgets the host, which has to greet again.
    pub fn close(&mut self) {
        self.last = None;
    }

    /// Where a request belongs by its number.
    pub fn order(&self, number: u32) -> Order {
        match self.last.map(|last| number.wrapping_sub(last) as i32) {
            Some(0) => Order::Again,
            Some(..0) => Order::Late,
            _ => Order::New,
        }
    }

    /// Keeps a reply, for [`Session::reply`].
    pub fn keep(&mut self, number: u32, answer: Result<Answer, Refusal>) {
        let line = &mut self.reply;
        let refused = Reply { number, answer: Err(Refusal::Range) };
        let written = frame::write(&Reply { number, answer }, line).or_else(|_| frame::write(&refused, line));
        self.len = written.unwrap_or(0);
        self.last = Some(number);
    }

    /// The last reply, as it is sent.
    pub fn reply(&self) -> &[u8] {
        &self.reply[..self.len]
    }
}

/// The number at the beginning of a payload; 0 if there is none.
pub(super) fn number_of(payload: &[u8]) -> u32 {
    // postcard: seven bits a byte, the lowest first.
    let mut number = 0u32;
    for (i, byte) in payload.iter().take(5).enumerate() {
        number |= u32::from(byte & 0x7f).wrapping_shl(7 * i as u32);
        if byte & 0x80 == 0 {
            return number;
        }
    }
    0
}
