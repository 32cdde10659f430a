//! Vectors of f32, one implementation an instruction set, and the choice between them at run time.
//!
//! Kernels are written once over vectors of `Lanes` and inlined into one function an instruction set, which alone carries
//! `#[target_feature]`.

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use portable::Portable;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

/// Channels that kernels handle as one unit, in every instruction set: a whole number of vectors.
pub(crate) const BLOCK: usize = 16;

/// A vector of `N` f32, `N` a divisor of [`BLOCK`].
///
/// # Safety
/// Every method may be called only where the CPU has the instruction set of the type. Pointers need `N` readable or
/// writable f32 (`splat`: one), without alignment.
pub(crate) trait Lanes: Copy {
    /// f32 in a vector.
    const N: usize;
    /// Vector registers, as a guide to tile sizes.
    const REGISTERS: usize;
    /// Most blocks of output channels that a tile of this many registers holds with profit.
    const GROUP: usize;
    unsafe fn zero() -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn splat(from: *const f32) -> Self;
    /// The first `n < N` values, then zeros; only those are read.
    unsafe fn load_first(from: *const f32, n: usize) -> Self;
    /// Writes the first `n < N` values only.
    unsafe fn store_first(self, to: *mut f32, n: usize);
    /// Writes all values as the nearest bf16.
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut u16) {
        let mut values = [0.0f32; BLOCK];
        // SAFETY: the trait's contract, and no vector is longer than a block.
        unsafe {
            self.store(values.as_mut_ptr());
            for (i, v) in values[..Self::N].iter().enumerate() {
                *to.add(i) = bf16(*v);
            }
        }
    }
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// The larger; `other` where one is NaN.
    unsafe fn max(self, other: Self) -> Self;
    /// `self + a b`, rounded once where the CPU can.
    unsafe fn fma(self, a: Self, b: Self) -> Self;
    /// `self` where `mask > 0`, else 0.
    unsafe fn where_positive(self, mask: Self) -> Self;
    /// `max(self, 0)`; NaN stays NaN.
    #[inline(always)]
    unsafe fn relu(self) -> Self {
        // SAFETY: the trait's contract. `max` returns its second operand where one is NaN.
        unsafe { Self::zero().max(self) }
    }
}

/// The nearest bf16, ties to even; NaN stays NaN.
#[inline(always)]
pub(crate) fn bf16(v: f32) -> u16 {
    let bits = v.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    if bits & 0x7fff_ffff > 0x7f80_0000 { 0x7fc0 } else { (rounded >> 16) as u16 }
}

/// The first `count` values, `0 < count <= N`, then zeros.
///
/// # Safety
/// As [`Lanes`]; `count` values are readable.
#[inline(always)]
pub(crate) unsafe fn get<L: Lanes>(from: *const f32, count: usize) -> L {
    // SAFETY: the caller's contract.
    unsafe { if count == L::N { L::load(from) } else { L::load_first(from, count) } }
}

/// Writes the first `count` values, `0 < count <= N`.
///
/// # Safety
/// As [`Lanes`]; `count` values are writable.
#[inline(always)]
pub(crate) unsafe fn put<L: Lanes>(value: L, to: *mut f32, count: usize) {
    // SAFETY: the caller's contract.
    unsafe { if count == L::N { value.store(to) } else { value.store_first(to, count) } }
}

/// An instruction set that this CPU has: only [`detect`] and [`available`] make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isa(Kind);

/// The instruction sets that there are kernels for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// 16 lanes.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// 8 lanes with fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Whatever the compiler makes of arrays.
    Portable,
}

impl Isa {
    pub(crate) fn kind(self) -> Kind {
        self.0
    }

    /// Its name in run folders.
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512f",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2+fma",
            Kind::Portable => "portable",
        }
    }
}

/// Every instruction set of this CPU that there are kernels for, fastest first.
///
/// ```
/// use paradise_nn::ops::lanes::available;
/// // The fastest first; plain Rust is always there.
/// assert_eq!(available().last().map(|isa| isa.name()), Some("portable"));
/// ```
pub fn available() -> Vec<Isa> {
    let mut all = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
            all.push(Isa(Kind::Avx512));
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            all.push(Isa(Kind::Avx2));
        }
    }
    all.push(Isa(Kind::Portable));
    all
}

/// The fastest instruction set of this CPU.
pub fn detect() -> Isa {
    static FASTEST: std::sync::OnceLock<Isa> = std::sync::OnceLock::new();
    *FASTEST.get_or_init(|| available()[0])
}

/// Defines `fn $name(isa, args)` that runs the generic `$kernel::<L>(args)` compiled for `isa`.
macro_rules! per_isa {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $kernel:ident) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis unsafe fn $name(isa: $crate::ops::lanes::Isa, $($arg: $ty),*) $(-> $ret)? {
            use $crate::ops::lanes;
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
            #[allow(clippy::too_many_arguments)]
            unsafe fn avx512($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: the caller's contract.
                unsafe { $kernel::<lanes::Avx512>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            #[allow(clippy::too_many_arguments)]
            unsafe fn avx2($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: the caller's contract.
                unsafe { $kernel::<lanes::Avx2>($($arg),*) }
            }
            // SAFETY: an `Isa` exists only where the CPU has it; the rest is the caller's contract.
            unsafe {
                match isa.kind() {
                    #[cfg(target_arch = "x86_64")]
                    lanes::Kind::Avx512 => avx512($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    lanes::Kind::Avx2 => avx2($($arg),*),
                    lanes::Kind::Portable => $kernel::<lanes::Portable>($($arg),*),
                }
            }
        }
    };
}
pub(crate) use per_isa;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    unsafe fn all<L: Lanes>(values: &[f32; BLOCK]) -> [u16; BLOCK] {
        let mut to = [0; BLOCK];
        for at in (0..BLOCK).step_by(L::N) {
            // SAFETY: `N` divides a block.
            unsafe { L::load(values.as_ptr().add(at)).store_bf16(to.as_mut_ptr().add(at)) }
        }
        to
    }

    per_isa! {
        fn shorten(values: &[f32; BLOCK]) -> [u16; BLOCK] = all
    }

    proptest! {
        #[test]
        fn rounding_is_to_the_nearest(bits: u32) {
            let v = f32::from_bits(bits);
            let got = bf16(v);
            for isa in available() {
                // SAFETY: available.
                prop_assert_eq!(unsafe { shorten(isa, &[v; BLOCK]) }, [got; BLOCK]);
            }
            let value = |b: u16| f64::from(f32::from_bits(u32::from(b) << 16));
            if v.is_nan() {
                prop_assert!(value(got).is_nan());
            } else if v.is_infinite() {
                prop_assert_eq!(value(got), f64::from(v));
            } else {
                // The two that enclose it; beyond the largest, infinity stands a step further.
                let low = (bits >> 16) as u16;
                let step = |b: u16| if value(b).is_infinite() { value(b).signum() * 2f64.powi(128) } else { value(b) };
                let away = |b: u16| (step(b) - f64::from(v)).abs();
                let nearest = match away(low).total_cmp(&away(low + 1)) {
                    std::cmp::Ordering::Less => low,
                    std::cmp::Ordering::Greater => low + 1,
                    std::cmp::Ordering::Equal => low + low % 2,
                };
                prop_assert_eq!(got, nearest);
            }
        }
    }
}
