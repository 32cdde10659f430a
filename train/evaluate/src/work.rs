//! The work of an evaluation, cut into units of one radius, one attack and one batch of images, each a file. What is
//! there is not done again, so an interruption loses at most one unit, and shards are merged by copying files.

use super::plan::Plan;
use anyhow::{Context, Result, ensure};
use paradise_attack::Classifier;
use paradise_attack::suite::Entry;
use paradise_attack::{Attempt, Sample, Victim, launch, samples};
use paradise_data::Dataset;
use paradise_support::files;
use paradise_support::progress::Pace;
use paradise_support::team::Shard;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// What an attack did to one image.
#[derive(Debug, Clone, PartialEq)]
pub enum Fate {
    /// It kept its class.
    Held,
    /// It was misclassified from the start.
    WrongBefore,
    /// It is misclassified at this point f32 `[h][w][c]`.
    Broken(Vec<f32>),
}

/// One unit's results: images by their place in the set, ascending, and what became of each.
pub type Unit = Vec<(usize, Fate)>;

/// An evaluation's folder of units.
pub struct Work<'a> {
    /// What is evaluated.
    pub plan: &'a Plan,
    /// The attacks of the plan.
    pub entries: &'a [Entry],
    folder: PathBuf,
}

/// Where an evaluation keeps its units.
pub(super) const UNITS: &str = "work";

impl<'a> Work<'a> {
    /// The units under `folder`, whose plan is seen to.
    ///
    /// # Errors
    /// As [`Plan::keep`].
    pub fn open(folder: &Path, plan: &'a Plan, entries: &'a [Entry]) -> Result<Self> {
        plan.keep(folder)?;
        let folder = folder.join(UNITS);
        files::create_folder(&folder)?;
        Ok(Self { plan, entries, folder })
    }

    fn path(&self, eps: usize, attack: usize, batch: usize) -> PathBuf {
        unit_path(&self.folder, eps, attack, batch)
    }

    /// Units that are not there yet.
    pub fn missing(&self) -> usize {
        self.places(Shard::WHOLE).filter(|&(e, a, b)| !self.path(e, a, b).exists()).count()
    }

    fn places(&self, shard: Shard) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
        let batches = (0..self.plan.batches()).filter(move |b| shard.holds(*b));
        batches.flat_map(move |b| {
            (0..self.plan.eps.len()).flat_map(move |e| (0..self.entries.len()).map(move |a| (e, a, b)))
        })
    }

    /// Does what is missing of a shard; `stop` ends it after the unit at work. Returns whether the shard is done.
    ///
    /// # Errors
    /// As [`launch`], or if a file cannot be read or written.
    pub fn run(&self, victim: Victim, set: &Dataset, shard: Shard, stop: &AtomicBool) -> Result<bool> {
        let pixels = paradise_attack::pixels(set);
        let samples = samples(set, &pixels);
        let places: Vec<_> = self.places(shard).collect();
        let there = places.iter().filter(|&&(e, a, b)| self.path(e, a, b).exists()).count();
        let pace = Pace::new(places.iter().map(|p| p.1), there);
        for (eps, attack, batch) in places {
            let path = self.path(eps, attack, batch);
            if path.exists() {
                // A damaged file is found now rather than when all is done.
                self.unit(eps, attack, batch)?;
                pace.skip(attack);
                continue;
            }
            if stop.load(Ordering::Relaxed) {
                pace.close();
                return Ok(false);
            }
            let entry = &self.entries[attack];
            let name = format!("{} eps {:.2}/255", entry.attack.describe(), self.plan.eps[eps] * 255.0);
            pace.begin(&name);
            let chosen = self.chosen(eps, attack, batch)?;
            let chosen: Vec<Sample> = chosen.into_iter().map(|i| samples[i]).collect();
            let ball = self.plan.ball(eps);
            let attempts = launch(&*entry.attack, victim, ball, &chosen, self.plan.seed, &|_| ())?;
            files::write(&path, &encode(&chosen, attempts)?)?;
            pace.end(attack);
        }
        pace.close();
        Ok(true)
    }

    /// The images of a batch that an attack sees.
    fn chosen(&self, eps: usize, attack: usize, batch: usize) -> Result<Vec<usize>> {
        let mut standing: Vec<usize> = self.plan.range(batch).collect();
        if self.entries[attack].survivors {
            for before in (0..attack).filter(|a| self.entries[*a].survivors) {
                let unit = self.unit(eps, before, batch)?;
                standing.retain(|i| !unit.iter().any(|(k, fate)| k == i && *fate != Fate::Held));
            }
        }
        Ok(standing)
    }

    /// One unit's results.
    ///
    /// # Errors
    /// With the path, if the file is missing or damaged.
    pub fn unit(&self, eps: usize, attack: usize, batch: usize) -> Result<Unit> {
        read_unit(&self.path(eps, attack, batch), &self.plan.range(batch))
    }

    /// Copies the units of other folders of the same evaluation.
    ///
    /// # Errors
    /// If one is of another evaluation, or a file cannot be copied.
    pub fn gather(&self, shards: &[PathBuf]) -> Result<()> {
        for shard in shards {
            let other = Plan::read(shard)?;
            ensure!(other == *self.plan, "{}: is of another evaluation than the first", shard.display());
            let from = Work { plan: self.plan, entries: self.entries, folder: shard.join(UNITS) };
            for (e, a, b) in self.places(Shard::WHOLE) {
                let (source, target) = (from.path(e, a, b), self.path(e, a, b));
                if source.exists() && !target.exists() {
                    from.unit(e, a, b)?;
                    let bytes =
                        std::fs::read(&source).with_context(|| format!("{}: cannot read", source.display()))?;
                    files::write(&target, &bytes)?;
                }
            }
        }
        Ok(())
    }
}

/// The file of a unit in a folder of them.
pub(super) fn unit_path(folder: &Path, eps: usize, attack: usize, batch: usize) -> PathBuf {
    folder.join(format!("eps-{eps}-attack-{attack}-batch-{batch:05}.safetensors"))
}

/// The results in a unit's file, whose images are in `range`.
pub(super) fn read_unit(path: &Path, range: &std::ops::Range<usize>) -> Result<Unit> {
    let bytes = std::fs::read(path).with_context(|| format!("{}: cannot read", path.display()))?;
    decode(&bytes, range).with_context(|| format!("{}: damaged; remove it and run again", path.display()))
}

fn encode(samples: &[Sample], attempts: Vec<Attempt>) -> Result<Vec<u8>> {
    let mut bytes: [Vec<u8>; 3] = Default::default();
    let (mut broken, mut each) = (0, 0);
    for (sample, attempt) in samples.iter().zip(attempts) {
        bytes[0].extend((sample.key as u32).to_le_bytes());
        let moved = attempt.point != sample.clean;
        bytes[1].push(u8::from(attempt.broken) + u8::from(attempt.broken && moved));
        if attempt.broken && moved {
            (broken, each) = (broken + 1, attempt.point.len());
            bytes[2].extend(attempt.point.iter().flat_map(|v| v.to_le_bytes()));
        }
    }
    let n = bytes[1].len();
    let views = [
        ("image", TensorView::new(Dtype::U32, vec![n], &bytes[0])?),
        ("fate", TensorView::new(Dtype::U8, vec![n], &bytes[1])?),
        ("point", TensorView::new(Dtype::F32, vec![broken, each], &bytes[2])?),
    ];
    Ok(safetensors::serialize(views, None)?)
}

fn decode(bytes: &[u8], range: &std::ops::Range<usize>) -> Result<Unit> {
    let tensors = SafeTensors::deserialize(bytes)?;
    let read = |name: &str, dtype| -> Result<TensorView> {
        let view = tensors.tensor(name).with_context(|| format!("no tensor {name}"))?;
        ensure!(view.dtype() == dtype, "{name} is {:?}", view.dtype());
        Ok(view)
    };
    let (image, fate, point) = (read("image", Dtype::U32)?, read("fate", Dtype::U8)?, read("point", Dtype::F32)?);
    let &[broken, each] = point.shape() else { anyhow::bail!("point is {:?}", point.shape()) };
    ensure!(image.shape() == fate.shape(), "{:?} images, {:?} fates", image.shape(), fate.shape());
    ensure!(fate.data().iter().filter(|f| **f == 2).count() == broken, "{broken} points are not as many as broken");
    let mut points = point.data().chunks_exact((each * 4).max(1));
    let mut unit = Vec::with_capacity(fate.data().len());
    for (index, fate) in image.data().as_chunks().0.iter().zip(fate.data()) {
        let index = u32::from_le_bytes(*index) as usize;
        ensure!(range.contains(&index), "image {index} is not of this batch");
        ensure!(unit.last().is_none_or(|(last, _)| *last < index), "image {index} is out of order");
        let fate = match fate {
            0 => Fate::Held,
            1 => Fate::WrongBefore,
            2 => {
                let bytes = points.next().context("points are missing")?;
                let values: Vec<f32> = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
                ensure!(values.iter().all(|v| (0.0..=1.0).contains(v)), "a point of image {index} leaves [0, 1]");
                Fate::Broken(values)
            }
            other => anyhow::bail!("fate {other} of image {index}"),
        };
        unit.push((index, fate));
    }
    Ok(unit)
}

/// Sees to what [`Work::run`] would refuse only after a while.
///
/// # Errors
/// If the images have another shape, a label is no class, logits are not finite, or the model gives the same logits
/// for every image.
pub fn inspect(model: &dyn Classifier, set: &Dataset) -> Result<()> {
    ensure!(set.shape == model.shape(), "images are {:?}, the model takes {:?}", set.shape, model.shape());
    let few = set.head(32);
    let logits = model.logits(&paradise_attack::pixels(&few))?;
    let classes = model.classes();
    let first = &logits[..classes];
    let constant = few.len() > 1 && logits.chunks_exact(classes).all(|z| z == first);
    ensure!(!constant, "the model gives every image the same logits {first:?}; there is nothing to attack");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case() -> (Vec<f32>, Vec<Attempt>) {
        let clean = vec![0.1f32, 0.2, 0.3, 0.4, 0.5, 0.6];
        let attempt = |broken, point: &[f32]| Attempt { broken, point: point.to_vec() };
        (clean, vec![attempt(false, &[0.15, 0.2]), attempt(true, &[0.3, 0.4]), attempt(true, &[0.5, 0.7])])
    }

    #[test]
    fn units_come_back_and_damage_is_named() {
        let (clean, attempts) = case();
        let samples: Vec<Sample> =
            clean.chunks_exact(2).zip([4u64, 5, 9]).map(|(clean, key)| Sample { clean, label: 0, key }).collect();
        let bytes = encode(&samples, attempts).unwrap();
        let unit = decode(&bytes, &(4..10)).unwrap();
        assert_eq!(unit, [(4, Fate::Held), (5, Fate::WrongBefore), (9, Fate::Broken(vec![0.5, 0.7]))]);
        assert!(decode(&bytes, &(4..9)).is_err());
        for cut in [0, 9, bytes.len() - 1] {
            assert!(decode(&bytes[..cut], &(4..10)).is_err());
        }
        let empty = encode(&[], Vec::new()).unwrap();
        assert!(decode(&empty, &(0..4)).unwrap().is_empty());
    }
}
