//! One group of eight output pixels, all their channels: the sums and what follows them.

#[cfg(all(feature = "dsp", target_arch = "arm"))]
mod assembly;
#[cfg(not(all(feature = "dsp", target_arch = "arm")))]
mod portable;

#[cfg(all(feature = "dsp", target_arch = "arm"))]
pub use assembly::Group;
#[cfg(not(all(feature = "dsp", target_arch = "arm")))]
pub use portable::Group;
