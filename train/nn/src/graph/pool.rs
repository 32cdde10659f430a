//! Buffers of activations, kept from step to step: fresh pages cost more than the arithmetic on them.

use std::sync::Mutex;

/// Buffers that are free.
#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<Vec<Vec<f32>>>);

impl Pool {
    /// A buffer of `len` values, whatever they are.
    pub fn take(&self, len: usize) -> Vec<f32> {
        let mut free = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let fits = |v: &Vec<f32>| v.capacity() >= len && v.capacity() <= len.saturating_mul(2);
        let best = (0..free.len()).filter(|&i| fits(&free[i])).min_by_key(|&i| free[i].capacity());
        match best {
            Some(i) => {
                let mut buffer = free.swap_remove(i);
                buffer.resize(len, 0.0);
                buffer
            }
            None => {
                // A batch of another size has other buffers; the old ones would only lie there.
                free.retain(|v| v.capacity() >= len);
                vec![0.0; len]
            }
        }
    }

    /// A buffer of `len` zeros.
    pub fn zeros(&self, len: usize) -> Vec<f32> {
        let mut buffer = self.take(len);
        buffer.fill(0.0);
        buffer
    }

    /// Gives a buffer back.
    pub fn put(&self, buffer: Vec<f32>) {
        if buffer.capacity() > 0 {
            self.0.lock().unwrap_or_else(|e| e.into_inner()).push(buffer);
        }
    }
}
