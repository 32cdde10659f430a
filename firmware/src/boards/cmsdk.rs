//! Peripherals of Arm's Cortex-M System Design Kit, which the MPS boards have at their own addresses.

use super::Register;

/// A serial port.
pub struct Uart(pub usize);

impl Uart {
    const DATA: usize = 0x0;
    const STATE: usize = 0x4;
    const CTRL: usize = 0x8;
    const INTERRUPT: usize = 0xc;
    const DIVIDER: usize = 0x10;

    fn at(&self, offset: usize) -> Register {
        Register(self.0 + offset)
    }

    /// Transmitter, receiver and its interrupt on; at so many clock ticks a bit.
    pub fn init(&self, ticks_a_bit: u32) {
        self.at(Self::DIVIDER).write(ticks_a_bit.max(16));
        self.at(Self::CTRL).write(1 | 1 << 1 | 1 << 3);
    }

    /// Sends a byte, waiting for room.
    pub fn send(&self, byte: u8) {
        while self.at(Self::STATE).read() & 1 != 0 {}
        self.at(Self::DATA).write(byte.into());
    }

    /// A byte that arrived.
    pub fn receive(&self) -> Option<u8> {
        self.at(Self::INTERRUPT).write(1 << 1);
        (self.at(Self::STATE).read() & 1 << 1 != 0).then(|| self.at(Self::DATA).read() as u8)
    }
}

/// A timer that counts down from the largest number again and again.
#[cfg_attr(feature = "mps3-an547", allow(dead_code))]
pub struct Timer(pub usize);

#[cfg_attr(feature = "mps3-an547", allow(dead_code))]
impl Timer {
    const CTRL: usize = 0x0;
    const VALUE: usize = 0x4;
    const RELOAD: usize = 0x8;
    const INTERRUPT: usize = 0xc;

    fn at(&self, offset: usize) -> Register {
        Register(self.0 + offset)
    }

    /// Counts from now on.
    pub fn init(&self) {
        self.at(Self::RELOAD).write(u32::MAX);
        self.at(Self::VALUE).write(u32::MAX);
        self.at(Self::CTRL).write(1);
    }

    /// Ticks since it began.
    pub fn ticks(&self) -> u32 {
        !self.at(Self::VALUE).read()
    }

    /// Calls for an interrupt after so many ticks, and again.
    #[cfg_attr(not(any(feature = "mps2-an386", feature = "mps2-an500")), allow(dead_code))]
    pub fn interrupt_after(&self, ticks: u32) {
        self.at(Self::CTRL).write(0);
        self.at(Self::RELOAD).write(ticks);
        self.at(Self::VALUE).write(ticks);
        self.at(Self::INTERRUPT).write(1);
        self.at(Self::CTRL).write(1 | 1 << 3);
    }

    /// Begins anew.
    #[cfg_attr(not(any(feature = "mps2-an386", feature = "mps2-an500")), allow(dead_code))]
    pub fn rewind(&self) {
        self.at(Self::VALUE).write(self.at(Self::RELOAD).read());
    }
}

/// A watchdog: it interrupts when it has counted down, and resets when it has again.
#[cfg_attr(any(feature = "mps2-an386", feature = "mps2-an500"), allow(dead_code))]
pub struct Watchdog(pub usize);

#[cfg_attr(any(feature = "mps2-an386", feature = "mps2-an500"), allow(dead_code))]
impl Watchdog {
    /// Restarts the chip unless it is fed every so many ticks.
    pub fn start(&self, ticks: u32) {
        Register(self.0 + 0xc00).write(0x1acc_e551);
        // Half of the time for the interrupt, which nobody serves, half until the reset.
        Register(self.0).write(ticks / 2);
        Register(self.0 + 0x8).write(3);
    }

    /// Begins anew.
    pub fn feed(&self) {
        Register(self.0 + 0xc).write(1);
    }
}

/// SysTick: the core's own clock, 24 bits, downwards.
pub mod systick {
    use cortex_m::peripheral::SYST;

    /// Counts from now on.
    pub fn init() {
        // SAFETY: nobody else uses it.
        unsafe {
            let syst = &*SYST::PTR;
            syst.rvr.write(0x00ff_ffff);
            syst.cvr.write(0);
            syst.csr.write(1 | 1 << 2);
        }
    }

    /// Steps of [`ticks`] in a clock's tick.
    pub const RATIO: f32 = 256.0;

    /// Its 24 bits, upwards, in the upper bits of a word, so that they wrap together.
    pub fn ticks() -> u32 {
        (0x00ff_ffff - SYST::get_current()) << 8
    }
}
