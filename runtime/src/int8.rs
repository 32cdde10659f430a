//! The int8 back end: the engine over a model kept in memory, with a guard behind its arena.

use crate::bundle::{Bundle, BundleError, MODEL};
use crate::pipeline::{Backend, BackendError, BackendKind};
use paradise_engine::{Answer, FormatError, Memory, Model, Prepared, Team, Watch, Workspace};
use self_cell::self_cell;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes behind the arena that no inference may touch.
const GUARD: usize = 64;
/// What they hold.
const CANARY: i8 = 0x5a;

self_cell!(
    struct Resident {
        owner: Vec<u8>,
        #[covariant]
        dependent: Prepared,
    }
);

/// A model in memory, which several may share, and the workspace of its inferences.
pub struct Int8 {
    resident: Arc<Resident>,
    arena: Vec<i8>,
    floats: Vec<f32>,
    scratch: Vec<u8>,
    team: Option<Team>,
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
        let bytes = bundle.file(MODEL)?.to_vec();
        Self::new(bytes).map_err(|e| BundleError::Format(bundle.path(MODEL), e))
    }

    /// A model from its bytes.
    ///
    /// # Errors
    /// If they are not a valid model.
    pub fn new(bytes: Vec<u8>) -> Result<Self, FormatError> {
        let resident = Resident::try_new(bytes, |bytes| Model::parse(bytes).map(|model| Prepared::new(&model)))?;
        Ok(Self::over(Arc::new(resident)))
    }

    /// Another workspace over the same model in memory, for one thread.
    pub fn beside(&self) -> Self {
        Self::over(self.resident.clone())
    }

    /// The same model by the scalar kernels, which define every bit, in memory of its own.
    pub fn scalar(&self) -> Self {
        self.over_bytes(self.resident.borrow_owner().clone(), usize::MAX)
    }

    /// The model's memory, as it is now, in slices.
    pub fn slices(&self) -> Slices {
        let prepared = self.prepared();
        let sums = (0..prepared.slices()).map(|i| prepared.slice_sum(i)).collect();
        Slices { resident: self.resident.clone(), sums }
    }

    fn over(resident: Arc<Resident>) -> Self {
        let prepared = resident.borrow_dependent();
        let model = prepared.model();
        let mut arena = vec![0; model.header().arena_bytes as usize];
        arena.resize(arena.len() + GUARD, CANARY);
        let (floats, scratch) = (vec![0.0; model.float_len()], vec![0; prepared.scratch_len()]);
        Self { resident, arena, floats, scratch, team: None }
    }

    /// The same, whose inferences a team shares: the same bits. A small network stays on the caller's thread.
    #[must_use]
    pub fn with_team(self, team: Team) -> Self {
        let scratch = vec![0; self.prepared().scratch_len_of(team.members())];
        Self { scratch, team: Some(team), ..self }
    }

    /// The model.
    pub fn model(&self) -> &Model<'_> {
        self.resident.borrow_dependent().model()
    }

    /// The model with its kernels.
    pub fn prepared(&self) -> &Prepared<'_> {
        self.resident.borrow_dependent()
    }

    /// The kernels in use.
    pub fn kernels(&self) -> &'static str {
        self.resident.borrow_dependent().kernels()
    }

    /// Whether the model's bytes and their packed copy are as they were loaded.
    pub fn is_intact(&self) -> bool {
        self.resident.borrow_dependent().is_intact()
    }

    /// Bytes of the model in memory.
    pub fn size(&self) -> usize {
        self.resident.borrow_owner().len()
    }

    /// Whether the bytes behind the arena are untouched.
    pub fn guard_holds(&self) -> bool {
        self.arena[self.arena.len() - GUARD..].iter().all(|&b| b == CANARY)
    }

    /// Bits of the resident tensors.
    pub fn weight_bits(&self) -> usize {
        8 * self.model().tensors().len()
    }

    /// The same model with bit `bit` of its resident tensors flipped after loading, for proving that checks can
    /// fail. Counts from the first weight; wraps past the last.
    pub fn with_flipped_bit(&self, bit: usize) -> Self {
        let mut bytes = self.resident.borrow_owner().clone();
        let blob = self.model().blob_offset();
        let at = bit % self.weight_bits();
        bytes[blob + at / 8] ^= 1 << (at % 8);
        self.over_bytes(bytes, 0)
    }

    /// The same model with each set of kernels that this CPU has, the fastest first, the scalar ones, which define every
    /// bit, last.
    pub fn with_every_kernel(&self) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        loop {
            let next = self.over_bytes(self.resident.borrow_owner().clone(), all.len());
            let last = next.kernels() == "scalar";
            all.push(next);
            if last {
                return all;
            }
        }
    }

    /// Answers many inputs on `threads` threads, each with memory of its own; `read(i, model, answer)` is called on the
    /// thread that answered input `i`, in no order. The bits are those of one at a time.
    ///
    /// # Errors
    /// If an input has the wrong length; others may have been read.
    pub fn answer_all(
        &self,
        inputs: &[&[u8]],
        threads: usize,
        read: &(dyn Fn(usize, &Model, &Answer) + Sync),
    ) -> Result<(), BackendError> {
        let prepared = self.resident.borrow_dependent();
        let model = prepared.model();
        let next = AtomicUsize::new(0);
        let work = || {
            let mut memory = Memory::new(prepared);
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                let Some(input) = inputs.get(i) else { return Ok(()) };
                let answer = memory.classify(prepared, input, Watch::Nobody);
                read(i, model, &answer.map_err(BackendError::Run)?);
            }
        };
        std::thread::scope(|scope| {
            // The caller's thread is one of them.
            let others: Vec<_> = (1..threads.max(1)).map(|_| scope.spawn(work)).collect();
            let own = work();
            let joined = others.into_iter().map(|t| t.join().unwrap_or_else(|p| std::panic::resume_unwind(p)));
            joined.fold(own, |outcome, other| outcome.and(other))
        })
    }

    /// The model over other bytes of its length.
    fn over_bytes(&self, bytes: Vec<u8>, kernels: usize) -> Self {
        let model = self.model();
        let resident = Resident::new(bytes, |bytes| {
            let copy = model.over_faulty_bytes(bytes);
            let copy = copy.unwrap_or_else(|| unreachable!("a copy has the original's length"));
            Prepared::nth(&copy, kernels)
        });
        Self::over(Arc::new(resident))
    }

    /// The same model in memory where a fault came after loading: these bits of its bytes' tensors, and of its packed copy, are
    /// flipped. Both count from the first and wrap past the last.
    pub fn with_fault(&self, in_bytes: Option<usize>, in_packed: Option<usize>) -> Self {
        let mut bytes = self.resident.borrow_owner().clone();
        if let Some(bit) = in_bytes {
            let at = bit % self.weight_bits();
            bytes[self.model().blob_offset() + at / 8] ^= 1 << (at % 8);
        }
        let resident = Resident::new(bytes, |bytes| {
            let copy = self.prepared().over_faulty_bytes(bytes);
            let copy = copy.unwrap_or_else(|| unreachable!("a copy has the original's length"));
            in_packed.map_or(copy.clone(), |bit| copy.with_flipped_packed_bit(bit))
        });
        Self::over(Arc::new(resident))
    }

    /// Runs one input; `observe(layer, output)` sees every int8 output. The answer is [`Backend::answer`]'s, which is faster.
    ///
    /// # Errors
    /// If the input has the wrong length.
    pub fn observe(
        &mut self,
        input: &[u8],
        observe: &mut dyn FnMut(usize, &[i8]),
        read: &mut dyn FnMut(&Model, &Answer),
    ) -> Result<(), BackendError> {
        self.run(input, Watch::Layers(observe), read)
    }

    /// Runs one input as [`Watch`] says.
    ///
    /// # Errors
    /// If the input has the wrong length.
    pub fn run(
        &mut self,
        input: &[u8],
        watch: Watch,
        read: &mut dyn FnMut(&Model, &Answer),
    ) -> Result<(), BackendError> {
        let prepared = self.resident.borrow_dependent();
        let end = self.arena.len() - GUARD;
        let mut memory = Workspace { arena: &mut self.arena[..end], floats: &mut self.floats };
        let answer = match &mut self.team {
            Some(team) => prepared.classify_together(input, &mut memory, &mut self.scratch, watch, team),
            None => prepared.classify(input, &mut memory, &mut self.scratch, watch),
        };
        read(prepared.model(), &answer.map_err(BackendError::Run)?);
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

    /// Every group of layers leaves its token: an inference that left one out, or ran one out of turn, is no answer.
    fn answer(&mut self, input: &[u8], read: &mut dyn FnMut(&Model, &Answer)) -> Result<(), BackendError> {
        let (layers, mut tokens) = (self.model().header().layers.len(), Tokens::default());
        self.run(input, Watch::Groups(&mut |group| tokens.add(group)), read)?;
        if tokens.are_of(layers) {
            return Ok(());
        }
        Err(BackendError::Fault("layers were left out, or ran out of turn".into()))
    }
}

/// What layers leave as they run.
#[derive(Debug, Default)]
struct Tokens {
    next: usize,
    out_of_turn: bool,
}

impl Tokens {
    fn add(&mut self, group: Range<usize>) {
        self.out_of_turn |= group.start != self.next;
        self.next = group.end;
    }

    fn are_of(&self, layers: usize) -> bool {
        !self.out_of_turn && self.next == layers
    }
}

/// A model's memory in slices, each with what it summed to when these were taken.
#[derive(Clone)]
pub struct Slices {
    resident: Arc<Resident>,
    sums: Vec<u32>,
}

impl Slices {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.sums.len()
    }

    /// Whether there are none; there always are.
    pub fn is_empty(&self) -> bool {
        self.sums.is_empty()
    }

    /// Whether every slice is what another model has in memory.
    pub fn are_of(&self, other: &Int8) -> bool {
        let now = Self { resident: other.resident.clone(), sums: self.sums.clone() };
        now.len() == other.prepared().slices() && (0..now.len()).all(|slice| now.holds(slice))
    }

    /// Whether a slice is as it was: in well under a millisecond.
    pub fn holds(&self, slice: usize) -> bool {
        self.sums.get(slice).is_some_and(|sum| self.resident.borrow_dependent().slice_sum(slice) == *sum)
    }
}

impl std::fmt::Debug for Slices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slices").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn many_threads_give_the_bits_of_one() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/fashion-mnist-small/model.pmq");
        let mut int8 = Int8::new(std::fs::read(path).unwrap()).unwrap();
        let images: Vec<Vec<u8>> =
            (0..100).map(|k| (0..784usize).map(|i| (i * k * 31 % 256) as u8).collect()).collect();
        let inputs: Vec<&[u8]> = images.iter().map(Vec::as_slice).collect();
        let bits = |a: &Answer| a.mu.iter().chain([&a.rate_nats]).map(|v| v.to_bits()).collect::<Vec<u32>>();
        let mut one = Vec::new();
        for input in &inputs {
            int8.answer(input, &mut |_, a| one.push(bits(a))).unwrap();
        }
        for threads in [0, 1, 2, 7] {
            let all = Mutex::new(vec![Vec::new(); inputs.len()]);
            int8.answer_all(&inputs, threads, &|i, _, a| all.lock().unwrap()[i] = bits(a)).unwrap();
            assert!(all.into_inner().unwrap() == one, "{threads} threads");
        }
        assert!(int8.answer_all(&[&[0; 3]], 2, &|_, _, _| {}).is_err());
    }

    #[test]
    fn a_layer_that_left_no_token_is_missed() {
        let left = |groups: &[Range<usize>]| {
            let mut tokens = Tokens::default();
            groups.iter().for_each(|group| tokens.add(group.clone()));
            tokens.are_of(5)
        };
        assert!(left(&[0..0, 0..2, 2..3, 3..5]));
        for wrong in [&[0..0, 0..2, 3..5][..], &[0..2, 2..3], &[2..3, 0..2, 3..5], &[0..2, 2..5, 2..5], &[]] {
            assert!(!left(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn a_bit_anywhere_in_a_models_memory_shows_in_its_slice() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/fashion-mnist-small/model.pmq");
        let int8 = Int8::new(std::fs::read(path).unwrap()).unwrap();
        let slices = int8.slices();
        assert!((0..slices.len()).all(|i| slices.holds(i)) && !slices.holds(slices.len()) && !slices.is_empty());
        let missed = |faulty: &Int8| slices.are_of(faulty);
        assert!(missed(&int8.beside()));
        let mut rng = fastrand::Rng::with_seed(5);
        for _ in 0..200 {
            let bit = rng.usize(..1 << 40);
            assert!(!missed(&int8.with_fault(Some(bit), None)), "bit {bit} of the bytes");
            assert!(int8.kernels() == "scalar" || !missed(&int8.with_fault(None, Some(bit))), "bit {bit}, packed");
        }
        assert!(!missed(&int8.scalar()), "other kernels");
    }
}
