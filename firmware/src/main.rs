//! The firmware: sets its board up, proves the watchdog, then steps the application and logs by defmt.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod boards;

#[cfg(target_os = "none")]
mod device {
    use crate::boards::{Board, chip, heard};
    use core::cell::UnsafeCell;
    use cortex_m::singleton;
    #[cfg(feature = "rtt")]
    use defmt_rtt as _;
    #[cfg(feature = "semihosting")]
    use defmt_semihosting as _;
    use paradise_engine::Sizes;
    use paradise_engine::golden::Golden;
    use paradise_engine::lowered::{Lowered, Memory};
    use paradise_engine::selftest::drift::Reference;
    use paradise_firmware::app::{App, Event, Parts};
    use paradise_firmware::board::{Board as _, Reset};
    use paradise_firmware::checks::Expected;
    use paradise_firmware::latch::{BITE_DUE, BITE_MISSED, BITE_PROVEN, BITE_UNTRIED, Record};
    #[cfg(feature = "mlperf")]
    use paradise_link::State;

    /// Bytes at a multiple of 64, as the kernels need them.
    #[repr(align(64))]
    struct Aligned<T: ?Sized>(T);

    static MODEL: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("PARADISE_CARRIED"), "/model.bin")));
    static GOLDEN: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("PARADISE_CARRIED"), "/golden.bin")));
    /// What the machine that built this found.
    const EXPECTED: Expected = include!(concat!(env!("PARADISE_CARRIED"), "/expected.rs"));
    const SIZES: Sizes = Sizes::of(&MODEL.0);
    // Read while compiling: neither the code for that nor what it finds takes memory of the chip.
    static LOWERED: Lowered = Lowered::embedded(&MODEL.0);
    static SELF_TEST: Golden = Golden::embedded(&GOLDEN.0);

    /// The model's memory between words that nobody may write.
    #[repr(C)]
    struct Bounded {
        front: u32,
        arena: [i8; SIZES.arena],
        middle: u32,
        scratch: [u32; SIZES.scratch],
        back: u32,
    }

    struct Once(UnsafeCell<Bounded>);

    // SAFETY: one core, and only `main` reaches it, once.
    #[allow(unsafe_code)]
    unsafe impl Sync for Once {}

    static MEMORY: Once = Once(UnsafeCell::new(Bounded {
        front: 0,
        arena: [0; SIZES.arena],
        middle: 0,
        scratch: [0; SIZES.scratch],
        back: 0,
    }));

    /// An inference, a step of the self-test and what stands between them take less, on every board.
    const WATCHDOG_MS: u32 = 4_000;
    /// So long the chip waits to be bitten.
    const BITE_MS: u32 = 50;
    /// Two of the last three verdicts must agree.
    const STEADY: [usize; 2] = [2, 3];

    /// Lets the watchdog bite, once after power was applied; goes on when it has, or does not.
    fn prove(board: &mut Board, record: Record, reset: Reset) -> Record {
        let bite = match (record.bite, reset) {
            (BITE_UNTRIED, Reset::Power) => {
                chip::keep(&record.with_bite(BITE_DUE));
                if board.watch(BITE_MS) {
                    defmt::info!("waiting for the watchdog");
                    // Ten times as long as it should take.
                    let (mut left, mut last) = (10 * BITE_MS * 20_000, board.ticks());
                    while left > 0 {
                        let now = board.ticks();
                        left = left.saturating_sub(now.wrapping_sub(last).max(1));
                        last = now;
                    }
                    BITE_MISSED
                } else {
                    BITE_UNTRIED
                }
            }
            (BITE_DUE, Reset::Watchdog) => BITE_PROVEN,
            (BITE_DUE, _) => BITE_MISSED,
            (known, _) => known,
        };
        record.with_bite(bite)
    }

    /// Sets all up, in memory that is static: what is only needed for that leaves the stack again.
    #[inline(never)]
    #[allow(unsafe_code)]
    fn boot() -> &'static mut App<'static, Board> {
        let (record, reset) = chip::remember();
        // SAFETY: `boot` runs once.
        let Bounded { front, arena, middle, scratch, back } = unsafe { &mut *MEMORY.0.get() };
        let mut board = Board::new([front, middle, back]);
        let reset = board.reset().unwrap_or(reset);
        defmt::info!("{=str} starts: {=str}", board.name(), reset.name());
        let record = prove(&mut board, record, reset);
        chip::keep(&record);
        board.watch(WATCHDOG_MS);
        if !are_whole() {
            defmt::error!("the model in flash is damaged");
            broken(&mut board);
            loop {
                board.feed();
            }
        }
        let (memory, expected) = (Memory { arena, scratch }, EXPECTED);
        let (lowered, golden) = (&LOWERED, &SELF_TEST);
        let parts = Parts { board, lowered, memory, golden, expected, record, reset, steady: STEADY };
        match singleton!(: App<'static, Board> = App::new(parts)) {
            Some(app) => app,
            None => chip::crash(),
        }
    }

    #[cortex_m_rt::entry]
    fn main() -> ! {
        chip::guard_stack();
        run(boot())
    }

    /// The superloop, whose frame is not there while all is set up.
    #[cfg(not(feature = "mlperf"))]
    #[inline(never)]
    fn run(app: &mut App<'static, Board>) -> ! {
        loop {
            while let (Some(byte), lost) = heard() {
                if lost > 0 {
                    app.overrun(lost);
                }
                let event = app.hear(byte);
                #[cfg(feature = "inject")]
                if let Some(Event::Faults(count)) = event {
                    faults(app.board(), count);
                }
                log(event);
            }
            step(app);
        }
    }

    /// Tests itself, then does what MLPerf Tiny's runner says.
    #[cfg(feature = "mlperf")]
    #[inline(never)]
    fn run(app: &mut App<'static, Board>) -> ! {
        use paradise_firmware::mlperf::Runner;
        const HEADER: &paradise_engine::Header = LOWERED.model().header();
        type Ours = Runner<{ HEADER.input.len() as usize }, { HEADER.classes as usize }>;
        let rate = app.board().ticks_a_second();
        let Some(runner) = singleton!(: Ours = Runner::new(rate)) else { chip::crash() };
        while app.state() == State::Testing {
            step(app);
        }
        runner.begin(app);
        loop {
            while let (Some(byte), _) = heard() {
                runner.hear(byte, app);
            }
            step(app);
        }
    }

    /// A step of the application.
    fn step(app: &mut App<'static, Board>) {
        let event = app.step();
        if matches!(event, Some(Event::Fault(_))) {
            chip::keep(app.record());
        }
        log(event);
    }

    /// Whether the model and its self-test are.
    fn are_whole() -> bool {
        LOWERED.is_intact() && SELF_TEST.is_intact()
    }

    /// No model, no answers: the fault line, for good.
    fn broken(board: &mut Board) {
        board.decide(false, false, true);
        board.safe_state();
    }

    /// Flips bits of the model one after the other, where flash can be written as in an emulator, and starts with each.
    #[cfg(feature = "inject")]
    #[allow(unsafe_code)]
    fn faults(board: &mut Board, count: u32) {
        let bits = 8 * MODEL.0.len() as u32;
        let mut refused = 0;
        for i in 0..count {
            // A stride that has no factor in common with the number of bits.
            let bit = (u64::from(i) * 1_000_003 % u64::from(bits)) as usize;
            let at = (&raw const MODEL.0[bit / 8]).cast_mut();
            // SAFETY: nothing reads the byte meanwhile; the emulator's flash is memory.
            unsafe { at.write_volatile(at.read_volatile() ^ 1 << (bit % 8)) };
            board.decide(false, false, false);
            if !are_whole() {
                broken(board);
                refused += u32::from(crate::boards::fault_line());
            }
            // SAFETY: as above.
            unsafe { at.write_volatile(at.read_volatile() ^ 1 << (bit % 8)) };
            board.feed();
        }
        let whole = are_whole();
        board.decide(false, false, false);
        defmt::info!(
            "faults in flash: {=u32} of {=u32} refused with the fault line, whole afterwards: {=bool}",
            refused,
            count,
            whole
        );
    }

    fn log(event: Option<Event>) {
        match event {
            Some(Event::Checked(check, outcome)) => defmt::info!(
                "check {=str}: {=str}, {=u32} of {=u32}",
                check.name(),
                match outcome.passed {
                    Some(true) => "passed",
                    Some(false) => "failed",
                    None => "not run",
                },
                outcome.found[0],
                outcome.found[1]
            ),
            Some(Event::Fault(check)) => defmt::error!("fault: {=str}", check.name()),
            Some(Event::Verdict(v)) => defmt::debug!("class {=u16} rate {=f32}", v.class, v.rate_nats),
            Some(Event::Faults(_)) | None => {}
        }
    }

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo) -> ! {
        defmt::error!("panic");
        chip::crash()
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("paradise-firmware runs on a Cortex-M; build it with firmware/build.sh");
}
