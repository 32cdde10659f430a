//! Arm's MPS2 board with the AN386 image (Cortex-M4F), as QEMU emulates it. Logs and exits go over semihosting.

use cortex_m_semihosting::debug;
// Links the global defmt logger.
use defmt_semihosting as _;

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
