//! What an inference needs, known while compiling: for programs that keep a model in flash and its memory in statics.

use crate::artifact::{HEADS, MAGIC, VERSION};
use crate::container::{ENTRY, PREFIX, u32_at};
use crate::header::float_len;

/// The memory of an inference.
///
/// ```
/// use paradise_engine::{Model, Sizes, Workspace, classify};
///
/// const MODEL: &[u8] = include_bytes!("../../models/fashion-mnist-small/model.pmq");
/// const SIZES: Sizes = Sizes::of(MODEL);
///
/// let model = Model::parse(MODEL)?;
/// let (mut arena, mut floats) = ([0i8; SIZES.arena], [0f32; SIZES.floats]);
/// let mut memory = Workspace { arena: &mut arena, floats: &mut floats };
/// let answer = classify(&model, &[0; 28 * 28], &mut memory, &mut |_, _| {}).unwrap();
/// assert_eq!(answer.probabilities.len(), 10);
/// # Ok::<(), paradise_engine::FormatError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of the int8 arena: [`Header::arena_bytes`](crate::Header::arena_bytes).
    pub arena: usize,
    /// f32 values of heads and probabilities: [`Model::float_len`](crate::Model::float_len).
    pub floats: usize,
}

impl Sizes {
    /// Of the bytes of a `model.pmq`. The file is not validated here: [`Model::parse`](crate::Model::parse) does that, on the
    /// device.
    ///
    /// # Panics
    /// If the bytes are no `model.pmq` of this version: where this is a constant, the program does not compile.
    pub const fn of(model: &[u8]) -> Self {
        assert!(model.len() >= PREFIX, "no model.pmq: too short");
        let mut i = 0;
        while i < MAGIC.len() {
            assert!(model[i] == MAGIC[i], "no model.pmq: another magic");
            i += 1;
        }
        assert!(u32_at(model, 8) == VERSION, "a model.pmq of another version: export it again");
        let (sections, mut section) = (u32_at(model, 12) as usize, 0);
        while section < sections {
            let at = PREFIX + ENTRY * section;
            assert!(at + ENTRY <= model.len(), "model.pmq ends early");
            let tag = [model[at], model[at + 1], model[at + 2], model[at + 3]];
            if u32::from_le_bytes(tag) == u32::from_le_bytes(HEADS) {
                let from = u32_at(model, at + 8) as usize;
                assert!(from + 8 <= model.len(), "model.pmq ends early");
                // As a `Heads` record begins: arena bytes, latent dimensions, classes.
                let arena = u32_at(model, from) as usize;
                let sizes = u32_at(model, from + 4);
                let (latent, classes) = ((sizes & 0xffff) as usize, (sizes >> 16) as usize);
                return Self { arena, floats: float_len(latent, classes) };
            }
            section += 1;
        }
        panic!("model.pmq has no heads")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Model;

    #[test]
    fn they_are_what_the_model_states() {
        let bytes = include_bytes!("../../models/fashion-mnist-resnet8-am/model.pmq");
        let model = Model::parse(bytes).unwrap();
        let want = Sizes { arena: model.header().arena_bytes as usize, floats: model.float_len() };
        assert_eq!(Sizes::of(bytes), want);
        for cut in [0, 40, 80, 100] {
            assert!(std::panic::catch_unwind(|| Sizes::of(&bytes[..cut])).is_err(), "{cut}");
        }
    }
}
