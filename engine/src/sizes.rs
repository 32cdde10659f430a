//! What an inference needs, known while compiling: for programs that keep a model in flash and its memory in statics.

use crate::artifact::{KNOWN, MAGIC, Model, VERSION};
use crate::container;
use crate::error::FormatError;
use crate::header::{Header, float_len};
use crate::lowered::Lowered;

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

impl Sizes {
    /// Of the bytes of a `model.pmq` or a lowered model. The file is not validated here: [`Model::parse`](crate::Model::parse)
    /// or [`Lowered::parse`](crate::Lowered::parse) does that.
    ///
    /// # Panics
    /// If the bytes are none of this version: where this is a constant, the program does not compile.
    pub const fn of(model: &[u8]) -> Self {
        match container::embedded(model, MAGIC, VERSION, KNOWN) {
            Ok(sealed) => match Model::view(sealed) {
                Ok(model) => Self::of_header(model.header(), 0),
                Err(_) => panic!("a model that lacks something"),
            },
            Err(FormatError::Magic) => {
                let lowered = Lowered::embedded(model);
                Self::of_header(lowered.model().header(), lowered.scratch_len())
            }
            Err(FormatError::Version { .. }) => panic!("a model of another version: export it again"),
            Err(_) => panic!("no model"),
        }
    }

    const fn of_header(header: &Header, scratch: usize) -> Self {
        let floats = float_len(header.latent as usize, header.classes as usize);
        Self { arena: header.arena_bytes as usize, floats, scratch }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(feature = "alloc")]
    use crate::lowered;

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
