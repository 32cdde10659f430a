//! `selftest.bin`: golden images with every operation's checksum, golden pictures as files, and labelled clean, noisy and
//! adversarial probes.

use super::encoded::encoded;
use super::synthesised::synthesised;
use super::{Bundled, CardSettings};
use crate::encoder::batch;
use crate::encoder::{Encoder, values};
use anyhow::{Context, Result, ensure};
use paradise_attack::Ball;
use paradise_attack::Victim;
use paradise_data::Dataset;
use paradise_engine::container::{self, Blob};
use paradise_engine::golden::{self, About, Case, Draft, Encoded, Golden, Origin, ProbeKind, Probes};
use paradise_engine::selftest::trials::{Plan, Trials};
use paradise_engine::selftest::{Painter, Subject};
use paradise_engine::{Answer, Memory, Model, Prepared, RunError, Shape, Watch, Workspace, classify};
use paradise_evaluate::prediction;
use paradise_evaluate::prediction::int8;
use paradise_evaluate::robust;
use paradise_support::random::{self, Purpose};

/// Probes among the golden images; an all-black and an all-white image follow.
const GOLDEN_IMAGES: usize = 6;
/// Images in each probe set.
const PROBE_IMAGES: usize = 64;
/// Standard deviation of the noisy probes, in 1/255.
const NOISE_PIXELS: f32 = 16.0;
/// What a float back end must meet.
pub(crate) const FLOAT_TOLERANCE: f32 = 1e-4;

/// The bytes of `selftest.bin`, on the first images of `test` or, without it, on pictures that the network draws.
///
/// # Errors
/// If the images do not fit the model or the file would not parse.
pub(crate) fn build(
    bundled: &Bundled,
    test: Option<&Dataset>,
    settings: &CardSettings,
    seed: u64,
) -> Result<Vec<u8>> {
    let Bundled { encoder, model } = *bundled;
    let (origin, clean) = match test {
        Some(test) => (Origin::DataSet, test.head(PROBE_IMAGES)),
        None => (Origin::Synthesised, synthesised(bundled, PROBE_IMAGES, seed)?),
    };
    let mut blob = Blob::default();
    let about = About {
        model: model.hash(),
        layers: model.header().layers.len() as u16,
        image_bytes: u32::try_from(clean.shape.len())?,
        outputs: 2 * model.header().latent + model.header().classes,
        float_tolerance: FLOAT_TOLERANCE,
        origin,
    };
    let each = clean.shape.len() as usize;
    let mut images: Vec<Vec<u8>> = clean.images.chunks_exact(each).take(GOLDEN_IMAGES).map(<[u8]>::to_vec).collect();
    let pictures = encoded(model, &images.iter().map(Vec::as_slice).collect::<Vec<_>>(), &mut blob)?;
    images.extend([vec![0; each], vec![255; each]]);
    let cases = images.iter().map(|image| case(bundled, image, &mut blob)).collect::<Result<Vec<_>>>()?;
    let mut probes = Vec::new();
    let (attack, ball) = (settings.attack.strongest(), Ball::linf(settings.eps));
    let (_, outcome) = robust::measure(Victim::White(encoder), &clean, &[&attack], ball, seed)?;
    let sets = [
        (ProbeKind::Clean, 0.0, &clean),
        (ProbeKind::Noisy, NOISE_PIXELS, &noisy(&clean, seed)),
        (ProbeKind::Adversarial, settings.eps * 255.0, &outcome.on_grid(&clean)),
    ];
    for (kind, eps_pixels, set) in sets {
        let float = prediction::classify(encoder, set)?.correct_share().correct;
        let int8 = int8::classify(model, set)?.correct_share().correct;
        probes.push(Probes {
            kind,
            eps_pixels,
            n: set.len() as u16,
            images: blob.bytes(&set.images),
            labels: blob.u32s(&set.labels.iter().map(|&l| u32::from(l)).collect::<Vec<_>>()),
            // Either back end's own count, less one image that a rounding difference may turn.
            min_correct: float.min(int8).saturating_sub(1) as u16,
        });
    }
    let bytes = golden::emit(&Draft::new(about, &cases, &pictures, &probes), &blob);
    tried(model, &bytes).context("the exported self-test is not valid")
}

/// The same self-test with what an attack and noise find by the model, for devices to find again.
///
/// # Errors
/// If it is not valid, or not of the model.
pub(crate) fn tried(model: &Model, bytes: &[u8]) -> Result<Vec<u8>> {
    let golden = Golden::parse(bytes)?;
    ensure!(golden.header().model == model.hash(), "it is of another model");
    let prepared = Prepared::new(model);
    let mut device = Tried { prepared: &prepared, memory: Memory::new(&prepared) };
    let trials = Trials::of(&mut device, &golden, Plan::COMPUTER)?;
    Ok(golden::with_trials(bytes, &trials)?)
}

/// The model as it is attacked and disturbed; the fast kernels give every device's bits.
struct Tried<'p, 'm> {
    prepared: &'p Prepared<'m>,
    memory: Memory,
}

impl Subject for Tried<'_, '_> {
    type Error = RunError;

    fn is_exact(&self) -> bool {
        true
    }

    fn is_model(&self, hash: &[u8; 32]) -> bool {
        self.prepared.model().hash() == *hash
    }

    fn shape(&self) -> Shape {
        self.prepared.model().header().input
    }

    fn answer(
        &mut self,
        image: &[u8],
        _: &mut dyn FnMut(usize, &[i8]),
        read: &mut dyn FnMut(&Answer),
    ) -> Result<usize, RunError> {
        read(&self.memory.classify(self.prepared, image, Watch::Nobody)?);
        Ok(0)
    }
}

impl Painter for Tried<'_, '_> {}

/// A self-test of the same images for a model whose confidence alone is another.
///
/// # Errors
/// If the file is not valid, or an output that confidence plays no part in is not what it was.
pub(crate) fn renewed(model: &Model, bytes: &[u8]) -> Result<Vec<u8>> {
    let golden = Golden::parse(bytes)?;
    let header = golden.header();
    // The very tensors, in their places.
    let mut blob = Blob::default();
    blob.bytes(container::open(bytes, golden::MAGIC, golden::VERSION, golden::KNOWN)?.section(container::BLOB)?);
    let (mut arena, mut floats) = (vec![0; model.header().arena_bytes as usize], vec![0.0; model.float_len()]);
    let mut memory = Workspace { arena: &mut arena, floats: &mut floats };
    let mut cases = Vec::new();
    for case in header.cases.iter() {
        let answer = classify(model, golden.bytes(case.image), &mut memory, &mut |_, _| {})?;
        let outputs = [answer.mu, answer.log_sigma, answer.logits].concat();
        ensure!(golden.f32s(case.int8_outputs).iter().eq(outputs), "golden images are of another network");
        let (rate_nats, distances, accept) = (answer.rate_nats, answer.distances, answer.decision.is_accept());
        cases.push(Case { rate_nats, distances, accept, ..case });
    }
    let mut pictures = Vec::new();
    for picture in header.encoded.iter() {
        let input =
            paradise_picture::input(golden.bytes(picture.file), &model.header().policy, model.header().input)?;
        let answer = classify(model, &input, &mut memory, &mut |_, _| {})?;
        pictures.push(Encoded { rate_nats: answer.rate_nats, accept: answer.decision.is_accept(), ..picture });
    }
    let probes: Vec<Probes> = header.probes.iter().collect();
    let about = About { model: model.hash(), ..header.about() };
    let bytes = golden::emit(&Draft::new(about, &cases, &pictures, &probes), &blob);
    tried(model, &bytes).context("the renewed self-test is not valid")
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

fn case(bundled: &Bundled, image: &[u8], blob: &mut Blob) -> Result<Case> {
    let Bundled { encoder, model } = *bundled;
    let mut arena = vec![0; model.header().arena_bytes as usize];
    let mut floats = vec![0.0; model.float_len()];
    let mut crc = Vec::new();
    let mut memory = Workspace { arena: &mut arena, floats: &mut floats };
    let answer = classify(model, image, &mut memory, &mut |_, output| crc.push(golden::crc32(output)))?;
    let int8_outputs = [answer.mu, answer.log_sigma, answer.logits].concat();
    let float_outputs = float_outputs(encoder, image)?;
    Ok(Case {
        image: blob.bytes(image),
        crc: blob.u32s(&crc),
        int8_outputs: blob.f32s(&int8_outputs),
        float_outputs: blob.f32s(&float_outputs),
        rate_nats: answer.rate_nats,
        distances: answer.distances,
        class: answer.class as u16,
        accept: answer.decision.is_accept(),
    })
}

/// mu, log sigma and logits of one image, u8 `[h][w][c]`.
fn float_outputs(encoder: &Encoder, image: &[u8]) -> Result<Vec<f32>> {
    let one = Dataset::new(encoder.architecture.graph.input, image.to_vec(), vec![0])?;
    let encoding = encoder.encode(&batch(&one, &[0])?)?;
    let logits = values(&encoder.classify(&encoding.mu)?)?;
    Ok([values(&encoding.mu)?, values(&encoding.log_sigma)?, logits].concat())
}

/// How far `encoder` is from the float network whose outputs a `selftest.bin` holds, as [`Golden::float_gap`] has it.
///
/// # Errors
/// If the file is not valid, or of other images.
pub(crate) fn float_gap(encoder: &Encoder, bytes: &[u8]) -> Result<f32> {
    let golden = Golden::parse(bytes)?;
    let mut widest = 0.0f32;
    for case in golden.header().cases.iter() {
        widest = widest.max(golden.float_gap(&case, float_outputs(encoder, golden.bytes(case.image))?.into_iter()));
    }
    Ok(widest)
}
