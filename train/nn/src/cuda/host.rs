//! Numbers through the host's memory, for what ranks add up: page-locked buffers, kept from step to step.

use super::Gpu;
use candle_core::cuda::cudarc::driver::{CudaSlice, DevicePtr, DeviceRepr, PinnedHostSlice, ValidAsZeroBits};
use candle_core::{Error, Result};
use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

thread_local! {
    static SINGLE: RefCell<HashMap<usize, PinnedHostSlice<f32>>> = RefCell::default();
    static DOUBLE: RefCell<HashMap<usize, PinnedHostSlice<f64>>> = RefCell::default();
}

/// A number that has buffers.
pub(crate) trait Number: DeviceRepr + ValidAsZeroBits + Copy + Send + Sync + 'static {
    /// `f` on this thread's buffers by their lengths.
    fn buffers<R>(f: impl FnOnce(&mut HashMap<usize, PinnedHostSlice<Self>>) -> R) -> R;
}

impl Number for f32 {
    fn buffers<R>(f: impl FnOnce(&mut HashMap<usize, PinnedHostSlice<Self>>) -> R) -> R {
        SINGLE.with_borrow_mut(f)
    }
}

impl Number for f64 {
    fn buffers<R>(f: impl FnOnce(&mut HashMap<usize, PinnedHostSlice<Self>>) -> R) -> R {
        DOUBLE.with_borrow_mut(f)
    }
}

impl Gpu {
    /// What `f` makes of the numbers of a buffer of the device, on the host; it may change them there.
    ///
    /// # Errors
    /// If the host has no memory to lock, or `f` has one.
    pub fn on_host<T: Number, R>(
        &self,
        from: &impl DevicePtr<T>,
        f: impl FnOnce(&mut [T]) -> Result<R>,
    ) -> Result<R> {
        let (stream, len) = (self.device.cuda_stream(), from.len());
        T::buffers(|all| {
            let buffer = match all.entry(len) {
                Entry::Occupied(there) => there.into_mut(),
                Entry::Vacant(place) => {
                    // SAFETY: the copy below writes all of it before anything reads it.
                    let fresh = unsafe { stream.context().alloc_pinned_with_flags::<T>(len, 0) };
                    place.insert(fresh.map_err(Error::wrap)?)
                }
            };
            stream.memcpy_dtoh(from, buffer).map_err(Error::wrap)?;
            stream.synchronize().map_err(Error::wrap)?;
            f(buffer.as_mut_slice().map_err(Error::wrap)?)
        })
    }

    /// The numbers of a buffer of the device, changed on the host by `f`.
    ///
    /// # Errors
    /// As [`Gpu::on_host`].
    pub fn by_host<T: Number>(
        &self,
        from: &CudaSlice<T>,
        f: impl FnOnce(&mut [T]) -> Result<()>,
    ) -> Result<CudaSlice<T>> {
        self.on_host(from, |numbers| {
            f(numbers)?;
            self.device.clone_htod(&*numbers)
        })
    }
}
