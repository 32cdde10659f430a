//! The floating-point environment that every answer's bits depend on: round to the nearest, ties to even, and subnormal numbers
//! as they are. A library that sets a mode for its own ends (flush to zero, as a rule) sets it for the whole thread.

use core::hint::black_box;

/// Whether this thread rounds to the nearest and neither reads nor writes subnormal numbers as 0, in f32 and in f64.
///
/// Two sums that lie half way between neighbours tell the directions of rounding apart: toward the even one, down once and up
/// once; no directed rounding does both.
///
/// ```
/// assert!(paradise_engine::float::is_ieee());
/// ```
pub fn is_ieee() -> bool {
    macro_rules! holds {
        ($float:ty) => {{
            let [one, ulp, least] = black_box([1.0, <$float>::EPSILON, <$float>::from_bits(1)]);
            let odd = one + ulp;
            let half = ulp / 2.0;
            let nearest = black_box(one + half) == one && black_box(odd + half) == one + 2.0 * ulp;
            let negative = black_box(-one - half) == -one && black_box(-odd - half) == -one - 2.0 * ulp;
            let kept = black_box(black_box(<$float>::MIN_POSITIVE) / 2.0).to_bits() != 0;
            let read = black_box(least + least).to_bits() == 2;
            nearest && negative && kept && read
        }};
    }
    holds!(f32) && holds!(f64)
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    /// What [`is_ieee`] says with these bits of the control register flipped.
    #[allow(unsafe_code)]
    fn with(bits: u32) -> bool {
        let mut before = 0u32;
        // SAFETY: the register is read, changed in its modes alone, and put back before anything else runs.
        unsafe { core::arch::asm!("stmxcsr [{}]", in(reg) &mut before) };
        let changed = before ^ bits;
        // SAFETY: as above.
        unsafe { core::arch::asm!("ldmxcsr [{}]", in(reg) &changed) };
        let said = is_ieee();
        // SAFETY: as above.
        unsafe { core::arch::asm!("ldmxcsr [{}]", in(reg) &before) };
        said
    }

    #[test]
    fn every_other_mode_is_noticed() {
        assert!(with(0));
        let (flush, zeros) = (1 << 15, 1 << 6);
        let rounding = [1u32, 2, 3].map(|mode| mode << 13);
        for mode in rounding.into_iter().chain([flush, zeros]) {
            assert!(!with(mode), "{mode:#x}");
        }
    }
}
