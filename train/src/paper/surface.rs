//! Figures 4 and 5: loss surface and decision boundary along the signed gradient and a random direction.

use super::{Model, gradients};
use anyhow::Result;
use paradise_attack::Classifier;
use paradise_attack::loss::{Aim, Loss, descending};
use paradise_data::Dataset;
use paradise_engine::Shape;
use paradise_evaluate::figure::gallery::{self, Cell, Row};
use paradise_support::random::{self, Purpose, branch};

/// Points along each direction.
const GRID: usize = 41;

/// Signs that are orthogonal to those of `signs`, up to one value where their number is odd: half of them agree.
fn orthogonal(signs: &[f32], seed: u64, key: u64) -> Vec<f32> {
    let mut rng = random::stream(seed, Purpose::AttackProbe, branch::LOSS_SURFACE, key, 0);
    let order = random::permutation(&mut rng, signs.len());
    let mut out = signs.to_vec();
    order.iter().take(signs.len() / 2).for_each(|i| out[*i] = -signs[*i]);
    out
}

/// One model around one image: cross-entropy and class at every point, rows along the random direction.
struct Surface {
    losses: Vec<f64>,
    classes: Vec<usize>,
}

fn surface(model: &dyn Classifier, set: &Dataset, i: usize, directions: [&[f32]; 2], reach: f32) -> Result<Surface> {
    let clean: Vec<f32> = set.image(i).iter().map(|b| f32::from(*b) / 255.0).collect();
    let at = |k: usize| reach * (2.0 * k as f32 / (GRID - 1) as f32 - 1.0);
    let (mut losses, mut classes) = (Vec::new(), Vec::new());
    for row in 0..GRID {
        let mut points = Vec::with_capacity(GRID * clean.len());
        for column in 0..GRID {
            let (a, b) = (at(column), at(row));
            // Not clamped: the surface is the network's own, as far as it goes.
            points.extend(clean.iter().zip(directions[0]).zip(directions[1]).map(|((c, u), v)| c + a * u + b * v));
        }
        let logits = model.logits(&points)?;
        let aims = (0..GRID).map(|_| Aim { label: usize::from(set.labels[i]), target: None });
        losses.extend(Loss::CrossEntropy.rows(&logits, aims).0);
        classes.extend(logits.chunks_exact(model.classes()).map(|z| descending(z)[0]));
    }
    Ok(Surface { losses, classes })
}

/// From dark blue over green to yellow, for 0 to 1.
fn colour(v: f64) -> [u8; 3] {
    const STOPS: [[f64; 3]; 5] =
        [[68.0, 1.0, 84.0], [59.0, 82.0, 139.0], [33.0, 145.0, 140.0], [94.0, 201.0, 98.0], [253.0, 231.0, 37.0]];
    let at = v.clamp(0.0, 1.0) * (STOPS.len() - 1) as f64;
    let k = (at as usize).min(STOPS.len() - 2);
    [0, 1, 2].map(|c| (STOPS[k][c] + (at - k as f64) * (STOPS[k + 1][c] - STOPS[k][c])).round() as u8)
}

/// The right class is green, the others are in colours of their own.
fn class_colour(class: usize, label: usize) -> [u8; 3] {
    const OTHERS: [[u8; 3]; 6] =
        [[213, 94, 0], [0, 114, 178], [148, 82, 160], [230, 190, 60], [110, 110, 110], [200, 120, 160]];
    if class == label { [0, 158, 115] } else { OTHERS[class % OTHERS.len()] }
}

/// The figure: a column an image, two rows a model; `reach` in [0, 1] pixel units.
///
/// # Errors
/// If a model fails or drawing does.
pub fn figure(models: &[Model], set: &Dataset, reach: f32, seed: u64) -> Result<Vec<u8>> {
    let each = set.shape.len() as usize;
    let panel = |pixels: Vec<[u8; 3]>, caption: String| Cell {
        pixels: pixels.concat(),
        shape: Shape::new(GRID as u16, GRID as u16, 3),
        caption,
    };
    let labels = &models[0].trained.splits.labels;
    let image = |i: usize| Cell {
        pixels: set.image(i).to_vec(),
        shape: set.shape,
        caption: labels[usize::from(set.labels[i])].clone(),
    };
    let mut rows = vec![Row { name: "image".into(), cells: (0..set.len()).map(image).collect() }];
    for model in models {
        let slopes = gradients(&model.served, set)?;
        let (mut losses, mut classes) = (Vec::new(), Vec::new());
        for i in 0..set.len() {
            let signs: Vec<f32> =
                slopes[i * each..(i + 1) * each].iter().map(|g| if *g < 0.0 { -1.0 } else { 1.0 }).collect();
            let random = orthogonal(&signs, seed, i as u64);
            let s = surface(&model.served, set, i, [&signs, &random], reach)?;
            let (low, high) = s.losses.iter().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
            let scaled = |v: &f64| colour((v - low) / (high - low).max(1e-12));
            losses.push(panel(s.losses.iter().map(scaled).collect(), format!("{low:.2} to {high:.2}")));
            let label = usize::from(set.labels[i]);
            classes.push(panel(s.classes.iter().map(|c| class_colour(*c, label)).collect(), String::new()));
        }
        rows.push(Row { name: format!("{}\nloss", model.name), cells: losses });
        rows.push(Row { name: "class".into(), cells: classes });
    }
    let title = format!(
        "Signed gradient (right) and a random direction (down), each +-{:.0}/255; green is the right class",
        reach * 255.0
    );
    gallery::draw(&rows, &title, 150)
}

#[cfg(test)]
mod tests {
    use super::*;
    use paradise_attack::Function;

    #[test]
    fn directions_are_orthogonal_and_surfaces_are_the_models() {
        let signs: Vec<f32> = (0..100).map(|i| if i % 3 == 0 { -1.0 } else { 1.0 }).collect();
        let other = orthogonal(&signs, 1, 2);
        assert_eq!(signs.iter().zip(&other).map(|(a, b)| a * b).sum::<f32>(), 0.0);
        assert!(other.iter().all(|v| v.abs() == 1.0));
        // Two pixels, two classes by the first pixel: the boundary is a vertical line in the middle.
        let logits = |x: &[f32]| Ok(x.chunks_exact(2).flat_map(|x| [0.0, 4.0 * (x[0] - 0.5)]).collect::<Vec<f32>>());
        let model = Function { shape: Shape::new(1, 2, 1), classes: 2, logits };
        let set = Dataset::new(model.shape, vec![128, 128], vec![0]).unwrap();
        let s = surface(&model, &set, 0, [&[1.0, 0.0], &[0.0, 1.0]], 0.2).unwrap();
        for (k, (class, loss)) in s.classes.iter().zip(&s.losses).enumerate() {
            let x = 128.0 / 255.0 - 0.2 + 0.4 * (k % GRID) as f64 / 40.0;
            assert_eq!(*class, usize::from(x > 0.5), "{k}");
            assert!((loss - (1.0 + (4.0 * (x - 0.5)).exp()).ln()).abs() < 1e-5);
        }
        assert_eq!((colour(0.0), colour(1.0)), ([68, 1, 84], [253, 231, 37]));
    }
}
