//! Products of blocks of 32 x 32 bf16 with sums in f32: in the tile registers of AMX, or as the definition says.

use std::marker::PhantomData;

/// Rows and columns of a block of sums, and the depth of one step.
pub(super) const SIDE: usize = 32;

/// bf16 of one step of the right operand, `[16 pairs of the depth][32 columns][2]`.
pub(super) const STEP: usize = SIDE * SIDE;

/// A way to multiply blocks that this CPU has: only [`detect`] and [`available`] make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tiles(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Amx,
    Definition,
}

/// The fast way, where this CPU has one and the system lets this process use it.
pub(crate) fn detect() -> Option<Tiles> {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        static ALLOWED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        if *ALLOWED.get_or_init(amx::allowed) {
            return Some(Tiles(Kind::Amx));
        }
    }
    None
}

/// Every way that works on this CPU, the fastest first; the last is for comparison.
#[cfg(test)]
pub(crate) fn available() -> Vec<Tiles> {
    detect().into_iter().chain([Tiles(Kind::Definition)]).collect()
}

/// The tile registers of this thread, from configuration to release.
pub(super) struct Session {
    kind: Kind,
    /// It must end on the thread where it began.
    _thread: PhantomData<*const ()>,
}

impl Tiles {
    /// Whether vectors are AVX-512 where blocks are AMX.
    pub fn wide(self) -> bool {
        self.0 != Kind::Definition
    }

    /// Makes the tile registers ready.
    pub(super) fn begin(self) -> Session {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if self.0 == Kind::Amx {
            // SAFETY: `detect` found the registers and the permission.
            unsafe { amx::configure() }
        }
        Session { kind: self.0, _thread: PhantomData }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if self.kind == Kind::Amx {
            // SAFETY: this session configured them, on this thread.
            unsafe { amx::release() }
        }
    }
}

impl Session {
    /// `sums[m][n] (+)= sum over steps and k of left[step offset][m][k] right[step][k][n]`, `sums` f32 `[32][32]`.
    ///
    /// # Safety
    /// For every offset (bytes), 32 rows of 32 bf16, `pitch` bytes apart, are readable at `left`; `right` holds
    /// [`STEP`] bf16 an offset.
    #[inline]
    pub unsafe fn product(
        &self,
        left: *const u16,
        pitch: usize,
        offsets: &[usize],
        right: *const u16,
        sums: &mut [f32; STEP],
        add: bool,
    ) {
        if offsets.is_empty() {
            if !add {
                sums.fill(0.0);
            }
            return;
        }
        // SAFETY: the caller's contract; an `Amx` session exists only where the registers do.
        unsafe {
            match self.kind {
                #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
                Kind::Amx => amx::product(left, pitch, offsets, right, sums.as_mut_ptr(), add),
                Kind::Definition => {
                    if !add {
                        sums.fill(0.0);
                    }
                    definition(left, pitch, offsets, right, sums);
                }
            }
        }
    }
}

fn wide(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

unsafe fn definition(left: *const u16, pitch: usize, offsets: &[usize], right: *const u16, sums: &mut [f32; STEP]) {
    for (step, offset) in offsets.iter().enumerate() {
        for (at, sum) in sums.iter_mut().enumerate() {
            let (m, n) = (at / SIDE, at % SIDE);
            for k in 0..SIDE {
                // SAFETY: the contract of `product`.
                let (a, b) = unsafe {
                    let row = left.byte_add(offset + m * pitch);
                    (*row.add(k), *right.add(step * STEP + k / 2 * 2 * SIDE + 2 * n + k % 2))
                };
                *sum += wide(a) * wide(b);
            }
        }
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx {
    use super::SIDE;
    use std::arch::asm;
    use std::arch::x86_64::{__cpuid, __cpuid_count};

    /// Linux keeps the eight kilobytes of tile registers only for processes that ask for them.
    fn permitted() -> bool {
        const ARCH_PRCTL: i64 = 158;
        const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
        const XFEATURE_XTILEDATA: i64 = 18;
        let mut result = ARCH_PRCTL;
        // SAFETY: this system call changes nothing but which registers are saved.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") result,
                in("rdi") ARCH_REQ_XCOMP_PERM,
                in("rsi") XFEATURE_XTILEDATA,
                out("rcx") _,
                out("r11") _,
                options(nostack),
            );
        }
        result == 0
    }

    /// Whether the CPU has AMX for bf16 and the vectors beside it, and the system grants the registers.
    pub fn allowed() -> bool {
        const BF16_AND_TILE: u32 = 1 << 22 | 1 << 24;
        let vectors = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl");
        vectors && __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & BF16_AND_TILE == BF16_AND_TILE && permitted()
    }

    #[repr(C, align(64))]
    struct Configuration {
        palette: u8,
        start: u8,
        reserved: [u8; 14],
        row_bytes: [u16; 16],
        rows: [u8; 16],
    }

    /// Eight tiles of 16 rows of 64 bytes.
    static FULL: Configuration = Configuration {
        palette: 1,
        start: 0,
        reserved: [0; 14],
        row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
        rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
    };

    pub unsafe fn configure() {
        // SAFETY: the caller knows that the registers are there.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const FULL, options(nostack, readonly)) }
    }

    pub unsafe fn release() {
        // SAFETY: as above.
        unsafe { asm!("tilerelease", options(nostack, nomem)) }
    }

    /// Two tiles of rows times two tiles of columns: four tiles of sums, and each tile loaded is used twice.
    #[inline]
    pub unsafe fn product(
        left: *const u16,
        pitch: usize,
        offsets: &[usize],
        right: *const u16,
        sums: *mut f32,
        add: bool,
    ) {
        // SAFETY: the caller's contract; the loop runs once an offset, and there is one.
        unsafe {
            asm!(
                "test {add:e}, {add:e}",
                "jnz 3f",
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "jmp 2f",
                "3:",
                "tileloadd tmm0, [{sums} + {row}]",
                "tileloadd tmm1, [{sums} + {row} + 64]",
                "tileloadd tmm2, [{sums} + {row} + 2048]",
                "tileloadd tmm3, [{sums} + {row} + 2112]",
                "2:",
                "mov {at}, [{offset}]",
                "add {at}, {left}",
                "tileloadd tmm4, [{at} + {pitch}]",
                "tileloadd tmm6, [{right} + {row}]",
                "add {at}, {half}",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{right} + {row} + 64]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{at} + {pitch}]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {right}, 2048",
                "add {offset}, 8",
                "cmp {offset}, {end}",
                "jne 2b",
                "tilestored [{sums} + {row}], tmm0",
                "tilestored [{sums} + {row} + 64], tmm1",
                "tilestored [{sums} + {row} + 2048], tmm2",
                "tilestored [{sums} + {row} + 2112], tmm3",
                left = in(reg) left,
                pitch = in(reg) pitch,
                half = in(reg) pitch * (SIDE / 2),
                offset = inout(reg) offsets.as_ptr() => _,
                end = in(reg) offsets.as_ptr().add(offsets.len()),
                right = inout(reg) right => _,
                sums = in(reg) sums,
                row = in(reg) SIDE * 4,
                at = out(reg) _,
                add = in(reg) u32::from(add),
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}
