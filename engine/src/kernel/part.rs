//! How a map's work is cut into parts that threads run at the same time: each writes pixels and channels of its own.

use super::map::Map;
use super::packed::LANES;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Fewest products for which it pays to call another thread, which takes a third of a microsecond there and back.
#[cfg(not(test))]
const LEAST: usize = 1 << 17;

/// In tests everything is cut that can be.
#[cfg(test)]
const LEAST: usize = 1;

/// Parts for each member, so that one that was held up does not hold up the others.
const EACH: usize = 3;

/// Lines of weights from which on each should be read by one thread alone: half of what a core has near.
#[cfg(not(test))]
const FAR: usize = 1 << 13;

/// In tests, some of what there is.
#[cfg(test)]
const FAR: usize = 1 << 8;

/// Blocks whose bytes fill a line of the caches: two threads that write into one wait for each other.
const WHOLE: usize = 4;

/// Rows of output pixels, or of Winograd's groups of tiles, and blocks of output channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The first, and the one after the last.
    pub rows: [usize; 2],
    /// The first, and the one after the last.
    pub blocks: [usize; 2],
}

/// Equal parts of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// Rows and blocks of the map.
    all: [usize; 2],
    /// Of each part.
    each: [usize; 2],
}

impl Parts {
    /// The parts of a map for so many threads.
    pub fn new(map: &Map, members: usize) -> Self {
        let all = [map.winograd.map_or(map.extent[0], |w| w.groups()), map.packed.blocks()];
        let one = Self { all, each: all };
        let pixels = map.extent[0] * map.extent[1];
        let products = pixels * map.packed.span() * 4 * map.packed.channels.min(LANES) * map.packed.blocks();
        if members == 1 || products < LEAST {
            return one;
        }
        let wanted = EACH * members;
        // Columns and Winograd's tiles are laid out anew for other blocks of the same rows.
        let is_far = map.columns().is_none() && map.packed.span() * all[1] > FAR && all[1] >= 2 * WHOLE;
        if is_far {
            return Self { each: [all[0], all[1].div_ceil(wanted).next_multiple_of(WHOLE)], ..one };
        }
        if all[0] >= members {
            return Self { each: [(all[0] / wanted).max(1), all[1]], ..one };
        }
        // Kernels take blocks in twos or threes.
        Self { each: [1, (all[0] * all[1]).div_ceil(wanted).div_ceil(all[0]).next_multiple_of(2)], ..one }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.count(0) * self.count(1)
    }

    fn count(&self, i: usize) -> usize {
        self.all[i].div_ceil(self.each[i])
    }

    /// The first part of a member's own share, and the one after its last.
    pub fn share(&self, member: usize, members: usize) -> [usize; 2] {
        [member, member + 1].map(|m| m * self.len() / members)
    }

    /// The `n`-th: all rows of the first blocks come first.
    pub fn nth(&self, n: usize) -> Part {
        let range = |i: usize, k: usize| [k * self.each[i], self.all[i].min((k + 1) * self.each[i])];
        Part { rows: range(0, n % self.count(0)), blocks: range(1, n / self.count(0)) }
    }
}

/// What is still to be done of each member's share. A member that is done with its own goes on with the others': the same rows of
/// one layer after the other stay with the same core, unless that core is late.
pub struct Shares {
    left: [Left; Self::MOST],
    count: usize,
}

/// The next part of a share, and the one after the last, on a cache line of its own.
#[repr(align(64))]
struct Left {
    next: AtomicUsize,
    end: usize,
}

impl Shares {
    /// Most shares; of a larger team several members have one together.
    const MOST: usize = 8;

    /// The shares of so many members.
    pub fn new(parts: &Parts, members: usize) -> Self {
        let count = members.min(Self::MOST);
        let left = core::array::from_fn(|i| {
            let [next, end] = if i < count { parts.share(i, count) } else { [0, 0] };
            Left { next: AtomicUsize::new(next), end }
        });
        Self { left, count }
    }

    /// The next part that this member is to do, if there is one.
    pub fn next(&self, member: usize) -> Option<usize> {
        (0..self.count).find_map(|i| {
            let Left { next, end } = &self.left[(member + i) % self.count];
            // An ended share is only looked at: counting on would take the line from its owner.
            (next.load(Ordering::Relaxed) < *end).then(|| next.fetch_add(1, Ordering::Relaxed)).filter(|n| n < end)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    proptest! {
        #[test]
        fn parts_are_all_of_it_once(all in [1usize..70, 1usize..50], each in [1usize..80, 1usize..60]) {
            let parts = Parts { all, each };
            let mut seen = vec![0; all[0] * all[1]];
            for n in 0..parts.len() {
                let part = parts.nth(n);
                prop_assert!(part.rows[0] < part.rows[1] && part.blocks[0] < part.blocks[1], "{part:?}");
                for row in part.rows[0]..part.rows[1] {
                    (part.blocks[0]..part.blocks[1]).for_each(|block| seen[row * all[1] + block] += 1);
                }
            }
            prop_assert!(seen.iter().all(|n| *n == 1));
            for members in 1..9 {
                let ends = (0..members).map(|m| parts.share(m, members)).collect::<std::vec::Vec<_>>();
                prop_assert!(ends[0][0] == 0 && ends[members - 1][1] == parts.len());
                prop_assert!(ends.windows(2).all(|two| two[0][1] == two[1][0]));
            }
        }
    }
}
