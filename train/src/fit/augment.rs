//! Training images as the network sees them: shifted and mirrored at random, keyed by epoch and image.

use crate::config::Config;
use crate::dataset::{self, Dataset};
use crate::random::{self, Purpose};
use anyhow::Result;
use candle_core::Tensor;
use rayon::prelude::*;

/// The images at `ids` in [0, 1], shifted (black comes in) and mirrored at random: f32 `[n, h, w, c]`.
///
/// # Errors
/// If candle cannot allocate.
pub(super) fn augmented(config: &Config, train: &Dataset, ids: &[usize], epoch: u32) -> Result<Tensor> {
    let (h, w, c) = (train.shape.h as usize, train.shape.w as usize, train.shape.c as usize);
    let reach = config.data.shift;
    let mut values = vec![0.0f32; ids.len() * h * w * c];
    values.par_chunks_exact_mut(h * w * c).zip(ids).for_each(|(out, &id)| {
        let mut rng = random::stream(config.seed, Purpose::Augment, epoch, id as u64, 0);
        let mut shift = || random::below(&mut rng, 2 * reach + 1) as isize - reach as isize;
        let (dy, dx) = (shift(), shift());
        let flip = config.data.flip && random::below(&mut rng, 2) == 1;
        let image = train.image(id);
        for y in 0..h {
            for x in 0..w {
                let (sy, sx) = (y as isize + dy, (if flip { w - 1 - x } else { x }) as isize + dx);
                if (0..h as isize).contains(&sy) && (0..w as isize).contains(&sx) {
                    for k in 0..c {
                        let pixel = image[(sy as usize * w + sx as usize) * c + k];
                        out[(y * w + x) * c + k] = f32::from(pixel) / 255.0;
                    }
                }
            }
        }
    });
    dataset::tensor(values, ids.len(), train.shape)
}
