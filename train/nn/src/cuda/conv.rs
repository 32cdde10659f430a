//! Convolutions of a mini-batch by cuDNN: NHWC activations, weights `[out][kh][kw][in / groups]`.

use super::{Gpu, Values};
use crate::Precision;
use candle_core::cuda::DeviceId;
use candle_core::cuda::cudarc::cudnn::{
    ConvBackwardData, ConvBackwardFilter, ConvDescriptor, ConvForward, Cudnn, CudnnDataType, CudnnError,
    FilterDescriptor, TensorDescriptor, sys,
};
use candle_core::cuda::cudarc::driver::{CudaView, CudaViewMut, DeviceRepr};
use candle_core::{Error, Result};
use half::bf16;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

/// The extents of a convolution over `n` images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Geometry {
    pub n: i32,
    /// Rows, columns and channels of the input.
    pub input: [i32; 3],
    /// Of the output.
    pub output: [i32; 3],
    pub kernel: [i32; 2],
    pub stride: [i32; 2],
    /// On every side alike.
    pub pad: [i32; 2],
    pub groups: i32,
}

/// One of a convolution's three directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Direction {
    Forward,
    Input,
    Weights,
}

/// What cuDNN's heuristics chose: the algorithm's number, and bytes of workspace.
type Choice = (u32, usize);

/// A thread's handle (cuDNN's are not shared) and what was chosen with it.
struct Local {
    handle: Arc<Cudnn>,
    choices: HashMap<(Geometry, Precision, Direction), Choice>,
}

thread_local! {
    static LOCAL: RefCell<HashMap<DeviceId, Local>> = RefCell::new(HashMap::new());
}

/// What values a convolution holds.
trait Value: CudnnDataType + DeviceRepr + Copy {
    const ONE: Self;
    const ZERO: Self;
}

impl Value for f32 {
    const ONE: Self = 1.0;
    const ZERO: Self = 0.0;
}

impl Value for bf16 {
    const ONE: Self = bf16::ONE;
    const ZERO: Self = bf16::ZERO;
}

struct Descriptors<T> {
    conv: ConvDescriptor<f32>,
    x: TensorDescriptor<T>,
    w: FilterDescriptor<T>,
    y: TensorDescriptor<T>,
}

impl<T: Value> Descriptors<T> {
    fn new(handle: &Arc<Cudnn>, g: &Geometry, precision: Precision) -> std::result::Result<Self, CudnnError> {
        let nhwc = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
        let tensor = |[h, w, c]: [i32; 3]| handle.create_4d_tensor::<T>(nhwc, [g.n, c, h, w]);
        let cross = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        let mut conv = handle.create_conv2d::<f32>(g.pad, g.stride, [1, 1], cross)?;
        conv.set_math_type(match precision {
            Precision::F32 => sys::cudnnMathType_t::CUDNN_FMA_MATH,
            Precision::Tf32 => sys::cudnnMathType_t::CUDNN_DEFAULT_MATH,
            Precision::Bf16 => sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
        })?;
        conv.set_group_count(g.groups)?;
        let [kh, kw] = g.kernel;
        let w = handle.create_4d_filter::<T>(nhwc, [g.output[2], g.input[2] / g.groups, kh, kw])?;
        Ok(Self { conv, x: tensor(g.input)?, w, y: tensor(g.output)? })
    }
}

fn read<T>(values: &Values) -> Result<CudaView<'_, T>> {
    // SAFETY: buffers of activations hold whole values of the run's precision, from aligned allocations.
    unsafe { values.transmute::<T>(values.len() / size_of::<T>()) }.ok_or_else(|| Error::msg("a short buffer"))
}

fn write<T>(values: &mut Values) -> Result<CudaViewMut<'_, T>> {
    let n = values.len() / size_of::<T>();
    // SAFETY: as above.
    unsafe { values.transmute_mut::<T>(n) }.ok_or_else(|| Error::msg("a short buffer"))
}

impl Gpu {
    /// `y = conv(x, w)`, or `y += ...`.
    pub fn convolve(&self, g: &Geometry, x: &Values, w: &Values, y: &mut Values, accumulate: bool) -> Result<()> {
        match self.precision {
            Precision::Bf16 => self.run::<bf16>(g, Direction::Forward, x, w, y, accumulate),
            _ => self.run::<f32>(g, Direction::Forward, x, w, y, accumulate),
        }
    }

    /// The gradient of the input, `dx = conv'(dy, w)`, or `dx += ...`: also a transposed convolution.
    pub fn convolve_back(&self, g: &Geometry, dy: &Values, w: &Values, dx: &mut Values, add: bool) -> Result<()> {
        match self.precision {
            Precision::Bf16 => self.run::<bf16>(g, Direction::Input, dy, w, dx, add),
            _ => self.run::<f32>(g, Direction::Input, dy, w, dx, add),
        }
    }

    /// The gradient of the weights.
    pub fn convolve_weights(&self, g: &Geometry, x: &Values, dy: &Values, dw: &mut Values) -> Result<()> {
        match self.precision {
            Precision::Bf16 => self.run::<bf16>(g, Direction::Weights, x, dy, dw, false),
            _ => self.run::<f32>(g, Direction::Weights, x, dy, dw, false),
        }
    }

    fn run<T: Value>(
        &self,
        g: &Geometry,
        direction: Direction,
        a: &Values,
        b: &Values,
        to: &mut Values,
        accumulate: bool,
    ) -> Result<()> {
        let failed = |e: CudnnError| Error::msg(format!("cuDNN, {direction:?} of {g:?}: {e:?}"));
        LOCAL.with(|local| {
            let mut all = local.borrow_mut();
            let local = match all.entry(self.device.id()) {
                std::collections::hash_map::Entry::Occupied(there) => there.into_mut(),
                std::collections::hash_map::Entry::Vacant(empty) => {
                    let handle = Cudnn::new(self.device.cuda_stream()).map_err(failed)?;
                    empty.insert(Local { handle, choices: HashMap::new() })
                }
            };
            let d = Descriptors::<T>::new(&local.handle, g, self.precision).map_err(failed)?;
            let key = (*g, self.precision, direction);
            let (a, b) = (read::<T>(a)?, read::<T>(b)?);
            let factors = (T::ONE, if accumulate { T::ONE } else { T::ZERO });
            // The three directions differ in their types only.
            macro_rules! go {
                ($op:expr, $algorithm:ty, $launch:expr) => {{
                    let op = $op;
                    let (algorithm, bytes) = match local.choices.get(&key) {
                        Some(choice) => *choice,
                        None => {
                            let algorithm = op.pick_algorithm().map_err(failed)?;
                            let choice = (algorithm as u32, op.get_workspace_size(algorithm).map_err(failed)?);
                            local.choices.insert(key, choice);
                            choice
                        }
                    };
                    // SAFETY: the number came from this enumeration.
                    let algorithm = unsafe { std::mem::transmute::<u32, $algorithm>(algorithm) };
                    // SAFETY: workspaces are written before they are read.
                    let mut room = unsafe { self.device.alloc::<u8>(bytes.max(1)) }?;
                    let mut to = write::<T>(to)?;
                    #[allow(clippy::redundant_closure_call)]
                    // SAFETY: the descriptors were made from the geometry that sized the buffers.
                    unsafe { $launch(op, algorithm, &mut room, &mut to) }.map_err(failed)
                }};
            }
            match direction {
                Direction::Forward => go!(
                    ConvForward { conv: &d.conv, x: &d.x, w: &d.w, y: &d.y },
                    sys::cudnnConvolutionFwdAlgo_t,
                    |op: ConvForward<_, _, _>, algorithm, room: &mut Values, to: &mut CudaViewMut<T>| op.launch(
                        algorithm,
                        Some(room),
                        factors,
                        &a,
                        &b,
                        to
                    )
                ),
                Direction::Input => {
                    go!(
                        ConvBackwardData { conv: &d.conv, dx: &d.x, w: &d.w, dy: &d.y },
                        sys::cudnnConvolutionBwdDataAlgo_t,
                        |op: ConvBackwardData<_, _, _>, algorithm, room: &mut Values, to: &mut CudaViewMut<T>| op
                            .launch(algorithm, Some(room), factors, to, &b, &a)
                    )
                }
                Direction::Weights => go!(
                    ConvBackwardFilter { conv: &d.conv, x: &d.x, dw: &d.w, dy: &d.y },
                    sys::cudnnConvolutionBwdFilterAlgo_t,
                    |op: ConvBackwardFilter<_, _, _>, algorithm, room: &mut Values, to: &mut CudaViewMut<T>| op
                        .launch(algorithm, Some(room), factors, &a, to, &b)
                ),
            }
        })
    }
}
