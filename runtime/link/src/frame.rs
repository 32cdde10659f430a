//! Frames: a payload and its CRC-32, without zeros (COBS), ended by one.

use paradise_engine::golden::crc32_bytes;
use serde::{Deserialize, Serialize};

/// Most bytes of a message before it is framed.
pub const MAX_PAYLOAD: usize = 184;
/// Bytes of the checksum.
const CRC: usize = 4;
/// Most bytes of a frame, its zero among them: COBS adds one in 254, and one.
pub const MAX_FRAME: usize = MAX_PAYLOAD + CRC + 2;

/// A message does not fit a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

impl core::fmt::Display for TooLong {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "a message has more than {MAX_PAYLOAD} bytes")
    }
}

impl core::error::Error for TooLong {}

/// Writes a message as a frame; its length.
///
/// # Errors
/// If the message has more than [`MAX_PAYLOAD`] bytes.
pub fn write(message: &impl Serialize, frame: &mut [u8; MAX_FRAME]) -> Result<usize, TooLong> {
    let mut payload = [0; MAX_PAYLOAD + CRC];
    let len = postcard::to_slice(message, &mut payload[..MAX_PAYLOAD]).map_err(|_| TooLong)?.len();
    let crc = crc32_bytes(&payload[..len]).to_le_bytes();
    payload[len..len + CRC].copy_from_slice(&crc);
    let len = cobs::encode(&payload[..len + CRC], &mut frame[..MAX_FRAME - 1]);
    frame[len] = 0;
    Ok(len + 1)
}

/// The message in a payload; `None` if it is of no known form, or has bytes left over.
pub fn read<'a, M: Deserialize<'a>>(payload: &'a [u8]) -> Option<M> {
    match postcard::take_from_bytes(payload) {
        Ok((message, [])) => Some(message),
        _ => None,
    }
}

/// Finds frames in what arrives, byte by byte.
#[derive(Debug, Clone)]
pub struct Frames {
    buffer: [u8; MAX_FRAME],
    len: usize,
    /// What arrives until the next zero is no frame.
    skipping: bool,
    damaged: u32,
}

impl Default for Frames {
    fn default() -> Self {
        Self::new()
    }
}

impl Frames {
    /// A receiver that has heard nothing.
    pub const fn new() -> Self {
        Self { buffer: [0; MAX_FRAME], len: 0, skipping: false, damaged: 0 }
    }

    /// Takes a byte; the payload of the frame that it ends, if it is whole.
    pub fn push(&mut self, byte: u8) -> Option<&[u8]> {
        if byte != 0 {
            if self.skipping || self.len == MAX_FRAME {
                self.skipping = true;
            } else {
                self.buffer[self.len] = byte;
                self.len += 1;
            }
            return None;
        }
        let (len, skipped) = (core::mem::take(&mut self.len), core::mem::take(&mut self.skipping));
        if len == 0 && !skipped {
            // Zeros between frames.
            return None;
        }
        let payload = if skipped { None } else { whole(&mut self.buffer[..len]) };
        if payload.is_none() {
            self.damaged = self.damaged.saturating_add(1);
        }
        payload.map(|len| &self.buffer[..len])
    }

    /// Bytes were lost: what arrives until the next zero is no frame.
    pub fn lost(&mut self) {
        self.skipping = true;
    }

    /// Frames that were not whole, so far.
    pub fn damaged(&self) -> u32 {
        self.damaged
    }
}

/// Decodes a frame in its place; the length of its payload if the checksum agrees.
fn whole(frame: &mut [u8]) -> Option<usize> {
    let len = cobs::decode_in_place(frame).ok()?;
    let payload = len.checked_sub(CRC)?;
    let crc = [frame[payload], frame[payload + 1], frame[payload + 2], frame[payload + 3]];
    (crc32_bytes(&frame[..payload]) == u32::from_le_bytes(crc)).then_some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ask, Request};
    use proptest::prelude::*;

    fn frame(number: u32, bytes: &[u8]) -> Vec<u8> {
        let mut line = [0; MAX_FRAME];
        let len = write(&Request { number, ask: Ask::Picture { at: number, bytes } }, &mut line).unwrap();
        line[..len].to_vec()
    }

    /// The numbers of the requests that are understood.
    fn heard(bytes: &[u8]) -> Vec<u32> {
        let mut frames = Frames::new();
        let mut numbers = Vec::new();
        for byte in bytes {
            if let Some(payload) = frames.push(*byte) {
                numbers.extend(read::<Request>(payload).map(|request| request.number));
            }
        }
        numbers
    }

    #[test]
    fn what_is_too_long_is_refused_and_the_longest_fits() {
        let mut line = [0; MAX_FRAME];
        let write = |n: usize, line: &mut [u8; MAX_FRAME]| {
            super::write(&Request { number: u32::MAX, ask: Ask::Picture { at: u32::MAX, bytes: &vec![0; n] } }, line)
        };
        assert_eq!(write(MAX_PAYLOAD, &mut line), Err(TooLong));
        let most = (0..MAX_PAYLOAD).rev().find(|n| write(*n, &mut line).is_ok()).unwrap();
        assert!(most >= crate::message::CHUNK, "{most}");
        assert!(write(most, &mut line).unwrap() <= MAX_FRAME);
    }

    proptest! {
        #[test]
        fn frames_arrive_whole_or_not_at_all_and_the_next_one_arrives(
            picture in proptest::collection::vec(any::<u8>(), 0..crate::message::CHUNK),
            noise in proptest::collection::vec(any::<u8>(), 0..600),
            at in any::<prop::sample::Index>(), flip in 1u8.., cut in any::<bool>(),
        ) {
            let (first, second) = (frame(1, &picture), frame(2, &picture));
            prop_assert_eq!(heard(&[&first[..], &second].concat()), [1, 2]);
            // One byte lost, or changed.
            let mut damaged = first.clone();
            let at = at.index(damaged.len());
            if cut {
                damaged.remove(at);
            } else {
                damaged[at] ^= flip;
            }
            let got = heard(&[&damaged[..], &[0], &second].concat());
            prop_assert_eq!(got, if cut && at + 1 == first.len() { vec![1, 2] } else { vec![2] });
            // Noise, a zero, a request.
            let got = heard(&[&noise[..], &[0], &second].concat());
            prop_assert_eq!(got.last(), Some(&2));
        }
    }
}
