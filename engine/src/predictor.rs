//! A model with everything that it needs to answer: kernels, packed weights, memory.

use crate::artifact::Model;
use crate::error::RunError;
use crate::inference::{Answer, Workspace};
use crate::prepared::Prepared;
use crate::watch::Watch;
use alloc::{vec, vec::Vec};

/// The memory of one inference at a time, of the sizes that a model states.
#[derive(Debug, Clone)]
pub struct Memory {
    arena: Vec<i8>,
    floats: Vec<f32>,
    scratch: Vec<u8>,
}

impl Memory {
    /// Memory for inferences of `prepared`.
    pub fn new(prepared: &Prepared) -> Self {
        let model = prepared.model();
        Self {
            arena: vec![0; model.header().arena_bytes as usize],
            floats: vec![0.0; model.float_len()],
            scratch: vec![0; prepared.scratch_len()],
        }
    }

    /// [`Prepared::classify`] in this memory.
    ///
    /// # Errors
    /// If the image has the wrong size, or the memory was made for another model.
    pub fn classify(&mut self, prepared: &Prepared, image: &[u8], watch: Watch) -> Result<Answer<'_>, RunError> {
        let Self { arena, floats, scratch } = self;
        let workspace = Workspace { arena, floats };
        prepared.run(image, workspace, scratch, watch)
    }
}

/// A model that answers: the fastest kernels of this CPU, and memory of its own. One a thread.
///
/// ```
/// use paradise_engine::{Model, Predictor};
///
/// let bytes = include_bytes!("../../models/fashion-mnist-small/model.pmq");
/// let model = Model::parse(bytes)?;
/// let mut predictor = Predictor::new(&model);
/// let answer = predictor.classify(&[0; 28 * 28]).unwrap();
/// println!("{}: {}", model.label(answer.class), answer.decision);
/// assert!(!answer.decision.is_accept(), "nothing is no garment");
/// # Ok::<(), paradise_engine::FormatError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Predictor<'m> {
    prepared: Prepared<'m>,
    memory: Memory,
}

impl<'m> Predictor<'m> {
    /// A model with the fastest kernels of this CPU.
    pub fn new(model: &Model<'m>) -> Self {
        Self::over(Prepared::new(model))
    }

    /// A model whose kernels were chosen already.
    pub fn over(prepared: Prepared<'m>) -> Self {
        Self { memory: Memory::new(&prepared), prepared }
    }

    /// The model.
    pub fn model(&self) -> &Model<'m> {
        self.prepared.model()
    }

    /// The answer to a u8 image in HWC order, of the model's own extents.
    ///
    /// # Errors
    /// If the image has another number of bytes.
    pub fn classify(&mut self, image: &[u8]) -> Result<Answer<'_>, RunError> {
        self.memory.classify(&self.prepared, image, Watch::Nobody)
    }
}
