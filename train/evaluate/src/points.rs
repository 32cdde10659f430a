//! The points that evaluations of other models have found on the same images.

use super::plan::{Identity, Images, Plan};
use super::work::{self, Fate};
use anyhow::{Result, ensure};
use paradise_attack::known_points::KnownPoints;
use paradise_attack::suite;
use paradise_support::hex;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Every point in these evaluations' folders, at any of their radii, and whose they are, with a digest of the points.
///
/// # Errors
/// With the folder, if it holds no evaluation of these images, none of its points is there yet, or a file is damaged.
pub fn read(folders: &[PathBuf], images: &Images, values: usize) -> Result<(KnownPoints, Vec<Identity>)> {
    let (mut known, mut identities) = (KnownPoints::default(), Vec::new());
    for folder in folders {
        let plan = Plan::read(folder)?;
        let at = folder.display();
        ensure!(plan.images.sha256 == images.sha256, "{at}: is an evaluation on other images");
        let points = found(folder, &plan)?;
        ensure!(!points.is_empty(), "{at}: no image has been broken there yet");
        let mut hash = Sha256::new();
        for (image, point) in &points {
            ensure!(point.len() == values, "{at}: a point of {} values, images have {values}", point.len());
            hash.update(image.to_le_bytes());
            point.iter().for_each(|v| hash.update(v.to_le_bytes()));
        }
        identities.push(Identity { name: plan.model.name.clone(), sha256: hex(&hash.finalize()) });
        known.add(&plan.model.name, points);
    }
    Ok((known, identities))
}

/// Image and point of every image that was broken, of the units that are there.
fn found(folder: &Path, plan: &Plan) -> Result<Vec<(u64, Vec<f32>)>> {
    let folder = folder.join(work::UNITS);
    // Known points are an attack more.
    let attacks = suite::read(&plan.attacks)?.len() + usize::from(!plan.points.is_empty());
    let mut points = Vec::new();
    for (eps, attack) in (0..plan.eps.len()).flat_map(|e| (0..attacks).map(move |a| (e, a))) {
        for batch in 0..plan.batches() {
            let path = work::unit_path(&folder, eps, attack, batch);
            if !path.exists() {
                continue;
            }
            for (image, fate) in work::read_unit(&path, &plan.range(batch))? {
                if let Fate::Broken(point) = fate {
                    points.push((image as u64, point));
                }
            }
        }
    }
    Ok(points)
}
