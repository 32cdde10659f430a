//! What a prepared model keeps in memory, in slices that are each summed in well under a millisecond: a program that runs for
//! years goes round them, and finds a bit that changed since loading.
//!
//! The slices are, in this order: the model's bytes (weights, biases, scales, tables), its packed copy, what was read from them
//! of each layer, and what was read of the rest (heads, thresholds, where tables lie).

use crate::prepared::Prepared;
use core::fmt::{self, Write};
use core::ops::Range;

/// Bytes of a slice of memory: a tenth of a millisecond for a small core that sums half a gigabyte a second.
const BYTES: usize = 1 << 16;

/// CRC-32 of a value as its `Debug` shows it, which is every field of it: floats are shown so that they read back as they are.
pub(crate) fn shown(value: &dyn fmt::Debug) -> u32 {
    struct Sum(crc32fast::Hasher);

    impl Write for Sum {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.update(text.as_bytes());
            Ok(())
        }
    }

    let mut sum = Sum(crc32fast::Hasher::new());
    // Nothing that is written to fails.
    let _ = write!(sum, "{value:?}");
    sum.0.finalize()
}

fn count(bytes: usize) -> usize {
    bytes.div_ceil(BYTES)
}

fn range(i: usize, len: usize) -> Range<usize> {
    i * BYTES..len.min((i + 1) * BYTES)
}

impl Prepared<'_> {
    /// How many slices there are.
    pub fn slices(&self) -> usize {
        count(self.model().bytes().len()) + count(self.packed_len()) + self.model().header().layers.len() + 1
    }

    /// CRC-32 of a slice.
    ///
    /// ```
    /// use paradise_engine::{Model, Prepared};
    /// let bytes = include_bytes!("../../models/fashion-mnist-small/model.pmq");
    /// let prepared = Prepared::new(&Model::parse(bytes).unwrap());
    /// let sums = |p: &Prepared| (0..p.slices()).map(|i| p.slice_sum(i)).collect::<Vec<u32>>();
    /// let flipped = prepared.with_flipped_packed_bit(12345);
    /// assert!(prepared.kernels() == "scalar" || sums(&prepared) != sums(&flipped));
    /// ```
    ///
    /// # Panics
    /// If there is no such slice.
    pub fn slice_sum(&self, slice: usize) -> u32 {
        let bytes = self.model().bytes();
        let Some(i) = slice.checked_sub(count(bytes.len())) else {
            return crc32fast::hash(&bytes[range(slice, bytes.len())]);
        };
        let Some(i) = i.checked_sub(count(self.packed_len())) else {
            return self.packed_sum(range(i, self.packed_len()));
        };
        let header = self.model().header();
        if i < header.layers.len() {
            return shown(&(header.layers.at(i), self.packed_layer(i)));
        }
        assert_eq!(i, header.layers.len(), "slice {slice} of {}", self.slices());
        let heads = (header.mu, header.sigma, header.classifier, header.latent, header.classes);
        let read = (header.input, &header.policy, header.mixture, header.typicality, header.calibrations);
        shown(&(heads, read, header.thresholds, self.packed_rest()))
    }
}
