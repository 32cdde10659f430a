//! From sums to bytes: requantisation, the residual sum, the per-channel map, and the store, four registers at a time.

// Intrinsics: each block says which check above it makes it sound.
#![allow(unsafe_code)]

use super::rounding::{Rounding, store};
use crate::kernel::grid::View;
use crate::kernel::map::{Map, Roundings};
use crate::kernel::packed::LANES;
use core::arch::x86_64::*;

/// The first `n` of sixteen lanes.
#[inline]
pub fn lanes(n: usize) -> u16 {
    if n >= LANES { u16::MAX } else { (1 << n) - 1 }
}

/// Rounds the sums of the first `count` of four places (block, row, column), does what follows, and stores.
///
/// # Safety
/// [`Map::check`] has held for the bytes at `memory`, and the places are the map's.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub unsafe fn finish<const SUM: bool, const AFFINE: bool>(
    m: &Map,
    places: [[usize; 3]; 4],
    sums: [__m512i; 4],
    count: usize,
    roundings: &Roundings<Rounding>,
    memory: *mut u8,
) {
    let pixel =
        |view: View, [block, row, column]: [usize; 3]| view.at + row * view.pitch + column * m.pixel + block * LANES;
    // SAFETY: `Map::check` has held for pixels and whole blocks of every view; constants have whole blocks.
    unsafe {
        let mut values = [_mm512_setzero_ps(); 4];
        let mut mapped = [_mm512_setzero_ps(); 4];
        for j in 0..4 {
            if j >= count {
                break;
            }
            let channel = places[j][0] * LANES;
            let scale = _mm512_loadu_ps(m.scale().add(channel));
            let mut value = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[j]), scale);
            let mut rounding = &roundings.own;
            if let (true, Some(sum), Some(own)) = (SUM, &m.sum, &roundings.sum) {
                let bytes = _mm_loadu_si128(memory.add(pixel(sum.other, places[j])).cast());
                let zero = _mm512_set1_epi32(i32::from(sum.other_zero));
                let other = _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_cvtepu8_epi32(bytes), zero));
                let [a, b] = sum.ratio.map(|r| _mm512_set1_ps(r));
                // Three roundings, as the definition has them: no FMA.
                value = _mm512_add_ps(_mm512_mul_ps(rounding.whole(value), a), _mm512_mul_ps(other, b));
                rounding = own;
            }
            if let (true, Some(affine)) = (AFFINE, &m.affine) {
                value = rounding.whole(value);
                let mul = _mm512_loadu_ps(m.line(affine.mul).cast::<f32>().add(channel));
                let add = _mm512_loadu_ps(m.line(affine.add).cast::<f32>().add(channel));
                mapped[j] = _mm512_add_ps(_mm512_mul_ps(value, mul), add);
            }
            values[j] = value;
        }
        let at = |view: View| [0, 1, 2, 3].map(|j| pixel(view, places[j]));
        let kept = [0, 1, 2, 3].map(|j| if j < count { lanes(m.packed.channels - places[j][0] * LANES) } else { 0 });
        if let Some(y) = m.y {
            let rounding = roundings.sum.as_ref().filter(|_| SUM).unwrap_or(&roundings.own);
            store(rounding.bytes(values), at(y), kept, memory);
        }
        if let (true, Some(affine), Some(own)) = (AFFINE, &m.affine, &roundings.affine) {
            store(own.bytes(mapped), at(affine.y), kept, memory);
        }
    }
}
