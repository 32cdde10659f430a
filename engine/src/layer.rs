//! The fixed set of fused int8 operations, as a model file names them.
//!
//! All activations are NHWC int8 with one scale and zero point `z`; all weights are in -127..=127. Input zero
//! points are folded into the biases, so padding reads as the input's zero point. The arithmetic of each
//! operation is written down once, in [`crate::kernel::scalar`].

use crate::record::{Fields, Record, Writer};
use crate::tensor::{Shape, Span};

/// Most layers a model may have.
pub const MAX_LAYERS: usize = 256;

/// A window sliding over rows and columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Height and width.
    pub kernel: [u16; 2],
    /// Vertical and horizontal step.
    pub stride: [u16; 2],
    /// Rows and columns added at top, left, bottom, right.
    pub pad: [u16; 4],
}

impl Window {
    /// Output rows and columns over an input of `shape`; `None` if the window does not fit or has a zero extent.
    ///
    /// ```
    /// use paradise_engine::{Shape, layer::Window};
    /// let window = Window { kernel: [3, 3], stride: [2, 2], pad: [1, 1, 1, 1] };
    /// assert_eq!(window.output(Shape::new(28, 28, 1)), Some([14, 14]));
    /// ```
    pub fn output(&self, shape: Shape) -> Option<[u16; 2]> {
        let axis = |size: u16, before: u16, after: u16, kernel: u16, stride: u16| {
            let room = u32::from(size) + u32::from(before) + u32::from(after);
            if kernel == 0 || stride == 0 || room < u32::from(kernel) {
                return None;
            }
            u16::try_from((room - u32::from(kernel)) / u32::from(stride) + 1).ok()
        };
        Some([
            axis(shape.h, self.pad[0], self.pad[2], self.kernel[0], self.stride[0])?,
            axis(shape.w, self.pad[1], self.pad[3], self.kernel[1], self.stride[1])?,
        ])
    }

    /// The kernel's rows that fall inside `size` input rows for output row `at` (axis 0) or columns (axis 1),
    /// and the input index of the kernel's first row: input index = first + kernel index.
    pub(crate) fn taps(&self, axis: usize, at: usize, size: usize) -> (isize, core::ops::Range<usize>) {
        let first = (at * self.stride[axis] as usize) as isize - self.pad[axis] as isize;
        let kernel = self.kernel[axis] as isize;
        let from = (-first).clamp(0, kernel);
        let to = (size as isize - first).clamp(from, kernel);
        (first, from as usize..to as usize)
    }
}

/// One fused operation and where its constants lie.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Op {
    /// Convolution, requantised: weights i8 `[out][kh][kw][in / groups]`, bias i32 `[out]`, scale f32 `[out]`.
    Conv {
        /// The sliding window.
        window: Window,
        /// Channel groups; divides both channel counts.
        groups: u16,
        /// i8 weights.
        weight: Span,
        /// i32 bias with the input's zero point folded in.
        bias: Span,
        /// f32 requantisation scale `(s_x * s_w) / s_y`.
        scale: Span,
        /// Fused ReLU.
        relu: bool,
    },
    /// Fully connected layer over the flattened (NHWC) input: weights i8 `[out][in]`.
    Dense {
        /// i8 weights.
        weight: Span,
        /// i32 bias with the input's zero point folded in.
        bias: Span,
        /// f32 requantisation scale.
        scale: Span,
        /// Fused ReLU.
        relu: bool,
    },
    /// Per-channel `f32(q - z) * mul + add`, quantised; both constants f32 `[c]` in units of the output's scale.
    Affine {
        /// f32 factors.
        mul: Span,
        /// f32 summands.
        add: Span,
        /// Fused ReLU.
        relu: bool,
    },
    /// `f32(a - z_a) * ratio[0] + f32(b - z_b) * ratio[1]`, quantised.
    Add {
        /// `s_a / s_y` and `s_b / s_y`.
        ratio: [f32; 2],
        /// Fused ReLU.
        relu: bool,
    },
    /// Average over a window, padding counted as zero: `f32(sum (q - z)) * scale`, quantised.
    AvgPool {
        /// The sliding window.
        window: Window,
        /// `s_x / (s_y * kernel area)`.
        scale: f32,
    },
    /// Maximum over the window's elements inside the input; scale and zero point pass through.
    MaxPool {
        /// The sliding window.
        window: Window,
    },
}

impl Op {
    /// The operation's name in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Conv { .. } => "conv",
            Self::Dense { .. } => "dense",
            Self::Affine { .. } => "affine",
            Self::Add { .. } => "add",
            Self::AvgPool { .. } => "avg-pool",
            Self::MaxPool { .. } => "max-pool",
        }
    }

    /// How many activations it reads: 2 for [`Op::Add`], otherwise 1.
    pub fn arity(&self) -> usize {
        if matches!(self, Self::Add { .. }) { 2 } else { 1 }
    }
}

/// The operation with what tells it from its like: `conv 3x3 /2`, `conv 3x3 x32` (groups), `max-pool 2x2 /2`.
impl core::fmt::Display for Op {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())?;
        if let Self::Conv { window, .. } | Self::AvgPool { window, .. } | Self::MaxPool { window } = self {
            write!(f, " {}x{}", window.kernel[0], window.kernel[1])?;
            match window.stride {
                [1, 1] => {}
                [a, b] if a == b => write!(f, " /{a}")?,
                [a, b] => write!(f, " /{a}x{b}")?,
            }
        }
        match self {
            Self::Conv { groups, .. } if *groups > 1 => write!(f, " x{groups}"),
            _ => Ok(()),
        }
    }
}

/// One step of the encoder. Layer `i` writes activation `i + 1`; activation 0 is the image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Layer {
    /// What is computed.
    pub op: Op,
    /// Activations read; the second is only read by [`Op::Add`] and otherwise repeats the first.
    pub inputs: [u16; 2],
}

impl Layer {
    /// The activations it reads.
    pub fn reads(&self) -> &[u16] {
        &self.inputs[..self.op.arity()]
    }
}

/// An activation: its shape, quantisation, and place in the arena.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Activation {
    /// Extents.
    pub shape: Shape,
    /// Real value of one step.
    pub scale: f32,
    /// The int8 that stands for 0.
    pub zero_point: i8,
    /// First byte in the arena.
    pub offset: u32,
}

impl Activation {
    /// The bytes it occupies in the arena. Only meaningful in a validated model.
    pub fn range(&self) -> core::ops::Range<usize> {
        self.offset as usize..self.offset as usize + self.shape.len() as usize
    }
}

/// A linear head: i8 features -> i32 -> f32. Weights i8 `[d][features]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// i8 weights.
    pub weight: Span,
    /// i32 bias with the features' zero point folded in.
    pub bias: Span,
    /// f32 `s_x * s_w` per output.
    pub scale: Span,
}

impl Window {
    /// See [`Record::read`].
    pub const fn read(fields: &mut Fields) -> Self {
        Self { kernel: fields.u16s(), stride: fields.u16s(), pad: fields.u16s() }
    }
}

impl Record for Window {
    const SIZE: usize = 16;

    fn read(fields: &mut Fields) -> Self {
        Self::read(fields)
    }

    fn write(&self, to: &mut Writer) {
        to.u16s(&self.kernel).u16s(&self.stride).u16s(&self.pad);
    }
}

impl Layer {
    /// See [`Record::read`].
    pub const fn read(fields: &mut Fields) -> Self {
        let (kind, relu, groups, inputs) = (fields.u8(), fields.flag(), fields.u16(), fields.u16s());
        let window = Window::read(fields);
        let (a, b, c) = (Span::read(fields), Span::read(fields), Span::read(fields));
        let numbers = [fields.f32(), fields.f32()];
        fields.zeros::<8>();
        let op = match kind {
            0 => Op::Conv { window, groups, weight: a, bias: b, scale: c, relu },
            1 => Op::Dense { weight: a, bias: b, scale: c, relu },
            2 => Op::Affine { mul: a, add: b, relu },
            3 => Op::Add { ratio: numbers, relu },
            4 => Op::AvgPool { window, scale: numbers[0] },
            _ => {
                fields.require(kind == 5);
                Op::MaxPool { window }
            }
        };
        Self { op, inputs }
    }
}

/// Every operation has room for all constants; those that it does not name are 0.
///
/// ```text
///  0  operation u8, ReLU u8, groups u16, activations read 2 x u16
///  8  window 8 x u16            24  three tensors 6 x u32            48  two numbers f32            56  zero
/// ```
impl Record for Layer {
    const SIZE: usize = 64;

    fn read(fields: &mut Fields) -> Self {
        Self::read(fields)
    }

    fn write(&self, to: &mut Writer) {
        let none = Window { kernel: [0; 2], stride: [0; 2], pad: [0; 4] };
        let zero = Span::default();
        let (kind, relu, groups, window, spans, numbers) = match self.op {
            Op::Conv { window, groups, weight, bias, scale, relu } => {
                (0, relu, groups, window, [weight, bias, scale], [0.0; 2])
            }
            Op::Dense { weight, bias, scale, relu } => (1, relu, 0, none, [weight, bias, scale], [0.0; 2]),
            Op::Affine { mul, add, relu } => (2, relu, 0, none, [mul, add, zero], [0.0; 2]),
            Op::Add { ratio, relu } => (3, relu, 0, none, [zero; 3], ratio),
            Op::AvgPool { window, scale } => (4, false, 0, window, [zero; 3], [scale, 0.0]),
            Op::MaxPool { window } => (5, false, 0, window, [zero; 3], [0.0; 2]),
        };
        to.u8(kind).u8(relu.into()).u16(groups).u16s(&self.inputs).record(&window);
        spans.iter().for_each(|span| span.write(to));
        to.f32(numbers[0]).f32(numbers[1]).bytes(&[0; 8]);
    }
}

/// `shape 3 x u16, zero point i8, zero u8, scale f32, offset u32`.
impl Record for Activation {
    const SIZE: usize = 16;

    fn read(fields: &mut Fields) -> Self {
        let (shape, zero_point) = (Shape::read(fields), fields.u8() as i8);
        fields.zeros::<1>();
        Self { shape, zero_point, scale: fields.f32(), offset: fields.u32() }
    }

    fn write(&self, to: &mut Writer) {
        to.record(&self.shape).u8(self.zero_point as u8).u8(0).f32(self.scale).u32(self.offset);
    }
}

impl Head {
    /// See [`Record::read`].
    pub const fn read(fields: &mut Fields) -> Self {
        Self { weight: Span::read(fields), bias: Span::read(fields), scale: Span::read(fields) }
    }
}

impl Record for Head {
    const SIZE: usize = 24;

    fn read(fields: &mut Fields) -> Self {
        Self::read(fields)
    }

    fn write(&self, to: &mut Writer) {
        to.record(&self.weight).record(&self.bias).record(&self.scale);
    }
}
