//! A board as the application sees it, made of its pieces and of what every Cortex-M has.

use super::chip;
use core::cell::RefCell;
use cortex_m::interrupt::{Mutex, free};
use heapless::spsc::Queue;
use paradise_firmware::board::{Board, Reset};
use paradise_firmware::checks::Hardware;

/// Bytes that may arrive while an inference runs: two requests of the longest.
const RING: usize = 512;

/// What arrived and was not taken yet, and how many bytes found no room.
static HEARD: Mutex<RefCell<(Queue<u8, RING>, u32)>> = Mutex::new(RefCell::new((Queue::new(), 0)));

/// What a board file says.
pub trait Pieces {
    /// As logs and the link name it.
    const NAME: &'static str;
    /// Clocks, pins, serial port and its interrupt.
    fn init();
    /// A counter that goes up all the time and wraps.
    fn ticks() -> u32;
    /// How much it counts a second.
    const TICKS_A_SECOND: u32;
    /// Two counters of different clocks and how much each counts a second.
    fn clocks() -> Option<[(u32, f32); 2]>;
    /// Sends a byte, waiting for room.
    fn send(byte: u8);
    /// A byte that arrived; `None` if there is none.
    fn receive() -> Option<u8>;
    /// Accept, abstain and fault lines.
    fn lines(accept: bool, abstain: bool, fault: bool);
    /// The heartbeat line.
    fn heartbeat(high: bool);
    /// Starts the watchdog; whether there is one.
    fn watch(milliseconds: u32) -> bool;
    /// Feeds it.
    fn feed();
    /// Why the chip started, where the board tells.
    fn reset() -> Option<Reset> {
        None
    }
    /// What the machine around the chip needs to be safe.
    fn safe_state() {}
}

/// The serial port's interrupt: its bytes go into the ring, nothing else happens here.
pub extern "C" fn receive<P: Pieces>() {
    free(|cs| {
        let (queue, lost) = &mut *HEARD.borrow(cs).borrow_mut();
        while let Some(byte) = P::receive() {
            if queue.enqueue(byte).is_err() {
                *lost = lost.saturating_add(1);
            }
        }
    });
}

/// The next byte that arrived, and how many were lost since.
pub fn heard() -> (Option<u8>, u32) {
    free(|cs| {
        let (queue, lost) = &mut *HEARD.borrow(cs).borrow_mut();
        (queue.dequeue(), core::mem::take(lost))
    })
}

/// A board.
pub struct Machine<P: Pieces> {
    pieces: core::marker::PhantomData<P>,
    /// The words around the model's memory.
    bounds: [&'static mut u32; 3],
}

impl<P: Pieces> Machine<P> {
    /// Sets the board up.
    pub fn new(bounds: [&'static mut u32; 3]) -> Self {
        P::init();
        let mut machine = Self { pieces: core::marker::PhantomData, bounds };
        machine.bounds.iter_mut().for_each(|word| **word = chip::PAINT);
        machine
    }

    /// Why the chip started, where the board tells.
    pub fn reset(&self) -> Option<Reset> {
        P::reset()
    }
}

impl<P: Pieces> Board for Machine<P> {
    fn name(&self) -> &'static str {
        P::NAME
    }

    fn ticks(&mut self) -> u32 {
        P::ticks()
    }

    fn ticks_a_second(&self) -> u32 {
        P::TICKS_A_SECOND
    }

    fn send(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| P::send(*byte));
    }

    fn decide(&mut self, accept: bool, abstain: bool, fault: bool) {
        P::lines(accept, abstain, fault);
    }

    fn heartbeat(&mut self, high: bool) {
        P::heartbeat(high);
    }

    fn watch(&mut self, milliseconds: u32) -> bool {
        P::watch(milliseconds)
    }

    fn feed(&mut self) {
        P::feed();
    }

    fn restart(&mut self) -> ! {
        chip::mark_restart();
        cortex_m::peripheral::SCB::sys_reset()
    }

    fn safe_state(&mut self) {
        P::safe_state();
    }
}

impl<P: Pieces> Hardware for Machine<P> {
    fn program_is_whole(&mut self, spoil: bool) -> Option<bool> {
        chip::program_is_whole(spoil)
    }

    fn registers_hold(&mut self, spoil: bool) -> Option<bool> {
        Some(chip::registers_hold(spoil))
    }

    fn fpu_is_right(&mut self, spoil: bool) -> Option<bool> {
        Some(chip::fpu_is_right(spoil))
    }

    fn clocks_differ(&mut self, spoil: bool) -> Option<u32> {
        let before = P::clocks()?;
        // A hundredth of a second of the first.
        let passed = |now: &[(u32, f32); 2], i: usize| now[i].0.wrapping_sub(before[i].0) as f32 / before[i].1;
        let after = loop {
            let now = P::clocks()?;
            if passed(&now, 0) >= 0.01 {
                break now;
            }
        };
        let [first, second] = [passed(&after, 0), passed(&after, 1)];
        let second = if spoil { 0.5 * second } else { second };
        Some((1000.0 * (first - second).abs() / first) as u32)
    }

    fn stack(&mut self, spoil: bool) -> Option<[u32; 2]> {
        let [used, size] = chip::stack();
        Some(if spoil { [size, size] } else { [used, size] })
    }

    fn memory_is_bounded(&mut self, spoil: bool) -> bool {
        *self.bounds[1] ^= u32::from(spoil);
        let whole = self.bounds.iter().all(|word| **word == chip::PAINT);
        *self.bounds[1] ^= u32::from(spoil);
        whole
    }

    fn noise(&mut self) -> u32 {
        // What the counters say when a host happens to ask; not secret, only new.
        P::ticks() ^ P::clocks().map_or(0, |[_, (second, _)]| second.rotate_left(16))
    }
}
