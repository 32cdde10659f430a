//! Work on many images in batches that suit a model, in parallel where it allows that.

use crate::error::{Error, Result};
use crate::model::Classifier;
use std::sync::atomic::{AtomicUsize, Ordering};

/// `work` on batches that suit the model, its results in order; an image is `unit` of the `values`.
pub fn in_batches<T: Sync, R: Send>(
    model: &dyn Classifier,
    values: &[T],
    unit: usize,
    work: impl Fn(&[T]) -> Result<Vec<R>> + Sync,
) -> Result<Vec<R>> {
    let (size, parallel) = model.batch();
    let done = if parallel {
        let even = (values.len() / unit).div_ceil(rayon::current_num_threads());
        let batches: Vec<&[T]> = values.chunks(size.min(even).max(1) * unit).collect();
        each_on_one_thread(&batches, |batch| work(batch))?
    } else {
        // A GPU wants few, large batches.
        values.chunks(size.max(1) * unit).map(work).collect::<Result<Vec<_>>>()?
    };
    Ok(done.into_iter().flatten().collect())
}

/// `work` on every item, an item a thread. Parallel loops inside stay on their thread: stealing whole items from within
/// one another would nest them without bound.
fn each_on_one_thread<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let worker = || -> Result<Vec<(usize, R)>> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().map_err(Error::model)?;
        pool.install(|| {
            let mut done = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = items.get(at) else { return Ok(done) };
                match work(item) {
                    Ok(result) => done.push((at, result)),
                    Err(error) => {
                        // The others need not go on.
                        next.store(items.len(), Ordering::Relaxed);
                        return Err(error);
                    }
                }
            }
        })
    };
    let threads = rayon::current_num_threads().min(items.len());
    let mut all = std::thread::scope(|scope| -> Result<Vec<(usize, R)>> {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        let mut all = Vec::with_capacity(items.len());
        for worker in workers {
            all.extend(worker.join().map_err(|_| Error::model("a worker thread panicked"))??);
        }
        Ok(all)
    })?;
    all.sort_unstable_by_key(|(at, _)| *at);
    Ok(all.into_iter().map(|(_, result)| result).collect())
}
