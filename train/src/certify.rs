//! `train certify`: l2 certificates of a set's images, each a file until all are there.

use crate::encoder::LogitModel;
use anyhow::{Result, ensure};
use paradise_attack::certificate::{Certificate, Smoothing};
use paradise_data::Dataset;
use paradise_support::files;
use paradise_support::progress::Watched;
use paradise_support::team::Team;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// How it ended.
#[derive(Debug)]
pub enum Ended {
    /// The file holds a certificate of every image, in their order.
    Done(Vec<Certificate>),
    /// This part is done; so many images of others' are missing.
    Waiting(usize),
    /// Another process of the team writes the file.
    Elsewhere,
    /// Interrupted, with so many certificates there; the same call goes on.
    Stopped(usize),
}

/// The file of certificates.
#[derive(Serialize, Deserialize)]
struct Certificates {
    smoothing: Smoothing,
    model_sha256: String,
    images_sha256: String,
    certificates: Vec<Certificate>,
}

impl Certificates {
    fn is_of(&self, other: &Self) -> bool {
        self.smoothing == other.smoothing
            && self.model_sha256 == other.model_sha256
            && self.images_sha256 == other.images_sha256
    }
}

/// Certifies the images of `set` that are this process's part, and puts the certificates of all into the file `out` once they are
/// there; until then each is a file in a folder beside it.
///
/// # Errors
/// If `out` or the folder beside it holds certificates of other settings, images or model, a file cannot be read or written, the
/// model fails, or a process of the team is gone.
pub fn certify(
    smoothing: Smoothing,
    model: &LogitModel,
    set: &Dataset,
    out: &Path,
    team: &dyn Team,
    stop: &AtomicBool,
) -> Result<Ended> {
    let mut all = Certificates {
        smoothing,
        model_sha256: model.digest(),
        images_sha256: set.digest(),
        certificates: Vec::new(),
    };
    let units = Units::open(out, &all)?;
    // A file that was begun before each image had one of its own, or a finished one.
    let there = match files::read_json::<Certificates>(out)? {
        Some(there) => {
            ensure!(there.is_of(&all) && there.certificates.len() <= set.len(), other(out));
            there.certificates
        }
        None => Vec::new(),
    };
    let own: Vec<usize> = (there.len()..set.len()).filter(|i| team.shard().holds(*i)).collect();
    let bar = Watched::new(own.len() as u64, "certify");
    let mut stopped = false;
    for i in own {
        stopped = stop.load(Ordering::Relaxed);
        if stopped {
            break;
        }
        if units.read(i)?.is_none() {
            units.write(i, &smoothing.certify(model, set, i)?)?;
        }
        bar.inc(1);
    }
    bar.close();
    let stopped = team.meet(stopped)?;
    if !team.concludes() && !stopped {
        return Ok(Ended::Elsewhere);
    }
    let rest = (there.len()..set.len()).map(|i| units.read(i)).collect::<Result<Vec<_>>>()?;
    let missing = rest.iter().filter(|c| c.is_none()).count();
    if stopped {
        return Ok(Ended::Stopped(set.len() - missing));
    }
    if missing > 0 {
        return Ok(Ended::Waiting(missing));
    }
    all.certificates = there.into_iter().chain(rest.into_iter().flatten()).collect();
    files::write(out, serde_json::to_string(&all)?.as_bytes())?;
    Ok(Ended::Done(all.certificates))
}

fn other(path: &Path) -> String {
    format!("{}: holds certificates of other settings, images or model; choose another --out", path.display())
}

/// The certificates of single images.
struct Units(PathBuf);

impl Units {
    /// Those beside the file `out`.
    fn open(out: &Path, what: &Certificates) -> Result<Self> {
        let folder = out.with_extension("work");
        let path = folder.join("plan.json");
        match files::read_json::<Certificates>(&path)? {
            Some(there) => ensure!(there.is_of(what), other(&folder)),
            None => {
                files::create_folder(&folder)?;
                files::write(&path, serde_json::to_string(what)?.as_bytes())?;
            }
        }
        Ok(Self(folder))
    }

    fn path(&self, image: usize) -> PathBuf {
        self.0.join(format!("image-{image:05}.json"))
    }

    fn read(&self, image: usize) -> Result<Option<Certificate>> {
        files::read_json(&self.path(image))
    }

    fn write(&self, image: usize, certificate: &Certificate) -> Result<()> {
        files::write(&self.path(image), serde_json::to_string(certificate)?.as_bytes())
    }
}
