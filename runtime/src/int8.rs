//! The int8 back end: the engine over a model kept in memory, with a guard behind its arena.

use crate::bundle::{Bundle, BundleError};
use crate::pipeline::{Backend, BackendError, BackendKind};
use paradise_engine::{Answer, FormatError, Model, Workspace, classify};
use self_cell::self_cell;

/// Bytes behind the arena that no inference may touch.
const GUARD: usize = 64;
/// What they hold.
const CANARY: i8 = 0x5a;

self_cell!(
    struct Resident {
        owner: Vec<u8>,
        #[covariant]
        dependent: Model,
    }
);

/// A model in memory and the workspace of its inferences.
pub struct Int8 {
    resident: Resident,
    arena: Vec<i8>,
    floats: Vec<f32>,
}

impl std::fmt::Debug for Int8 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Int8").field("model", &self.model().header().name).finish_non_exhaustive()
    }
}

impl Int8 {
    /// Loads `model.pmq` of a bundle.
    ///
    /// # Errors
    /// With the path, if the file is not a valid model.
    pub fn load(bundle: &Bundle) -> Result<Self, BundleError> {
        let bytes = bundle.file("model.pmq")?.to_vec();
        Self::new(bytes).map_err(|e| BundleError::Format(bundle.path("model.pmq"), e))
    }

    /// A model from its bytes.
    ///
    /// # Errors
    /// If they are not a valid model.
    pub fn new(bytes: Vec<u8>) -> Result<Self, FormatError> {
        Ok(Self::over(Resident::try_new(bytes, |bytes| Model::parse(bytes))?))
    }

    fn over(resident: Resident) -> Self {
        let model = resident.borrow_dependent();
        let mut arena = vec![0; model.header().arena_bytes as usize];
        arena.resize(arena.len() + GUARD, CANARY);
        let floats = vec![0.0; model.float_len()];
        Self { resident, arena, floats }
    }

    /// The model.
    pub fn model(&self) -> &Model<'_> {
        self.resident.borrow_dependent()
    }

    /// Bytes of the model in memory.
    pub fn size(&self) -> usize {
        self.resident.borrow_owner().len()
    }

    /// Whether the bytes behind the arena are untouched.
    pub fn guard_holds(&self) -> bool {
        self.arena[self.arena.len() - GUARD..].iter().all(|&b| b == CANARY)
    }

    /// The same model with bit `bit` of its resident tensors flipped after loading, for proving that checks can
    /// fail. Counts from the first weight; wraps past the last.
    pub fn with_flipped_bit(&self, bit: usize) -> Self {
        let model = self.model();
        let mut bytes = self.resident.borrow_owner().clone();
        let blob = model.blob_offset();
        let at = bit % (8 * (bytes.len() - blob));
        bytes[blob + at / 8] ^= 1 << (at % 8);
        let resident = Resident::new(bytes, |bytes| {
            model.over_faulty_bytes(bytes).unwrap_or_else(|| unreachable!("a copy has the original's length"))
        });
        Self::over(resident)
    }

    /// Runs one input; `observe(layer, output)` sees every int8 output.
    ///
    /// # Errors
    /// If the input has the wrong length.
    pub fn observe(
        &mut self,
        input: &[u8],
        observe: &mut dyn FnMut(usize, &[i8]),
        read: &mut dyn FnMut(&Model, &Answer),
    ) -> Result<(), BackendError> {
        let model = self.resident.borrow_dependent();
        let end = self.arena.len() - GUARD;
        let mut memory = Workspace { arena: &mut self.arena[..end], floats: &mut self.floats };
        let answer = classify(model, input, &mut memory, observe).map_err(BackendError::Run)?;
        read(model, &answer);
        Ok(())
    }
}

impl Backend for Int8 {
    fn kind(&self) -> BackendKind {
        BackendKind::Int8
    }

    fn with_model(&self, read: &mut dyn FnMut(&Model)) {
        read(self.model());
    }

    fn answer(&mut self, input: &[u8], read: &mut dyn FnMut(&Model, &Answer)) -> Result<(), BackendError> {
        self.observe(input, &mut |_, _| {}, read)
    }
}
