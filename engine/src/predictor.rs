//! A model with everything that it needs to answer: kernels, packed weights, memory.

use crate::artifact::Model;
use crate::error::RunError;
use crate::inference::{Answer, Workspace};
#[cfg(feature = "std")]
use crate::kernel::team::Team;
use crate::prepared::Prepared;
use crate::watch::Watch;
use alloc::{vec, vec::Vec};

/// The memory of one inference at a time, of the sizes that a model states.
#[derive(Debug)]
pub struct Memory {
    arena: Vec<i8>,
    floats: Vec<f32>,
    scratch: Vec<u8>,
    #[cfg(feature = "std")]
    team: Option<Team>,
}

impl Memory {
    /// Memory for inferences of `prepared`.
    pub fn new(prepared: &Prepared) -> Self {
        let model = prepared.model();
        Self {
            arena: vec![0; model.header().arena_bytes as usize],
            floats: vec![0.0; model.float_len()],
            scratch: vec![0; prepared.scratch_len()],
            #[cfg(feature = "std")]
            team: None,
        }
    }

    /// The same, for inferences that a team shares.
    #[cfg(feature = "std")]
    pub fn with_team(prepared: &Prepared, team: Team) -> Self {
        let scratch = vec![0; prepared.scratch_len_of(team.members())];
        Self { scratch, team: Some(team), ..Self::new(prepared) }
    }

    /// [`Prepared::classify`] in this memory.
    ///
    /// # Errors
    /// If the image has the wrong size, or the memory was made for another model.
    pub fn classify(&mut self, prepared: &Prepared, image: &[u8], watch: Watch) -> Result<Answer<'_>, RunError> {
        let workspace = Workspace { arena: &mut self.arena, floats: &mut self.floats };
        #[cfg(feature = "std")]
        let team = self.team.as_mut();
        #[cfg(not(feature = "std"))]
        let team = None;
        prepared.run(image, workspace, &mut self.scratch, watch, team)
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
#[derive(Debug)]
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

    /// The same on so many threads, the caller's among them.
    #[cfg(feature = "std")]
    #[must_use]
    pub fn on_threads(self, threads: usize) -> Self {
        Self { memory: Memory::with_team(&self.prepared, Team::new(threads)), ..self }
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
