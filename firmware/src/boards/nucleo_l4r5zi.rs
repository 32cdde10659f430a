//! ST NUCLEO-L4R5ZI: STM32L4R5ZI, Cortex-M4F at 120 MHz. Not run on a board yet: written from RM0432 and UM2179.
//!
//! | line | pin | on the board |
//! |---|---|---|
//! | serial port, 115,200 bits a second | PG7 out, PG8 in (LPUART1) | the ST-LINK's virtual port |
//! | accept | PC7 | green light LD1 |
//! | abstain | PB7 | blue light LD2 |
//! | fault | PB14 | red light LD3 |
//! | heartbeat | PB8 | connector CN7, D15 |

use super::machine::{Machine, Pieces, receive};
use super::{Interrupt, Register};
use cortex_m::peripheral::{DWT, NVIC};
use paradise_firmware::board::Reset;

/// This board.
pub type Board = Machine<Nucleo>;

/// Of the core, the buses and the port: 4 MHz times 60 / 2.
const CLOCK: u32 = 120_000_000;
/// Of the independent watchdog and the second counter.
const LSI: u32 = 32_000;
const BAUD: u32 = 115_200;
/// LPUART1's interrupt.
const RECEIVER: i16 = 70;

const RCC: usize = 0x4002_1000;
const RCC_CR: Register = Register(RCC);
const RCC_CFGR: Register = Register(RCC + 0x08);
const RCC_PLLCFGR: Register = Register(RCC + 0x0c);
const RCC_AHB2ENR: Register = Register(RCC + 0x4c);
const RCC_APB1ENR1: Register = Register(RCC + 0x58);
const RCC_APB1ENR2: Register = Register(RCC + 0x5c);
const RCC_CCIPR: Register = Register(RCC + 0x88);
const RCC_CSR: Register = Register(RCC + 0x94);
const PWR_CR2: Register = Register(0x4000_7004);
const PWR_CR5: Register = Register(0x4000_7080);
const FLASH_ACR: Register = Register(0x4002_2000);
const GPIO_B: usize = 0x4800_0400;
const GPIO_C: usize = 0x4800_0800;
const GPIO_G: usize = 0x4800_1800;
const UART: usize = 0x4000_8000;
const IWDG: usize = 0x4000_3000;
const LPTIM: usize = 0x4000_7c00;

/// A GPIO's mode: 1 output, 2 alternate function.
fn mode(port: usize, pin: u32, mode: u32) {
    Register(port).modify(3 << (2 * pin), mode << (2 * pin));
}

/// Sets or clears a pin.
fn set(port: usize, pin: u32, high: bool) {
    Register(port + 0x18).write(1 << if high { pin } else { pin + 16 });
}

/// See [`Board`].
pub struct Nucleo;

/// 120 MHz by the PLL from the 4 MHz that the chip starts with, in the boosted range, at five wait states with all caches on.
fn clocks_up() {
    RCC_APB1ENR1.modify(1 << 28, 1 << 28);
    PWR_CR5.modify(1 << 8, 0);
    FLASH_ACR.modify(0xf, 5 | 1 << 8 | 1 << 9 | 1 << 10);
    while FLASH_ACR.read() & 0xf != 5 {}
    RCC_PLLCFGR.write(1 | 60 << 8 | 1 << 24);
    RCC_CR.modify(1 << 24, 1 << 24);
    while RCC_CR.read() & 1 << 25 == 0 {}
    // Half the speed first, as RM0432 asks for above 80 MHz.
    RCC_CFGR.modify(0xf << 4 | 3, 8 << 4 | 3);
    while RCC_CFGR.read() >> 2 & 3 != 3 {}
    for _ in 0..100 {
        cortex_m::asm::nop();
    }
    RCC_CFGR.modify(0xf << 4, 0);
}

impl Pieces for Nucleo {
    const NAME: &'static str = "nucleo-l4r5zi";
    const TICKS_A_SECOND: u32 = CLOCK;

    fn init() {
        clocks_up();
        RCC_CSR.modify(1, 1);
        while RCC_CSR.read() & 2 == 0 {}
        // Ports B, C, G; port G's own supply.
        RCC_AHB2ENR.modify(0, 1 << 1 | 1 << 2 | 1 << 6);
        PWR_CR2.modify(0, 1 << 9);
        mode(GPIO_C, 7, 1);
        mode(GPIO_B, 7, 1);
        mode(GPIO_B, 14, 1);
        mode(GPIO_B, 8, 1);
        // PG7 and PG8 as LPUART1: alternate function 8.
        mode(GPIO_G, 7, 2);
        mode(GPIO_G, 8, 2);
        Register(GPIO_G + 0x20).modify(0xf << 28, 8 << 28);
        Register(GPIO_G + 0x24).modify(0xf, 8);
        RCC_APB1ENR2.modify(0, 1);
        Register(UART + 0x0c).write((256 * u64::from(CLOCK) / u64::from(BAUD)) as u32);
        // Receiver, its interrupt, transmitter, eight bytes each way, on.
        Register(UART).write(1 << 29 | 1 << 5 | 1 << 3 | 1 << 2 | 1);
        // The second counter, from the slow oscillator.
        RCC_CCIPR.modify(3 << 18, 1 << 18);
        RCC_APB1ENR1.modify(0, 1 << 31);
        Register(LPTIM + 0x10).write(1);
        Register(LPTIM + 0x18).write(0xffff);
        Register(LPTIM + 0x10).write(1 | 1 << 2);
        super::chip::count_cycles();
        // SAFETY: its handler only fills the ring.
        unsafe { NVIC::unmask(Interrupt(RECEIVER)) };
    }

    fn ticks() -> u32 {
        DWT::cycle_count()
    }

    fn clocks() -> Option<[(u32, f32); 2]> {
        // Read twice until the same: its clock is not the core's.
        let count = Register(LPTIM + 0x1c);
        let mut slow = count.read();
        while slow != count.read() {
            slow = count.read();
        }
        Some([(Self::ticks(), CLOCK as f32), (slow << 16, 65_536.0 * LSI as f32)])
    }

    fn send(byte: u8) {
        while Register(UART + 0x1c).read() & 1 << 7 == 0 {}
        Register(UART + 0x28).write(byte.into());
    }

    fn receive() -> Option<u8> {
        let state = Register(UART + 0x1c).read();
        // Overrun, noise, framing: the frame's checksum tells.
        Register(UART + 0x20).write(state & 0xf);
        (state & 1 << 5 != 0).then(|| Register(UART + 0x24).read() as u8)
    }

    fn lines(accept: bool, abstain: bool, fault: bool) {
        set(GPIO_C, 7, accept);
        set(GPIO_B, 7, abstain);
        set(GPIO_B, 14, fault);
    }

    fn heartbeat(high: bool) {
        set(GPIO_B, 8, high);
    }

    fn watch(milliseconds: u32) -> bool {
        // A thousand ticks a second; at most 4,095.
        Register(IWDG).write(0xcccc);
        Register(IWDG).write(0x5555);
        Register(IWDG + 4).write(3);
        Register(IWDG + 8).write(milliseconds.min(4095));
        while Register(IWDG + 0xc).read() != 0 {}
        Self::feed();
        true
    }

    fn feed() {
        Register(IWDG).write(0xaaaa);
    }

    fn reset() -> Option<Reset> {
        let flags = RCC_CSR.read();
        RCC_CSR.modify(0, 1 << 23);
        Some(if flags & 1 << 29 != 0 {
            Reset::Watchdog
        } else if flags & 1 << 28 != 0 {
            Reset::Software
        } else if flags & 1 << 27 != 0 {
            Reset::Power
        } else {
            Reset::Other
        })
    }
}

super::interrupts!(RECEIVER => receive::<Nucleo>);
