//! Foreign pictures, made of a site's own: those that stray among them are told by their likeness to these, and no site may make
//! acceptable what the maker's thresholds abstain from.

use super::observations::Seen;
use crate::pipeline::{Backend, BackendError};

/// Pictures of which foreign ones are made, at most.
pub(super) const SOURCES: usize = 200;

/// Makes a picture of a given one and its channels.
type Make = fn(&mut fastrand::Rng, &[u8], usize) -> Vec<u8>;

/// Every kind, an image for each source.
const KINDS: [(&str, Make); 5] = [
    ("uniform noise", |rng, input, _| input.iter().map(|_| rng.u8(..)).collect()),
    ("grey noise", |rng, input, _| {
        // Four of them are near a Gaussian of mean 1/2 and deviation 1/7.
        let mut around = || (0..4).map(|_| u16::from(rng.u8(..))).sum::<u16>() / 4;
        input.iter().map(|_| around() as u8).collect()
    }),
    ("shuffled pixels", |rng, input, _| {
        let mut shuffled = input.to_vec();
        rng.shuffle(&mut shuffled);
        shuffled
    }),
    ("one flat colour", |rng, input, channels| {
        let colour: Vec<u8> = (0..channels).map(|_| rng.u8(..)).collect();
        colour.repeat(input.len() / channels)
    }),
    ("inverted", |_, input, _| input.iter().map(|p| 255 - p).collect()),
];

/// Pictures of each kind, as the model sees them.
pub(super) type Made = [(&'static str, Vec<Seen>)];

/// What the model says of each kind.
pub(super) fn seen(
    backend: &mut dyn Backend,
    sources: &[Vec<u8>],
) -> Result<Vec<(&'static str, Vec<Seen>)>, BackendError> {
    let mut channels = 1;
    backend.with_model(&mut |model| channels = model.header().input.c as usize);
    // The same pictures in every run: a report can be made again.
    let mut rng = fastrand::Rng::with_seed(0);
    KINDS
        .iter()
        .map(|(kind, make)| {
            let all = sources.iter().map(|input| Seen::of(backend, kind, &make(&mut rng, input, channels), None));
            Ok((*kind, all.collect::<Result<_, _>>()?))
        })
        .collect()
}
