//! `selftest.bin`: golden images with every operation's checksum, and labelled clean, noisy and adversarial probes.

use crate::answer;
use crate::answer::int8;
use crate::dataset::{Dataset, Splits};
use crate::encoder::{Encoder, values};
use crate::random::{self, Purpose};
use anyhow::{Context, Result};
use heapless::Vec as Bounded;
use paradise_engine::container::Blob;
use paradise_engine::golden::{self, Case, Golden, Header, ProbeKind, Probes};
use paradise_engine::{Model, Workspace, classify};

/// Test images among the golden ones; an all-black and an all-white image follow.
const GOLDEN_IMAGES: usize = 6;
/// Images in each probe set.
const PROBE_IMAGES: usize = 64;
/// Standard deviation of the noisy probes, in 1/255.
const NOISE_PIXELS: f32 = 16.0;
/// What a float back end must meet.
const FLOAT_TOLERANCE: f32 = 1e-4;

/// The bytes of `selftest.bin`. `adversarial` are the first test images under the card's attack of radius `eps`, on
/// the 8-bit grid.
///
/// # Errors
/// If the images do not fit the model or the file would not parse.
pub(super) fn build(
    encoder: &Encoder,
    model: &Model,
    splits: &Splits,
    adversarial: &Dataset,
    eps: f32,
    seed: u64,
) -> Result<Vec<u8>> {
    let mut blob = Blob::default();
    let mut header = Header {
        model: model.hash(),
        layers: model.header().layers.len() as u16,
        image_bytes: u32::try_from(splits.test.shape.len())?,
        outputs: 2 * model.header().latent + model.header().classes,
        float_tolerance: FLOAT_TOLERANCE,
        cases: Bounded::new(),
        probes: Bounded::new(),
    };
    let each = splits.test.shape.len() as usize;
    let mut images: Vec<Vec<u8>> =
        (0..GOLDEN_IMAGES).map(|i| splits.test.head(GOLDEN_IMAGES).image(i).to_vec()).collect();
    images.extend([vec![0; each], vec![255; each]]);
    for image in &images {
        let case = case(encoder, model, splits, image, &mut blob)?;
        header.cases.push(case).ok().context("too many golden images")?;
    }
    let clean = splits.test.head(PROBE_IMAGES);
    let noisy = noisy(&clean, seed);
    let adversarial = adversarial.select(&(0..PROBE_IMAGES.min(adversarial.len())).collect::<Vec<_>>());
    let sets = [
        (ProbeKind::Clean, 0.0, &clean),
        (ProbeKind::Noisy, NOISE_PIXELS, &noisy),
        (ProbeKind::Adversarial, eps * 255.0, &adversarial),
    ];
    for (kind, eps_pixels, set) in sets {
        let float = answer::predictions(encoder, set)?.correct_share().correct;
        let int8 = int8::predictions(model, set)?.correct_share().correct;
        let probes = Probes {
            kind,
            eps_pixels,
            n: set.len() as u16,
            images: blob.bytes(&set.images),
            labels: blob.u32s(&set.labels.iter().map(|&l| u32::from(l)).collect::<Vec<_>>()),
            // Either back end's own count, less one image that a rounding difference may turn.
            min_correct: float.min(int8).saturating_sub(1) as u16,
        };
        header.probes.push(probes).ok().context("too many probe sets")?;
    }
    let bytes = golden::emit(&header, &blob)?;
    Golden::parse(&bytes).context("the exported self-test is not valid")?;
    Ok(bytes)
}

fn noisy(clean: &Dataset, seed: u64) -> Dataset {
    let each = clean.shape.len() as usize;
    let images = clean.images.chunks_exact(each).enumerate().flat_map(|(i, image)| {
        let mut rng = random::stream(seed, Purpose::Noise, 0, i as u64, 0);
        image
            .iter()
            .map(|&p| (f32::from(p) + NOISE_PIXELS * random::normal(&mut rng)).round().clamp(0.0, 255.0) as u8)
            .collect::<Vec<_>>()
    });
    Dataset { shape: clean.shape, images: images.collect(), labels: clean.labels.clone() }
}

fn case(encoder: &Encoder, model: &Model, splits: &Splits, image: &[u8], blob: &mut Blob) -> Result<Case> {
    let mut arena = vec![0; model.header().arena_bytes as usize];
    let mut floats = vec![0.0; model.float_len()];
    let mut crc = Vec::new();
    let mut memory = Workspace { arena: &mut arena, floats: &mut floats };
    let answer = classify(model, image, &mut memory, &mut |_, output| crc.push(golden::crc32(output)))?;
    let int8_outputs = [answer.mu, answer.log_sigma, answer.logits].concat();
    let one = Dataset::new(splits.test.shape, image.to_vec(), vec![0])?;
    let encoding = encoder.encode(&one.batch(&[0])?)?;
    let logits = values(&encoder.classify(&encoding.mu)?)?;
    let float_outputs = [values(&encoding.mu)?, values(&encoding.log_sigma)?, logits].concat();
    Ok(Case {
        image: blob.bytes(image),
        crc: blob.u32s(&crc),
        int8_outputs: blob.f32s(&int8_outputs),
        float_outputs: blob.f32s(&float_outputs),
        rate_nats: answer.rate_nats,
        class: answer.class as u16,
        accept: answer.decision.is_accept(),
    })
}
