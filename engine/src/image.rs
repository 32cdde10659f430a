//! The device-independent part of "any picture becomes the model's input": exact integers, the same bits everywhere.
//!
//! Decoding is the runtime's; here RGBA pixels are put over black, turned to luma where the model has one channel,
//! and resized by a triangle filter that widens when shrinking (so it averages) and interpolates when growing.
//! Weights are integers and each output pixel is rounded once, so equal sizes pass through unchanged.

use crate::tensor::Shape;
use serde::{Deserialize, Serialize};

/// Longest side of a source picture, pixels: the sums of the resize stay below 2^63.
pub const MAX_SIDE: u32 = 8192;

/// How a picture of another aspect ratio meets the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fit {
    /// Each axis is scaled on its own.
    Stretch,
    /// The largest centred part of the right aspect ratio.
    Crop,
}

/// The record in a bundle that says how pictures become inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagePolicy {
    /// What to do about another aspect ratio.
    pub fit: Fit,
    /// Whether the training images show light objects on black, so that a dark-on-light picture must be inverted
    /// by the caller. Informational: the engine never guesses.
    pub light_on_dark: bool,
}

/// A decoded picture, 8-bit RGBA, rows from the top.
#[derive(Debug, Clone, Copy)]
pub struct Rgba<'a> {
    width: u32,
    height: u32,
    pixels: &'a [u8],
}

/// Why a decoded picture was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PictureError {
    /// A side is 0 or longer than [`MAX_SIDE`].
    Side {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The pixels are not `4 * width * height` bytes, or the output is not the input's length.
    Length {
        /// Bytes needed.
        need: usize,
        /// Bytes given.
        got: usize,
    },
}

impl core::fmt::Display for PictureError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Side { width, height } => {
                write!(f, "{width} x {height} pixels; each side must be 1..={MAX_SIDE}")
            }
            Self::Length { need, got } => write!(f, "{got} bytes of pixels where {need} are needed"),
        }
    }
}

impl core::error::Error for PictureError {}

impl<'a> Rgba<'a> {
    /// A view of `pixels`, 4 bytes each.
    ///
    /// # Errors
    /// If a side is out of range or the length does not match.
    pub fn new(width: u32, height: u32, pixels: &'a [u8]) -> Result<Self, PictureError> {
        if !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
            return Err(PictureError::Side { width, height });
        }
        let need = 4 * width as usize * height as usize;
        if pixels.len() != need {
            return Err(PictureError::Length { need, got: pixels.len() });
        }
        Ok(Self { width, height, pixels })
    }

    /// The pixel over black, as luma (BT.601, 8-bit weights) or one of R, G, B.
    fn value(&self, x: usize, y: usize, channel: usize, luma: bool) -> u64 {
        let p = &self.pixels[4 * (y * self.width as usize + x)..][..4];
        let over_black = |v: u8| (u32::from(v) * u32::from(p[3]) + 127) / 255;
        let v = if luma {
            (77 * over_black(p[0]) + 150 * over_black(p[1]) + 29 * over_black(p[2]) + 128) >> 8
        } else {
            over_black(p[channel])
        };
        u64::from(v)
    }
}

/// One axis of the resize: source pixels `from .. from + size` onto `out` pixels.
#[derive(Clone, Copy)]
struct Axis {
    from: usize,
    size: usize,
    out: usize,
}

impl Axis {
    /// Source indices that touch output pixel `i`.
    fn support(&self, i: usize) -> core::ops::Range<usize> {
        let reach = 2 * self.size.max(self.out) as isize;
        let centre = (2 * i as isize + 1) * self.size as isize;
        let out = self.out as isize;
        // |(2 j + 1) out - centre| < reach
        let low = (centre - reach - out).div_euclid(2 * out) + 1;
        let high = (centre + reach - out - 1).div_euclid(2 * out) + 1;
        low.clamp(0, self.size as isize) as usize..high.clamp(0, self.size as isize) as usize
    }

    /// Triangle weight of source index `j` for output pixel `i`, in units of `1 / (2 max(size, out))`.
    fn weight(&self, i: usize, j: usize) -> u64 {
        let reach = 2 * self.size.max(self.out) as isize;
        let distance = (2 * j as isize + 1) * self.out as isize - (2 * i as isize + 1) * self.size as isize;
        (reach - distance.abs()).max(0) as u64
    }
}

/// Brings a picture to the model's input: `target` u8 values in HWC order into `out`.
///
/// # Errors
/// If `out` is not `target`'s length.
pub fn fit(picture: &Rgba, policy: &ImagePolicy, target: Shape, out: &mut [u8]) -> Result<(), PictureError> {
    let need = target.len() as usize;
    if out.len() != need {
        return Err(PictureError::Length { need, got: out.len() });
    }
    let (rows, columns) = axes(picture, policy, target);
    let channels = target.c as usize;
    for y in 0..rows.out {
        for x in 0..columns.out {
            for c in 0..channels {
                out[(y * columns.out + x) * channels + c] =
                    resample(picture, rows, columns, [y, x], c, channels == 1);
            }
        }
    }
    Ok(())
}

fn axes(picture: &Rgba, policy: &ImagePolicy, target: Shape) -> (Axis, Axis) {
    let (h, w) = (picture.height as usize, picture.width as usize);
    let (th, tw) = (target.h as usize, target.w as usize);
    let (crop_h, crop_w) = match policy.fit {
        Fit::Stretch => (h, w),
        Fit::Crop if h * tw > w * th => ((w * th / tw).max(1), w),
        Fit::Crop => (h, (h * tw / th).max(1)),
    };
    (Axis { from: (h - crop_h) / 2, size: crop_h, out: th }, Axis { from: (w - crop_w) / 2, size: crop_w, out: tw })
}

fn resample(picture: &Rgba, rows: Axis, columns: Axis, [y, x]: [usize; 2], channel: usize, luma: bool) -> u8 {
    let (mut sum, mut total) = (0u64, 0u64);
    for sy in rows.support(y) {
        let wy = rows.weight(y, sy);
        for sx in columns.support(x) {
            let weight = wy * columns.weight(x, sx);
            sum += weight * picture.value(columns.from + sx, rows.from + sy, channel, luma);
            total += weight;
        }
    }
    // The support always holds a source pixel with positive weight.
    ((sum + total / 2) / total.max(1)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    extern crate std;
    use std::{vec, vec::Vec};

    const STRETCH: ImagePolicy = ImagePolicy { fit: Fit::Stretch, light_on_dark: false };

    fn grey(w: u32, h: u32, f: impl Fn(u32, u32) -> u8) -> Vec<u8> {
        (0..h).flat_map(|y| (0..w).map(move |x| (x, y))).flat_map(|(x, y)| [f(x, y), f(x, y), f(x, y), 255]).collect()
    }

    /// The triangle filter in f64, from its definition.
    fn reference(px: &[u8], w: usize, h: usize, tw: usize, th: usize, x: usize, y: usize) -> f64 {
        let axis = |i: usize, size: usize, out: usize| -> Vec<f64> {
            let scale = size as f64 / out as f64;
            let centre = (i as f64 + 0.5) * scale;
            (0..size).map(|j| (1.0 - ((j as f64 + 0.5) - centre).abs() / scale.max(1.0)).max(0.0)).collect()
        };
        let (wx, wy) = (axis(x, w, tw), axis(y, h, th));
        let (mut sum, mut total) = (0.0, 0.0);
        for j in 0..h {
            for i in 0..w {
                sum += wx[i] * wy[j] * f64::from(px[4 * (j * w + i)]);
                total += wx[i] * wy[j];
            }
        }
        sum / total
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn resize_is_the_triangle_filter(w in 1usize..50, h in 1usize..50, tw in 1u16..40, th in 1u16..40, seed: u32) {
            let px = grey(w as u32, h as u32, |x, y| (seed ^ x.wrapping_mul(2654435761) ^ y.wrapping_mul(40503)).wrapping_mul(747796405).to_le_bytes()[3]);
            let picture = Rgba::new(w as u32, h as u32, &px).unwrap();
            let mut out = vec![0; tw as usize * th as usize];
            fit(&picture, &STRETCH, Shape::new(th, tw, 1), &mut out).unwrap();
            for y in 0..th as usize {
                for x in 0..tw as usize {
                    let exact = reference(&px, w, h, tw as usize, th as usize, x, y);
                    prop_assert!((f64::from(out[y * tw as usize + x]) - exact).abs() <= 0.5 + 1e-9);
                }
            }
        }
    }

    #[test]
    fn same_size_grey_passes_unchanged() {
        let px = grey(28, 28, |x, y| (x * 9 + y * 7) as u8);
        let mut out = vec![0; 784];
        fit(&Rgba::new(28, 28, &px).unwrap(), &STRETCH, Shape::new(28, 28, 1), &mut out).unwrap();
        assert!(out.iter().enumerate().all(|(i, v)| *v == px[4 * i]));
    }

    #[test]
    fn alpha_is_over_black_and_colour_is_kept() {
        let px = [200, 100, 50, 0, 255, 255, 255, 128, 10, 20, 30, 255];
        let mut out = vec![0; 9];
        fit(&Rgba::new(3, 1, &px).unwrap(), &STRETCH, Shape::new(1, 3, 3), &mut out).unwrap();
        assert_eq!(out, [0, 0, 0, 128, 128, 128, 10, 20, 30]);
    }

    #[test]
    fn crop_takes_the_centre() {
        let px = grey(4, 2, |x, _| if (1..3).contains(&x) { 200 } else { 0 });
        let mut out = vec![0; 4];
        let policy = ImagePolicy { fit: Fit::Crop, light_on_dark: false };
        fit(&Rgba::new(4, 2, &px).unwrap(), &policy, Shape::new(2, 2, 1), &mut out).unwrap();
        assert_eq!(out, [200; 4]);
    }

    #[test]
    fn extreme_sides_do_not_overflow() {
        let px = vec![255; 4 * MAX_SIDE as usize];
        for (w, h) in [(MAX_SIDE, 1), (1, MAX_SIDE)] {
            let mut out = [0; 1];
            fit(&Rgba::new(w, h, &px).unwrap(), &STRETCH, Shape::new(1, 1, 1), &mut out).unwrap();
            assert_eq!(out, [255]);
        }
        assert!(Rgba::new(MAX_SIDE + 1, 1, &[]).is_err() && Rgba::new(0, 1, &[]).is_err());
    }
}
