//! Dot products outside convolutions: dense layers and heads.

#![allow(unsafe_code)]

use core::arch::asm;

/// Exact i32 dot product of equally long slices.
#[inline(always)]
pub fn dot(a: &[i8], b: &[i8]) -> i32 {
    let (fours, rest) = a.as_chunks::<4>();
    let (other_fours, other_rest) = b.as_chunks::<4>();
    let word = |four: &[i8; 4]| u32::from_le_bytes(four.map(|v| v as u8));
    let mut sum: i32 = rest.iter().zip(other_rest).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum();
    for (a, b) in fours.iter().zip(other_fours) {
        // SAFETY: it only computes.
        unsafe {
            asm!(
                "sxtb16 {low}, {a}",
                "sxtb16 {other}, {b}",
                "smlad {sum}, {low}, {other}, {sum}",
                "sxtb16 {low}, {a}, ror #8",
                "sxtb16 {other}, {b}, ror #8",
                "smlad {sum}, {low}, {other}, {sum}",
                a = in(reg) word(a), b = in(reg) word(b), low = out(reg) _, other = out(reg) _, sum = inout(reg) sum,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
    }
    sum
}
