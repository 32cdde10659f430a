//! Vectors whose squared length is a squared Mahalanobis distance: a covariance, seen through a triangle or through its
//! principal directions, and the nearest of several means.
//!
//! For `S = L L^T`, `y = L^-1 (x - centre)` has `|y|^2 = (x - centre)^T S^-1 (x - centre)`. The triangle `L^-1` is stored in
//! panels of [`ROWS`] rows, column by column, so that rows are summed side by side; each row's sum still runs in index order
//! and without fused multiply-adds, so that every device gives the same bits. The leading block of the triangle whitens the
//! leading coordinates alone.
//!
//! Where that is too large, the covariance is `sum_i (lambda_i - rest) u_i u_i^T + rest I`: a few principal directions, and one
//! variance for all that they leave.

use crate::container::Tensors;
use crate::part::Part;
use crate::record::{Fields, Record, Writer};
use crate::tensor::{Le, Span};

/// Rows of a triangle that are summed side by side.
pub const ROWS: usize = 8;

/// How vectors become white.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Directions {
    /// A triangle in panels, [`packed_len`] f32 values.
    Triangle(Span),
    /// Principal directions and an isotropic rest.
    Principal {
        /// f32 `[k][n]`: `u_i / sqrt(lambda_i)`.
        rows: Span,
        /// f32 `[k]`: `lambda_i`.
        variance: Span,
        /// `1 / sqrt(rest)`.
        rest: f32,
    },
}

/// Gaussians of one covariance, whose means are white already.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Whitening {
    /// Number of means.
    pub components: u16,
    /// f32 `[n]`: what is subtracted before anything is multiplied, so that little cancels.
    pub centre: Span,
    /// The covariance.
    pub directions: Directions,
    /// f32 `[white_len][components]`: the means less the centre, whitened, coordinate by coordinate.
    pub means: Span,
}

/// f32 values of a triangle of `n` rows in panels.
///
/// ```
/// use paradise_engine::whitening::packed_len;
/// // One panel of eight rows and eight columns, one of eight and nine.
/// assert_eq!(packed_len(9), 8 * 8 + 8 * 9);
/// ```
pub const fn packed_len(n: usize) -> usize {
    let (mut panel, mut len) = (0, 0);
    while panel * ROWS < n {
        len += ROWS * columns(panel, n);
        panel += 1;
    }
    len
}

/// Where row and column of a triangle of `n` rows lie in its panels; `column <= row < n`.
pub const fn packed_at(n: usize, row: usize, column: usize) -> usize {
    let (mut panel, mut from) = (0, 0);
    while panel < row / ROWS {
        from += ROWS * columns(panel, n);
        panel += 1;
    }
    from + ROWS * column + row % ROWS
}

/// Columns of a panel: those of its last row.
const fn columns(panel: usize, n: usize) -> usize {
    let end = ROWS * (panel + 1);
    if end < n { end } else { n }
}

/// Panels whose sums run side by side: where there are vectors a panel alone waits for its additions, elsewhere registers are few.
const TOGETHER: usize = if cfg!(feature = "std") { 2 } else { 1 };

/// `out = T x` for a triangle `T` in panels.
///
/// # Panics
/// If `triangle` is not [`packed_len`] of `x`, or `out` shorter than `x`.
#[cfg_attr(feature = "std", inline(always))]
pub fn by_triangle(triangle: Le<f32>, x: &[f32], out: &mut [f32]) {
    #[cfg(all(target_arch = "arm", target_endian = "little"))]
    if let Ok(numbers) = bytemuck::try_cast_slice(triangle.bytes()) {
        return by_panels(numbers, x, out);
    }
    let mut from = 0;
    let mut next = |wide: usize| {
        from += ROWS * wide;
        triangle.slice(from - ROWS * wide, from).bytes()
    };
    for (at, out) in out[..x.len()].chunks_mut(TOGETHER * ROWS).enumerate() {
        let (panel, mut sums) = (TOGETHER * at, [[0.0; ROWS]; 2]);
        let wide = [panel, panel + 1].map(|panel| columns(panel, x.len()));
        if out.len() > ROWS {
            let panels = wide.map(&mut next);
            // Columns that both of them have, then the second's own.
            add_columns::<2>(&panels, 0, &x[..wide[0]], &mut sums);
            add_columns::<1>(&panels[1..], wide[0], &x[..wide[1]], &mut sums[1..]);
        } else {
            add_columns::<1>(&[next(wide[0])], 0, &x[..wide[0]], &mut sums);
        }
        out.copy_from_slice(&sums.as_flattened()[..out.len()]);
    }
}

/// [`by_triangle`] of numbers at multiples of four bytes, which a core without vectors loads straight into its FPU.
#[cfg_attr(not(all(target_arch = "arm", target_endian = "little")), allow(dead_code))]
fn by_panels(numbers: &[f32], x: &[f32], out: &mut [f32]) {
    let mut rest = numbers;
    for (panel, out) in out[..x.len()].chunks_mut(ROWS).enumerate() {
        let wide = columns(panel, x.len());
        let (own, next) = rest.split_at(ROWS * wide);
        let mut sums = [0.0; ROWS];
        for (column, x) in own.as_chunks::<ROWS>().0.iter().zip(x) {
            for (sum, number) in sums.iter_mut().zip(column) {
                *sum += number * x;
            }
        }
        out.copy_from_slice(&sums[..out.len()]);
        rest = next;
    }
}

/// Adds columns `from..x.len()` of the first `K` panels, times `x`, to their sums.
#[cfg_attr(feature = "std", inline(always))]
fn add_columns<const K: usize>(panels: &[&[u8]], from: usize, x: &[f32], sums: &mut [[f32; ROWS]]) {
    const BYTES: usize = 4 * ROWS;
    let columns: [&[u8]; K] = core::array::from_fn(|k| &panels[k][BYTES * from..BYTES * x.len()]);
    let mut own: [[f32; ROWS]; K] = core::array::from_fn(|k| sums[k]);
    for (j, x) in x[from..].iter().enumerate() {
        for (sums, columns) in own.iter_mut().zip(columns) {
            let column = &columns[BYTES * j..BYTES * (j + 1)];
            for (sum, b) in sums.iter_mut().zip(column.chunks_exact(4)) {
                *sum += f32::from_le_bytes([b[0], b[1], b[2], b[3]]) * x;
            }
        }
    }
    sums[..K].copy_from_slice(&own);
}

/// Projections of `x` on `out.len()` principal directions; what they leave, in `x` itself, at unit variance.
///
/// # Panics
/// If `rows` or `variance` is too short.
pub fn by_directions(rows: Le<f32>, variance: Le<f32>, rest: f32, x: &mut [f32], out: &mut [f32]) {
    let n = x.len();
    for (i, out) in out.iter_mut().enumerate() {
        let row = rows.slice(i * n, (i + 1) * n);
        let mut sum = 0.0;
        for (w, x) in row.iter().zip(x.iter()) {
            sum += w * x;
        }
        *out = sum;
        // u (u^T x) = lambda w (w^T x): less what this direction holds, the next sees the rest.
        let along = variance.at(i) * sum;
        for (w, x) in row.iter().zip(x.iter_mut()) {
            *x -= along * w;
        }
    }
    for x in x {
        *x *= rest;
    }
}

/// Means that are compared side by side: two blocks of a vector register each.
const BLOCK: usize = 8;

/// `each(c, |y - m_c|^2)` for `components` means in order, over the first `y.len()` coordinates of each. Means lie coordinate by
/// coordinate, `[coordinates][components]`; sums run in index order.
///
/// # Panics
/// If there are fewer numbers than that.
#[cfg_attr(feature = "std", inline(always))]
pub fn distances(means: Le<f32>, components: usize, y: &[f32], mut each: impl FnMut(usize, f32)) {
    let bytes = &means.bytes()[..4 * components * y.len()];
    if components < BLOCK {
        let mut sums = [0.0; BLOCK];
        for (row, y) in bytes.chunks_exact(4 * components.max(1)).zip(y) {
            for (sum, b) in sums.iter_mut().zip(row.chunks_exact(4)) {
                let offset = y - f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                *sum += offset * offset;
            }
        }
        return sums[..components].iter().enumerate().for_each(|(c, sum)| each(c, *sum));
    }
    for first in (0..components).step_by(2 * BLOCK) {
        // A block that would pass the end overlaps the one before.
        let at = [first, first + BLOCK].map(|from| from.min(components - BLOCK));
        let mut sums = [[0.0; BLOCK]; 2];
        for (row, y) in bytes.chunks_exact(4 * components).zip(y) {
            for (sums, from) in sums.iter_mut().zip(at) {
                let block = &row[4 * from..4 * (from + BLOCK)];
                for (sum, b) in sums.iter_mut().zip(block.chunks_exact(4)) {
                    let offset = y - f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                    *sum += offset * offset;
                }
            }
        }
        for c in first..components.min(first + 2 * BLOCK) {
            let block = usize::from(c >= at[0] + BLOCK);
            each(c, sums[block][c - at[block]]);
        }
    }
}

/// The smallest of [`distances`]; infinite if there is no mean or no distance is a number.
#[cfg_attr(feature = "std", inline(always))]
pub fn nearest(means: Le<f32>, components: usize, y: &[f32]) -> f32 {
    let mut nearest = f32::INFINITY;
    distances(means, components, y, |_, squared| {
        // A sum that is not a number is not near.
        nearest = if squared < nearest { squared } else { nearest };
    });
    nearest
}

impl Whitening {
    /// Coordinates that its vectors have.
    pub fn len(&self) -> usize {
        self.centre.len as usize / 4
    }

    /// Whether its vectors have none.
    pub fn is_empty(&self) -> bool {
        self.centre.len == 0
    }

    /// Coordinates of a white vector.
    pub fn white_len(&self) -> usize {
        self.len() + self.principal()
    }

    /// `x` less the centre, whitened, in the first [`white_len`](Self::white_len) values of `scratch`.
    ///
    /// # Panics
    /// If `scratch` is shorter than twice the coordinates, or `x` has fewer than they are.
    #[cfg_attr(feature = "std", inline(always))]
    pub fn whiten<'s>(&self, tensors: Tensors, x: impl Iterator<Item = f32>, scratch: &'s mut [f32]) -> &'s [f32] {
        let n = self.len();
        let before = match self.directions {
            Directions::Triangle(_) => n,
            Directions::Principal { .. } => self.principal(),
        };
        let (out, centred) = scratch[..before + n].split_at_mut(before);
        for ((to, x), centre) in centred.iter_mut().zip(x).zip(tensors.numbers::<f32>(self.centre).iter()) {
            *to = x - centre;
        }
        match self.directions {
            Directions::Triangle(rows) => by_triangle(tensors.numbers(rows), centred, out),
            Directions::Principal { rows, variance, rest } if Part::Principal.is_built() => {
                by_directions(tensors.numbers(rows), tensors.numbers(variance), rest, centred, out);
            }
            Directions::Principal { .. } => unreachable!("principal directions are not built"),
        }
        &scratch[..self.white_len()]
    }

    /// Principal directions; 0 where there is a triangle.
    pub fn principal(&self) -> usize {
        match self.directions {
            Directions::Triangle(_) => 0,
            Directions::Principal { variance, .. } => variance.len as usize / 4,
        }
    }
}

impl Whitening {
    /// See [`Record::read`].
    pub const fn read(fields: &mut Fields) -> Self {
        let (components, kind) = (fields.u16(), fields.u8());
        fields.zeros::<1>();
        let (centre, rows, variance) = (Span::read(fields), Span::read(fields), Span::read(fields));
        let (rest, means) = (fields.f32(), Span::read(fields));
        let directions = match kind {
            0 if variance.is_none() && rest.to_bits() == 0 => Directions::Triangle(rows),
            _ => {
                fields.require(kind == 1);
                Directions::Principal { rows, variance, rest }
            }
        };
        Self { components, centre, directions, means }
    }
}

impl Record for Whitening {
    const SIZE: usize = 40;

    fn read(fields: &mut Fields) -> Self {
        Self::read(fields)
    }

    fn write(&self, to: &mut Writer) {
        let (kind, rows, variance, rest) = match self.directions {
            Directions::Triangle(rows) => (0, rows, Span::default(), 0.0),
            Directions::Principal { rows, variance, rest } => (1, rows, variance, rest),
        };
        to.u16(self.components).u8(kind).u8(0).record(&self.centre).record(&rows).record(&variance);
        to.f32(rest).record(&self.means);
    }
}

/// A lower triangle `[n][n]`, row by row, in panels.
#[cfg(feature = "alloc")]
pub fn pack(n: usize, triangle: impl Fn(usize, usize) -> f32) -> alloc::vec::Vec<f32> {
    let mut packed = alloc::vec::Vec::with_capacity(packed_len(n));
    for panel in 0..n.div_ceil(ROWS) {
        for column in 0..columns(panel, n) {
            for row in ROWS * panel..ROWS * (panel + 1) {
                packed.push(if row < n && column <= row { triangle(row, column) } else { 0.0 });
            }
        }
    }
    packed
}

/// Means one after the other, `[components][coordinates]`, coordinate by coordinate, as [`distances`] reads them. Turned again, with
/// the numbers exchanged, they are one after the other.
#[cfg(feature = "alloc")]
pub fn turned<T: Copy>(means: &[T], coordinates: usize) -> alloc::vec::Vec<T> {
    let components = means.len().checked_div(coordinates).unwrap_or(0);
    (0..coordinates).flat_map(|j| (0..components).map(move |c| means[c * coordinates + j])).collect()
}

/// The leading `rows` rows and columns of a triangle of `n` rows in panels, `[rows][rows]`, zeros above the diagonal.
///
/// # Panics
/// If `packed` is not [`packed_len`] of `n`, or `rows` more than `n`.
#[cfg(feature = "alloc")]
pub fn unpack(n: usize, packed: &[f64], rows: usize) -> alloc::vec::Vec<f64> {
    let mut triangle = alloc::vec![0.0; rows * rows];
    for row in 0..rows {
        for column in 0..=row {
            triangle[row * rows + column] = packed[packed_at(n, row, column)];
        }
    }
    triangle
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    extern crate std;
    use std::vec::Vec;

    fn le(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    proptest! {
        #[test]
        fn a_triangle_in_panels_is_the_product_in_index_order(
            n in 1usize..41, seed in proptest::collection::vec(-2.0f32..2.0, 41 * 42)
        ) {
            let (x, t) = (&seed[..n], &seed[41..]);
            let packed = le(&pack(n, |row, column| t[row * n + column]));
            let mut out = std::vec![0.0; n];
            by_triangle(Le::new(&packed), x, &mut out);
            let mut loaded = std::vec![0.0; n];
            by_panels(&pack(n, |row, column| t[row * n + column]), x, &mut loaded);
            prop_assert_eq!(&loaded, &out);
            let at = |i: usize| f32::from_le_bytes(packed[4 * i..4 * i + 4].try_into().unwrap());
            for (row, got) in out.iter().enumerate() {
                for column in 0..=row {
                    prop_assert_eq!(at(packed_at(n, row, column)), t[row * n + column]);
                }
                let (mut f32s, mut exact) = (0.0f32, 0.0f64);
                for column in 0..=row {
                    f32s += t[row * n + column] * x[column];
                    exact += f64::from(t[row * n + column]) * f64::from(x[column]);
                }
                prop_assert_eq!(*got, f32s);
                prop_assert!((f64::from(*got) - exact).abs() < 1e-4);
            }
        }

        #[test]
        fn directions_and_rest_are_the_covariance_that_they_stand_for(
            x in proptest::collection::vec(-3.0f32..3.0, 6), large in 0.5f64..200.0, rest in 0.01f64..2.0, angle in 0.0f64..3.1
        ) {
            // Two orthonormal directions of six dimensions.
            let (c, s) = (libm::cos(angle), libm::sin(angle));
            let u = [[c, s, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.6, 0.0, 0.8, 0.0]];
            let lambda = [large, 0.5 * large];
            let rows: Vec<f32> =
                u.iter().zip(lambda).flat_map(|(u, l)| u.map(|v| (v / libm::sqrt(l)) as f32)).collect();
            let (rows, variance) = (le(&rows), le(&lambda.map(|l| l as f32)));
            let (mut left, mut along) = (x.clone(), [0.0; 2]);
            by_directions(Le::new(&rows), Le::new(&variance), (1.0 / libm::sqrt(rest)) as f32, &mut left, &mut along);
            let got: f64 = left.iter().chain(&along).map(|v| f64::from(*v) * f64::from(*v)).sum();
            // By the inverse: I / rest + sum (1 / lambda - 1 / rest) u u^T.
            let dot = |u: &[f64; 6]| u.iter().zip(&x).map(|(u, x)| u * f64::from(*x)).sum::<f64>();
            let square: f64 = x.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
            let exact = square / rest
                + u.iter().zip(lambda).map(|(u, l)| (1.0 / l - 1.0 / rest) * dot(u) * dot(u)).sum::<f64>();
            prop_assert!((got - exact).abs() <= 1e-5 * (square / rest + square / large + 1.0), "{} {}", got, exact);
        }
    }

    proptest! {
        #[test]
        fn distances_are_sums_in_index_order_whatever_the_number_of_means(
            n in 1usize..9, components in 1usize..40, numbers in proptest::collection::vec(-2.0f32..2.0, 8 * 40 + 8)
        ) {
            let (y, means) = numbers.split_at(8);
            let (y, means) = (&y[..n], &means[..n * components]);
            let stored = turned(means, n);
            prop_assert_eq!(&turned(&stored, components)[..], means);
            let mut got = Vec::new();
            distances(Le::new(&le(&stored)), components, y, |c, squared| got.push((c, squared)));
            let want: Vec<(usize, f32)> = means
                .chunks_exact(n)
                .map(|m| y.iter().zip(m).fold(0.0, |sum, (y, m)| sum + (y - m) * (y - m)))
                .enumerate()
                .collect();
            prop_assert_eq!(got, want);
        }
    }

    #[test]
    fn the_nearest_mean_is_found_and_nan_is_never_near() {
        let means = le(&turned(&[0.0, 0.0, 3.0, 4.0, 1.0, 0.0, 9.0, 9.0, 2.0, 2.0], 2));
        let nearest = |y: &[f32]| nearest(Le::new(&means), 5, y);
        assert_eq!((nearest(&[3.0, 3.0]), nearest(&[2.0, 2.0]), nearest(&[0.0, 0.0])), (1.0, 0.0, 0.0));
        assert_eq!(nearest(&[f32::NAN, 0.0]), f32::INFINITY);
        assert_eq!(super::nearest(Le::new(&[]), 0, &[1.0, 1.0]), f32::INFINITY);
        // The leading coordinate alone.
        assert_eq!(nearest(&[8.0]), 1.0);
    }
}
