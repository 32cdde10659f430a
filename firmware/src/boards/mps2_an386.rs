//! Arm's MPS2 board with image AN386 (Cortex-M4F) or AN500 (Cortex-M7), as QEMU emulates it.
//!
//! It has no pins and, in QEMU, no watchdog: its lines are words in memory that a debugger can read, its watchdog is the second
//! timer, whose interrupt of the highest priority restarts the chip. That catches an inference that hangs, not a core that does.

use super::cmsdk::{Timer, Uart, systick};
use super::machine::{Machine, Pieces, receive};
use super::{Interrupt, memory_lines};
use cortex_m::peripheral::{NVIC, SCB};
use cortex_m_rt::exception;

/// This board.
pub type Board = Machine<Mps2>;

const UART: Uart = Uart(0x4000_4000);
const TIMER: Timer = Timer(0x4000_0000);
const DOG: Timer = Timer(0x4000_1000);
/// Of the core, its SysTick and its timers.
const CLOCK: u32 = 25_000_000;
/// Interrupts: the serial port's receiver, the second timer.
const RECEIVER: i16 = 0;
const DOG_BITES: i16 = 9;

/// See [`Board`].
pub struct Mps2;

impl Pieces for Mps2 {
    const NAME: &'static str = if cfg!(feature = "mps2-an386") { "mps2-an386" } else { "mps2-an500" };

    fn init() {
        systick::init();
        TIMER.init();
        UART.init(CLOCK / 115_200);
        // SAFETY: its handler only fills the ring. The dog's interrupt may break into it.
        unsafe {
            let nvic = &mut *(NVIC::PTR as *mut cortex_m::peripheral::nvic::RegisterBlock);
            nvic.ipr[RECEIVER as usize].write(0x80);
            NVIC::unmask(Interrupt(RECEIVER));
        }
    }

    fn ticks() -> u32 {
        TIMER.ticks()
    }

    fn clocks() -> Option<[(u32, u64); 2]> {
        Some([(TIMER.ticks(), CLOCK.into()), (systick::ticks(), systick::RATIO * u64::from(CLOCK))])
    }

    fn send(byte: u8) {
        UART.send(byte);
    }

    fn receive() -> Option<u8> {
        UART.receive()
    }

    fn lines(accept: bool, abstain: bool, fault: bool) {
        memory_lines::decide(accept, abstain, fault);
    }

    fn heartbeat(high: bool) {
        memory_lines::heartbeat(high);
    }

    fn watch(milliseconds: u32) -> bool {
        DOG.interrupt_after(CLOCK / 1000 * milliseconds);
        // SAFETY: its handler restarts the chip.
        unsafe { NVIC::unmask(Interrupt(DOG_BITES)) };
        true
    }

    fn feed() {
        DOG.rewind();
    }
}

#[exception]
unsafe fn DefaultHandler(number: i16) {
    match number {
        RECEIVER => receive::<Mps2>(),
        DOG_BITES => SCB::sys_reset(),
        _ => super::chip::crash(),
    }
}
