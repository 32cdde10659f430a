//! Pictures that are no part of a site: a covered lens, a test card, noise. They must not loosen its thresholds.

use paradise_engine::calibration::Calibration;

/// Where the maker's tail, moved to the bulk of the local pictures, is cut: its value that one in a thousand exceeds, and a fifth
/// as far again.
const TAIL: f64 = 0.999;
const MARGIN: f64 = 1.2;

/// The squared distance beyond which a local picture is unlike the others.
///
/// Distances are compared by their logarithms. Median and lower quartile say where the local ones lie and how far apart, since
/// up to a quarter of strays hardly move them; the shape of the tail is the maker's.
pub(super) fn cut(local: &[f32], maker: &Calibration) -> f32 {
    let log = |v: f32| f64::from(v.max(f32::MIN_POSITIVE)).ln();
    let mut sorted: Vec<f32> = local.to_vec();
    sorted.sort_by(f32::total_cmp);
    let [low, middle] = [0.25, 0.5].map(|share| log(sorted[(share * (sorted.len() - 1) as f64) as usize]));
    let [from, centre, end] = [0.25, 0.5, TAIL].map(|share| log(maker.quantile(share)));
    // Local distances may lie farther apart than the maker's; that they lie closer is no reason to be stricter.
    let wider = ((middle - low) / (centre - from).max(1e-6)).clamp(1.0, 4.0);
    (middle + MARGIN * wider * (end - centre)).exp() as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::{OwnTables, Values};

    #[test]
    fn the_bulk_decides_and_a_fifth_of_strays_does_not() {
        let mut rng = fastrand::Rng::with_seed(7);
        // About chi-squared with eight degrees of freedom.
        let mut chi = |scale: f32| -> f32 {
            let square = |rng: &mut fastrand::Rng| {
                let normal = (0..12).map(|_| rng.f32()).sum::<f32>() - 6.0;
                normal * normal
            };
            scale * (0..8).map(|_| square(&mut rng)).sum::<f32>()
        };
        let maker: Vec<f32> = (0..5000).map(|_| chi(1.0)).collect();
        let maker = OwnTables::new(&Values::of([&maker; 7])).unwrap();
        let table = &maker.tables().picture;
        for scale in [0.5, 1.0, 4.0] {
            let mut local: Vec<f32> = (0..400).map(|_| chi(scale)).collect();
            let clean = cut(&local, table);
            assert!(local.iter().filter(|v| **v > clean).count() <= 4, "hardly one of the site's own");
            local.extend([1000.0; 100]);
            let dirty = cut(&local, table);
            assert!(dirty < 2.5 * clean && dirty < 1000.0, "{scale}: {clean} {dirty}");
        }
    }
}
