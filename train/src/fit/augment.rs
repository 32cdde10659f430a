//! A training image as the network sees it: shifted and mirrored at random, keyed by epoch and image.

use paradise_data::settings::Data;
use paradise_engine::Shape;
use paradise_support::random::{self, Purpose};

/// How one image is varied.
#[derive(Debug, Clone, Copy)]
pub(super) struct Variation {
    /// Pixels down and right from where the image reads.
    pub shift: [isize; 2],
    pub flip: bool,
}

/// The variation of an image under `(seed, epoch, image)`.
pub(super) fn draw(data: &Data, (seed, epoch, id): (u64, u32, usize)) -> Variation {
    let mut rng = random::stream(seed, Purpose::Augment, epoch, id as u64, 0);
    let mut shift = || random::below(&mut rng, 2 * data.shift + 1) as isize - data.shift as isize;
    let shift = [shift(), shift()];
    Variation { shift, flip: data.flip && random::below(&mut rng, 2) == 1 }
}

/// Writes an image u8 `[h][w][c]` in [0, 1] to `out`, shifted (black comes in) and mirrored as `id` and `epoch` say.
pub(super) fn write(data: &Data, shape: Shape, image: &[u8], key: (u64, u32, usize), out: &mut [f32]) {
    let (h, w, c) = (shape.h as usize, shape.w as usize, shape.c as usize);
    let Variation { shift: [dy, dx], flip } = draw(data, key);
    for y in 0..h {
        for x in 0..w {
            let (sy, sx) = (y as isize + dy, (if flip { w - 1 - x } else { x }) as isize + dx);
            let to = &mut out[(y * w + x) * c..][..c];
            if (0..h as isize).contains(&sy) && (0..w as isize).contains(&sx) {
                let from = &image[(sy as usize * w + sx as usize) * c..][..c];
                to.iter_mut().zip(from).for_each(|(to, pixel)| *to = f32::from(*pixel) / 255.0);
            } else {
                to.fill(0.0);
            }
        }
    }
}
