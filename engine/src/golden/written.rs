//! `selftest.bin` as it is written: whole, reduced for a chip, with what trials found.

use super::{ABOUT, BLOB, CASES, Case, Draft, ENCODED, Golden, KNOWN, MAGIC, PROBES, Probes, TRIALS, VERSION};
use crate::container::{self, Tag};
use crate::error::FormatError;
use crate::record::table;
use crate::selftest::trials::Trials;
use alloc::vec::Vec;

/// The bytes of a smaller `selftest.bin`, for a chip: at most so many golden images, and so many probes of each set. A set asks
/// for as many right ones as `is_right(image, label)` finds among those that are left, which a chip's equal bits give exactly.
/// Encoded pictures are left out.
pub fn reduced(
    golden: &Golden,
    [cases, probes]: [usize; 2],
    mut is_right: impl FnMut(&[u8], u32) -> bool,
) -> Vec<u8> {
    let (mut blob, header) = (container::Blob::default(), golden.header());
    let each = header.image_bytes as usize;
    let cases: Vec<Case> = header
        .cases
        .iter()
        .take(cases.max(1))
        .map(|case| {
            let [image, crc, int8_outputs, float_outputs] =
                [case.image, case.crc, case.int8_outputs, case.float_outputs].map(|s| blob.bytes(golden.bytes(s)));
            Case { image, crc, int8_outputs, float_outputs, ..case }
        })
        .collect();
    let sets: Vec<Probes> = header
        .probes
        .iter()
        .map(|set| {
            let n = usize::from(set.n).min(probes.max(1));
            let (images, labels) = (&golden.bytes(set.images)[..n * each], golden.u32s(set.labels).slice(0, n));
            let right = images.chunks_exact(each).zip(labels.iter()).filter(|(image, label)| is_right(image, *label));
            let min_correct = right.count() as u16;
            let (images, labels) = (blob.bytes(images), blob.bytes(labels.bytes()));
            Probes { images, labels, n: n as u16, min_correct, ..set }
        })
        .collect();
    emit(&Draft::new(header.about(), &cases, &[], &sets), &blob)
}

/// The bytes of `selftest.bin`. Does not validate: parse the result.
pub fn emit(draft: &Draft, blob: &container::Blob) -> Vec<u8> {
    let sections: [(Tag, &[u8]); 5] = [
        (ABOUT, &table(&[draft.about()])),
        (CASES, &table(draft.cases)),
        (PROBES, &table(draft.probes)),
        (ENCODED, &table(draft.encoded)),
        (BLOB, blob.collected()),
    ];
    container::seal(MAGIC, VERSION, &sections)
}

/// The bytes of a `selftest.bin` with what trials found, in the place of what an earlier one did.
///
/// # Errors
/// If the bytes are no self-test, or the trials are not of it.
pub fn with_trials(bytes: &[u8], trials: &Trials) -> Result<Vec<u8>, FormatError> {
    let found = table(&[*trials]);
    let sealed = container::open(bytes, MAGIC, VERSION, KNOWN)?;
    let mut sections: Vec<(Tag, &[u8])> = Vec::new();
    for tag in KNOWN {
        match (sealed.optional(*tag), *tag) {
            (_, TRIALS) => sections.push((TRIALS, &found)),
            (Some(section), tag) => sections.push((tag, section)),
            (None, _) => {}
        }
    }
    let written = container::seal(MAGIC, VERSION, &sections);
    Golden::parse(&written)?;
    Ok(written)
}
