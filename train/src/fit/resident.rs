//! Training images that fit on a GPU: put there once, varied there with the same draws as on the host.

use super::augment::{self, Variation};
use anyhow::Result;
use candle_core::{Device, Tensor};
use paradise_data::Training;
use paradise_data::settings::Data;
use paradise_nn::Pick;

/// Most bytes of images that are put there.
const LIMIT: usize = 16 << 30;

/// A training set on a GPU.
pub(super) struct Resident {
    /// u8 `[images, h w c]`.
    pixels: Tensor,
    extents: [usize; 3],
}

impl Resident {
    /// The set on `device`; none if that is the CPU, the images are read while training, or they are too many.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn new(train: &Training, device: &Device) -> Result<Option<Self>> {
        let Training::Memory(set) = train else { return Ok(None) };
        if !device.is_cuda() || set.images.len() > LIMIT {
            return Ok(None);
        }
        let extents = [set.shape.h, set.shape.w, set.shape.c].map(usize::from);
        let pixels = Tensor::from_slice(&set.images, (set.len(), extents.iter().product::<usize>()), device)?;
        Ok(Some(Self { pixels, extents }))
    }

    /// The images at `ids`, varied as `seed` and `epoch` say: f32 `[n, h, w, c]`.
    ///
    /// # Errors
    /// If the device refuses.
    pub fn batch(&self, data: &Data, seed: u64, epoch: u32, ids: &[usize]) -> Result<Tensor> {
        let mut plan = Vec::with_capacity(4 * ids.len());
        for &id in ids {
            let Variation { shift: [dy, dx], flip } = augment::draw(data, (seed, epoch, id));
            plan.extend([i32::try_from(id)?, i32::try_from(dy)?, i32::try_from(dx)?, i32::from(flip)]);
        }
        Ok(self.pixels.apply_op1_no_bwd(&Pick { plan, extents: self.extents })?)
    }
}
