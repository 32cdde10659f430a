//! The device-independent part of "any picture becomes the model's input": exact integers, the same bits everywhere.
//!
//! Decoding is `paradise-picture`'s; here decoded pixels are inverted where the policy says so, put over black, turned to
//! luma where the model has one channel, and resized by a triangle filter that widens when shrinking (so it averages) and
//! interpolates when growing. Weights are integers and each output pixel is rounded once, so equal sizes pass through
//! unchanged. Trainer, daemon and firmware all come here.

mod policy;
#[cfg(feature = "alloc")]
pub(crate) mod separable;

pub use policy::{ALL_PARTS, Geometry, ImagePolicy, Polarity};

use crate::tensor::Shape;

/// Longest side of a source picture, pixels: the sums of the resize stay below 2^63.
pub const MAX_SIDE: u32 = 8192;

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
fn values(pixel: &[u8], invert: bool, one: bool) -> [u8; 3] {
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
    if !one {
        return seen;
    }
    [luma(seen); 3]
}

/// Luma of red, green and blue: BT.601 in 8-bit weights, rounded.
// Inlined wherever it stands: a call each pixel would keep vectors out.
#[inline(always)]
pub(crate) fn luma(colour: [u8; 3]) -> u8 {
    // At most 255 * 256 + 128.
    let [r, g, b] = colour.map(u16::from);
    ((77 * r + 150 * g + 29 * b + 128) >> 8) as u8
}

/// One axis of the resize: source pixels `from .. from + size` onto `out` pixels that begin at `to`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Axis {
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
/// ```
/// use paradise_engine::Shape;
/// use paradise_engine::image::{Geometry, ImagePolicy, Layout, Pixels, Polarity, fit};
///
/// // Two RGBA pixels, one of them half transparent, become luma over black.
/// let picture = Pixels::new(2, 1, Layout::Rgba, &[255, 255, 255, 255, 255, 255, 255, 128]).unwrap();
/// let policy = ImagePolicy { geometry: Geometry::Stretch, polarity: Polarity::AsTaken };
/// let mut input = [0; 2];
/// fit(&picture, &policy, Shape::new(1, 2, 1), &mut input).unwrap();
/// assert_eq!(input, [255, 128]);
/// ```
///
/// # Errors
/// If `out` is not `target`'s length.
pub fn fit(picture: &Pixels, policy: &ImagePolicy, target: Shape, out: &mut [u8]) -> Result<(), FitError> {
    let (rows, columns) = prepare(picture, policy, target, out)?;
    #[cfg(all(feature = "std", any(target_arch = "x86_64", target_arch = "aarch64")))]
    if let Some(isa) = crate::kernel::isa::Isa::all().next() {
        isa.resize(picture, policy, target, [rows, columns], out);
        return Ok(());
    }
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
mod tests;
