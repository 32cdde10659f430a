//! Arm's MPS2 board with image AN386 (Cortex-M4F) or AN500 (Cortex-M7), as QEMU emulates it.
//!
//! It has no pins and, in QEMU, no watchdog: its lines are words in memory that a debugger can read, its watchdog is the second
//! timer, whose interrupt of the highest priority restarts the chip. That catches an inference that hangs, not a core that does.

use super::Interrupt;
use super::cmsdk::{Timer, Uart};
use super::machine::receive;
use super::mps::{self, Family, Mps};
use cortex_m::peripheral::{NVIC, SCB};

/// This board.
pub type Board = mps::Board<Mps2>;

const TIMER: Timer = Timer(0x4000_0000);
const DOG: Timer = Timer(0x4000_1000);
/// Interrupts: the serial port's receiver, the second timer.
const RECEIVER: i16 = 0;
const DOG_BITES: i16 = 9;

/// See [`Board`].
pub struct Mps2;

impl Mps for Mps2 {
    const NAME: &'static str = if cfg!(feature = "mps2-an386") { "mps2-an386" } else { "mps2-an500" };

    const UART: Uart = Uart(0x4000_4000);
    const CLOCK: u32 = 25_000_000;
    const RECEIVER: i16 = RECEIVER;

    fn init() {
        TIMER.init();
        // SAFETY: the receiver's handler only fills the ring. The dog's interrupt may break into it.
        unsafe {
            let nvic = &mut *(NVIC::PTR as *mut cortex_m::peripheral::nvic::RegisterBlock);
            nvic.ipr[RECEIVER as usize].write(0x80);
        }
    }

    fn ticks() -> u32 {
        TIMER.ticks()
    }

    fn watch(milliseconds: u32) -> bool {
        DOG.interrupt_after(Self::CLOCK / 1000 * milliseconds);
        // SAFETY: its handler restarts the chip.
        unsafe { NVIC::unmask(Interrupt(DOG_BITES)) };
        true
    }

    fn feed() {
        DOG.rewind();
    }
}

/// The second timer has counted down.
extern "C" fn bite() {
    SCB::sys_reset()
}

super::interrupts!(RECEIVER => receive::<Family<Mps2>>, DOG_BITES => bite);
