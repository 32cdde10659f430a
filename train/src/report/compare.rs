//! Several reports side by side.

use super::{Report, share, spoken};
use crate::statistics::mcnemar;
use anyhow::{Result, ensure};

/// A table of models on the same images under the same attacks, as Markdown; each is compared with the first at the
/// first radius by McNemar's exact test.
///
/// # Errors
/// If there is no report, or one is of other images, attacks or radii than the first.
pub fn compare(reports: &[(String, Report)]) -> Result<String> {
    let [(_, first), ..] = reports else { anyhow::bail!("no report to compare") };
    let plan = &first.plan;
    for (name, r) in reports {
        let own = &r.plan;
        ensure!(own.images.sha256 == plan.images.sha256, "{name}: is of other images than the first");
        ensure!(
            (own.norm, &own.eps, &own.attacks) == (plan.norm, &plan.eps, &plan.attacks),
            "{name}: is of other attacks or radii than the first"
        );
    }
    let radii: Vec<String> = plan.eps.iter().map(|e| format!("eps {}", spoken(plan, *e))).collect();
    let mut text = format!(
        "{} test images, {}, attacks {} (per-image worst case), seed {}; intervals are Wilson's, 95 %; p: McNemar's \
         exact test against the first row at {}\n\n| model | clean | {} | p | masking checks |\n|---|---|{}---|---|\n",
        plan.images.n,
        plan.norm.name(),
        plan.attacks,
        plan.seed,
        radii[0],
        radii.join(" | "),
        "---|".repeat(radii.len())
    );
    for (name, r) in reports {
        let cells: Vec<String> = r.radii.iter().map(|r| share(&r.worst)).collect();
        let pairs = || first.radii[0].held.bytes().zip(r.radii[0].held.bytes());
        let only = |a, b| pairs().filter(|p| *p == (a, b)).count() as u64;
        let p = mcnemar(only(b'1', b'0'), only(b'0', b'1'));
        let p = if p < 1e-4 { "< 0.0001".into() } else { format!("{p:.4}") };
        text.push_str(&format!("| {name} | {} | {} | {p} | {} |\n", share(&r.clean), cells.join(" | "), r.masking()));
    }
    text.push_str(&confidence(reports));
    Ok(text)
}

/// What confidence is worth, a row a model.
fn confidence(reports: &[(String, Report)]) -> String {
    let mut rows = String::new();
    for (name, r) in reports {
        let Some(q) = &r.confidence else { continue };
        let covered =
            |percent: f64| q.coverage.iter().find(|c| c.covered_percent == percent).map(|c| c.accuracy_percent);
        let Some(at_80) = covered(80.0) else { continue };
        let by = |pick: &dyn Fn(&crate::evaluate::confidence::Scores) -> f64| {
            q.foreign.iter().map(|f| format!("{:.3}", pick(&f.auroc))).collect::<Vec<_>>().join(" / ")
        };
        let adaptive = r.abstention.as_ref().map_or_else(|| "-".into(), |a| format!("{:.1} %", a.worst.percent));
        rows.push_str(&format!(
            "| {name} | {} | {} | {} | {:.1} / {:.1} % | {:.1} % | {adaptive} |\n",
            by(&|s| s.rate),
            by(&|s| s.posterior_entropy),
            by(&|s| s.predictive_entropy),
            at_80.rate,
            at_80.predictive_entropy,
            q.ece_percent
        ));
    }
    if rows.is_empty() {
        return rows;
    }
    let sets = reports
        .iter()
        .find_map(|(_, r)| r.confidence.as_ref())
        .map_or_else(String::new, |q| q.foreign.iter().map(|f| f.name.clone()).collect::<Vec<_>>().join(" / "));
    format!(
        "\nConfidence: AUROC against {sets}; accuracy at 80 % coverage by rate / by predictive entropy; expected \
         calibration error; wrong and accepted at the worst of clean, attacked and adaptively attacked images\n\n\
         | model | rate | posterior entropy | predictive entropy | at 80 % coverage | ECE | wrong and accepted |\n\
         |---|---|---|---|---|---|---|\n{rows}"
    )
}
