//! Sums over all tasks of all ranks that are needed only at the end of a pass: they go from rank to rank in pieces while the pass goes
//! on, so that nobody waits for them before.
//!
//! ```text
//! rank 0   own parts --Sums--> rank 1   + own parts --Sums--> ... rank n - 1   + own parts: whole
//!                    <------------------------Totals, from rank to rank ------------------+
//! ```
//! Of several copies each goes around once, the whole sum after the last. All ranks push the same sums in the same order, and each takes
//! them in that order; so the bits are those of one process, however late a message is.

use super::{Lane, POSTED, Share};
use anyhow::Result;
use rayon::prelude::*;
use std::collections::VecDeque;

/// Values of a message: as many as TCP sends at once (Open MPI's eager limit there is 64 KiB).
const PIECE: usize = 15_000;

/// Values of a task of additions.
const GRAIN: usize = 1 << 12;

/// Bytes of the sums that are under way at most: with those of four copies they fit into what may be posted.
const UNDER_WAY: usize = POSTED / 5;

/// A sum over the tasks of all ranks.
pub(crate) struct Sum {
    /// The caller's name for it.
    pub key: usize,
    /// The whole sum, once it is done.
    pub total: Vec<f32>,
    /// This rank's parts, `[copies][tasks]`.
    pub parts: Vec<Vec<f32>>,
}

/// One under way.
struct Travelling {
    sum: Sum,
    /// Copies whose parts were added here, and values of the next one.
    added: (usize, usize),
    /// Values of the whole sum that are here.
    whole: usize,
}

/// Sums under way.
pub(crate) struct Later<'a> {
    share: &'a Share,
    copies: usize,
    queue: VecDeque<Travelling>,
    /// How many of the queue, from its front, have all that this rank adds.
    complete: usize,
    done: Vec<Sum>,
}

impl<'a> Later<'a> {
    /// None yet, of `n` images of this rank.
    ///
    /// # Errors
    /// If they are no whole number of its shares.
    pub fn new(share: &'a Share, n: usize) -> Result<Self> {
        Ok(Self { share, copies: share.copies(n)?, queue: VecDeque::new(), complete: 0, done: Vec::new() })
    }

    /// Begins a sum: of `parts` in their order, onto a copy of the first one, where `total` is room for it. Waits for earlier ones where
    /// there are many, and for one that is too large to be under way.
    ///
    /// # Errors
    /// If a rank is gone.
    pub fn push(&mut self, sum: Sum) -> Result<()> {
        let bytes = |sum: &Sum| sum.total.len() * size_of::<f32>();
        let there: usize = self.queue.iter().map(|t| bytes(&t.sum)).sum();
        if there + bytes(&sum) > UNDER_WAY {
            self.advance(true)?;
        }
        if bytes(&sum) > UNDER_WAY {
            return self.add_in_turn(sum);
        }
        self.queue.push_back(Travelling { sum, added: (0, 0), whole: 0 });
        self.advance(false)
    }

    /// What is done.
    pub fn done(&mut self) -> Vec<Sum> {
        std::mem::take(&mut self.done)
    }

    /// A sum that waits for every rank's turn.
    fn add_in_turn(&mut self, mut sum: Sum) -> Result<()> {
        let begins = self.share.exchange().rank() == 0;
        sum.total = self.share.in_turn(self.copies, sum.total.len(), |copy, total| {
            let own = own_parts(&sum.parts, self.copies, copy);
            add_weights(total, own, 0, begins && copy == 0);
        })?;
        self.done.push(sum);
        Ok(())
    }

    /// Goes on as far as messages have come, or to the end.
    ///
    /// # Errors
    /// If a rank is gone.
    pub fn advance(&mut self, wait: bool) -> Result<()> {
        while self.complete < self.queue.len() && self.add(wait)? {}
        while self.complete > 0 && self.learn(wait)? {}
        Ok(())
    }

    /// Adds this rank's parts to the next piece of the first sum that lacks them; whether the piece had come.
    fn add(&mut self, wait: bool) -> Result<bool> {
        let (exchange, ranks, rank) = (self.share.exchange(), self.share.ranks(), self.share.exchange().rank());
        let Travelling { sum, added: (copy, at), .. } = &mut self.queue[self.complete];
        let place = *at..(*at + PIECE).min(sum.total.len());
        let own = own_parts(&sum.parts, self.copies, *copy);
        let piece = &mut sum.total[place.clone()];
        let turn = *copy * ranks + rank;
        if turn > 0
            && ranks > 1
            && !exchange.take(Lane::Sums, (rank + ranks - 1) % ranks, bytemuck::cast_slice_mut(piece), wait)?
        {
            return Ok(false);
        }
        add_weights(piece, own, place.start, turn == 0);
        let lane = if turn + 1 < self.copies * ranks { Lane::Sums } else { Lane::Totals };
        if ranks > 1 {
            exchange.post(lane, (rank + 1) % ranks, bytemuck::cast_slice(piece))?;
        }
        *at = place.end;
        if *at == sum.total.len() {
            (*copy, *at) = (*copy + 1, 0);
            self.complete += usize::from(*copy == self.copies);
        }
        Ok(true)
    }

    /// Takes the next piece of the first whole sum, and passes it on; whether it had come.
    fn learn(&mut self, wait: bool) -> Result<bool> {
        let (exchange, ranks, rank) = (self.share.exchange(), self.share.ranks(), self.share.exchange().rank());
        let Some(Travelling { sum, whole, .. }) = self.queue.front_mut() else { return Ok(false) };
        if rank + 1 < ranks {
            let place = *whole..(*whole + PIECE).min(sum.total.len());
            let piece = &mut sum.total[place.clone()];
            if !exchange.take(Lane::Totals, (rank + ranks - 1) % ranks, bytemuck::cast_slice_mut(piece), wait)? {
                return Ok(false);
            }
            // The last rank made it.
            if rank + 2 < ranks {
                exchange.post(Lane::Totals, rank + 1, bytemuck::cast_slice(piece))?;
            }
            *whole = place.end;
            if *whole < sum.total.len() {
                return Ok(true);
            }
        }
        self.complete -= 1;
        self.done.extend(self.queue.pop_front().map(|travelling| travelling.sum));
        Ok(true)
    }
}

/// The parts of a copy, of parts `[copies][tasks]`.
fn own_parts(parts: &[Vec<f32>], copies: usize, copy: usize) -> &[Vec<f32>] {
    let tasks = parts.len() / copies;
    &parts[copy * tasks..][..tasks]
}

/// Adds what parts have from the value `from` on, in their order; where `begins`, onto the first one's own: a sum that begins with 0 has
/// another sign where all are -0.
pub(crate) fn add_weights(total: &mut [f32], mut parts: &[Vec<f32>], from: usize, begins: bool) {
    if let (true, [first, rest @ ..]) = (begins, parts) {
        total.copy_from_slice(&first[from..][..total.len()]);
        parts = rest;
    }
    total.par_chunks_mut(GRAIN).enumerate().for_each(|(k, total)| {
        for part in parts {
            total.iter_mut().zip(&part[from + k * GRAIN..]).for_each(|(t, w)| *t += w);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::on_threads;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn sums_have_the_bits_of_one_process_however_late_they_are(
            ranks in 1usize..5, copies in 1usize..4, tasks in 1usize..3, lens in proptest::collection::vec(1usize..40_000, 1..6),
            pauses in proptest::collection::vec(0u64..3, 6),
        ) {
            let images = ranks * tasks;
            let part = |key: usize, copy: usize, image: usize| -> Vec<f32> {
                let value = |i: usize| ((i * 7919 + key * 31 + copy * 17 + image * 13) as f32).sin() * 10f32.powi(image as i32 % 5);
                (0..lens[key]).map(value).collect()
            };
            let found = on_threads(ranks, |exchange| {
                let share = Share::new(exchange, images, 1).unwrap();
                let mut later = Later::new(&share, copies * share.own().len()).unwrap();
                let mut done = Vec::new();
                for (key, len) in lens.iter().enumerate() {
                    std::thread::sleep(std::time::Duration::from_millis(pauses[(key + share.own().start) % 6]));
                    let parts = (0..copies).flat_map(|copy| share.own().map(move |i| (copy, i)));
                    let parts = parts.map(|(copy, i)| part(key, copy, i)).collect();
                    later.push(Sum { key, total: vec![0.0; *len], parts }).unwrap();
                    done.extend(later.done());
                }
                later.advance(true).unwrap();
                done.extend(later.done());
                done.into_iter().map(|sum| (sum.key, sum.total)).collect::<Vec<_>>()
            });
            for sums in found {
                prop_assert_eq!(sums.len(), lens.len());
                for (at, (key, total)) in sums.into_iter().enumerate() {
                    let mut want = part(key, 0, 0);
                    for (copy, i) in (0..copies).flat_map(|copy| (0..images).map(move |i| (copy, i))).skip(1) {
                        want.iter_mut().zip(part(key, copy, i)).for_each(|(t, p)| *t += p);
                    }
                    prop_assert!(at == key && total.iter().map(|v| v.to_bits()).eq(want.iter().map(|v| v.to_bits())));
                }
            }
        }
    }
}
