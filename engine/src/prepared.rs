//! A model made ready for the CPU at hand: kernels chosen once by what it can do, weights packed once in their order.
//!
//! The answers are those of [`classify`](crate::classify), bit for bit.

use crate::artifact::Model;
use crate::encoder;
use crate::error::RunError;
use crate::inference::{self, Answer, Workspace};
#[cfg(all(feature = "std", target_arch = "x86_64"))]
use crate::kernel::isa::Isa;
use crate::kernel::scalar;
use crate::layer::Layer;
#[cfg(all(feature = "std", target_arch = "x86_64"))]
use crate::plan;
#[cfg(all(feature = "std", target_arch = "x86_64"))]
use crate::tiled::{Memory, Tiled};
use core::ops::Range;

/// Who watches an inference.
pub enum Watch<'a> {
    /// Nobody: what follows a linear map happens in its registers.
    Nobody,
    /// `(layer, output)` of each layer, int8 in NHWC order; every layer is written out on its own.
    Layers(&'a mut dyn FnMut(usize, &[i8])),
    /// Called with the layers that have just run in one go, after nothing once the image is in place.
    Groups(&'a mut dyn FnMut(Range<usize>)),
}

impl core::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Nobody => "Nobody",
            Self::Layers(_) => "Layers",
            Self::Groups(_) => "Groups",
        })
    }
}

/// A model ready to run.
#[derive(Debug, Clone)]
pub struct Prepared<'m> {
    model: Model<'m>,
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    tiled: Option<Tiled>,
}

impl<'m> Prepared<'m> {
    /// The model with the fastest kernels of this CPU.
    pub fn new(model: &Model<'m>) -> Self {
        Self::nth(model, 0)
    }

    /// The model with the `n`-th kernels of this CPU, the fastest first; past the last, the scalar ones, which define
    /// every bit.
    pub fn nth(model: &Model<'m>, n: usize) -> Self {
        #[cfg(not(all(feature = "std", target_arch = "x86_64")))]
        let _ = n;
        Self {
            model: model.clone(),
            #[cfg(all(feature = "std", target_arch = "x86_64"))]
            tiled: Isa::all().nth(n).and_then(|isa| Tiled::new(model, isa)),
        }
    }

    /// The model.
    pub fn model(&self) -> &Model<'m> {
        &self.model
    }

    /// The kernels in use, as reports name them.
    pub fn kernels(&self) -> &'static str {
        #[cfg(all(feature = "std", target_arch = "x86_64"))]
        if let Some(tiled) = &self.tiled {
            return tiled.isa().name();
        }
        "scalar"
    }

    /// Whether the model's bytes and their packed copy are as they were loaded.
    pub fn is_intact(&self) -> bool {
        #[cfg(all(feature = "std", target_arch = "x86_64"))]
        if self.tiled.as_ref().is_some_and(|t| !t.is_intact()) {
            return false;
        }
        self.model.is_intact()
    }

    /// Bytes of scratch memory that an inference needs beside its [`Workspace`].
    pub fn scratch_len(&self) -> usize {
        #[cfg(all(feature = "std", target_arch = "x86_64"))]
        if let Some(tiled) = &self.tiled {
            return tiled.scratch_len();
        }
        0
    }

    /// The kernels that compute a layer, as reports name them.
    pub fn kernels_of(&self, layer: &Layer) -> &'static str {
        #[cfg(all(feature = "std", target_arch = "x86_64"))]
        if self.tiled.is_some() && plan::is_plain(&layer.op) {
            return "scalar";
        }
        let _ = layer;
        self.kernels()
    }

    /// Multiplies and adds int8 values with the kernels' instructions, `rounds` times, out of registers where they have
    /// such instructions; returns how many products that were. Timing it tells the most that the CPU can do.
    pub fn multiply_at_peak(&self, rounds: u32) -> u64 {
        #[cfg(all(feature = "std", target_arch = "x86_64"))]
        if let Some(tiled) = &self.tiled {
            return tiled.isa().multiply_at_peak(rounds);
        }
        scalar::multiply_at_peak(rounds)
    }

    /// [`classify`](crate::classify) with these kernels.
    ///
    /// # Errors
    /// If the image, the arena, the float workspace or the scratch memory has the wrong size.
    pub fn classify<'w>(
        &self,
        image: &[u8],
        memory: &'w mut Workspace<'_>,
        scratch: &mut [u8],
        watch: Watch,
    ) -> Result<Answer<'w>, RunError> {
        let need = self.scratch_len();
        if scratch.len() < need {
            return Err(RunError::Scratch { need, got: scratch.len() });
        }
        let model = &self.model;
        inference::run(model, image, memory, |arena, heads| {
            #[cfg(all(feature = "std", target_arch = "x86_64"))]
            if let Some(tiled) = &self.tiled {
                return tiled.run(model, image, Memory { scratch, arena }, watch, heads);
            }
            let mut watch = watch;
            if let Watch::Groups(after) = &mut watch {
                after(0..0);
            }
            let mut observe = |layer, output: &[i8]| match &mut watch {
                Watch::Nobody => {}
                Watch::Layers(observe) => observe(layer, output),
                Watch::Groups(after) => after(layer..layer + 1),
            };
            encoder::run(model, image, arena, &mut observe, heads);
        })
    }
}
