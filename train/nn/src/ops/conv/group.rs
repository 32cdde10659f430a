//! How many blocks of output channels tiles take at once, and so how many are packed together.

#[cfg(target_arch = "x86_64")]
use crate::ops::lanes::{Avx2, Avx512};
use crate::ops::lanes::{Isa, Kind, Lanes, Portable};

/// Blocks of output channels in the tiles that start at `block` of `blocks`.
pub(super) const fn group<L: Lanes>(blocks: usize, block: usize) -> usize {
    let left = blocks - block;
    if left < L::GROUP {
        left
    } else if blocks.is_multiple_of(2) && L::GROUP > 2 {
        // Pairs leave registers for wider tiles.
        2
    } else {
        L::GROUP
    }
}

/// Blocks of output channels that are packed together from `block` of `blocks` on.
pub(super) fn packed_group(isa: Isa, blocks: usize, block: usize) -> usize {
    match isa.kind() {
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 => group::<Avx512>(blocks, block),
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => group::<Avx2>(blocks, block),
        Kind::Portable => group::<Portable>(blocks, block),
    }
}
