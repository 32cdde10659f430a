//! A model made ready for the CPU at hand: kernels chosen once by what it can do, weights packed once in their order.
//!
//! The answers are those of [`classify`](crate::classify), bit for bit.

use crate::artifact::Model;
use crate::encoder;
use crate::error::RunError;
use crate::inference::{self, Answer, Workspace};
#[cfg(all(feature = "std", target_arch = "x86_64"))]
use crate::kernel::isa::Isa;
#[cfg(all(feature = "std", target_arch = "x86_64"))]
use crate::tiled::{Memory, Tiled};

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
            return tiled.kernels();
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

    /// [`classify`](crate::classify) with these kernels. Who observes has every layer written out on its own; otherwise
    /// what follows a linear map happens in its registers.
    ///
    /// # Errors
    /// If the image, the arena, the float workspace or the scratch memory has the wrong size.
    pub fn classify<'w>(
        &self,
        image: &[u8],
        memory: &'w mut Workspace<'_>,
        scratch: &mut [u8],
        observe: Option<&mut dyn FnMut(usize, &[i8])>,
    ) -> Result<Answer<'w>, RunError> {
        let need = self.scratch_len();
        if scratch.len() < need {
            return Err(RunError::Scratch { need, got: scratch.len() });
        }
        let model = &self.model;
        inference::run(model, image, memory, |arena, heads| {
            #[cfg(all(feature = "std", target_arch = "x86_64"))]
            if let Some(tiled) = &self.tiled {
                return tiled.run(model, image, Memory { scratch, arena }, observe, heads);
            }
            encoder::run(model, image, arena, observe.unwrap_or(&mut |_, _| {}), heads);
        })
    }
}
