//! The only place that calls the `gemm` crate: a bounds-checked single-threaded f32 matrix product.

use gemm::Parallelism;

/// A strided matrix inside a slice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Row-major `[rows][cols]`.
    ///
    /// # Panics
    /// If the slice is shorter than that.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert!(data.len() >= rows * cols, "{} values for a {rows} x {cols} matrix", data.len());
        Self { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// The transpose, without moving a value.
    pub fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }
}

/// `out = a b`, or `out += a b`; `out` is row-major `[a.rows][b.cols]`.
///
/// # Panics
/// If the inner extents differ or `out` is too short.
pub(super) fn multiply(out: &mut [f32], accumulate: bool, a: Matrix, b: Matrix) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    assert_eq!(k, b.rows, "inner extents");
    assert!(out.len() >= m * n, "{} values for a {m} x {n} product", out.len());
    // SAFETY: `Matrix::new` and the assertions above keep every access of the strided m x k, k x n and m x n
    // matrices inside their slices, and `out` is exclusive.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            accumulate,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
