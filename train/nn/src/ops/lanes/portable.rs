//! Four lanes as an array: what every CPU runs, and what the compiler turns into SSE or NEON.

use super::Lanes;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable([f32; 4]);

#[inline(always)]
fn map(a: Portable, b: Portable, f: impl Fn(f32, f32) -> f32) -> Portable {
    Portable(std::array::from_fn(|i| f(a.0[i], b.0[i])))
}

impl Lanes for Portable {
    const N: usize = 4;
    const REGISTERS: usize = 16;
    const GROUP: usize = 1;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; 4])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the trait's contract.
        Self(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the trait's contract.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn splat(from: *const f32) -> Self {
        // SAFETY: the trait's contract.
        Self([unsafe { *from }; 4])
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> Self {
        // SAFETY: the trait's contract: only `n` values are read.
        Self(std::array::from_fn(|i| if i < n { unsafe { *from.add(i) } } else { 0.0 }))
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, n: usize) {
        for (i, v) in self.0.iter().enumerate().take(n) {
            // SAFETY: the trait's contract: `n` values are writable.
            unsafe { *to.add(i) = *v }
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        map(self, other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        map(self, other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        map(self, other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        map(self, other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn fma(self, a: Self, b: Self) -> Self {
        map(self, map(a, b, |a, b| a * b), |c, ab| c + ab)
    }
    #[inline(always)]
    unsafe fn where_positive(self, mask: Self) -> Self {
        map(self, mask, |v, m| if m > 0.0 { v } else { 0.0 })
    }
}
