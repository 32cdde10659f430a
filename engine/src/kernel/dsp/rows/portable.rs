//! In Rust.

use super::{pair, step};
use crate::kernel::dsp::geometry::{GROUP, Geometry};

/// Widens a padded row into a slot.
///
/// # Panics
/// If the row or the slot is shorter than the geometry says.
pub fn widen(geometry: &Geometry, row: &[i8], slot: &mut [u32]) {
    let (block, step) = (geometry.block(), step(geometry));
    for (g, group) in slot.chunks_exact_mut(geometry.group_words()).enumerate() {
        let from = g * GROUP * geometry.stride * geometry.channels;
        for (q, planes) in group.chunks_exact_mut(2 * block).enumerate() {
            let (first, second) = planes.split_at_mut(block);
            for (i, (first, second)) in first.iter_mut().zip(second).enumerate() {
                let four = &row[from + 4 * q + i * step..][..4];
                *first = pair(four[0], four[2]);
                *second = pair(four[1], four[3]);
            }
        }
    }
}
