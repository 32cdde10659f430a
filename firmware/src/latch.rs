//! What a restart does not forget: a record in memory that a reset keeps and power does not.

use paradise_engine::golden::crc32_bytes;

/// Marks a record.
const MAGIC: u32 = 0x5041_5244;

/// The record, in memory that nothing initialises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Record {
    magic: u32,
    /// Restarts since power was applied.
    pub restarts: u32,
    /// The check that failed, plus one; 0 for none.
    pub fault: u32,
    /// How far the watchdog has been proven to bite.
    pub bite: u32,
    /// What the RAM test before the program began found: 0 before it ran, 1 for good memory, else an address.
    pub ram: u32,
    crc: u32,
}

/// [`Record::bite`]: nothing was tried.
pub const BITE_UNTRIED: u32 = 0;
/// [`Record::bite`]: the watchdog was started and not fed.
pub const BITE_DUE: u32 = 1;
/// [`Record::bite`]: it restarted the chip.
pub const BITE_PROVEN: u32 = 2;
/// [`Record::bite`]: it did not, or there is none.
pub const BITE_MISSED: u32 = 3;

impl Record {
    /// After power was applied.
    pub const fn new() -> Self {
        Self { magic: MAGIC, restarts: 0, fault: 0, bite: BITE_UNTRIED, ram: 0, crc: 0 }
    }

    fn sum(&self) -> u32 {
        let words = [self.magic, self.restarts, self.fault, self.bite, self.ram];
        let mut bytes = [0; 20];
        for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        crc32_bytes(&bytes)
    }

    /// The record with its checksum.
    pub fn sealed(mut self) -> Self {
        self.crc = self.sum();
        self
    }

    /// The record as a restart finds it: one restart more, or a new one where memory holds none.
    pub fn after_restart(self) -> (Self, bool) {
        if self.magic == MAGIC && self.crc == self.sum() {
            (Self { restarts: self.restarts.saturating_add(1), ..self }, true)
        } else {
            (Self { ram: self.ram, ..Self::new() }, false)
        }
    }

    /// The record of a check that failed, by its index; the first stays.
    pub fn with_fault(self, check: u8) -> Self {
        if self.fault == 0 { Self { fault: u32::from(check) + 1, ..self } } else { self }
    }

    /// The record of what the RAM test found.
    pub fn with_ram(self, ram: u32) -> Self {
        Self { ram, ..self }
    }

    /// The record of what is known of the watchdog.
    pub fn with_bite(self, bite: u32) -> Self {
        Self { bite, ..self }
    }

    /// The check that failed.
    pub fn fault(&self) -> Option<u8> {
        self.fault.checked_sub(1).map(|check| check as u8)
    }
}

impl Default for Record {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_is_counted_and_garbage_is_power() {
        let (first, kept) = Record { magic: 7, ..Record::new() }.after_restart();
        assert_eq!((first, kept), (Record::new(), false));
        let fault = Record { fault: 4, ..first }.sealed();
        let (second, kept) = fault.after_restart();
        assert!(kept && second.restarts == 1 && second.fault() == Some(3));
        for bit in 0..32 {
            let (record, kept) = Record { fault: fault.fault ^ 1 << bit, ..fault }.after_restart();
            assert!(!kept && record.fault().is_none());
        }
    }
}
