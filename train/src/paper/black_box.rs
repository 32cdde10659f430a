//! Table 4: white-box against black-box accuracy, the supplement's test for masked gradients.

use super::Model;
use anyhow::Result;
use paradise_attack::Ball;
use paradise_attack::suite::{self, Surrogate};
use paradise_attack::{Outcome, Victim};
use paradise_data::Dataset;
use paradise_evaluate::prediction::classify;
use paradise_support::statistics::Proportion;
use serde::Serialize;

/// One model's row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The model.
    pub name: String,
    /// Weight of the rate.
    pub alpha: f64,
    /// Clean accuracy.
    pub natural: Proportion,
    /// Accuracy under FGSM on the model itself.
    pub white_box: Proportion,
    /// The lower accuracy of FGSM's and R+FGSM's points from the surrogate.
    pub black_box: Proportion,
    /// Whether the white-box attack, which knows more, does worse: then gradients mislead it.
    pub masked: bool,
}

/// A row a model, with points crafted on `surrogate`.
///
/// # Errors
/// If the ball is out of range or a model fails.
pub fn rows(models: &[Model], surrogate: &Surrogate, ball: Ball, set: &Dataset, seed: u64) -> Result<Vec<Row>> {
    let row = |model: &Model| {
        let classes = model.trained.splits.labels.len();
        let robust = |name: &str| -> Result<Proportion> {
            let attack = suite::single(name, classes, Some(surrogate))?;
            Ok(Outcome::of(&*attack, Victim::White(&model.served), ball, set, seed)?.robust_share())
        };
        let (white, fgsm, random) = (robust("fgsm")?, robust("transfer-fgsm")?, robust("transfer-r-fgsm")?);
        let black = if fgsm.correct <= random.correct { fgsm } else { random };
        Ok(Row {
            name: model.name.clone(),
            alpha: model.trained.config.objective.alpha,
            natural: classify(&model.served, set)?.correct_share(),
            white_box: white,
            black_box: black,
            masked: white.correct > black.correct,
        })
    };
    models.iter().map(row).collect()
}

/// The rows as Markdown.
pub fn table(rows: &[Row], ball: Ball, n: usize) -> String {
    let mut text = format!(
        "{n} test images, {} eps {:.2}/255; black-box: the lower of FGSM and R+FGSM from the surrogate\n\n\
         | model | alpha | natural | FGSM | black-box | verdict |\n|---|---|---|---|---|---|\n",
        ball.norm.name(),
        ball.eps * 255.0
    );
    for r in rows {
        let verdict = if r.masked { "masked gradients: white-box above black-box" } else { "no sign of masking" };
        text.push_str(&format!(
            "| {} | {:e} | {:.2} | {:.2} | {:.2} | {verdict} |\n",
            r.name,
            r.alpha,
            r.natural.percent(),
            r.white_box.percent(),
            r.black_box.percent()
        ));
    }
    text
}
