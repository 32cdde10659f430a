//! Weights in the order in which the kernels read them, written while the firmware is built.

use super::geometry::{CONSTANTS, Geometry, Taps};
use crate::kernel::scalar::Rows;
use alloc::vec::Vec;

/// The records of all channels.
///
/// # Panics
/// If the weights are not those of the geometry.
pub fn pack(geometry: &Geometry, rows: Rows) -> Vec<u8> {
    let (channels, record) = (rows.bias.len(), geometry.record());
    let mut packed = alloc::vec![0; channels * record];
    let run = geometry.width * geometry.channels;
    let quad_bytes = geometry.quad_bytes();
    for (o, own) in packed.chunks_exact_mut(record).enumerate() {
        own[..4].copy_from_slice(&rows.bias.at(o).to_le_bytes());
        own[4..8].copy_from_slice(&rows.scale.at(o).to_le_bytes());
        let filter = &rows.weight[o * geometry.rows * run..][..geometry.rows * run];
        for (ky, taps) in filter.chunks_exact(run).enumerate() {
            for (i, w) in taps.iter().enumerate() {
                let (input, tap) = match geometry.taps {
                    Taps::Three => (i % geometry.channels, i / geometry.channels),
                    Taps::Runs => (i, 0),
                };
                let quad = ky * geometry.quads + input / 4;
                own[CONSTANTS + quad * quad_bytes + geometry.place(input % 4, tap)] = *w as u8;
            }
        }
    }
    packed
}
