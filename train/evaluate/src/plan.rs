//! What an evaluation is, in full: the file `evaluation.json`. Two parts of one evaluation have the same.

use anyhow::{Context, Result, bail, ensure};
use paradise_attack::suite;
use paradise_attack::threat::{Ball, Norm};
use paradise_data::Dataset;
use paradise_support::files;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Version of the files in an evaluation's folder.
const FORMAT: u32 = 1;

/// Most radii of one evaluation.
const MAX_RADII: usize = 64;

/// A model, as far as results depend on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// `float` or `int8`, and its objective or bundle.
    pub name: String,
    /// SHA-256 of its numbers.
    pub sha256: String,
}

/// The images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Images {
    /// Where they came from.
    pub source: String,
    /// SHA-256 of those that are attacked.
    pub sha256: String,
    /// How many.
    pub n: usize,
}

/// Everything on which an evaluation's results depend, and how its work is cut.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    format: u32,
    /// The model that is attacked.
    pub model: Identity,
    /// The images.
    pub images: Images,
    /// How far is measured.
    pub norm: Norm,
    /// Radii in [0, 1] pixel units; the first is the one that checks, confidence figures and pictures use.
    pub eps: Vec<f32>,
    /// The attacks, by the names that [`suite::read`] reads.
    pub attacks: String,
    /// The model on which transfer attacks craft their points, also used by the checks.
    pub surrogate: Option<Identity>,
    /// The models of other evaluations whose points are tried too, with the digest of those points.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub points: Vec<Identity>,
    /// Of every random draw.
    pub seed: u64,
    /// Images of a unit of work.
    pub batch: usize,
}

/// What a caller asks for.
#[derive(Debug, Clone)]
pub struct Request {
    /// How far is measured.
    pub norm: Norm,
    /// Radii.
    pub eps: Vec<f32>,
    /// Attacks by name.
    pub attacks: String,
    /// Of every random draw.
    pub seed: u64,
    /// Images of a unit of work.
    pub batch: usize,
}

impl Plan {
    /// A plan over `set`.
    ///
    /// # Errors
    /// If there is no radius, one is out of range or given twice, an attack is not known, or a batch has no image.
    pub fn new(
        model: Identity,
        surrogate: Option<Identity>,
        source: &str,
        set: &Dataset,
        request: Request,
    ) -> Result<Self> {
        let Request { norm, eps, attacks, seed, batch } = request;
        ensure!(!eps.is_empty(), "no radius is given");
        ensure!(eps.len() <= MAX_RADII, "{} radii are more than {MAX_RADII}", eps.len());
        for (i, e) in eps.iter().enumerate() {
            Ball { norm, eps: *e }.check(set.shape.len() as usize)?;
            ensure!(!eps[..i].contains(e), "eps {e} is given twice");
        }
        ensure!(batch > 0, "a batch of no images");
        suite::read(&attacks)?;
        let images = Images { source: source.into(), sha256: set.digest(), n: set.len() };
        Ok(Self { format: FORMAT, model, images, norm, eps, attacks, surrogate, points: Vec::new(), seed, batch })
    }

    /// The attacks as they were named, and on which models known points were found.
    pub fn described(&self) -> String {
        let found = self.points.iter().map(|model| format!(", points found on {}", model.name));
        self.attacks.clone() + &found.collect::<String>()
    }

    /// Eight hexadecimal digits that tell plans apart, for the folder's name.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub fn short_name(&self) -> Result<String> {
        use sha2::{Digest, Sha256};
        let digest = Sha256::digest(serde_json::to_string(self)?.as_bytes());
        Ok(paradise_support::hex(&digest[..4]))
    }

    /// The ball of radius `k`.
    pub fn ball(&self, k: usize) -> Ball {
        Ball { norm: self.norm, eps: self.eps[k] }
    }

    /// Number of batches.
    pub fn batches(&self) -> usize {
        self.images.n.div_ceil(self.batch)
    }

    /// The images of batch `b`.
    pub fn range(&self, b: usize) -> std::ops::Range<usize> {
        b * self.batch..((b + 1) * self.batch).min(self.images.n)
    }

    /// Writes the plan to a folder where there is none, or sees that the one there is the same.
    ///
    /// # Errors
    /// With what differs.
    pub fn keep(&self, folder: &Path) -> Result<()> {
        files::create_folder(folder)?;
        let path = folder.join(NAME);
        if path.exists() {
            let there = Self::read(folder)?;
            if there != *self {
                bail!(
                    "{}: holds another evaluation ({}); choose another folder",
                    path.display(),
                    self.difference(&there)
                );
            }
            return Ok(());
        }
        files::write(&path, serde_json::to_string_pretty(self)?.as_bytes())
    }

    /// The plan of a folder.
    ///
    /// # Errors
    /// With the path, if it is missing, broken or of another version.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(NAME);
        let text = std::fs::read_to_string(&path).with_context(|| format!("{}: cannot read", path.display()))?;
        let plan: Self =
            serde_json::from_str(&text).with_context(|| format!("{}: not an evaluation's plan", path.display()))?;
        ensure!(plan.format == FORMAT, "{}: version {}, this program reads {FORMAT}", path.display(), plan.format);
        ensure!(plan.batch > 0 && !plan.eps.is_empty(), "{}: no batches or no radii", path.display());
        Ok(plan)
    }

    /// Names the first field in which two plans differ.
    fn difference(&self, other: &Self) -> String {
        let (Ok(a), Ok(b)) = (serde_json::to_value(self), serde_json::to_value(other)) else { return "?".into() };
        let differs = |key: &&String| a[key.as_str()] != b[key.as_str()];
        match a.as_object().and_then(|fields| fields.keys().find(differs)) {
            Some(key) => format!("its {key} is {}, not {}", b[key.as_str()], a[key.as_str()]),
            None => "nothing differs".into(),
        }
    }
}

const NAME: &str = "evaluation.json";

#[cfg(test)]
mod tests {
    use super::*;
    use paradise_engine::Shape;

    fn request() -> Request {
        Request { norm: Norm::Linf, eps: vec![0.1, 0.2], attacks: "fgsm".into(), seed: 0, batch: 3 }
    }

    fn plan(request: Request) -> Result<Plan> {
        let set = Dataset::new(Shape::new(1, 2, 1), vec![7; 14], vec![0; 7]).unwrap();
        Plan::new(Identity { name: "float".into(), sha256: "00".into() }, None, "seven", &set, request)
    }

    #[test]
    fn a_folder_keeps_one_plan() {
        let folder = tempfile::tempdir().unwrap();
        let one = plan(request()).unwrap();
        assert_eq!((one.batches(), one.range(2)), (3, 6..7));
        one.keep(folder.path()).unwrap();
        one.keep(folder.path()).unwrap();
        let other = plan(Request { seed: 4, ..request() }).unwrap();
        assert_ne!(one.short_name().unwrap(), other.short_name().unwrap());
        let error = other.keep(folder.path()).unwrap_err().to_string();
        assert!(error.contains("its seed is 0, not 4") && error.contains("another folder"), "{error}");
        std::fs::write(folder.path().join(NAME), "{").unwrap();
        assert!(format!("{:#}", one.keep(folder.path()).unwrap_err()).contains(NAME));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (bad, word) in [
            (Request { eps: vec![], ..request() }, "no radius"),
            (Request { eps: vec![-0.1], ..request() }, "-0.1"),
            (Request { eps: vec![0.1, 1.5], ..request() }, "1.5"),
            (Request { eps: vec![0.1, 0.1], ..request() }, "twice"),
            (Request { attacks: "magic".into(), ..request() }, "magic"),
            (Request { batch: 0, ..request() }, "batch"),
        ] {
            let error = format!("{:#}", plan(bad).unwrap_err());
            assert!(error.contains(word), "{error}");
        }
    }
}
