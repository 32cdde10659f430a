//! Arm's MPS2 board with image AN505 (Cortex-M33), as QEMU emulates it, in the secure state in which it starts.
//!
//! It has no pins: its lines are words in memory that a debugger can read. Its watchdog runs from the slow clock of 32,768 Hz.

use super::cmsdk::{Timer, Uart, Watchdog};
use super::machine::receive;
use super::mps::{self, Family, Mps};
use cortex_m_rt::exception;

/// This board.
pub type Board = mps::Board<Mps2>;

const TIMER: Timer = Timer(0x5000_0000);
const DOG: Watchdog = Watchdog(0x5002_e000);
/// Of the watchdog.
const SLOW_CLOCK: u32 = 32_768;
/// The serial port's receiver.
const RECEIVER: i16 = 32;

/// See [`Board`].
pub struct Mps2;

impl Mps for Mps2 {
    const NAME: &'static str = "mps2-an505";

    const UART: Uart = Uart(0x5020_0000);
    const CLOCK: u32 = 20_000_000;
    const RECEIVER: i16 = RECEIVER;

    fn init() {
        TIMER.init();
    }

    fn ticks() -> u32 {
        TIMER.ticks()
    }

    fn watch(milliseconds: u32) -> bool {
        DOG.start(SLOW_CLOCK * milliseconds / 1000);
        true
    }

    fn feed() {
        DOG.feed();
    }
}

super::interrupts!(RECEIVER => receive::<Family<Mps2>>);

/// The watchdog's first warning; the reset follows.
#[exception]
unsafe fn NonMaskableInt() {}
