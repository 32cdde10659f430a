//! Arm's MPS3 board with image AN547 (Cortex-M55), as QEMU emulates it, in the secure state in which it starts.
//!
//! It has no pins: its lines are words in memory that a debugger can read. Its watchdog runs from the slow clock of 32,768 Hz.

use super::Register;
use super::cmsdk::{Uart, Watchdog};
use super::machine::receive;
use super::mps::{self, Family, Mps};
use cortex_m_rt::exception;

/// This board.
pub type Board = mps::Board<Mps3>;

/// The system counter: its control, and the count as the first timer shows it.
const COUNTER: Register = Register(0x5810_0000);
const COUNT: Register = Register(0x5800_0000);
const DOG: Watchdog = Watchdog(0x5802_e000);
/// Of the watchdog.
const SLOW_CLOCK: u32 = 32_768;
/// The serial port's receiver.
const RECEIVER: i16 = 33;

/// See [`Board`].
pub struct Mps3;

impl Mps for Mps3 {
    const NAME: &'static str = "mps3-an547";

    const UART: Uart = Uart(0x5930_3000);
    const CLOCK: u32 = 32_000_000;
    const RECEIVER: i16 = RECEIVER;

    fn init() {
        COUNTER.write(1);
    }

    fn ticks() -> u32 {
        COUNT.read()
    }

    fn watch(milliseconds: u32) -> bool {
        DOG.start(SLOW_CLOCK * milliseconds / 1000);
        true
    }

    fn feed() {
        DOG.feed();
    }
}

super::interrupts!(RECEIVER => receive::<Family<Mps3>>);

/// The watchdog's first warning; the reset follows.
#[exception]
unsafe fn NonMaskableInt() {}
