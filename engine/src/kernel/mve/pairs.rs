//! Pairs of output pixels, all their channels: the sums and what follows them.

use super::geometry::Geometry;
use crate::kernel::ring::{Conv, Other};

/// A convolution whose pairs are run.
#[derive(Debug)]
pub struct Pairs<'a> {
    #[cfg(not(all(feature = "mve", target_arch = "arm")))]
    conv: &'a Conv<'a>,
    geometry: &'a Geometry,
    #[cfg(all(feature = "mve", target_arch = "arm"))]
    job: super::assembly::Job,
}

impl<'a> Pairs<'a> {
    /// Of a convolution.
    pub fn new(conv: &'a Conv<'a>, geometry: &'a Geometry) -> Self {
        Self {
            #[cfg(not(all(feature = "mve", target_arch = "arm")))]
            conv,
            geometry,
            #[cfg(all(feature = "mve", target_arch = "arm"))]
            job: super::assembly::Job::new(conv, geometry),
        }
    }

    /// From the rows under the kernel to pairs of int8 `[2][channels]`, the first of them pair `first` of the row.
    ///
    /// # Panics
    /// If a slice does not have the length that the geometry says.
    pub fn run(&mut self, under: &[&[u32]], first: usize, other: Other, y: &mut [i8]) {
        #[cfg(all(feature = "mve", target_arch = "arm"))]
        self.job.run(self.geometry, under, first, other, y);
        #[cfg(not(all(feature = "mve", target_arch = "arm")))]
        super::portable::run(self.conv, self.geometry, under, first, other, y);
    }
}
