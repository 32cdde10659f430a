//! Which images of a mini-batch are a rank's, and what all of them come to.

use super::{Exchange, each_rank, place};
use anyhow::{Context, Result, ensure};
use bytemuck::Pod;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of parts that are gathered at most, rather than added in turn.
const GATHERED: usize = 64 << 10;

/// A rank's share of a mini-batch: neighbouring images, in whole tasks.
///
/// Several copies of a batch may lie side by side, as images and their perturbations do; then a rank has the same images of each.
#[derive(Debug, Clone)]
pub struct Share {
    exchange: Arc<dyn Exchange>,
    /// Where each rank's images begin, and where the last one's end.
    bounds: Vec<usize>,
}

impl Share {
    /// Of a batch of `images` in tasks of `grain`.
    ///
    /// # Errors
    /// If there are fewer tasks than ranks, or the last task is not whole.
    pub fn new(exchange: Arc<dyn Exchange>, images: usize, grain: usize) -> Result<Self> {
        let ranks = exchange.ranks();
        if ranks == 1 {
            return Ok(Self { exchange, bounds: vec![0, images] });
        }
        ensure!(
            images.is_multiple_of(grain),
            "a batch of {images} images cannot be shared: it is not made of whole tasks of {grain}"
        );
        let tasks = images / grain;
        ensure!(tasks >= ranks, "a batch of {images} images has {tasks} tasks of {grain}, too few for {ranks} ranks");
        let bounds = (0..=ranks).map(|r| r * tasks / ranks * grain).collect();
        Ok(Self { exchange, bounds })
    }

    pub(super) fn exchange(&self) -> &dyn Exchange {
        &*self.exchange
    }

    /// How many ranks share it.
    pub fn ranks(&self) -> usize {
        self.exchange.ranks()
    }

    /// The images of this rank.
    pub fn own(&self) -> Range<usize> {
        self.of(self.exchange.rank())
    }

    fn of(&self, rank: usize) -> Range<usize> {
        self.bounds[rank]..self.bounds[rank + 1]
    }

    /// Images of the whole batch.
    pub fn images(&self) -> usize {
        self.bounds[self.ranks()]
    }

    /// How many copies of a batch `n` images of this rank belong to.
    ///
    /// # Errors
    /// If they are no whole number of its shares.
    pub fn copies(&self, n: usize) -> Result<usize> {
        let own = self.own().len();
        ensure!(n > 0 && n.is_multiple_of(own), "{n} images of a rank whose share of a batch is {own}");
        Ok(n / own)
    }

    /// Images of all ranks, copies included, where this one has `n`.
    ///
    /// # Errors
    /// If they are no whole number of its shares.
    pub fn whole(&self, n: usize) -> Result<usize> {
        Ok(self.copies(n)? * self.images())
    }

    /// What `add(copy, total)` of all ranks makes of zeros, copy after copy and in each of them rank after rank; all ranks get it.
    ///
    /// # Errors
    /// If a rank is gone.
    pub fn in_turn<T: Pod>(&self, copies: usize, len: usize, mut add: impl FnMut(usize, &mut [T])) -> Result<Vec<T>> {
        let mut total = vec![T::zeroed(); len];
        let (rank, ranks) = (self.exchange.rank(), self.ranks());
        let turns = copies * ranks;
        for copy in 0..copies {
            let turn = copy * ranks + rank;
            if ranks > 1 && turn > 0 {
                self.exchange.receive((rank + ranks - 1) % ranks, bytemuck::cast_slice_mut(&mut total))?;
            }
            add(copy, &mut total);
            if ranks > 1 && turn + 1 < turns {
                self.exchange.send((rank + 1) % ranks, bytemuck::cast_slice(&total))?;
            }
        }
        if ranks > 1 {
            self.exchange.broadcast(ranks - 1, bytemuck::cast_slice_mut(&mut total))?;
        }
        Ok(total)
    }

    /// The sums of all ranks in place of this rank's own, added in the order of ranks to zeros.
    ///
    /// # Errors
    /// If a rank is gone.
    pub fn add_ranks(&self, own: &mut [f64]) -> Result<()> {
        let all = each_rank(&*self.exchange, own)?;
        own.fill(0.0);
        add_parts(own, all.chunks_exact(own.len().max(1)));
        Ok(())
    }

    /// The sum of the parts of all ranks' tasks over `n` images of this rank, added in their order to zeros: `own` are the parts of
    /// this rank's tasks, `[copies][tasks]`, of `len` numbers each.
    ///
    /// # Errors
    /// If a rank is gone.
    pub fn add_up(&self, own: &[Vec<f64>], len: usize, n: usize) -> Result<Vec<f64>> {
        let copies = self.copies(n)?;
        let tasks = own.len() / copies;
        // One message among all ranks at once, while it is small; else each rank's sum is one.
        let images = self.own().len() / tasks;
        if self.ranks() > 1 && copies * self.images() / images * len * size_of::<f64>() <= GATHERED {
            let all = self.collect(&own.concat(), len, images)?;
            let mut total = vec![0.0; len];
            add_parts(&mut total, all.chunks_exact(len));
            return Ok(total);
        }
        self.in_turn(copies, len, |copy, total| {
            add_parts(total, own[copy * tasks..][..tasks].iter().map(Vec::as_slice));
        })
    }

    /// The values of all ranks, in the order of their images: `own` are `[copies][own images][each]`.
    ///
    /// # Errors
    /// If a rank is gone, or the number of values is another.
    pub fn gather<T: Pod>(&self, own: &[T], each: usize) -> Result<Vec<T>> {
        self.collect(own, each, 1)
    }

    /// As [`Share::gather`], of `each` values for so many images.
    fn collect<T: Pod>(&self, own: &[T], each: usize, images: usize) -> Result<Vec<T>> {
        let copies = self.copies(own.len().checked_div(each).context("values of no length")? * images)?;
        if self.ranks() == 1 {
            return Ok(own.to_vec());
        }
        let ends: Vec<usize> = self.bounds[1..].iter().map(|end| copies * end / images * each).collect();
        let mut there = vec![T::zeroed(); ends[ends.len() - 1]];
        there[place(&ends, self.exchange.rank())].copy_from_slice(own);
        let bytes: Vec<usize> = ends.iter().map(|end| end * size_of::<T>()).collect();
        self.exchange.gather(bytemuck::cast_slice_mut(&mut there), &bytes)?;
        if copies == 1 {
            return Ok(there);
        }
        // From copies within ranks to ranks within copies.
        let mut all = Vec::with_capacity(there.len());
        for copy in 0..copies {
            for rank in 0..self.ranks() {
                let of_rank = &there[place(&ends, rank)];
                let one = of_rank.len() / copies;
                all.extend_from_slice(&of_rank[copy * one..][..one]);
            }
        }
        Ok(all)
    }

    /// This rank's part of values `[copies][images][each]`.
    pub fn part<T: Copy>(&self, all: &[T], each: usize) -> Vec<T> {
        let (own, images) = (self.own(), self.images());
        all.chunks_exact(images * each).flat_map(|copy| &copy[own.start * each..own.end * each]).copied().collect()
    }
}

/// Adds parts in their order.
pub(crate) fn add_parts<'p>(total: &mut [f64], parts: impl Iterator<Item = &'p [f64]>) {
    parts.for_each(|part| total.iter_mut().zip(part).for_each(|(t, p)| *t += p));
}

#[cfg(test)]
mod tests {
    use super::super::{Alone, on_threads};
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn sums_are_added_in_order_and_values_gathered(
            ranks in 1usize..6, tasks in 1usize..9, grain in 1usize..5, copies in 1usize..4,
            values in proptest::collection::vec(-1e3f32..1e3, 3 * 64 * 5),
        ) {
            let (tasks, each) = (tasks.max(ranks), 3);
            let images = tasks * grain;
            let value = |copy: usize, image: usize| values[(copy * images + image) % values.len()];
            // Not associative in f32: another order has other bits.
            let want = (0..copies).flat_map(|c| (0..images).map(move |i| (c, i))).fold(0.0, |sum: f32, (c, i)| sum + value(c, i));
            let found = on_threads(ranks, |exchange| {
                let share = Share::new(exchange, images, grain).unwrap();
                let sum = share
                    .in_turn(copies, 1, |copy, total: &mut [f32]| share.own().for_each(|i| total[0] += value(copy, i)))
                    .unwrap();
                let own: Vec<f32> = (0..copies)
                    .flat_map(|copy| share.own().flat_map(move |i| [value(copy, i); 3]))
                    .collect();
                let all = share.gather(&own, each).unwrap();
                // The same sum of parts, one an image: in f64, so that another order would show.
                let parts: Vec<Vec<f64>> = own.chunks(each).map(|v| vec![f64::from(v[0]).powi(3); 5]).collect();
                let whole = share.add_up(&parts, 5, parts.len()).unwrap();
                assert_eq!(whole, share.in_turn(copies, 5, |copy, total: &mut [f64]| {
                    for part in &parts[copy * share.own().len()..][..share.own().len()] {
                        total.iter_mut().zip(part).for_each(|(t, p)| *t += p);
                    }
                }).unwrap());
                let mut own_sum = [share.own().map(|i| f64::from(value(0, i))).sum::<f64>()];
                share.add_ranks(&mut own_sum).unwrap();
                let close = (own_sum[0] - (0..images).map(|i| f64::from(value(0, i))).sum::<f64>()).abs() < 1e-6;
                (sum[0].to_bits(), close && share.part(&all, each) == own, all)
            });
            let all: Vec<f32> = (0..copies).flat_map(|c| (0..images).flat_map(move |i| [value(c, i); 3])).collect();
            for (sum, own, gathered) in found {
                prop_assert_eq!(sum, want.to_bits());
                prop_assert!(own && gathered == all);
            }
        }
    }

    #[test]
    fn what_cannot_be_shared_is_refused_with_its_numbers() {
        on_threads(3, |exchange| {
            let refused = |images, grain| Share::new(exchange.clone(), images, grain).unwrap_err().to_string();
            assert!(refused(16, 8).contains("16 images has 2 tasks of 8, too few for 3 ranks"));
            assert!(refused(100, 8).contains("whole tasks of 8"));
            let share = Share::new(exchange.clone(), 24, 8).unwrap();
            assert!(share.copies(12).is_err() && share.copies(0).is_err());
            assert_eq!(share.copies(16).unwrap(), 2);
        });
        let alone = Share::new(Arc::new(Alone), 100, 8).unwrap();
        assert_eq!((alone.own(), alone.images()), (0..100, 100));
    }
}
