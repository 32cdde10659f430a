//! Extents of a convolution, and images unrolled into the columns under each window and back.

use candle_core::{Result, bail};
use paradise_engine::layer::Window;

/// The extents of one convolution.
#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry {
    pub n: usize,
    pub h: usize,
    pub w: usize,
    pub c: usize,
    pub out_h: usize,
    pub out_w: usize,
    pub out_c: usize,
    pub window: Window,
}

impl Geometry {
    pub fn new(x: &[usize], w: &[usize], window: Window) -> Result<Self> {
        let (&[n, h, width, c], &[out_c, kh, kw, depth]) = (x, w) else {
            bail!("convolution of {x:?} by {w:?}: both need four axes")
        };
        let side = |v: usize| u16::try_from(v).map_err(candle_core::Error::wrap);
        let shape = paradise_engine::Shape::new(side(h)?, side(width)?, side(c)?);
        if depth != c || [kh, kw] != window.kernel.map(usize::from) {
            bail!("convolution of {x:?} by {w:?}: channels or kernel differ")
        }
        let Some([out_h, out_w]) = window.output(shape) else {
            bail!("convolution: the window {window:?} does not fit {x:?}")
        };
        Ok(Self { n, h, w: width, c, out_h: out_h.into(), out_w: out_w.into(), out_c, window })
    }

    /// Output pixels of one image.
    pub fn pixels(&self) -> usize {
        self.out_h * self.out_w
    }

    /// Values under one window.
    pub fn depth(&self) -> usize {
        self.window.kernel.map(usize::from).iter().product::<usize>() * self.c
    }

    pub fn image(&self) -> usize {
        self.h * self.w * self.c
    }

    /// Calls `visit(column offset, image offset, length)` for every run of values under a window inside the image.
    fn runs(&self, mut visit: impl FnMut(usize, usize, usize)) {
        let [kh, kw] = self.window.kernel.map(usize::from);
        let [sy, sx] = self.window.stride.map(usize::from);
        let (top, left) = (self.window.pad[0] as usize, self.window.pad[1] as usize);
        for oy in 0..self.out_h {
            for ox in 0..self.out_w {
                let row = (oy * self.out_w + ox) * self.depth();
                // First and past-the-last kernel column inside the image; a run of columns is contiguous in NHWC.
                let from = left.saturating_sub(ox * sx).min(kw);
                let to = (self.w + left).saturating_sub(ox * sx).min(kw).max(from);
                for ky in 0..kh {
                    let y = oy * sy + ky;
                    if from == to || y < top || y - top >= self.h {
                        continue;
                    }
                    let at = ((y - top) * self.w + (ox * sx + from - left)) * self.c;
                    visit(row + (ky * kw + from) * self.c, at, (to - from) * self.c);
                }
            }
        }
    }

    /// Unrolls one image: `columns` is `[pixels][depth]`, zero outside the image.
    pub fn unroll(&self, image: &[f32], columns: &mut [f32]) {
        columns.fill(0.0);
        self.runs(|column, at, len| columns[column..column + len].copy_from_slice(&image[at..at + len]));
    }

    /// The adjoint of [`Geometry::unroll`]: adds columns back into an image.
    pub fn roll(&self, columns: &[f32], image: &mut [f32]) {
        self.runs(|column, at, len| {
            for (x, g) in image[at..at + len].iter_mut().zip(&columns[column..column + len]) {
                *x += g;
            }
        });
    }

    pub fn unroll_chunk(&self, images: &[f32], columns: &mut [f32]) {
        for (image, columns) in
            images.chunks_exact(self.image()).zip(columns.chunks_exact_mut(self.pixels() * self.depth()))
        {
            self.unroll(image, columns);
        }
    }
}
