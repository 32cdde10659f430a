//! Convolution on the CPU, forward and backward, one image at a time.
//!
//! `y[oy][ox][o] = b[o] + sum_{ky,kx,i} x[oy*sy-top+ky][ox*sx-left+kx][i] w[o][ky][kx][i]`
//!
//! `direct` computes in f32, for every shape and CPU; `bf16` multiplies in bf16 where the CPU has tile registers for
//! that. To their callers they are one: an image is loaded into a grid, weights are packed, and what a grid or packed
//! weights hold is each one's own affair.

mod bf16;
mod direct;
mod grid;
mod group;
mod load;
mod matrix;
mod pixels;
mod sweep;
mod tile;
mod weight_gradient;

use super::lanes::Isa;
use anyhow::{Context, Result, ensure};
use paradise_engine::Shape;
use paradise_engine::layer::Window;

pub(crate) use bf16::{Tiles, detect as tiles};
pub(crate) use load::Load;
pub(crate) use matrix::Dense;

/// A convolution of one shape, planned for one instruction set and precision.
#[derive(Debug, Clone)]
pub(crate) enum Conv {
    F32(direct::Conv),
    Bf16(bf16::Conv),
}

/// Weights in the order in which kernels read them, bf16 two in an f32.
#[derive(Debug, Clone, Default)]
pub(crate) struct Packed(Vec<f32>);

/// What happens to each output value: bias, residual, ReLU in this order.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct End<'a> {
    /// One an output channel.
    pub bias: Option<&'a [f32]>,
    /// An image of the output's shape that is added.
    pub residual: Option<&'a [f32]>,
    /// Whether negative values become 0.
    pub relu: bool,
    /// Whether the sum is added to what the output holds.
    pub accumulate: bool,
}

/// Sums of each channel's values, and of their squares, that an image adds to.
type ChannelSums<'a> = Option<(&'a mut [f32], &'a mut [f32])>;

/// `$do` with the kernels that `$self` holds.
macro_rules! kernels {
    ($self:ident, $conv:ident => $do:expr) => {
        match $self {
            Self::F32($conv) => $do,
            Self::Bf16($conv) => $do,
        }
    };
}

impl Conv {
    /// Plans `window` over `input` with weights `[out][kh][kw][in / groups]`: in `tiles`, if any, where that is worth
    /// it, else in f32.
    ///
    /// # Errors
    /// If the window does not fit, or `groups` does not divide the channels.
    pub fn new(
        isa: Isa,
        tiles: Option<Tiles>,
        input: Shape,
        window: Window,
        groups: usize,
        out: usize,
    ) -> Result<Self> {
        let c = usize::from(input.c);
        ensure!(
            groups > 0 && c.is_multiple_of(groups) && out.is_multiple_of(groups),
            "{groups} groups do not divide {c} input and {out} output channels"
        );
        let [h, w] = window.output(input).with_context(|| format!("{window:?} does not fit {input:?}"))?;
        let output = Shape::new(h, w, u16::try_from(out).context("more than 65535 channels")?);
        Ok(match tiles.filter(|_| bf16::Conv::suits(input, groups, out)) {
            Some(tiles) => Self::Bf16(bf16::Conv::new(isa, tiles, input, window, output)),
            None => Self::F32(direct::Conv::new(isa, input, window, groups, output)),
        })
    }

    /// f32 that [`Conv::load`] fills; zero before the first.
    pub fn grid_len(&self) -> usize {
        kernels!(self, conv => conv.grid_len())
    }

    /// f32 that [`Conv::load_gradient`] fills; zero before the first.
    pub fn gradient_grid_len(&self) -> usize {
        kernels!(self, conv => conv.gradient_grid_len())
    }

    /// f32 of the sums of [`Conv::add_weight_gradient`].
    pub fn weight_gradient_len(&self) -> usize {
        kernels!(self, conv => conv.weight_gradient_len())
    }

    /// Packs weights `[out][kh][kw][in / groups]` for [`Conv::forward`].
    pub fn pack(&self, weights: &[f32]) -> Packed {
        kernels!(self, conv => conv.pack(weights))
    }

    /// Packs the same weights for [`Conv::input_gradient`].
    pub fn pack_transposed(&self, weights: &[f32]) -> Packed {
        kernels!(self, conv => conv.pack_transposed(weights))
    }

    /// Copies one input image into a grid.
    pub fn load(&self, x: &[f32], how: Load, grid: &mut [f32]) {
        kernels!(self, conv => conv.load(x, how, grid));
    }

    /// Fills a grid with what pads the image, one value a channel.
    pub fn fill_border(&self, value: &[f32], grid: &mut [f32]) {
        kernels!(self, conv => conv.fill_border(value, grid));
    }

    /// Copies the gradient of one output image into a grid.
    pub fn load_gradient(&self, dy: &[f32], how: Load, grid: &mut [f32]) {
        kernels!(self, conv => conv.load_gradient(dy, how, grid));
    }

    /// Convolves a loaded image. Where given, each channel's values and their squares are added to `sums`.
    pub fn forward(&self, grid: &[f32], weights: &Packed, end: End, y: &mut [f32], sums: ChannelSums) {
        kernels!(self, conv => conv.forward(grid, weights, end, y, sums));
    }

    /// The gradient of the input from a loaded gradient of the output: also a transposed convolution.
    pub fn input_gradient(&self, grid: &[f32], weights: &Packed, end: End, dx: &mut [f32], sums: ChannelSums) {
        kernels!(self, conv => conv.input_gradient(grid, weights, end, dx, sums));
    }

    /// Adds the weights' gradient of one image, from its loaded input and loaded gradient, to `sums`.
    pub fn add_weight_gradient(&self, x: &[f32], dy: &[f32], sums: &mut [f32]) {
        kernels!(self, conv => conv.add_weight_gradient(x, dy, sums));
    }

    /// Brings finished sums into the weights' own order `[out][kh][kw][in / groups]`, adding to `dw`.
    pub fn unpack_weight_gradient(&self, sums: &[f32], dw: &mut [f32]) {
        kernels!(self, conv => conv.unpack_weight_gradient(sums, dw));
    }
}

#[cfg(test)]
mod tests;
