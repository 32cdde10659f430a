//! Figure 6: successful targeted attacks on two models.

use super::Model;
use anyhow::{Result, ensure};
use paradise_attack::Ball;
use paradise_attack::gradient::Pgd;
use paradise_attack::{Outcome, Victim};
use paradise_data::Dataset;
use paradise_evaluate::figure::gallery::{self, Cell, Row, difference};
use paradise_evaluate::prediction::classify;

/// The figure: images of which every model was led to the same drawn class, at most `most` of them.
///
/// # Errors
/// If there is no such image, or a model fails.
pub fn figure(models: &[Model], set: &Dataset, ball: Ball, most: usize, seed: u64) -> Result<Vec<u8>> {
    // The target is drawn from the seed and the image, so that it is the same for every model.
    let attack = Pgd::random_targeted(200, 1);
    let attacked = |m: &Model| Ok(Outcome::of(&attack, Victim::White(&m.served), ball, set, seed)?);
    let outcomes = models.iter().map(attacked).collect::<Result<Vec<_>>>()?;
    let grids: Vec<Dataset> = outcomes.iter().map(|o| o.on_grid(set)).collect();
    let classes = |(m, grid): (&Model, &Dataset)| Ok(classify(&m.served, grid)?.classes);
    let given = models.iter().zip(&grids).map(classes).collect::<Result<Vec<_>>>()?;
    let all_led = |i: &usize| {
        let target = given[0][*i];
        // An image that is wrong as it is was not led anywhere.
        let led = |m: usize| outcomes[m].broken[*i] && grids[m].image(*i) != set.image(*i) && given[m][*i] == target;
        target != set.labels[*i] && (0..models.len()).all(led)
    };
    let chosen: Vec<usize> = (0..set.len()).filter(all_led).take(most).collect();
    ensure!(!chosen.is_empty(), "no image of {} was led to the same class on every model at this radius", set.len());
    let labels = &models[0].trained.splits.labels;
    let row = |name: String, make: &dyn Fn(usize) -> (Vec<u8>, String)| Row {
        name,
        cells: chosen
            .iter()
            .map(|i| {
                let (pixels, caption) = make(*i);
                Cell { pixels, shape: set.shape, caption }
            })
            .collect(),
    };
    let mut rows =
        vec![row("original".into(), &|i| (set.image(i).to_vec(), labels[usize::from(set.labels[i])].clone()))];
    for (m, model) in models.iter().enumerate() {
        rows.push(row(model.name.clone(), &|i| {
            (grids[m].image(i).to_vec(), labels[usize::from(given[m][i])].clone())
        }));
        let change = |i: usize| difference(set.image(i), grids[m].image(i), ball.eps * 255.0);
        rows.push(row("perturbation".into(), &|i| (change(i), String::new())));
    }
    gallery::draw(&rows, &format!("Targeted attacks that succeed, eps {:.0}/255", ball.eps * 255.0), 112)
}
