//! Mini-batches made ahead of the step by threads of their own, in the order of the epoch.

use super::augment;
use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use paradise_data::settings::Data;
use paradise_data::{self, Training};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;

/// Makes the batches of one epoch.
pub(super) struct Loader<'a> {
    pub data: &'a Data,
    pub train: &'a Training,
    pub seed: u64,
    pub epoch: u32,
    /// Which images of each batch are made: those of this process.
    pub own: Range<usize>,
}

/// Pixels and classes of one batch.
type Batch = (Vec<f32>, Vec<u32>);

impl Loader<'_> {
    /// Calls `step(ids, images, labels)` for each batch in order: this process's images f32 `[own, h, w, c]`, labels of all u32 `[n]`.
    ///
    /// # Errors
    /// The first error of a picture or of `step`; no batch is made after it.
    pub fn each(
        &self,
        batches: &[&[usize]],
        mut step: impl FnMut(&[usize], Tensor, Tensor) -> Result<()>,
    ) -> Result<()> {
        let workers = self.data.workers.clamp(1, batches.len().max(1));
        let next = AtomicUsize::new(0);
        // A worker waits while this many batches are ready: memory stays bounded.
        let (send, receive) = sync_channel::<(usize, Result<Batch>)>(workers);
        std::thread::scope(|scope| {
            for _ in 0..workers {
                let (send, next) = (send.clone(), &next);
                scope.spawn(move || {
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let Some(ids) = batches.get(at) else { return };
                        // The receiver is gone when a step failed.
                        if send.send((at, self.batch(ids))).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(send);
            // Dropped on the way out, so that no worker waits for a reader.
            let receive = receive;
            let mut early: BTreeMap<usize, Result<Batch>> = BTreeMap::new();
            for (at, ids) in batches.iter().enumerate() {
                let batch = loop {
                    if let Some(batch) = early.remove(&at) {
                        break batch;
                    }
                    let (ready, batch) = receive.recv().context("the loader stopped")?;
                    early.insert(ready, batch);
                };
                let (pixels, labels) = batch?;
                let images = paradise_nn::images(pixels, self.own.len(), self.train.shape())?;
                step(ids, images, Tensor::from_vec(labels, ids.len(), &Device::Cpu)?)?;
            }
            Ok(())
        })
    }

    fn batch(&self, ids: &[usize]) -> Result<Batch> {
        let shape = self.train.shape();
        let each = shape.len() as usize;
        let mut pixels = vec![0.0f32; self.own.len() * each];
        for (out, &id) in pixels.chunks_exact_mut(each).zip(&ids[self.own.clone()]) {
            let (image, _) = self.train.image(id, self.seed, self.epoch)?;
            augment::write(self.data, shape, &image, (self.seed, self.epoch, id), out);
        }
        let labels = ids.iter().map(|&id| u32::from(self.train.labels()[id])).collect();
        Ok((pixels, labels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paradise_data::Dataset;
    use paradise_engine::Shape;

    fn train(n: usize) -> Training {
        let labels = (0..n as u16).collect();
        Training::Memory(Dataset::new(Shape::new(1, 1, 1), (0..n).map(|i| i as u8).collect(), labels).unwrap())
    }

    #[test]
    fn batches_come_in_order_whatever_the_workers() {
        let train = train(60);
        let ids: Vec<usize> = (0..60).rev().collect();
        let batches: Vec<&[usize]> = ids.chunks_exact(4).collect();
        for workers in [1, 2, 7, 100] {
            let data = Data { workers, shift: 0, flip: false, ..Data::default() };
            let loader = Loader { data: &data, train: &train, seed: 0, epoch: 0, own: 0..4 };
            let mut seen = Vec::new();
            loader
                .each(&batches, |ids, images, labels| {
                    let pixels: Vec<f32> = crate::encoder::values(&images)?.iter().map(|p| p * 255.0).collect();
                    assert_eq!(pixels, ids.iter().map(|i| *i as f32).collect::<Vec<_>>());
                    seen.extend(labels.to_vec1::<u32>()?);
                    Ok(())
                })
                .unwrap();
            assert_eq!(seen, (0..60).rev().collect::<Vec<u32>>());
        }
    }

    #[test]
    fn a_step_that_fails_ends_the_epoch() {
        let train = train(60);
        let ids: Vec<usize> = (0..60).collect();
        let batches: Vec<&[usize]> = ids.chunks_exact(2).collect();
        let data = Data { workers: 3, ..Data::default() };
        let loader = Loader { data: &data, train: &train, seed: 0, epoch: 0, own: 0..2 };
        let mut steps = 0;
        let outcome = loader.each(&batches, |_, _, _| {
            steps += 1;
            anyhow::ensure!(steps < 3, "enough");
            Ok(())
        });
        assert!(outcome.unwrap_err().to_string().contains("enough") && steps == 3);
    }
}
