//! Weights in the order in which the kernels read them, written while the firmware is built.

use super::geometry::{BLOCK, CONSTANTS, Geometry, LANES};
use crate::kernel::scalar::Rows;
use alloc::vec::Vec;

/// The records of all blocks.
///
/// # Panics
/// If the weights are not those of the geometry.
pub fn pack(geometry: &Geometry, rows: Rows) -> Vec<u8> {
    let (record, run) = (geometry.record(), geometry.run);
    let mut packed = alloc::vec![0; rows.bias.len() / BLOCK * record];
    for o in 0..rows.bias.len() {
        let (own, channel) = (&mut packed[o / BLOCK * record..][..record], o % BLOCK);
        own[4 * channel..][..4].copy_from_slice(&rows.bias.at(o).to_le_bytes());
        own[4 * (BLOCK + channel)..][..4].copy_from_slice(&rows.scale.at(o).to_le_bytes());
        let filter = &rows.weight[o * geometry.rows * run..][..geometry.rows * run];
        for (ky, taps) in filter.chunks_exact(run).enumerate() {
            for (i, w) in taps.iter().enumerate() {
                let vector = ky * geometry.vectors + i / LANES;
                own[CONSTANTS + (vector * BLOCK + channel) * LANES + i % LANES] = *w as u8;
            }
        }
    }
    packed
}
