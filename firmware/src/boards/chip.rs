//! What every Cortex-M has: memory that a reset keeps, a march test before anything is initialised, a guarded and painted stack,
//! registers that are tried, the program's hash.

#[cfg(armv8m)]
use core::arch::asm;
use core::arch::{global_asm, naked_asm};
use core::sync::atomic::{AtomicU32, Ordering};
use paradise_firmware::board::Reset;
use paradise_firmware::latch::Record;

/// What unused stack and the words around the model's memory hold.
pub const PAINT: u32 = 0xa5a5_5a5a;

unsafe extern "C" {
    static _flash_start: u8;
    static _program_end: u8;
    static _stack_start: u32;
    static __euninit: u32;
}

/// The record of the last run, and marks of this one, in memory that nothing initialises.
#[repr(C)]
struct Kept {
    record: Record,
    restart: u32,
    running: u32,
}

#[unsafe(link_section = ".kept")]
static mut KEPT: core::mem::MaybeUninit<Kept> = core::mem::MaybeUninit::uninit();
/// What the march test found: 1, or the address of a bad word. Written before anything is initialised.
#[unsafe(link_section = ".kept.ram")]
#[unsafe(no_mangle)]
static RAM_FOUND: AtomicU32 = AtomicU32::new(0);

const MARK: u32 = 0x524e_4e47;

/// The record of the last run as this one finds it, and why the chip started, as far as memory tells.
pub fn remember() -> (Record, Reset) {
    // SAFETY: every bit pattern is a record; nothing else reaches it.
    let kept = unsafe { &mut *(&raw mut KEPT).cast::<Kept>() };
    let (record, known) = kept.record.after_restart();
    let reset = match (known, kept.restart == MARK, kept.running == MARK) {
        (false, ..) => Reset::Power,
        (true, true, _) => Reset::Software,
        // It ran, and nobody asked for a restart: the watchdog, if there is one.
        (true, false, true) => Reset::Watchdog,
        (true, false, false) => Reset::Other,
    };
    (kept.restart, kept.running) = (0, MARK);
    let record = record.with_ram(RAM_FOUND.load(Ordering::Relaxed));
    keep(&record);
    (record, reset)
}

/// Writes the record down for the next run.
pub fn keep(record: &Record) {
    // SAFETY: as `remember`.
    unsafe { (*(&raw mut KEPT).cast::<Kept>()).record = record.sealed() };
}

/// The restart that follows is asked for.
pub fn mark_restart() {
    // SAFETY: as `remember`.
    unsafe { (*(&raw mut KEPT).cast::<Kept>()).restart = MARK };
}

// March C- over all of RAM, before it is initialised and without a stack: 0 upwards; 0 read and 1 written, 1 read and 0 written
// upwards; the same downwards; 0 read. 0 and 1 are words of zeros and of ones. Then it is painted.
global_asm!(
    "
    .section .text.__pre_init, \"ax\", %progbits
    .global __pre_init
    .type __pre_init, %function
    .thumb_func
__pre_init:
    ldr r0, =_ram_start
    ldr r1, =_ram_end
    movs r2, #0
    mvns r3, r2
    mov r4, r0
1:  str r2, [r4], #4
    cmp r4, r1
    bne 1b
    mov r4, r0
2:  ldr r5, [r4]
    cmp r5, r2
    bne 9f
    str r3, [r4], #4
    cmp r4, r1
    bne 2b
    mov r4, r0
3:  ldr r5, [r4]
    cmp r5, r3
    bne 9f
    str r2, [r4], #4
    cmp r4, r1
    bne 3b
    mov r4, r1
4:  ldr r5, [r4, #-4]!
    cmp r5, r2
    bne 9f
    str r3, [r4]
    cmp r4, r0
    bne 4b
    mov r4, r1
5:  ldr r5, [r4, #-4]!
    cmp r5, r3
    bne 9f
    str r2, [r4]
    cmp r4, r0
    bne 5b
    mov r4, r0
    ldr r3, =0xa5a55a5a
6:  ldr r5, [r4]
    cmp r5, r2
    bne 9f
    str r3, [r4], #4
    cmp r4, r1
    bne 6b
    movs r4, #1
9:  ldr r0, =RAM_FOUND
    str r4, [r0]
    bx lr
    .pool
    .size __pre_init, . - __pre_init
    "
);

/// Bytes of stack that were used at most since the chip started, and that there are.
pub fn stack() -> [u32; 2] {
    let (bottom, top) = (guard_end(), &raw const _stack_start as usize);
    let mut at = bottom;
    // SAFETY: words of the stack.
    while at < top && unsafe { (at as *const u32).read_volatile() } == PAINT {
        at += 4;
    }
    [(top - at) as u32, (top - bottom) as u32]
}

/// The first word of the stack: behind 32 bytes that may not be touched.
fn guard_end() -> usize {
    (&raw const __euninit as usize).next_multiple_of(32) + 32
}

/// Makes the end of the stack a fault: its limit register, or 32 bytes that the MPU forbids.
pub fn guard_stack() {
    #[cfg(armv8m)]
    // SAFETY: the limit is below every frame that is in use.
    unsafe {
        asm!("msr msplim, {}", in(reg) guard_end(), options(nomem, nostack, preserves_flags));
    }
    #[cfg(not(armv8m))]
    {
        // SAFETY: the MPU is this function's alone; all else keeps the default map.
        unsafe {
            let mpu = &*cortex_m::peripheral::MPU::PTR;
            mpu.rbar.write((guard_end() - 32) as u32 | 1 << 4);
            // 32 bytes, no access, never executed.
            mpu.rasr.write(1 << 28 | 4 << 1 | 1);
            mpu.ctrl.write(1 << 2 | 1);
        }
        cortex_m::asm::dsb();
        cortex_m::asm::isb();
    }
}

/// The record says what happened, and the chip starts anew with its fault line high.
///
/// A stack that overflowed is no place for a handler, so it begins a new one.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn HardFault() -> ! {
    naked_asm!(
        "ldr r0, =_stack_start",
        "msr msp, r0",
        "b {crashed}",
        ".pool",
        crashed = sym crashed
    )
}

/// Gives up: as a hard fault.
pub fn crash() -> ! {
    crashed()
}

/// An interrupt or a fault that nothing expects: as a hard fault.
#[cortex_m_rt::exception]
unsafe fn DefaultHandler(_: i16) {
    crashed()
}

/// What an interrupt calls.
pub type Handler = unsafe extern "C" fn();

/// The handlers of the first N interrupts: those that are listed with their numbers, and [`crash`] for all others.
///
/// # Panics
/// While compiling, if a number is not below N.
pub const fn handlers<const N: usize>(listed: &[(i16, Handler)]) -> [Handler; N] {
    extern "C" fn unexpected() {
        crashed()
    }
    let mut all = [unexpected as Handler; N];
    let mut i = 0;
    while i < listed.len() {
        all[listed[i].0 as usize] = listed[i].1;
        i += 1;
    }
    all
}

/// The check that stands for a crash: the stack's.
extern "C" fn crashed() -> ! {
    let (record, _) = remember();
    keep(&record.with_fault(paradise_firmware::checks::Check::Stack as u8));
    mark_restart();
    cortex_m::peripheral::SCB::sys_reset()
}

/// Starts the core's cycle counter, where it has one.
#[cfg(any(feature = "nucleo-l4r5zi", feature = "rp2350"))]
pub fn count_cycles() {
    // SAFETY: the debug units are nobody else's.
    unsafe {
        let dcb = &*cortex_m::peripheral::DCB::PTR;
        dcb.demcr.write(dcb.demcr.read() | 1 << 24);
        let dwt = &*cortex_m::peripheral::DWT::PTR;
        dwt.cyccnt.write(0);
        dwt.ctrl.write(dwt.ctrl.read() | 1);
    }
}

/// Whether the program in flash has the SHA-256 that `seal` wrote behind it; `None` where none was written.
pub fn program_is_whole(spoil: bool) -> Option<bool> {
    #[unsafe(link_section = ".program_hash")]
    static HASH: [u8; 32] = [0; 32];
    // Read as what flash holds, not as what the compiler saw.
    // SAFETY: a static of 32 bytes.
    let stored = unsafe { (&raw const HASH).read_volatile() };
    if stored == [0; 32] {
        return None;
    }
    let (start, end) = (&raw const _flash_start, &raw const _program_end as usize);
    // SAFETY: the program lies there in one piece.
    let program = unsafe { core::slice::from_raw_parts(start, end - start as usize) };
    let mut hash = paradise_engine::container::sha256(program);
    hash[0] ^= u8::from(spoil);
    Some(hash == stored)
}

/// Whether r0 to r12 and lr hold two patterns.
pub fn registers_hold(spoil: bool) -> bool {
    [0x5555_5555, 0xaaaa_aaaa].iter().all(|pattern| try_registers(*pattern, pattern ^ u32::from(spoil)) == 0)
}

/// Writes a pattern to every register and compares each with another that should be the same; 0 if all are.
#[unsafe(naked)]
extern "C" fn try_registers(pattern: u32, expected: u32) -> u32 {
    naked_asm!(
        "push {{r4-r11, lr}}",
        "push {{r1}}",
        "mov r1, r0",
        "mov r2, r0",
        "mov r3, r0",
        "mov r4, r0",
        "mov r5, r0",
        "mov r6, r0",
        "mov r7, r0",
        "mov r8, r0",
        "mov r9, r0",
        "mov r10, r0",
        "mov r11, r0",
        "mov r12, r0",
        "mov lr, r0",
        // Each after the other, so that one stuck bit stays in sight.
        "eor r0, r0, lr",
        "eor r1, r1, lr",
        "orr r0, r0, r1",
        "eor r2, r2, lr",
        "orr r0, r0, r2",
        "eor r3, r3, lr",
        "orr r0, r0, r3",
        "eor r4, r4, lr",
        "orr r0, r0, r4",
        "eor r5, r5, lr",
        "orr r0, r0, r5",
        "eor r6, r6, lr",
        "orr r0, r0, r6",
        "eor r7, r7, lr",
        "orr r0, r0, r7",
        "eor r8, r8, lr",
        "orr r0, r0, r8",
        "eor r9, r9, lr",
        "orr r0, r0, r9",
        "eor r10, r10, lr",
        "orr r0, r0, r10",
        "eor r11, r11, lr",
        "orr r0, r0, r11",
        "eor r12, r12, lr",
        "orr r0, r0, r12",
        "pop {{r1}}",
        "eor lr, lr, r1",
        "orr r0, r0, lr",
        "pop {{r4-r11, pc}}",
    )
}

/// Whether s0 to s31 hold two patterns, conversions round to the nearest even, and small numbers are not flushed to 0.
pub fn fpu_is_right(spoil: bool) -> bool {
    let hold = [0x5555_5555, 0xaaaa_aaaa].iter().all(|pattern| try_fpu(*pattern) == 0);
    // 24 bits and a half, to the even neighbour; one more, up.
    let opaque = core::hint::black_box::<u32>;
    let rounds = opaque(0x0200_0002) as f32 == 33_554_432.0 + 0.0
        && (opaque(0x0100_0001) as f32).to_bits() == 16_777_216f32.to_bits()
        && (opaque(0x0100_0003) as f32).to_bits() == 16_777_220f32.to_bits();
    let small = f32::from_bits(opaque(0x0080_0000)) * f32::from_bits(opaque(0x3f00_0000));
    let keeps = small.to_bits() == 0x0040_0000 ^ u32::from(spoil);
    hold && rounds && keeps
}

/// Writes a pattern to every FPU register, by way of memory; 0 if all hold it.
#[unsafe(naked)]
extern "C" fn try_fpu(pattern: u32) -> u32 {
    naked_asm!(
        "vpush {{s16-s31}}",
        "sub sp, sp, #128",
        "mov r1, sp",
        "movs r2, #32",
        "2: str r0, [r1], #4",
        "subs r2, #1",
        "bne 2b",
        "vldm sp, {{s0-s31}}",
        // What is read back may not be what lies there already.
        "mvns r3, r0",
        "mov r1, sp",
        "movs r2, #32",
        "3: str r3, [r1], #4",
        "subs r2, #1",
        "bne 3b",
        "vstm sp, {{s0-s31}}",
        "movs r3, #0",
        "movs r2, #32",
        "4: pop {{r1}}",
        "eors r1, r0",
        "orrs r3, r1",
        "subs r2, #1",
        "bne 4b",
        "mov r0, r3",
        "vpop {{s16-s31}}",
        "bx lr",
    )
}
