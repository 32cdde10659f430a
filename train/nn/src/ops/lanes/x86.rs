//! AVX-512 and AVX2 + FMA.

use super::Lanes;
use std::arch::x86_64::*;

macro_rules! x86 {
    ($name:ident, $inner:ty, $n:literal, $registers:literal, $group:literal,
     $zero:ident, $load:ident, $store:ident, $splat:ident, $add:ident, $sub:ident, $mul:ident, $max:ident, $fma:ident,
     |$v:ident, $m:ident| $select:expr,
     |$from:ident, $n1:ident| $load_first:expr,
     |$to:ident, $n2:ident, $v2:ident| $store_first:expr
     $(, $bf16:item)?) => {
        #[derive(Debug, Clone, Copy)]
        pub(crate) struct $name($inner);

        // SAFETY of every block: the trait's contract gives the instruction set and valid pointers.
        #[allow(clippy::undocumented_unsafe_blocks)]
        impl Lanes for $name {
            const N: usize = $n;
            const REGISTERS: usize = $registers;
            const GROUP: usize = $group;

            #[inline(always)]
            unsafe fn zero() -> Self {
                Self(unsafe { $zero() })
            }
            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                Self(unsafe { $load(from) })
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                unsafe { $store(to, self.0) }
            }
            #[inline(always)]
            unsafe fn splat(from: *const f32) -> Self {
                Self(unsafe { $splat(*from) })
            }
            #[inline(always)]
            unsafe fn load_first($from: *const f32, $n1: usize) -> Self {
                Self(unsafe { $load_first })
            }
            #[inline(always)]
            unsafe fn store_first(self, $to: *mut f32, $n2: usize) {
                let $v2 = self.0;
                unsafe { $store_first }
            }
            $($bf16)?
            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                Self(unsafe { $add(self.0, other.0) })
            }
            #[inline(always)]
            unsafe fn sub(self, other: Self) -> Self {
                Self(unsafe { $sub(self.0, other.0) })
            }
            #[inline(always)]
            unsafe fn mul(self, other: Self) -> Self {
                Self(unsafe { $mul(self.0, other.0) })
            }
            #[inline(always)]
            unsafe fn max(self, other: Self) -> Self {
                Self(unsafe { $max(self.0, other.0) })
            }
            #[inline(always)]
            unsafe fn fma(self, a: Self, b: Self) -> Self {
                Self(unsafe { $fma(a.0, b.0, self.0) })
            }
            #[inline(always)]
            unsafe fn where_positive(self, mask: Self) -> Self {
                let ($v, $m) = (self.0, mask.0);
                Self(unsafe { $select })
            }
        }
    };
}

x86!(
    Avx512,
    __m512,
    16,
    32,
    3,
    _mm512_setzero_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_set1_ps,
    _mm512_add_ps,
    _mm512_sub_ps,
    _mm512_mul_ps,
    _mm512_max_ps,
    _mm512_fmadd_ps,
    |v, m| _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(m, _mm512_setzero_ps()), v),
    |from, n| _mm512_maskz_loadu_ps(((1u32 << n) - 1) as __mmask16, from),
    |to, n, v| _mm512_mask_storeu_ps(to, ((1u32 << n) - 1) as __mmask16, v),
    // As `super::bf16`; compilers make single values of that.
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut u16) {
        unsafe {
            let bits = _mm512_castps_si512(self.0);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
            let high = _mm512_srli_epi32::<16>(rounded);
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, self.0);
            let high = _mm512_mask_mov_epi32(high, nan, _mm512_set1_epi32(0x7fc0));
            _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(high));
        }
    }
);

/// Lanes below `n` set.
#[inline(always)]
unsafe fn first_of_8(n: usize) -> __m256i {
    // SAFETY: called by AVX2 code only.
    unsafe { _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)) }
}

x86!(
    Avx2,
    __m256,
    8,
    16,
    1,
    _mm256_setzero_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_set1_ps,
    _mm256_add_ps,
    _mm256_sub_ps,
    _mm256_mul_ps,
    _mm256_max_ps,
    _mm256_fmadd_ps,
    |v, m| _mm256_and_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(m, _mm256_setzero_ps()), v),
    |from, n| _mm256_maskload_ps(from, first_of_8(n)),
    |to, n, v| _mm256_maskstore_ps(to, first_of_8(n), v)
);
