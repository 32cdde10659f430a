//! An inference between markers, for `make bench-firmware`: layer by layer, then as a whole. Its answer is the golden image's.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod device {
    use core::arch::asm;
    use core::cell::UnsafeCell;
    use cortex_m_semihosting::debug;
    use defmt_semihosting as _;
    use paradise_engine::Sizes;
    use paradise_engine::golden::Golden;
    use paradise_engine::lowered::{Lowered, Memory};

    /// Bytes at a multiple of 64, as the kernels need them.
    #[repr(align(64))]
    struct Aligned<T: ?Sized>(T);

    static MODEL: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("PARADISE_CARRIED"), "/model.bin")));
    static GOLDEN: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("PARADISE_CARRIED"), "/golden.bin")));
    const SIZES: Sizes = Sizes::of(&MODEL.0);
    static LOWERED: Lowered = Lowered::embedded(&MODEL.0);
    static SELF_TEST: Golden = Golden::embedded(&GOLDEN.0);

    /// No interrupt is ever enabled; cortex-m-rt wants a table.
    #[unsafe(link_section = ".vector_table.interrupts")]
    #[unsafe(no_mangle)]
    #[used]
    #[allow(unsafe_code)]
    static __INTERRUPTS: [usize; 1] = [0];

    struct Once(UnsafeCell<([i8; SIZES.arena], [u32; SIZES.scratch])>);

    // SAFETY: one core, and only `main` reaches it, once.
    #[allow(unsafe_code)]
    unsafe impl Sync for Once {}

    static MEMORY: Once = Once(UnsafeCell::new(([0; SIZES.arena], [0; SIZES.scratch])));

    /// A region begins.
    #[inline(never)]
    #[allow(unsafe_code)]
    fn begin() {
        // SAFETY: it does nothing.
        unsafe { asm!("mov r10, r10") }
    }

    /// A region ends.
    #[inline(never)]
    #[allow(unsafe_code)]
    fn end() {
        // SAFETY: it does nothing.
        unsafe { asm!("mov r11, r11") }
    }

    #[cortex_m_rt::entry]
    #[allow(unsafe_code)]
    fn main() -> ! {
        let (model, golden) = (&LOWERED, &SELF_TEST);
        if !(model.is_intact() && golden.is_intact()) {
            stop(false)
        }
        let case = golden.header().cases.at(0);
        let image = golden.bytes(case.image);
        // SAFETY: `main` runs once.
        let (arena, scratch) = unsafe { &mut *MEMORY.0.get() };
        let mut memory = Memory { arena, scratch };
        begin();
        let layers = model.classify(image, &mut memory, &mut |_, _| {
            end();
            begin();
        });
        end();
        let first = layers.map(|answer| answer.rate_nats.to_bits());
        begin();
        let whole = model.classify(image, &mut memory, &mut |_, _| {});
        end();
        let same = whole.is_ok_and(|answer| {
            answer.rate_nats.to_bits() == case.rate_nats.to_bits() && first == Ok(answer.rate_nats.to_bits())
        });
        stop(same)
    }

    fn stop(well: bool) -> ! {
        loop {
            debug::exit(if well { debug::EXIT_SUCCESS } else { debug::EXIT_FAILURE });
        }
    }

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo) -> ! {
        stop(false)
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("inference runs on a Cortex-M; `make bench-firmware` builds it");
}
