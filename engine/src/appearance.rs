//! What a picture looks like, in five numbers of its luma: how bright, how contrasted, how rough, on two scales. They tell
//! noise, shuffled, flat and blurred pictures from those of a camera, which no posterior tells as surely.

use crate::image::luma;
use crate::tensor::Shape;

/// Numbers of an appearance.
pub const LEN: usize = 5;

/// The numbers that [`Sums::appearance`] gives.
pub type Appearance = [f32; LEN];

/// Columns that are turned into luma at a time; no heap, so an image of any width is seen in strips.
const STRIP: usize = 64;

/// Exact sums over a picture's luma.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    /// Pixels.
    pub pixels: u64,
    /// Sum of luma, 0 to 255 a pixel.
    pub luma: u64,
    /// Sum of its squares.
    pub squares: u64,
    /// Sum of the absolute differences of horizontal and of vertical neighbours.
    pub first: u64,
    /// How many differences.
    pub firsts: u64,
    /// Sum of the absolute second differences, horizontal and vertical.
    pub second: u64,
    /// How many second differences.
    pub seconds: u64,
}

impl Sums {
    /// Over a u8 HWC image of 1 or 3 channels.
    ///
    /// ```
    /// use paradise_engine::{Shape, appearance::Sums};
    /// let sums = Sums::of(&[10, 20, 40, 10, 20, 40], Shape::new(2, 3, 1));
    /// assert_eq!((sums.luma, sums.first, sums.second), (140, 60, 20));
    /// ```
    ///
    /// # Panics
    /// If the image is not of that shape.
    pub fn of(image: &[u8], shape: Shape) -> Self {
        let (h, w, c) = (usize::from(shape.h), usize::from(shape.w), usize::from(shape.c));
        let mut sums = Self::counted(h, w);
        for from in (0..w).step_by(STRIP) {
            let own = STRIP.min(w - from);
            // Two columns of the next strip, for the differences that reach into it.
            let seen = (own + 2).min(w - from);
            let mut rows = [[0u8; STRIP + 2]; 3];
            let [row, above, two_above] = &mut rows;
            let (mut row, mut above, mut two_above) = (row, above, two_above);
            for y in 0..h {
                (row, above, two_above) = (two_above, row, above);
                let pixels = &image[(y * w + from) * c..][..seen * c];
                match c {
                    1 => row[..seen].copy_from_slice(pixels),
                    _ => {
                        for (to, p) in row.iter_mut().zip(pixels.chunks_exact(c)) {
                            *to = luma([p[0], p[1], p[2]]);
                        }
                    }
                }
                sums.strip(&row[..seen], own);
                if y > 0 {
                    sums.first += differences(&row[..own], &above[..own]);
                }
                if y > 1 {
                    sums.second += bends(&row[..own], &above[..own], &two_above[..own]);
                }
            }
        }
        sums
    }

    /// [`Sums::of`], column by column in registers: the same numbers, faster where there are vectors.
    #[cfg(feature = "std")]
    #[inline(always)]
    pub(crate) fn side_by_side(image: &[u8], shape: Shape) -> Self {
        let (h, w, c) = (usize::from(shape.h), usize::from(shape.w), usize::from(shape.c));
        let mut sums = Self::counted(h, w);
        for from in (0..w).step_by(WIDE) {
            let own = WIDE.min(w - from);
            let seen = (own + 2).min(w - from);
            let mut columns = Columns::default();
            // Two rows from before, then those whose sums are held.
            let (mut rows, mut held) = ([[0u8; WIDE + 2]; Columns::ROWS + 2], 2);
            for y in 0..h {
                let (before, row) = rows.split_at_mut(held);
                let [two_above, above] = [2, 1].map(|back| &before[held - back]);
                let row = &mut row[0];
                let pixels = &image[(y * w + from) * c..][..seen * c];
                match c {
                    1 => row[..seen].copy_from_slice(pixels),
                    _ if seen >= WIDE => {
                        // A known number of pixels is taken apart by vectors.
                        let (whole, rest) = pixels.split_at(3 * WIDE);
                        let whole: &[u8; 3 * WIDE] = whole.try_into().unwrap_or_else(|_| unreachable!("as long"));
                        for (k, to) in row[..WIDE].iter_mut().enumerate() {
                            *to = luma([whole[3 * k], whole[3 * k + 1], whole[3 * k + 2]]);
                        }
                        for (to, p) in row[WIDE..].iter_mut().zip(rest.chunks_exact(3)) {
                            *to = luma([p[0], p[1], p[2]]);
                        }
                    }
                    _ => {
                        for (to, p) in row.iter_mut().zip(pixels.chunks_exact(c)) {
                            *to = luma([p[0], p[1], p[2]]);
                        }
                    }
                }
                columns.row(row, (y > 0).then_some(above), (y > 1).then_some(two_above));
                held += 1;
                if held == rows.len() {
                    sums.collect(&columns, own, seen);
                    rows.copy_within(held - 2.., 0);
                    (columns, held) = (Columns::default(), 2);
                }
            }
            sums.collect(&columns, own, seen);
        }
        sums
    }

    /// Adds what the first `own` columns hold; differences reach as far as `seen`.
    #[cfg(feature = "std")]
    #[inline(always)]
    fn collect(&mut self, columns: &Columns, own: usize, seen: usize) {
        let sum = |lanes: &[u16; WIDE], n: usize| lanes[..n].iter().map(|v| u64::from(*v)).sum::<u64>();
        let reach = |reach: usize| own.min(seen.saturating_sub(reach));
        self.luma += sum(&columns.luma, own);
        self.squares += columns.squares[..own].iter().map(|v| u64::from(*v)).sum::<u64>();
        self.first += sum(&columns.along[0], reach(1)) + sum(&columns.down[0], own);
        self.second += sum(&columns.along[1], reach(2)) + sum(&columns.down[1], own);
    }

    /// No sum yet, but how many numbers there will be.
    fn counted(h: usize, w: usize) -> Self {
        let many = |h: usize, w: usize| h as u64 * w as u64;
        Self {
            pixels: many(h, w),
            firsts: many(h, w.saturating_sub(1)) + many(h.saturating_sub(1), w),
            seconds: many(h, w.saturating_sub(2)) + many(h.saturating_sub(2), w),
            ..Self::default()
        }
    }

    /// Adds a row of a strip: its own columns, and the differences that begin in them.
    fn strip(&mut self, row: &[u8], own: usize) {
        let (mut sum, mut squares) = (0u32, 0u32);
        for v in &row[..own] {
            sum += u32::from(*v);
            squares += u32::from(*v) * u32::from(*v);
        }
        self.luma += u64::from(sum);
        self.squares += u64::from(squares);
        let last = |reach: usize| own.min(row.len().saturating_sub(reach));
        self.first += differences(&row[..last(1)], &row[row.len().min(1)..]);
        self.second += bends(&row[..last(2)], &row[row.len().min(1)..], &row[row.len().min(2)..]);
    }

    /// `mean`, `log(sd + 0.01)`, `log(r + 0.003)`, `log(r2 + 0.003)`, `log((r + 0.003) / (sd + 0.01))` of luma in [0, 1], where
    /// r is the mean absolute difference and r2 the mean absolute second difference; 0 where there is none.
    pub fn appearance(&self) -> Appearance {
        let share = |sum: u64, n: u64| if n == 0 { 0.0 } else { sum as f32 / (n as f32 * 255.0) };
        // Exact until the root: a flat picture's deviation is 0, not what rounding leaves.
        let n = u128::from(self.pixels);
        let spread = n * u128::from(self.squares) - u128::from(self.luma) * u128::from(self.luma);
        let deviation = if n == 0 { 0.0 } else { libm::sqrtf(spread as f32) / (self.pixels as f32 * 255.0) };
        let (contrast, rough) = (deviation + 0.01, share(self.first, self.firsts) + 0.003);
        let finer = share(self.second, self.seconds) + 0.003;
        let mean = share(self.luma, self.pixels);
        [mean, libm::logf(contrast), libm::logf(rough), libm::logf(finer), libm::logf(rough / contrast)]
    }
}

/// Columns that are summed side by side.
#[cfg(feature = "std")]
const WIDE: usize = 32;

/// Sums of [`WIDE`] columns over some rows.
#[cfg(feature = "std")]
#[derive(Clone, Copy, Default)]
struct Columns {
    luma: [u16; WIDE],
    squares: [u32; WIDE],
    /// First and second differences along rows.
    along: [[u16; WIDE]; 2],
    /// First and second differences from row to row.
    down: [[u16; WIDE]; 2],
}

#[cfg(feature = "std")]
impl Columns {
    /// Rows whose second differences, 510 at most, a sum holds.
    const ROWS: usize = 128;

    /// Adds a row; what lies past a picture's columns is nobody's.
    #[inline(always)]
    fn row(&mut self, row: &[u8; WIDE + 2], above: Option<&[u8; WIDE + 2]>, two_above: Option<&[u8; WIDE + 2]>) {
        for ((v, luma), square) in row.iter().zip(&mut self.luma).zip(&mut self.squares) {
            let v = u16::from(*v);
            *luma += v;
            *square += u32::from(v * v);
        }
        for k in 0..WIDE {
            self.along[0][k] += u16::from(row[k].abs_diff(row[k + 1]));
            self.along[1][k] += bend(row[k], row[k + 1], row[k + 2]);
        }
        if let Some(above) = above {
            for k in 0..WIDE {
                self.down[0][k] += u16::from(row[k].abs_diff(above[k]));
            }
            if let Some(two_above) = two_above {
                for k in 0..WIDE {
                    self.down[1][k] += bend(row[k], above[k], two_above[k]);
                }
            }
        }
    }
}

/// `|a - 2 b + c|`.
#[inline(always)]
fn bend(a: u8, b: u8, c: u8) -> u16 {
    (i16::from(a) - 2 * i16::from(b) + i16::from(c)).unsigned_abs()
}

/// Sum of absolute differences of two rows.
fn differences(a: &[u8], b: &[u8]) -> u64 {
    a.iter().zip(b).map(|(a, b)| u32::from(a.abs_diff(*b))).sum::<u32>().into()
}

/// Sum of `|a - 2 b + c|` over three rows.
fn bends(a: &[u8], b: &[u8], c: &[u8]) -> u64 {
    a.iter().zip(b).zip(c).map(|((a, b), c)| u32::from(bend(*a, *b, *c))).sum::<u32>().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    extern crate std;
    use std::vec::Vec;

    proptest! {
        #[test]
        fn appearance_equals_its_definition(
            h in 1usize..7, w in 1usize..140, colour in any::<bool>(), seed in any::<u64>(), low in 0u8..200
        ) {
            let c = if colour { 3 } else { 1 };
            let mut state = seed | 1;
            let image: Vec<u8> = (0..h * w * c).map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                low.saturating_add((state >> 56) as u8)
            }).collect();
            let shape = Shape::new(h as u16, w as u16, c as u16);
            let y = |r: usize, k: usize| f64::from(match c {
                1 => image[r * w + k],
                _ => { let p = &image[(r * w + k) * 3..]; luma([p[0], p[1], p[2]]) }
            }) / 255.0;
            let mut all = Vec::new();
            let (mut first, mut second) = (Vec::new(), Vec::new());
            for r in 0..h { for k in 0..w {
                all.push(y(r, k));
                if k + 1 < w { first.push((y(r, k + 1) - y(r, k)).abs()); }
                if r + 1 < h { first.push((y(r + 1, k) - y(r, k)).abs()); }
                if k + 2 < w { second.push((y(r, k + 2) - 2.0 * y(r, k + 1) + y(r, k)).abs()); }
                if r + 2 < h { second.push((y(r + 2, k) - 2.0 * y(r + 1, k) + y(r, k)).abs()); }
            }}
            let mean = |v: &[f64]| if v.is_empty() { 0.0 } else { v.iter().sum::<f64>() / v.len() as f64 };
            let m = mean(&all);
            let sd = libm::sqrt(mean(&all.iter().map(|v| (v - m) * (v - m)).collect::<Vec<_>>()));
            let (r, r2) = (mean(&first), mean(&second));
            let exact = [m, libm::log(sd + 0.01), libm::log(r + 0.003), libm::log(r2 + 0.003), libm::log((r + 0.003) / (sd + 0.01))];
            let sums = Sums::of(&image, shape);
            prop_assert_eq!((sums.firsts as usize, sums.seconds as usize), (first.len(), second.len()));
            #[cfg(feature = "std")]
            prop_assert_eq!(Sums::side_by_side(&image, shape), sums);
            for (got, exact) in sums.appearance().iter().zip(exact) {
                prop_assert!((f64::from(*got) - exact).abs() < 2e-6, "{} {}", got, exact);
            }
        }
    }

    #[test]
    fn a_flat_picture_has_no_deviation() {
        let (image, shape) = ([77; 300 * 200], Shape::new(200, 300, 1));
        let sums = Sums::of(&image, shape);
        #[cfg(feature = "std")]
        assert_eq!(Sums::side_by_side(&image, shape), sums);
        assert_eq!(sums.appearance()[1..4], [0.01f32, 0.003, 0.003].map(libm::logf));
        assert_eq!((sums.first, sums.second), (0, 0));
    }

    #[cfg(feature = "std")]
    #[test]
    fn the_largest_sums_overflow_nothing() {
        let shape = Shape::new(300, 70, 3);
        let image: Vec<u8> =
            (0..300 * 70).flat_map(|i| [if (i % 70 + i / 70) % 2 == 0 { 255 } else { 0 }; 3]).collect();
        assert_eq!(Sums::side_by_side(&image, shape), Sums::of(&image, shape));
    }
}
