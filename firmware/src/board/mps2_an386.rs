//! Arm's MPS2 board with the AN386 image (Cortex-M4F), as QEMU emulates it. Logs and exits go over semihosting.

use cortex_m_semihosting::debug;
// Links the global defmt logger.
use defmt_semihosting as _;

/// Words that are watched below the caller's stack: more than anything here takes, less than the RAM.
const WATCHED: usize = 16 * 1024;
/// What they hold before.
const PAINT: u32 = 0xa5a5_5a5a;

/// What `work` returns, and how deep into the stack it went, bytes.
#[inline(never)]
#[allow(unsafe_code)]
pub fn with_stack<T>(work: impl FnOnce() -> T) -> (T, usize) {
    // Some words below this frame are left alone: painting itself needs a few.
    let top = (cortex_m::register::msp::read() - 64) as *mut u32;
    // SAFETY: the stack grows down from the end of 4 MiB of RAM, in which statics take a few KiB at the other end, so the
    // words below the stack pointer belong to nobody; interrupts, which push there, are not used.
    unsafe { (1..=WATCHED).for_each(|i| top.sub(i).write_volatile(PAINT)) };
    let outcome = work();
    // SAFETY: the same words.
    let untouched = unsafe { (1..=WATCHED).rev().take_while(|i| top.sub(*i).read_volatile() == PAINT).count() };
    (outcome, 64 + 4 * (WATCHED - untouched))
}

/// Ends the emulation; QEMU's exit status is 0 for success and 1 otherwise.
pub fn stop(success: bool) -> ! {
    loop {
        debug::exit(if success { debug::EXIT_SUCCESS } else { debug::EXIT_FAILURE });
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    defmt::error!("panic");
    stop(false)
}
