//! What Arm's MPS boards have in common in QEMU: CMSDK's serial port, SysTick, no pins.

use super::cmsdk::{Uart, systick};
use super::machine::{Machine, Pieces};
use super::{Interrupt, memory_lines};
use core::marker::PhantomData;
use cortex_m::peripheral::NVIC;

/// What a board file of this family says.
pub trait Mps {
    /// As logs and the link name it.
    const NAME: &'static str;
    /// The serial port.
    const UART: Uart;
    /// Of the core, its SysTick and its timers.
    const CLOCK: u32;
    /// The serial port's receiver.
    const RECEIVER: i16;
    /// Starts the counter, and whatever else is the board's own.
    fn init();
    /// The counter.
    fn ticks() -> u32;
    /// Starts the watchdog; whether there is one.
    fn watch(milliseconds: u32) -> bool;
    /// Feeds it.
    fn feed();
}

/// A board of the family.
pub type Board<B> = Machine<Family<B>>;

/// See [`Board`].
pub struct Family<B>(PhantomData<B>);

impl<B: Mps> Pieces for Family<B> {
    const NAME: &'static str = B::NAME;
    const TICKS_A_SECOND: u32 = B::CLOCK;

    fn init() {
        systick::init();
        B::init();
        B::UART.init(B::CLOCK / 115_200);
        // SAFETY: its handler only fills the ring.
        unsafe { NVIC::unmask(Interrupt(B::RECEIVER)) };
    }

    fn ticks() -> u32 {
        B::ticks()
    }

    fn clocks() -> Option<[(u32, f32); 2]> {
        Some([(B::ticks(), B::CLOCK as f32), (systick::ticks(), systick::RATIO * B::CLOCK as f32)])
    }

    fn send(byte: u8) {
        B::UART.send(byte);
    }

    fn receive() -> Option<u8> {
        B::UART.receive()
    }

    fn lines(accept: bool, abstain: bool, fault: bool) {
        memory_lines::decide(accept, abstain, fault);
    }

    fn heartbeat(high: bool) {
        memory_lines::heartbeat(high);
    }

    fn watch(milliseconds: u32) -> bool {
        B::watch(milliseconds)
    }

    fn feed() {
        B::feed();
    }
}
