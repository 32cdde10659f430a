//! The GPU's side of what `ops` is on the CPU: our kernels, and cuDNN's convolutions. Only with the feature `cuda`.
//!
//! Everything a step needs stays on the device and is queued on candle's stream; nothing waits for the device but what ranks tell each
//! other (`host`).

pub(crate) mod augment;
pub(crate) mod conv;
pub(crate) mod density;
pub(crate) mod host;

use crate::Precision;
use candle_core::cuda::DeviceId;
use candle_core::cuda::cudarc::driver::{CudaFunction, CudaSlice, LaunchConfig, result, sys};
use candle_core::cuda::cudarc::nvrtc::{CompileOptions, compile_ptx_with_opts};
use candle_core::cuda::{CudaDevice, CudaStorage, cudarc::driver::CudaView};
use candle_core::{CpuStorage, CustomOp1, Error, Layout, Result, Shape, Storage, Tensor, bail};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};

/// Threads of an elementwise block.
const THREADS: u32 = 256;

/// Blocks of an elementwise kernel at most; each thread takes several values beyond.
const BLOCKS: u32 = 132 * 16;

/// Channels and rows of a block of a reduction, as `kernels.cu` has them.
const WIDE: u32 = 32;
const DEEP: u32 = 8;

/// Pixels of one part of a sum.
const PART: usize = 512;

/// Activations on the device: bytes of f32 or bf16, as the run's precision says.
pub(crate) type Values = CudaSlice<u8>;

/// A device, and how activations are held on it.
#[derive(Debug, Clone)]
pub(crate) struct Gpu {
    pub device: CudaDevice,
    pub precision: Precision,
}

/// Queues `$name` with pointers, then numbers, as `kernels.cu` declares them. The caller's lengths must match.
macro_rules! launch {
    ($gpu:expr, $name:expr, $config:expr; $($pointer:expr),*; $($number:expr),*) => {{
        use candle_core::cuda::cudarc::driver::PushKernelArg;
        let function = $gpu.function(&$name)?;
        let stream = $gpu.device.cuda_stream();
        let mut call = stream.launch_builder(&function);
        $(call.arg($pointer);)*
        $(let number = $number; call.arg(&number);)*
        // SAFETY: kernels.cu declares these arguments; every caller passes buffers as long as its counts say.
        unsafe { call.launch($config) }.map_err(candle_core::Error::wrap)?;
    }};
}
pub(crate) use launch;

thread_local! {
    static FUNCTIONS: RefCell<HashMap<DeviceId, HashMap<String, CudaFunction>>> = RefCell::default();
}

/// Makes a fresh device cheap to queue on: everything goes through its one stream in order, so no buffer needs events of
/// its own; and memory that was freed stays with the process.
///
/// # Errors
/// If the driver refuses.
pub(crate) fn prepare(device: &CudaDevice) -> Result<()> {
    let ordinal = device.cuda_stream().context().ordinal();
    let all: u64 = u64::MAX;
    let threshold = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: one stream, see above; the pool is the device's own, and the attribute is a u64.
    unsafe {
        device.disable_event_tracking();
        let ordinal = i32::try_from(ordinal).map_err(Error::wrap)?;
        let pool = result::device::get_default_mem_pool(result::device::get(ordinal).map_err(Error::wrap)?);
        let pool = pool.map_err(Error::wrap)?;
        result::mem_pool::set_attribute(pool, threshold, (&raw const all).cast_mut().cast()).map_err(Error::wrap)
    }
}

/// The kernels as PTX, compiled once.
pub(crate) fn kernels() -> Result<&'static str> {
    static PTX: OnceLock<std::result::Result<String, String>> = OnceLock::new();
    let compiled = PTX.get_or_init(|| {
        let options = CompileOptions { arch: Some("compute_80"), ..CompileOptions::default() };
        let ptx = compile_ptx_with_opts(include_str!("kernels.cu"), options);
        ptx.map(|p| p.to_src()).map_err(|e| format!("the GPU kernels do not compile: {e:?}"))
    });
    compiled.as_deref().map_err(Error::msg)
}

/// A launch of `total` independent values.
pub(crate) fn spread(total: usize) -> LaunchConfig {
    let blocks = u32::try_from(total.div_ceil(THREADS as usize)).unwrap_or(BLOCKS).clamp(1, BLOCKS);
    LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 }
}

/// A kernel's count: tensors of 2^31 values and more are refused.
pub(crate) fn count(total: usize) -> Result<u32> {
    match u32::try_from(total) {
        Ok(n) if n < 1 << 31 => Ok(n),
        _ => bail!("{total} values in one tensor: the GPU's kernels take fewer than 2^31; lower fit.batch"),
    }
}

/// A small extent as kernels take it.
pub(crate) fn int(v: impl TryInto<i32>) -> Result<i32> {
    v.try_into().map_err(|_| Error::msg("an extent above 2^31 - 1"))
}

/// The f32 behind a contiguous tensor.
pub(crate) fn floats<'a>(storage: &'a CudaStorage, layout: &Layout) -> Result<CudaView<'a, f32>> {
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(storage.as_cuda_slice::<f32>()?.slice(from..to)),
        None => bail!("a GPU operation takes contiguous tensors"),
    }
}

/// The device's side of a tensor's storage.
pub(crate) fn on_device(storage: &Storage) -> Result<&CudaStorage> {
    match storage {
        Storage::Cuda(storage) => Ok(storage),
        _ => bail!("a tensor on the GPU was expected"),
    }
}

/// Values that are on the device already, on their way into a tensor.
struct Made(Mutex<Option<CudaSlice<f32>>>);

impl CustomOp1 for Made {
    fn name(&self) -> &'static str {
        "made"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("values on the GPU beside a tensor on the CPU")
    }

    fn cuda_fwd(&self, like: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        match self.0.lock().unwrap_or_else(|e| e.into_inner()).take() {
            Some(values) => Ok((CudaStorage::wrap_cuda_slice(values, like.device.clone()), layout.shape().clone())),
            None => bail!("values were taken twice"),
        }
    }
}

/// f32 of a tensor's extents and device as a tensor.
pub(crate) fn tensor(values: CudaSlice<f32>, like: &Tensor) -> Result<Tensor> {
    like.apply_op1_no_bwd(&Made(Mutex::new(Some(values))))
}

impl Gpu {
    /// A device for kernels over f32.
    pub fn plain(device: &CudaDevice) -> Self {
        Self { device: device.clone(), precision: Precision::F32 }
    }

    /// A kernel by its name in `kernels.cu`, looked up once a thread.
    pub fn function(&self, name: &str) -> Result<CudaFunction> {
        FUNCTIONS.with_borrow_mut(|all| {
            let known = all.entry(self.device.id()).or_default();
            if let Some(function) = known.get(name) {
                return Ok(function.clone());
            }
            let loaded = self.device.get_or_load_custom_func(name, "paradise", kernels()?)?.into_cuda_function();
            known.insert(name.into(), loaded.clone());
            Ok(loaded)
        })
    }

    /// The name of a kernel over activations.
    pub fn typed(&self, name: &str) -> String {
        format!("{name}_{}", if self.precision == Precision::Bf16 { "bf16" } else { "f32" })
    }

    /// Bytes of an activation's value.
    pub fn width(&self) -> usize {
        if self.precision == Precision::Bf16 { 2 } else { 4 }
    }

    /// Room for `n` values of an activation; what it holds is not defined.
    pub fn values(&self, n: usize) -> Result<Values> {
        count(n)?;
        // SAFETY: every user writes all of it before anything reads it.
        unsafe { self.device.alloc::<u8>(n * self.width()) }
    }

    /// Room for `n` f32; what it holds is not defined.
    pub fn floats(&self, n: usize) -> Result<CudaSlice<f32>> {
        // SAFETY: as above.
        unsafe { self.device.alloc::<f32>(n) }
    }

    /// f32 from the device as the run's values.
    pub fn cast_in(&self, from: &CudaView<f32>, n: usize) -> Result<Values> {
        let mut to = self.values(n)?;
        launch!(self, self.typed("cast_in"), spread(n); &mut to, from; count(n)?);
        Ok(to)
    }

    /// Values back as f32.
    pub fn cast_out(&self, from: &Values) -> Result<CudaSlice<f32>> {
        let n = from.len() / self.width();
        let mut to = self.floats(n)?;
        launch!(self, self.typed("cast_out"), spread(n); &mut to, from; count(n)?, 0i32);
        Ok(to)
    }

    /// Sums and squares of each channel (or what `sums` names), f64 `[2 c]`: `parts(partial, config, each)` queues the
    /// kernel that fills f32 `[part][2 c]`.
    pub fn channel_sums(
        &self,
        pixels: usize,
        c: usize,
        parts: impl FnOnce(&mut CudaSlice<f32>, LaunchConfig, i32) -> Result<()>,
    ) -> Result<CudaSlice<f64>> {
        let number = pixels.div_ceil(PART);
        let mut partial = self.floats(number * 2 * c)?;
        let grid_dim = (count(number)?, count(c)?.div_ceil(WIDE), 1);
        parts(&mut partial, LaunchConfig { grid_dim, block_dim: (WIDE, DEEP, 1), shared_mem_bytes: 0 }, int(PART)?)?;
        // SAFETY: `add_parts` writes all of it.
        let mut sums = unsafe { self.device.alloc::<f64>(2 * c) }?;
        launch!(self, "add_parts", spread(2 * c); &mut sums, &partial; count(2 * c)?, int(number)?);
        Ok(sums)
    }

    /// Sums and squares of each channel of values `[pixels][c]`.
    pub fn moments(&self, x: &Values, pixels: usize, c: usize) -> Result<CudaSlice<f64>> {
        self.channel_sums(pixels, c, |partial, config, each| {
            launch!(self, self.typed("moments"), config; partial, x; count(pixels)?, each, int(c)?);
            Ok(())
        })
    }

    /// Adds one tensor's values to another's.
    pub fn add_to(&self, to: &mut Values, from: &Values) -> Result<()> {
        let n = to.len() / self.width();
        launch!(self, self.typed("add_to"), spread(n); to, from; count(n)?);
        Ok(())
    }
}
