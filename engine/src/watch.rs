//! Who sees what an inference does on its way.

use core::ops::Range;

/// Who watches an inference.
pub enum Watch<'a> {
    /// Nobody: what follows a linear map happens in its registers.
    Nobody,
    /// `(layer, output)` of each layer, int8 in NHWC order; every layer is written out on its own.
    Layers(&'a mut dyn FnMut(usize, &[i8])),
    /// Called with the layers that have just run in one go, after nothing once the image is in place.
    Groups(&'a mut dyn FnMut(Range<usize>)),
    /// As `Groups`, with the memory in which activations lie, where layers run in tiles; the scalar kernels show none. For fault
    /// campaigns, which change it.
    Memory(&'a mut dyn FnMut(Range<usize>, &mut [u8])),
}

impl core::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Nobody => "Nobody",
            Self::Layers(_) => "Layers",
            Self::Groups(_) => "Groups",
            Self::Memory(_) => "Memory",
        })
    }
}
