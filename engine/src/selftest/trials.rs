//! What a maker finds by attacking images of the first set of probes and by disturbing them, for devices to find again: equal bits
//! are broken alike, and other draws of noise drift by as much.

use super::Painter;
use super::drift::{Drift, Reference};
use super::square::{MAX_QUERIES, Square};
use crate::error::FormatError;
use crate::golden::Golden;
use crate::record::{Fields, Record, Writer};
use crate::validate::ensure;

/// Seed of the attack: every machine draws the same.
pub const SEED: u32 = 0x5eed;

/// Radii in 1/255 of which the first is taken at which an image is broken: a count of none would hold for any device.
pub const RADII: [u16; 6] = [8, 16, 24, 32, 48, 64];

/// Draws of noise behind a reference.
const DRAWS: usize = 40;

/// How much is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Images that are attacked.
    pub attacked: u16,
    /// Queries for each, at most [`MAX_QUERIES`].
    pub queries: u16,
    /// Images that are disturbed, in each of forty draws.
    pub disturbed: u16,
}

impl Plan {
    /// For a computer.
    pub const COMPUTER: Self = Self { attacked: 8, queries: MAX_QUERIES, disturbed: 16 };
    /// For a chip.
    pub const CHIP: Self = Self { attacked: 4, queries: 32, disturbed: 8 };
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trials {
    /// What was tried.
    pub plan: Plan,
    /// Radius of the ball of the attack, 1/255.
    pub eps: u16,
    /// Images that were broken.
    pub broken: u16,
    /// Mean distances of disturbed images' posteriors.
    pub drift: Reference,
}

impl Trials {
    /// Attacks and disturbs a device; images are the first set's of `golden`, all of them where it has fewer than planned.
    ///
    /// # Errors
    /// If the device gives no answer.
    pub fn of<E>(device: &mut dyn Painter<Error = E>, golden: &Golden, plan: Plan) -> Result<Self, E> {
        let n = golden.header().probes.get(0).map_or(0, |set| set.n);
        let plan = Plan { attacked: plan.attacked.min(n), disturbed: plan.disturbed.min(n), ..plan };
        let (mut eps, mut broken) = (0, 0);
        for radius in RADII {
            (eps, broken) = (radius, broken_of(device, golden, plan, radius)?);
            if broken > 0 {
                break;
            }
        }
        let mut means = [0.0; DRAWS];
        for (draw, mean) in means.iter_mut().enumerate() {
            *mean = drift_of(device, golden, plan.disturbed, draw as u32 * 7919)?;
        }
        Ok(Self { plan, eps, broken, drift: Reference::of(&means) })
    }

    /// Whether it can be of a self-test with so many images in its first set.
    pub(crate) fn validate(&self, images: u16) -> Result<(), FormatError> {
        let Self { plan: Plan { attacked, queries, disturbed }, eps, broken, drift } = self;
        ensure(*attacked <= images && *disturbed <= images, "trials are of more images than there are")?;
        ensure(*queries <= MAX_QUERIES && *eps <= 255 && broken <= attacked, "trials are of an attack that is none")?;
        ensure(drift.mean.is_finite() && drift.std.is_finite() && drift.std >= 0.0, "trials have no drift")
    }
}

/// An image of the first set of probes, and its label.
fn probe<'a>(golden: &Golden<'a>, at: u16) -> Option<(&'a [u8], usize)> {
    let set = golden.header().probes.get(0)?;
    let (each, at) = (golden.header().image_bytes as usize, usize::from(at));
    let image = golden.bytes(set.images).get(at * each..(at + 1) * each)?;
    Some((image, golden.u32s(set.labels).at(at) as usize))
}

/// How many images are broken within a radius.
///
/// # Errors
/// If the device gives no answer.
pub fn broken_of<E>(device: &mut dyn Painter<Error = E>, golden: &Golden, plan: Plan, eps: u16) -> Result<u16, E> {
    let mut broken = 0;
    for (image, label) in (0..plan.attacked).filter_map(|at| probe(golden, at)) {
        let mut attack = Square::new((image, device.shape()), label, eps as u8, plan.queries, SEED);
        broken += loop {
            if let Some(broken) = attack.step(device)? {
                break u16::from(broken);
            }
        };
    }
    Ok(broken)
}

/// The mean distance of so many disturbed images' posteriors, by the noise of a seed.
///
/// # Errors
/// If the device gives no answer.
pub fn drift_of<E>(
    device: &mut dyn Painter<Error = E>,
    golden: &Golden,
    disturbed: u16,
    seed: u32,
) -> Result<f32, E> {
    let mut drift = Drift::default();
    for at in 0..disturbed {
        if let Some((image, _)) = probe(golden, at) {
            drift.step(device, image, seed.wrapping_add(at.into()))?;
        }
    }
    Ok(drift.mean())
}

impl Record for Trials {
    const SIZE: usize = 20;

    fn read(fields: &mut Fields) -> Self {
        let plan = Plan { attacked: fields.u16(), queries: fields.u16(), disturbed: fields.u16() };
        let (eps, broken) = (fields.u16(), fields.u16());
        fields.zeros::<2>();
        Self { plan, eps, broken, drift: Reference { mean: fields.f32(), std: fields.f32() } }
    }

    fn write(&self, to: &mut Writer) {
        let Self { plan, eps, broken, drift } = self;
        to.u16(plan.attacked).u16(plan.queries).u16(plan.disturbed).u16(*eps).u16(*broken).bytes(&[0; 2]);
        to.f32(drift.mean).f32(drift.std);
    }
}
