//! What hostile files may do to the engine: nothing. [`judge`] takes any bytes as a model's or a self-test's file, seals
//! them, so that the hash does not keep all of them out, and runs what parses.
#![deny(missing_docs)]

use paradise_engine::container::{ALIGN, BLOB, MAX_SECTIONS, PREFIX, open, reseal};
use paradise_engine::golden::{self, Golden};
use paradise_engine::lowered::{self, Layout, Memory, lower};
use paradise_engine::{FormatError, Lowered, Model, Prepared, Watch, Workspace, artifact};

/// Most multiply-accumulates, arena bytes and scratch bytes of a model that is run: more of the same finds nothing.
const MAX_MACS: u64 = 1 << 22;
const MAX_BYTES: usize = 8 << 20;

/// What became of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Refused, with this error.
    Refused(FormatError),
    /// A valid file that is not run: too large.
    Large,
    /// A valid model, run by every set of kernels to the same bits, or a valid self-test, read.
    Harmless,
}

/// SplitMix64: a repeatable sequence of positions and values.
#[derive(Debug, Clone)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The next value.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next value below `n`.
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next_u64() % n as u64) as usize
    }
}

/// An input of [`judge`] from a sealed model, self-test or lowered model: its kind, and the file behind its magic.
///
/// # Errors
/// If the file is none of them.
pub fn input(file: &[u8]) -> Result<Vec<u8>, FormatError> {
    let kind = match file.get(..MAGIC) {
        Some(magic) if magic == lowered::MAGIC => {
            open(file, lowered::MAGIC, lowered::VERSION, lowered::KNOWN)?;
            2
        }
        Some(magic) if magic == golden::MAGIC => {
            open(file, golden::MAGIC, golden::VERSION, golden::KNOWN)?;
            1
        }
        _ => open(file, artifact::MAGIC, artifact::VERSION, artifact::KNOWN).map(|_| 0)?,
    };
    Ok([&[kind], &file[MAGIC..]].concat())
}

/// Bytes of a file's magic, which the kind stands for.
const MAGIC: usize = 8;

/// How many bytes of an input stand before the tensors; all of them where its table names none.
pub fn description(data: &[u8]) -> usize {
    let entries = data.get(1 + PREFIX - MAGIC..).unwrap_or(&[]).chunks_exact(16);
    let blob = entries.take(MAX_SECTIONS).find(|entry| entry[..4] == BLOB);
    let from = blob.map_or(usize::MAX, |e| u32::from_le_bytes([e[8], e[9], e[10], e[11]]) as usize);
    (1 + from.saturating_sub(MAGIC)).min(data.len())
}

/// Parses `kind (0: model, 1: self-test, 2: lowered model, modulo 3), file behind its magic` and runs what is valid. Version, length and hash are
/// made good first, so that they do not keep everything out.
///
/// # Panics
/// If anything in the engine does, or two sets of kernels differ.
pub fn judge(data: &[u8]) -> Verdict {
    let Some((&kind, rest)) = data.split_first() else {
        return Verdict::Refused(FormatError::Truncated { need: 1, got: 0 });
    };
    let (magic, version) = match kind % 3 {
        0 => (artifact::MAGIC, artifact::VERSION),
        1 => (golden::MAGIC, golden::VERSION),
        _ => (lowered::MAGIC, lowered::VERSION),
    };
    let mut file = [&magic[..], rest].concat();
    file.resize(file.len().max(PREFIX).next_multiple_of(ALIGN), 0);
    let length = file.len() as u64;
    file[8..12].copy_from_slice(&version.to_le_bytes());
    file[16..24].copy_from_slice(&length.to_le_bytes());
    reseal(&mut file);
    let verdict = match kind % 3 {
        0 => Model::parse(&file).map(|model| run(&model)),
        1 => return self_test(&file),
        _ => Lowered::parse(&file).map(|lowered| match is_large(lowered.model(), 4 * lowered.scratch_len()) {
            true => Verdict::Large,
            false => {
                bits(&lowered);
                Verdict::Harmless
            }
        }),
    };
    verdict.unwrap_or_else(Verdict::Refused)
}

/// Whether a model is more than is run, with so many bytes of scratch memory.
fn is_large(model: &Model, scratch: usize) -> bool {
    let header = model.header();
    header.total_work() > MAX_MACS || header.arena_bytes as usize > MAX_BYTES || scratch > MAX_BYTES
}

/// The image that every model is given.
fn image(model: &Model) -> Vec<u8> {
    (0..model.header().input.len()).map(|i| (i * 89 % 256) as u8).collect()
}

/// The bits of an answer; all NaN are the same.
fn bits_of(numbers: impl Iterator<Item = f32>) -> Vec<u32> {
    numbers.map(|v| if v.is_nan() { u32::MAX } else { v.to_bits() }).collect()
}

/// Runs a lowered model.
fn bits(lowered: &Lowered) -> Vec<u32> {
    let model = lowered.model();
    let (mut arena, mut scratch) = (vec![0; model.header().arena_bytes as usize], vec![0; lowered.scratch_len()]);
    let mut memory = Memory { arena: &mut arena, scratch: &mut scratch };
    let answer = lowered.classify(&image(model), &mut memory, &mut |_, _| {});
    let answer = answer.unwrap_or_else(|error| panic!("a valid lowered model does not run: {error}"));
    assert!(answer.class < model.header().classes as usize, "class {}", answer.class);
    bits_of(answer.numbers())
}

fn self_test(bytes: &[u8]) -> Verdict {
    let golden = match Golden::parse(bytes) {
        Ok(golden) => golden,
        Err(error) => return Verdict::Refused(error),
    };
    for case in golden.header().cases.iter() {
        std::hint::black_box((golden.bytes(case.image).len(), golden.u32s(case.crc).len()));
        std::hint::black_box(golden.f32s(case.int8_outputs).iter().sum::<f32>());
    }
    for picture in golden.header().encoded.iter() {
        std::hint::black_box(golden.bytes(picture.file).len());
    }
    Verdict::Harmless
}

fn run(model: &Model) -> Verdict {
    let header = model.header();
    if is_large(model, 0) {
        return Verdict::Large;
    }
    let image = image(model);
    let (mut arena, mut floats) = (vec![0; header.arena_bytes as usize], vec![0.0; model.float_len()]);
    let mut answers: Vec<(Vec<Vec<i8>>, Vec<u32>)> = Vec::new();
    for prepared in Prepared::every(model) {
        if prepared.scratch_len() > MAX_BYTES {
            return Verdict::Large;
        }
        let mut scratch = vec![0; prepared.scratch_len()];
        for in_one_go in [false, true] {
            let mut layers = Vec::new();
            let mut keep = |_: usize, output: &[i8]| layers.push(output.to_vec());
            let watch = if in_one_go { Watch::Nobody } else { Watch::Layers(&mut keep) };
            let mut memory = Workspace { arena: &mut arena, floats: &mut floats };
            let answer = prepared.classify(&image, &mut memory, &mut scratch, watch);
            let a = answer.unwrap_or_else(|error| panic!("a valid model does not run: {error}"));
            assert!(a.class < header.classes as usize, "class {}", a.class);
            let bits = bits_of(a.numbers());
            if in_one_go {
                layers = answers[0].0.clone();
            }
            answers.push((layers, bits));
            assert!(answers.last() == answers.first(), "{} differs, in one go: {in_one_go}", prepared.kernels());
        }
    }
    for layout in Layout::ALL {
        let file = lower(model, layout).unwrap_or_else(|error| panic!("a valid model is not lowered: {error}"));
        let lowered = Lowered::parse(&file).unwrap_or_else(|error| panic!("a lowered model is not valid: {error}"));
        if is_large(lowered.model(), 4 * lowered.scratch_len()) {
            return Verdict::Large;
        }
        assert!(bits(&lowered) == answers[0].1, "lowered for {} differs", layout.name());
    }
    Verdict::Harmless
}
