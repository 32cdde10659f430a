//! The only code that knows machines: one file a board, and what several share.
//!
//! A board file says where its peripherals are and how they are set up ([`Pieces`]); [`chip`] is what every Cortex-M has:
//! registers, stack, memory that a reset keeps.

// Peripherals and registers are reached here, and nowhere else.
#![allow(unsafe_code)]

pub mod chip;
#[cfg(any(feature = "mps2-an386", feature = "mps2-an500", feature = "mps2-an505", feature = "mps3-an547"))]
mod cmsdk;
mod machine;
#[cfg(any(feature = "mps2-an386", feature = "mps2-an500", feature = "mps2-an505", feature = "mps3-an547"))]
mod memory_lines;
#[cfg(any(feature = "mps2-an386", feature = "mps2-an500", feature = "mps2-an505", feature = "mps3-an547"))]
mod mps;

#[cfg(any(feature = "mps2-an386", feature = "mps2-an500"))]
mod mps2_an386;
#[cfg(feature = "mps2-an505")]
mod mps2_an505;
#[cfg(feature = "mps3-an547")]
mod mps3_an547;
#[cfg(feature = "nucleo-l4r5zi")]
mod nucleo_l4r5zi;
#[cfg(feature = "rp2350")]
mod rp2350;

pub use machine::heard;
#[cfg(any(feature = "mps2-an386", feature = "mps2-an500"))]
pub use mps2_an386::Board;
#[cfg(feature = "mps2-an505")]
pub use mps2_an505::Board;
#[cfg(feature = "mps3-an547")]
pub use mps3_an547::Board;
#[cfg(feature = "nucleo-l4r5zi")]
pub use nucleo_l4r5zi::Board;
#[cfg(feature = "rp2350")]
pub use rp2350::Board;

/// Whether the fault line is high, on boards without pins.
#[cfg(feature = "inject")]
pub fn fault_line() -> bool {
    #[cfg(any(feature = "mps2-an386", feature = "mps2-an500", feature = "mps2-an505", feature = "mps3-an547"))]
    return memory_lines::fault();
    #[cfg(any(feature = "nucleo-l4r5zi", feature = "rp2350"))]
    false
}

/// An interrupt by its number.
#[derive(Clone, Copy)]
pub struct Interrupt(pub i16);

// SAFETY: board files name the numbers of their own chips, which the vector table has.
unsafe impl cortex_m::interrupt::InterruptNumber for Interrupt {
    fn number(self) -> u16 {
        self.0 as u16
    }
}

/// The board's interrupts, by their numbers, the largest last: `interrupts!(NUMBER => handler, ...)`. The chip's table of vectors
/// ends with the last of them, for no other is ever enabled.
macro_rules! interrupts {
    ($($number:ident => $handler:expr),+) => {
        #[unsafe(link_section = ".vector_table.interrupts")]
        #[unsafe(no_mangle)]
        #[used]
        static __INTERRUPTS: [super::chip::Handler; {
            let numbers = [$($number),+];
            numbers[numbers.len() - 1] as usize + 1
        }] = super::chip::handlers(&[$(($number, $handler)),+]);
    };
}
use interrupts;

/// A register.
#[derive(Clone, Copy)]
pub struct Register(pub usize);

impl Register {
    /// What it holds.
    pub fn read(self) -> u32 {
        // SAFETY: board files name the registers of their own peripherals.
        unsafe { (self.0 as *const u32).read_volatile() }
    }

    /// Writes it.
    pub fn write(self, value: u32) {
        // SAFETY: as `read`.
        unsafe { (self.0 as *mut u32).write_volatile(value) }
    }

    /// Clears the bits of a mask and sets those of a value.
    #[cfg(any(feature = "nucleo-l4r5zi", feature = "rp2350"))]
    pub fn modify(self, mask: u32, value: u32) {
        self.write(self.read() & !mask | value);
    }
}
