//! The device-independent part of "any picture becomes the model's input": exact integers, the same bits everywhere.
//!
//! Decoding is `paradise-picture`'s; here decoded pixels are inverted where the policy says so, put over black, turned to
//! luma where the model has one channel, and resized by a triangle filter that widens when shrinking (so it averages) and
//! interpolates when growing. Weights are integers and each output pixel is rounded once, so equal sizes pass through
//! unchanged. Trainer, daemon and firmware all come here.

#[cfg(feature = "alloc")]
mod separable;

use crate::record::{Fields, Record, Writer};
use crate::tensor::Shape;

/// Longest side of a source picture, pixels: the sums of the resize stay below 2^63.
pub const MAX_SIDE: u32 = 8192;

/// What [`Geometry::Crop`] keeps is told in parts of this.
pub const ALL_PARTS: u16 = 10_000;

/// How a picture of another size or aspect ratio meets the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Geometry {
    /// Each axis is scaled on its own.
    Stretch,
    /// The largest centred part of the input's aspect ratio, or of that the centred share.
    Crop {
        /// Share of both sides of the largest part that is kept, in 1 / [`ALL_PARTS`]: 8750 is the usual 224 of 256.
        parts: u16,
    },
    /// The whole picture, as large as fits, in the middle; what is left of the input is black.
    Letterbox,
}

/// What is light and what is dark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Polarity {
    /// Values as the picture has them.
    AsTaken,
    /// The same; and the training images show light objects on black, so pictures of dark objects on light ground must be
    /// inverted by whoever takes them: nothing here guesses.
    LightOnDark,
    /// Every value v becomes 255 - v.
    Inverted,
}

/// The record in a bundle that says how pictures become inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImagePolicy {
    /// What to do about another size or aspect ratio.
    pub geometry: Geometry,
    /// Whether values are inverted.
    pub polarity: Polarity,
}

impl ImagePolicy {
    /// Whether it keeps a part of every picture.
    pub fn is_valid(&self) -> bool {
        !matches!(self.geometry, Geometry::Crop { parts } if !(1..=ALL_PARTS).contains(&parts))
    }
}

/// In plain words, as `inspect` prints it.
impl core::fmt::Display for ImagePolicy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.geometry {
            Geometry::Stretch => f.write_str("stretched to the input's size, whatever their shape")?,
            Geometry::Crop { parts: ALL_PARTS } => {
                f.write_str("cut to their largest centred part of the input's shape")?
            }
            Geometry::Crop { parts } => {
                let (whole, rest) = (parts / 100, parts % 100);
                write!(
                    f,
                    "cut to the centre, {whole}.{rest:02} % of the sides of their largest part of the input's shape"
                )?;
            }
            Geometry::Letterbox => f.write_str("kept whole, with black bars where their shape is another")?,
        }
        f.write_str(match self.polarity {
            Polarity::AsTaken => "; light and dark as taken",
            Polarity::LightOnDark => "; light and dark as taken: objects must be light on a dark ground",
            Polarity::Inverted => "; inverted, so that dark becomes light",
        })
    }
}

/// `geometry u8, polarity u8, parts u16` (0 where there is no crop).
impl Record for ImagePolicy {
    const SIZE: usize = 4;

    fn read(fields: &mut Fields) -> Option<Self> {
        let (geometry, polarity, parts) = (fields.u8()?, fields.u8()?, fields.u16()?);
        let geometry = match (geometry, parts) {
            (0, 0) => Geometry::Stretch,
            (1, parts) => Geometry::Crop { parts },
            (2, 0) => Geometry::Letterbox,
            _ => return None,
        };
        let polarity = match polarity {
            0 => Polarity::AsTaken,
            1 => Polarity::LightOnDark,
            2 => Polarity::Inverted,
            _ => return None,
        };
        Some(Self { geometry, polarity })
    }

    fn write(&self, to: &mut Writer) {
        let (geometry, parts) = match self.geometry {
            Geometry::Stretch => (0, 0),
            Geometry::Crop { parts } => (1, parts),
            Geometry::Letterbox => (2, 0),
        };
        to.u8(geometry).u8(self.polarity as u8).u16(parts);
    }
}

/// What the bytes of a pixel are, 8 bits each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Luma.
    Luma = 1,
    /// Luma and alpha.
    LumaAlpha = 2,
    /// Red, green, blue.
    Rgb = 3,
    /// Red, green, blue, alpha.
    Rgba = 4,
}

/// A decoded picture, rows from the top.
#[derive(Debug, Clone, Copy)]
pub struct Pixels<'a> {
    width: u32,
    height: u32,
    layout: Layout,
    bytes: &'a [u8],
}

/// Why a decoded picture was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FitError {
    /// A side is 0 or longer than [`MAX_SIDE`].
    Side {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The pixels are not as many bytes as width, height and layout say, or the output is not the input's length.
    Length {
        /// Bytes needed.
        need: usize,
        /// Bytes given.
        got: usize,
    },
    /// The input has neither 1 nor 3 channels.
    Channels(u16),
}

impl core::fmt::Display for FitError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Side { width, height } => {
                write!(f, "{width} x {height} pixels; each side must be 1..={MAX_SIDE}")
            }
            Self::Length { need, got } => write!(f, "{got} bytes of pixels where {need} are needed"),
            Self::Channels(got) => write!(f, "an input of {got} channels; there are 1 (luma) and 3 (colour)"),
        }
    }
}

impl core::error::Error for FitError {}

impl<'a> Pixels<'a> {
    /// A view of `bytes`, as many a pixel as `layout` has.
    ///
    /// # Errors
    /// If a side is out of range or the length does not match.
    pub fn new(width: u32, height: u32, layout: Layout, bytes: &'a [u8]) -> Result<Self, FitError> {
        if !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
            return Err(FitError::Side { width, height });
        }
        let need = layout as usize * width as usize * height as usize;
        if bytes.len() != need {
            return Err(FitError::Length { need, got: bytes.len() });
        }
        Ok(Self { width, height, layout, bytes })
    }

    /// The bytes of a pixel.
    fn pixel(&self, x: usize, y: usize) -> &'a [u8] {
        let each = self.layout as usize;
        &self.bytes[each * (y * self.width as usize + x)..][..each]
    }
}

/// A pixel over black as the model sees it, one value a channel: luma (BT.601, 8-bit weights) or red, green, blue.
fn values(pixel: &[u8], invert: bool, luma: bool) -> [u8; 3] {
    let (colour, alpha) = match pixel {
        [v] => ([*v; 3], 255),
        [v, a] => ([*v; 3], *a),
        [r, g, b] => ([*r, *g, *b], 255),
        [r, g, b, a, ..] => ([*r, *g, *b], *a),
        [] => ([0; 3], 0),
    };
    let seen = colour.map(|v| {
        let v = if invert { 255 - v } else { v };
        // Exact for an opaque pixel.
        ((u32::from(v) * u32::from(alpha) + 127) / 255) as u8
    });
    if !luma {
        return seen;
    }
    let [r, g, b] = seen.map(u32::from);
    [((77 * r + 150 * g + 29 * b + 128) >> 8) as u8; 3]
}

/// One axis of the resize: source pixels `from .. from + size` onto `out` pixels that begin at `to`.
#[derive(Debug, Clone, Copy)]
struct Axis {
    from: usize,
    size: usize,
    to: usize,
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
pub fn fit(picture: &Pixels, policy: &ImagePolicy, target: Shape, out: &mut [u8]) -> Result<(), FitError> {
    let (rows, columns) = prepare(picture, policy, target, out)?;
    #[cfg(feature = "alloc")]
    separable::resize(picture, policy, target, [rows, columns], out);
    #[cfg(not(feature = "alloc"))]
    resize(picture, policy, target, [rows, columns], out);
    Ok(())
}

/// [`fit`] without a heap: the definition, in no memory but the output's.
///
/// # Errors
/// As [`fit`].
pub fn fit_in_place(picture: &Pixels, policy: &ImagePolicy, target: Shape, out: &mut [u8]) -> Result<(), FitError> {
    let (rows, columns) = prepare(picture, policy, target, out)?;
    resize(picture, policy, target, [rows, columns], out);
    Ok(())
}

/// Checks the output, blackens what the picture does not reach, and says which part of the picture goes where.
fn prepare(picture: &Pixels, policy: &ImagePolicy, target: Shape, out: &mut [u8]) -> Result<(Axis, Axis), FitError> {
    let need = target.len() as usize;
    if out.len() != need {
        return Err(FitError::Length { need, got: out.len() });
    }
    if !matches!(target.c, 1 | 3) {
        return Err(FitError::Channels(target.c));
    }
    let axes = axes(picture, policy, target);
    if policy.geometry == Geometry::Letterbox {
        out.fill(0);
    }
    Ok(axes)
}

/// Rows and columns.
fn axes(picture: &Pixels, policy: &ImagePolicy, target: Shape) -> (Axis, Axis) {
    let (h, w) = (picture.height as usize, picture.width as usize);
    let (th, tw) = (target.h as usize, target.w as usize);
    // a * b / c, rounded, at least 1.
    let scaled = |a: usize, b: usize, c: usize| ((a * b + c / 2) / c.max(1)).max(1);
    let tall = h * tw > w * th;
    match policy.geometry {
        Geometry::Stretch => (axis(h, h, th, th), axis(w, w, tw, tw)),
        Geometry::Crop { parts } => {
            let largest = if tall { (scaled(w, th, tw).min(h), w) } else { (h, scaled(h, tw, th).min(w)) };
            let kept = |side: usize| scaled(side, parts.into(), ALL_PARTS.into()).min(side);
            (axis(h, kept(largest.0), th, th), axis(w, kept(largest.1), tw, tw))
        }
        Geometry::Letterbox => {
            let (oh, ow) = if tall { (th, scaled(w, th, h).min(tw)) } else { (scaled(h, tw, w).min(th), tw) };
            (axis(h, h, th, oh), axis(w, w, tw, ow))
        }
    }
}

/// The middle `size` of `side` source pixels onto the middle `out` of `target`.
fn axis(side: usize, size: usize, target: usize, out: usize) -> Axis {
    Axis { from: (side - size) / 2, size, to: (target - out) / 2, out }
}

/// The definition of the resize: every output pixel on its own.
fn resize(picture: &Pixels, policy: &ImagePolicy, target: Shape, [rows, columns]: [Axis; 2], out: &mut [u8]) {
    let channels = target.c as usize;
    let (invert, luma) = (policy.polarity == Polarity::Inverted, channels == 1);
    for y in 0..rows.out {
        for x in 0..columns.out {
            let at = ((rows.to + y) * target.w as usize + columns.to + x) * channels;
            let (mut sums, mut total) = ([0u64; 3], 0u64);
            for sy in rows.support(y) {
                let wy = rows.weight(y, sy);
                for sx in columns.support(x) {
                    let weight = wy * columns.weight(x, sx);
                    let seen = values(picture.pixel(columns.from + sx, rows.from + sy), invert, luma);
                    sums.iter_mut().zip(seen).for_each(|(sum, v)| *sum += weight * u64::from(v));
                    total += weight;
                }
            }
            for (to, sum) in out[at..at + channels].iter_mut().zip(sums) {
                *to = rounded(sum, total);
            }
        }
    }
}

/// The weighted mean, rounded once. A support always holds a source pixel with positive weight.
fn rounded(sum: u64, total: u64) -> u8 {
    ((sum + total / 2) / total.max(1)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    extern crate std;
    use std::{vec, vec::Vec};

    const STRETCH: ImagePolicy = ImagePolicy { geometry: Geometry::Stretch, polarity: Polarity::AsTaken };

    fn rgba(width: u32, height: u32, bytes: &[u8]) -> Pixels<'_> {
        Pixels::new(width, height, Layout::Rgba, bytes).unwrap()
    }

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
            let picture = rgba(w as u32, h as u32, &px);
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
        fit(&rgba(28, 28, &px), &STRETCH, Shape::new(28, 28, 1), &mut out).unwrap();
        assert!(out.iter().enumerate().all(|(i, v)| *v == px[4 * i]));
    }

    #[test]
    fn alpha_is_over_black_and_colour_is_kept() {
        let px = [200, 100, 50, 0, 255, 255, 255, 128, 10, 20, 30, 255];
        let mut out = vec![0; 9];
        fit(&rgba(3, 1, &px), &STRETCH, Shape::new(1, 3, 3), &mut out).unwrap();
        assert_eq!(out, [0, 0, 0, 128, 128, 128, 10, 20, 30]);
    }

    #[test]
    fn crop_takes_the_centre() {
        let px = grey(4, 2, |x, _| if (1..3).contains(&x) { 200 } else { 0 });
        let mut out = vec![0; 4];
        fit(&rgba(4, 2, &px), &crop(ALL_PARTS), Shape::new(2, 2, 1), &mut out).unwrap();
        assert_eq!(out, [200; 4]);
        // 224 of 256, and CelebA's 148 of 178 x 218.
        let part = |w, h, parts| {
            let axes = axes(&rgba(w, h, &vec![0; 4 * (w * h) as usize]), &crop(parts), Shape::new(64, 64, 3));
            [axes.0, axes.1].map(|a| (a.from, a.size))
        };
        assert_eq!(part(256, 300, 8750), [(38, 224), (16, 224)]);
        assert_eq!(part(178, 218, 8315), [(35, 148), (15, 148)]);
        assert_eq!(part(1, 1, 1), [(0, 1), (0, 1)]);
    }

    #[test]
    fn a_letterbox_keeps_all_and_is_black_beside_it() {
        let px = grey(4, 2, |_, _| 200);
        let policy = ImagePolicy { geometry: Geometry::Letterbox, polarity: Polarity::AsTaken };
        let mut out = vec![9; 16];
        fit(&rgba(4, 2, &px), &policy, Shape::new(4, 4, 1), &mut out).unwrap();
        assert_eq!(out, [[0; 4], [200; 4], [200; 4], [0; 4]].concat());
        let mut thin = vec![9; 9];
        let line = vec![255; 4 * 4000];
        fit(&rgba(1, 4000, &line), &policy, Shape::new(3, 3, 1), &mut thin).unwrap();
        assert_eq!(thin, [0, 255, 0, 0, 255, 0, 0, 255, 0]);
    }

    #[test]
    fn what_is_inverted_is_black_where_the_picture_is_transparent() {
        let px = [200, 200, 200, 255, 0, 0, 0, 255, 10, 10, 10, 0];
        let policy = ImagePolicy { geometry: Geometry::Stretch, polarity: Polarity::Inverted };
        let mut out = vec![0; 3];
        fit(&rgba(3, 1, &px), &policy, Shape::new(1, 3, 1), &mut out).unwrap();
        assert_eq!(out, [55, 255, 0]);
    }

    proptest! {
        #[test]
        fn two_passes_equal_the_definition(
            side in [1u32..60, 1u32..60], target in [1u16..40, 1u16..40], layout in 1u8..5, colour: bool,
            geometry in 0u8..4, invert: bool, seed: u32,
        ) {
            let layout = [Layout::Luma, Layout::LumaAlpha, Layout::Rgb, Layout::Rgba][layout as usize - 1];
            let [w, h] = side;
            let noise = |i: u32| (seed ^ i.wrapping_mul(2654435761)).wrapping_mul(747796405).to_le_bytes()[3];
            let bytes: Vec<u8> = (0..w * h * layout as u32).map(noise).collect();
            let picture = Pixels::new(w, h, layout, &bytes).unwrap();
            let geometry = [
                Geometry::Stretch,
                Geometry::Crop { parts: ALL_PARTS },
                Geometry::Crop { parts: 1 + (seed % 10_000) as u16 },
                Geometry::Letterbox,
            ][geometry as usize];
            let polarity = if invert { Polarity::Inverted } else { Polarity::AsTaken };
            let policy = ImagePolicy { geometry, polarity };
            let target = Shape::new(target[0], target[1], if colour { 3 } else { 1 });
            let [mut fast, mut plain] = [1, 2].map(|v| vec![v; target.len() as usize]);
            fit(&picture, &policy, target, &mut fast).unwrap();
            fit_in_place(&picture, &policy, target, &mut plain).unwrap();
            prop_assert_eq!(fast, plain);
        }
    }

    fn crop(parts: u16) -> ImagePolicy {
        ImagePolicy { geometry: Geometry::Crop { parts }, polarity: Polarity::AsTaken }
    }

    #[test]
    fn a_policy_that_keeps_nothing_is_not_valid() {
        assert!(!crop(0).is_valid() && !crop(ALL_PARTS + 1).is_valid() && crop(1).is_valid() && STRETCH.is_valid());
        for policy in [crop(8750), STRETCH] {
            let mut bytes = Writer::default();
            policy.write(&mut bytes);
            assert_eq!(ImagePolicy::read(&mut Fields::new(bytes.written())), Some(policy));
        }
        assert_eq!(ImagePolicy::read(&mut Fields::new(&[0, 0, 1, 0])), None);
        assert!(std::format!("{}", crop(8750)).contains("87.50 %"));
    }

    #[test]
    fn extreme_sides_do_not_overflow() {
        let px = vec![255; 4 * MAX_SIDE as usize];
        for (w, h) in [(MAX_SIDE, 1), (1, MAX_SIDE)] {
            let mut out = [0; 1];
            fit(&rgba(w, h, &px), &STRETCH, Shape::new(1, 1, 1), &mut out).unwrap();
            assert_eq!(out, [255]);
        }
        assert!(Pixels::new(MAX_SIDE + 1, 1, Layout::Luma, &[]).is_err());
        assert!(Pixels::new(0, 1, Layout::Luma, &[]).is_err() && Pixels::new(2, 1, Layout::Rgb, &[0; 5]).is_err());
    }
}
