//! A picture in a few numbers: how light its parts are.

use crate::Picture;
use image::DynamicImage;

/// Weights of red, green and blue in luma, of 256 (ITU-R BT.601).
const LUMA: [u32; 3] = [77, 150, 29];

impl Picture {
    /// Mean luma of `SIDE` x `SIDE` equal parts, row by row; `CELLS` is their number. Of a picture with fewer rows or columns, parts repeat.
    ///
    /// ```
    /// use paradise_picture::Picture;
    /// let picture = Picture::decode(b"P5 4 2 255\n\x00\x02\x10\x12\x04\x06\x14\x16")?;
    /// assert_eq!(picture.means::<2, 4>(), [1, 17, 5, 21]);
    /// # Ok::<(), paradise_picture::PictureError>(())
    /// ```
    ///
    /// # Panics
    /// If `CELLS` is not the square of `SIDE`.
    pub fn means<const SIDE: usize, const CELLS: usize>(&self) -> [u8; CELLS] {
        assert_eq!(CELLS, SIDE * SIDE, "cells of a square");
        let (width, height, channels) = (self.width() as usize, self.height() as usize, self.channels());
        let edges =
            |k: usize, length: usize| [k * length / SIDE, ((k + 1) * length / SIDE).max(k * length / SIDE + 1)];
        let mut means = [0; CELLS];
        for (row, means) in means.chunks_exact_mut(SIDE).enumerate() {
            let [top, bottom] = edges(row, height);
            let mut sums = [0u64; SIDE];
            for line in self.pixels()[top * width * channels..].chunks(width * channels).take(bottom - top) {
                for (column, sum) in sums.iter_mut().enumerate() {
                    let [left, right] = edges(column, width);
                    *sum += luma(&line[left * channels..right * channels], channels);
                }
            }
            for (column, (mean, sum)) in means.iter_mut().zip(sums).enumerate() {
                let [left, right] = edges(column, width);
                *mean = ((sum / ((bottom - top) * (right - left)) as u64) >> 8) as u8;
            }
        }
        means
    }

    /// Its pixels, 8 bits a channel, row by row.
    pub fn pixels(&self) -> &[u8] {
        self.0.as_bytes()
    }

    fn channels(&self) -> usize {
        match &self.0 {
            DynamicImage::ImageLuma8(_) => 1,
            DynamicImage::ImageLumaA8(_) => 2,
            DynamicImage::ImageRgb8(_) => 3,
            // Nothing else is decoded to.
            _ => 4,
        }
    }
}

/// 256 times the luma of these pixels, in sum; what alpha says is left out.
fn luma(pixels: &[u8], channels: usize) -> u64 {
    let mut sum = 0u64;
    match channels {
        1 | 2 => pixels.chunks_exact(channels).for_each(|pixel| sum += u64::from(pixel[0]) << 8),
        3 => {
            // A row of 80 pixels fits: 80 x 255 x 256.
            for part in pixels.chunks(3 * 80) {
                let colours = part.chunks_exact(3).fold([0u32; 3], |[r, g, b], pixel| {
                    [r + u32::from(pixel[0]), g + u32::from(pixel[1]), b + u32::from(pixel[2])]
                });
                sum += colours.iter().zip(LUMA).map(|(colour, weight)| u64::from(colour * weight)).sum::<u64>();
            }
        }
        _ => pixels.chunks_exact(4).for_each(|pixel| {
            sum += pixel.iter().zip(LUMA).map(|(colour, weight)| u64::from(*colour) * u64::from(weight)).sum::<u64>();
        }),
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_and_sizes_that_do_not_divide_are_means_as_defined() {
        let mut rng = 1u32;
        let mut random = || {
            rng = rng.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (rng >> 24) as u8
        };
        for (width, height) in [(7usize, 5usize), (16, 16), (33, 19), (640, 3)] {
            let pixels: Vec<u8> = (0..width * height * 3).map(|_| random()).collect();
            let file = [format!("P6 {width} {height} 255\n").into_bytes(), pixels.clone()].concat();
            let means = Picture::decode(&file).unwrap().means::<4, 16>();
            for (cell, mean) in means.iter().enumerate() {
                let part = |k: usize, length: usize| k * length / 4..((k + 1) * length / 4).max(k * length / 4 + 1);
                let (mut sum, mut count) = (0.0, 0.0);
                for y in part(cell / 4, height) {
                    for x in part(cell % 4, width) {
                        let at = 3 * (y * width + x);
                        sum += (0..3).map(|c| f64::from(pixels[at + c]) * f64::from(LUMA[c]) / 256.0).sum::<f64>();
                        count += 1.0;
                    }
                }
                assert!((f64::from(*mean) - sum / count).abs() <= 1.0, "{width} x {height}: {mean} {}", sum / count);
            }
        }
    }
}
