//! What an inference needs, known while compiling: for programs that keep a model in flash and its memory in statics.

use crate::artifact::{HEADS, MAGIC, VERSION};
use crate::container::{ENTRY, PREFIX, u32_at};
use crate::header::float_len;
use crate::lowered;

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
    /// Words of scratch memory of a lowered model, its floats among them: [`Lowered::scratch_len`](crate::Lowered::scratch_len);
    /// 0 of another.
    pub scratch: usize,
}

/// Whether a file begins with eight bytes.
const fn begins(file: &[u8], magic: &[u8; 8]) -> bool {
    let mut i = 0;
    while i < magic.len() {
        if file[i] != magic[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// The first byte of a section that holds at least eight.
const fn section(file: &[u8], tag: [u8; 4]) -> usize {
    let (sections, mut section) = (u32_at(file, 12) as usize, 0);
    while section < sections {
        let at = PREFIX + ENTRY * section;
        assert!(at + ENTRY <= file.len(), "the model ends early");
        let found = [file[at], file[at + 1], file[at + 2], file[at + 3]];
        if u32::from_le_bytes(found) == u32::from_le_bytes(tag) {
            let from = u32_at(file, at + 8) as usize;
            assert!(from + 8 <= file.len(), "the model ends early");
            return from;
        }
        section += 1;
    }
    panic!("the model lacks a section")
}

impl Sizes {
    /// Of the bytes of a `model.pmq` or a lowered model. The file is not validated here: [`Model::parse`](crate::Model::parse)
    /// or [`Lowered::parse`](crate::Lowered::parse) does that, on the device.
    ///
    /// # Panics
    /// If the bytes are none of this version: where this is a constant, the program does not compile.
    pub const fn of(model: &[u8]) -> Self {
        assert!(model.len() >= PREFIX, "no model: too short");
        let is_lowered = begins(model, lowered::MAGIC);
        assert!(is_lowered || begins(model, MAGIC), "no model: another magic");
        let version = if is_lowered { lowered::VERSION } else { VERSION };
        assert!(u32_at(model, 8) == version, "a model of another version: export it again");
        // As a `Heads` record begins: arena bytes, latent dimensions, classes.
        let heads = section(model, HEADS);
        let arena = u32_at(model, heads) as usize;
        let sizes = u32_at(model, heads + 4);
        let (latent, classes) = ((sizes & 0xffff) as usize, (sizes >> 16) as usize);
        let scratch = if is_lowered { u32_at(model, section(model, lowered::ABOUT)) as usize } else { 0 };
        Self { arena, floats: float_len(latent, classes), scratch }
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
        let want = Sizes { arena: model.header().arena_bytes as usize, floats: model.float_len(), scratch: 0 };
        assert_eq!(Sizes::of(bytes), want);
        #[cfg(feature = "alloc")]
        {
            let file = lowered::lower(&model, lowered::Layout::Dsp).unwrap();
            let model = lowered::Lowered::parse(&file).unwrap();
            let arena = model.model().header().arena_bytes as usize;
            let want = Sizes { arena, floats: model.model().float_len(), scratch: model.scratch_len() };
            assert_eq!(Sizes::of(&file), want);
        }
        for cut in [0, 40, 80, 100] {
            assert!(std::panic::catch_unwind(|| Sizes::of(&bytes[..cut])).is_err(), "{cut}");
        }
    }
}
