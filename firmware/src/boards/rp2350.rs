//! Raspberry Pi RP2350, as on the Pico 2: Cortex-M33 at 150 MHz from a crystal of 12 MHz. Not run on a board yet: written from the
//! RP2350 data sheet.
//!
//! | line | pin |
//! |---|---|
//! | serial port, 115,200 bits a second | GPIO0 out, GPIO1 in (UART0) |
//! | accept, abstain, fault | GPIO2, GPIO3, GPIO4 |
//! | heartbeat | GPIO25, the Pico 2's light |

use super::machine::{Machine, Pieces, receive};
use super::{Interrupt, Register};
use cortex_m::peripheral::{DWT, NVIC};
use paradise_firmware::board::Reset;

/// This board.
pub type Board = Machine<Rp2350>;

/// Of the core and the port: 12 MHz times 125 / 5 / 2.
const CLOCK: u32 = 150_000_000;
const BAUD: u32 = 115_200;
/// UART0's interrupt.
const RECEIVER: i16 = 33;
const ACCEPT: usize = 2;
const ABSTAIN: usize = 3;
const FAULT: usize = 4;
const HEARTBEAT: usize = 25;

const CLOCKS: usize = 0x4001_0000;
const PSM_WDSEL: Register = Register(0x4001_8008);
const RESETS: Register = Register(0x4002_0000);
const RESETS_DONE: Register = Register(0x4002_0008);
const IO: usize = 0x4002_8000;
const PADS: usize = 0x4003_8000;
const XOSC: usize = 0x4004_8000;
const PLL: usize = 0x4005_0000;
const UART: usize = 0x4007_0000;
const TIMER: Register = Register(0x400b_0028);
const WATCHDOG: usize = 0x400d_8000;
const TICKS: usize = 0x4010_8000;
const SIO: usize = 0xd000_0000;

/// What the boot ROM looks for: an executable for the Arm core, secure. Data sheet 5.9.5.
#[unsafe(link_section = ".start_block")]
#[used]
static START_BLOCK: [u32; 5] = [0xffff_ded3, 0x1021_0142, 0x0000_01ff, 0, 0xab12_3579];

/// See [`Board`].
pub struct Rp2350;

/// Crystal, PLL, and all clocks from them.
fn clocks_up() {
    Register(XOSC + 0x0c).write(47);
    Register(XOSC).write(0xfab << 12 | 0xaa0);
    while Register(XOSC + 4).read() >> 31 == 0 {}
    Register(CLOCKS + 0x30).write(2);
    while Register(CLOCKS + 0x38).read() & 1 << 2 == 0 {}
    wake(1 << 14);
    Register(PLL).write(1);
    Register(PLL + 8).write(125);
    Register(PLL + 4).modify(1 << 5 | 1, 0);
    while Register(PLL).read() >> 31 == 0 {}
    Register(PLL + 0xc).write(5 << 16 | 2 << 12);
    Register(PLL + 4).modify(1 << 3, 0);
    Register(CLOCKS + 0x3c).write(1);
    while Register(CLOCKS + 0x44).read() & 1 << 1 == 0 {}
    Register(CLOCKS + 0x48).write(1 << 11);
}

/// Takes peripherals out of reset.
fn wake(mask: u32) {
    RESETS.modify(mask, 0);
    while RESETS_DONE.read() & mask != mask {}
}

/// Gives a pin to a peripheral: 2 a UART, 5 the core.
fn pin(pin: usize, function: u32) {
    Register(PADS + 4 + 4 * pin).write(1 << 6 | 1 << 4);
    Register(IO + 8 * pin + 4).write(function);
}

impl Pieces for Rp2350 {
    const NAME: &'static str = "rp2350";
    const TICKS_A_SECOND: u32 = CLOCK;

    fn init() {
        clocks_up();
        // Pins and their pads, the first timer, the first UART.
        wake(1 << 6 | 1 << 9 | 1 << 23 | 1 << 26);
        // A microsecond a tick for the first timer and the watchdog.
        for unit in [0x18, 0x30] {
            Register(TICKS + unit + 4).write(12);
            Register(TICKS + unit).write(1);
        }
        pin(0, 2);
        pin(1, 2);
        for line in [ACCEPT, ABSTAIN, FAULT, HEARTBEAT] {
            pin(line, 5);
            Register(SIO + 0x38).write(1 << line);
        }
        let sixty_fourths = 4 * CLOCK / BAUD;
        Register(UART + 0x24).write(sixty_fourths / 64);
        Register(UART + 0x28).write(sixty_fourths % 64);
        // Eight bits, with FIFOs; their interrupt at the first byte that waits.
        Register(UART + 0x2c).write(3 << 5 | 1 << 4);
        Register(UART + 0x30).write(1 << 9 | 1 << 8 | 1);
        Register(UART + 0x38).write(1 << 6 | 1 << 4);
        super::chip::count_cycles();
        // SAFETY: its handler only fills the ring.
        unsafe { NVIC::unmask(Interrupt(RECEIVER)) };
    }

    fn ticks() -> u32 {
        DWT::cycle_count()
    }

    fn clocks() -> Option<[(u32, f32); 2]> {
        // Of the crystal twice, by the PLL and without it.
        Some([(Self::ticks(), CLOCK as f32), (TIMER.read(), 1e6)])
    }

    fn send(byte: u8) {
        while Register(UART + 0x18).read() & 1 << 5 != 0 {}
        Register(UART).write(byte.into());
    }

    fn receive() -> Option<u8> {
        Register(UART + 0x44).write(1 << 6 | 1 << 4);
        (Register(UART + 0x18).read() & 1 << 4 == 0).then(|| Register(UART).read() as u8)
    }

    fn lines(accept: bool, abstain: bool, fault: bool) {
        for (line, high) in [(ACCEPT, accept), (ABSTAIN, abstain), (FAULT, fault)] {
            Register(SIO + if high { 0x18 } else { 0x20 }).write(1 << line);
        }
    }

    fn heartbeat(high: bool) {
        Register(SIO + if high { 0x18 } else { 0x20 }).write(1 << HEARTBEAT);
    }

    fn watch(milliseconds: u32) -> bool {
        // Everything but the oscillators starts anew.
        PSM_WDSEL.write(0x01ff_ffff & !(1 << 2 | 1 << 3));
        LOAD.store(milliseconds.min(16_000) * 1000, core::sync::atomic::Ordering::Relaxed);
        Self::feed();
        Register(WATCHDOG).modify(1 << 30, 1 << 30);
        true
    }

    fn feed() {
        Register(WATCHDOG + 4).write(LOAD.load(core::sync::atomic::Ordering::Relaxed));
    }

    fn reset() -> Option<Reset> {
        match Register(WATCHDOG + 8).read() & 3 {
            0 => None,
            _ => Some(Reset::Watchdog),
        }
    }
}

/// Microseconds of the watchdog.
static LOAD: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(0);

super::interrupts!(RECEIVER => receive::<Rp2350>);
