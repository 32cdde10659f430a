//! Where blocks of memory lie that are held at different times: the one planner of arenas, for a model's file as for fast
//! kernels.

use alloc::vec::Vec;
use core::cmp::Reverse;
use core::ops::Range;

/// Memory that is held for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Bytes.
    pub len: usize,
    /// The first and the last step at which it is held.
    pub life: [usize; 2],
}

/// Gives each block its offset, the largest first at the lowest free multiple of `align`, and returns the offsets and the end
/// of the last; `None` if that lies beyond `most`. Blocks that are held at the same step do not overlap.
///
/// ```
/// use paradise_engine::arena::{Block, place};
/// // An input, a larger layer that reads it, and a layer that reads that one and may lie where the input was.
/// let blocks = [[0, 1], [1, 2], [2, 3]].map(|life| Block { len: 100 + 100 * (life[0] % 2), life });
/// assert_eq!(place(&blocks, 16, 1000), Some((vec![208, 0, 208], 308)));
/// assert_eq!(place(&blocks, 16, 300), None);
/// ```
pub fn place(blocks: &[Block], align: usize, most: usize) -> Option<(Vec<usize>, usize)> {
    let mut order: Vec<usize> = (0..blocks.len()).collect();
    order.sort_by_key(|&i| (Reverse(blocks[i].len), i));
    let mut placed: Vec<(usize, Range<usize>)> = Vec::with_capacity(blocks.len());
    let mut offsets = alloc::vec![0; blocks.len()];
    let mut end = 0;
    for i in order {
        let Block { len, life } = blocks[i];
        let together = |j: &usize| life[0] <= blocks[*j].life[1] && blocks[*j].life[0] <= life[1];
        let mut busy: Vec<&Range<usize>> =
            placed.iter().filter(|(j, _)| together(j)).map(|(_, range)| range).collect();
        busy.sort_unstable_by_key(|range| range.start);
        let mut at = 0usize;
        for other in busy {
            if at.checked_add(len)? > other.start {
                at = at.max(other.end.next_multiple_of(align));
            }
        }
        let last = at.checked_add(len)?;
        if last > most {
            return None;
        }
        end = end.max(last);
        offsets[i] = at;
        placed.push((i, at..last));
    }
    Some((offsets, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_lives_together_lies_apart(
            blocks in proptest::collection::vec((0usize..500, 0usize..12, 0usize..6), 0..20),
        ) {
            let blocks: Vec<Block> =
                blocks.into_iter().map(|(len, first, lasts)| Block { len, life: [first, first + lasts] }).collect();
            let (offsets, end) = place(&blocks, 16, usize::MAX).unwrap();
            for (i, a) in blocks.iter().enumerate() {
                prop_assert!(offsets[i] % 16 == 0 && offsets[i] + a.len <= end);
                for (j, b) in blocks.iter().enumerate().skip(i + 1) {
                    let apart = offsets[i] + a.len <= offsets[j] || offsets[j] + b.len <= offsets[i];
                    let together = a.life[0] <= b.life[1] && b.life[0] <= a.life[1];
                    prop_assert!(apart || !together || a.len == 0 || b.len == 0, "{i} {j}");
                }
            }
            // No step holds more than the arena.
            let held = |step: usize| -> usize {
                blocks.iter().filter(|b| b.life[0] <= step && step <= b.life[1]).map(|b| b.len).sum()
            };
            prop_assert!((0..20).all(|step| held(step) <= end));
            prop_assert_eq!(place(&blocks, 16, end).map(|p| p.1), Some(end));
            prop_assert!(end == 0 || place(&blocks, 16, end - 1).is_none());
        }
    }
}
