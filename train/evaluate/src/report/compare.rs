//! Several reports side by side.

use super::Report;
use crate::confidence::{Quality, Scores};
use anyhow::{Result, ensure};
use paradise_support::statistics::{mcnemar, mean_and_deviation};

/// A table of models on the same images under the same attacks, as Markdown. Each is compared with the first at the
/// first radius by McNemar's exact test; where a name comes more than once, the table is of means over its runs.
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
            (own.norm, &own.eps, &own.attacks, own.points.is_empty())
                == (plan.norm, &plan.eps, &plan.attacks, plan.points.is_empty()),
            "{name}: is of other attacks or radii than the first"
        );
    }
    let repeats = reports.iter().enumerate().any(|(i, r)| reports[..i].iter().any(|b| b.0 == r.0));
    Ok(if repeats { over_runs(reports) } else { one_each(reports) })
}

/// The line above a table, and the names of the radii.
fn opening(first: &Report, last: &str) -> (String, Vec<String>) {
    let plan = &first.plan;
    let radii: Vec<String> = plan.eps.iter().map(|e| format!("eps {}", plan.norm.radius(*e))).collect();
    let text = format!(
        "{} test images, {}, attacks {}{} (per-image worst case), seed {}; {last}\n\n",
        plan.images.n,
        plan.norm.name(),
        plan.attacks,
        if plan.points.is_empty() { "" } else { " and points found on other models" },
        plan.seed
    );
    (text, radii)
}

/// A row a report.
fn one_each(reports: &[(String, Report)]) -> String {
    let first = &reports[0].1;
    let note = "intervals are Wilson's, 95 %; p: McNemar's exact test against the first row at the first radius";
    let (mut text, radii) = opening(first, note);
    let rule = "---|".repeat(radii.len());
    text.push_str(&format!(
        "| model | clean | {} | p | masking checks |\n|---|---|{rule}---|---|\n",
        radii.join(" | ")
    ));
    for (name, r) in reports {
        let cells: Vec<String> = r.radii.iter().map(|r| r.worst.short()).collect();
        let pairs = || first.radii[0].held.bytes().zip(r.radii[0].held.bytes());
        let only = |a, b| pairs().filter(|p| *p == (a, b)).count() as u64;
        let p = mcnemar(only(b'1', b'0'), only(b'0', b'1'));
        let p = if p < 1e-4 { "< 0.0001".into() } else { format!("{p:.4}") };
        text.push_str(&format!("| {name} | {} | {} | {p} | {} |\n", r.clean.short(), cells.join(" | "), r.masking()));
    }
    text.push_str(&confidence(reports));
    text
}

/// A row a name: mean and standard deviation over the runs that bear it, and their range.
fn over_runs(reports: &[(String, Report)]) -> String {
    let (mut text, radii) = opening(&reports[0].1, "mean over runs ± their standard deviation (smallest to largest)");
    let rule = "---|".repeat(radii.len());
    text.push_str(&format!("| model | runs | clean | {} |\n|---|---|---|{rule}\n", radii.join(" | ")));
    let named = by_name(reports);
    for (name, own) in &named {
        let cell = |pick: &dyn Fn(&Report) -> f64| spread(own.iter().map(|r| pick(r)), 1);
        let cells: Vec<String> = (0..radii.len()).map(|k| cell(&|r| r.radii[k].worst.percent())).collect();
        let clean = cell(&|r| r.clean.percent());
        text.push_str(&format!("| {name} | {} | {clean} | {} |\n", own.len(), cells.join(" | ")));
    }
    text.push_str(&confidence_over_runs(&named));
    text
}

/// Reports of the same name, in the order of their first.
fn by_name(reports: &[(String, Report)]) -> Vec<(&str, Vec<&Report>)> {
    let mut named: Vec<(&str, Vec<&Report>)> = Vec::new();
    for (name, report) in reports {
        match named.iter_mut().find(|n| n.0 == name) {
            Some((_, own)) => own.push(report),
            None => named.push((name, vec![report])),
        }
    }
    named
}

/// `33.1 ± 0.9 (32.4 to 34.4)`, `-` of nothing.
fn spread(values: impl Iterator<Item = f64>, digits: usize) -> String {
    let values: Vec<f64> = values.collect();
    if values.is_empty() {
        return "-".into();
    }
    let [mean, deviation] = mean_and_deviation(&values);
    let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
    format!("{mean:.digits$} ± {deviation:.digits$} ({low:.digits$} to {high:.digits$})")
}

/// What confidence is worth, a row a name whose runs all measured it.
fn confidence_over_runs(named: &[(&str, Vec<&Report>)]) -> String {
    let mut rows = String::new();
    for (name, own) in named {
        let Some(all) = own.iter().map(|r| r.confidence.as_ref()).collect::<Option<Vec<_>>>() else { continue };
        let foreign = |pick: &dyn Fn(&Scores) -> f64| spread(all.iter().map(|q| mean_auroc(q, pick)), 3);
        rows.push_str(&format!(
            "| {name} | {} | {} | {} | {} |\n",
            foreign(&|s| s.rate),
            foreign(&|s| s.predictive_entropy),
            spread(all.iter().filter_map(|q| q.mistakes.as_ref()).map(|m| m.rate), 3),
            spread(all.iter().map(|q| q.ece_percent), 1)
        ));
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "\nConfidence: AUROC against foreign images, mean over {}; AUROC of the rate against the model's own mistakes; \
         expected calibration error in per cent\n\n\
         | model | rate, foreign | predictive entropy, foreign | rate, mistakes | ECE |\n|---|---|---|---|---|\n{rows}",
        foreign_sets(named.iter().flat_map(|n| n.1.iter().copied()))
    )
}

/// The mean over its foreign sets of one score's AUROC.
fn mean_auroc(quality: &Quality, pick: &dyn Fn(&Scores) -> f64) -> f64 {
    let each: Vec<f64> = quality.foreign.iter().map(|f| pick(&f.auroc)).collect();
    mean_and_deviation(&each)[0]
}

/// Names of the foreign sets of the first report that has any.
fn foreign_sets<'a>(mut reports: impl Iterator<Item = &'a Report>) -> String {
    let sets = reports.find_map(|r| r.confidence.as_ref());
    sets.map_or_else(String::new, |q| q.foreign.iter().map(|f| f.name.clone()).collect::<Vec<_>>().join(" / "))
}

/// What confidence is worth, a row a model.
fn confidence(reports: &[(String, Report)]) -> String {
    let mut rows = String::new();
    for (name, r) in reports {
        let Some(q) = &r.confidence else { continue };
        let covered =
            |percent: f64| q.coverage.iter().find(|c| c.covered_percent == percent).map(|c| c.accuracy_percent);
        let Some(at_80) = covered(80.0) else { continue };
        let by = |pick: &dyn Fn(&Scores) -> f64| {
            q.foreign.iter().map(|f| format!("{:.3}", pick(&f.auroc))).collect::<Vec<_>>().join(" / ")
        };
        let adaptive = r.abstention.as_ref().map_or_else(|| "-".into(), |a| format!("{:.1} %", a.worst.percent()));
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
    let sets = foreign_sets(reports.iter().map(|r| &r.1));
    format!(
        "\nConfidence: AUROC against {sets}; accuracy at 80 % coverage by rate / by predictive entropy; expected \
         calibration error; wrong and accepted at the worst of clean, attacked and adaptively attacked images\n\n\
         | model | rate | posterior entropy | predictive entropy | at 80 % coverage | ECE | wrong and accepted |\n\
         |---|---|---|---|---|---|---|\n{rows}"
    )
}

#[cfg(test)]
mod tests {
    use super::super::curves;
    use super::*;
    use crate::confidence::Foreign;
    use crate::plan::{Identity, Plan, Request};
    use crate::radius::Radius;
    use crate::selection::Trust;
    use paradise_attack::threat::Norm;
    use paradise_data::Dataset;
    use paradise_engine::Shape;
    use paradise_support::statistics::Proportion;

    fn report(held: &str, attacks: &str) -> Report {
        let set = Dataset::new(Shape::new(1, 1, 1), vec![0; held.len()], vec![0; held.len()]).unwrap();
        let request = Request { norm: Norm::Linf, eps: vec![0.1], attacks: attacks.into(), seed: 0, batch: 4 };
        let model = Identity { name: "float".into(), sha256: "00".into() };
        let of = |ones: usize| Proportion { correct: ones, n: held.len() };
        let worst = of(held.bytes().filter(|b| *b == b'1').count());
        let radius = Radius { eps: 0.1, attacks: vec![], worst, held: held.into(), worst_on_grid: worst };
        Report {
            paradise: "0".into(),
            plan: Plan::new(model, None, "set", &set, request).unwrap(),
            labels: vec![],
            clean: of(held.len()),
            radii: vec![radius],
            checks: None,
            confidence_of: "none".into(),
            confidence: None,
            abstention: None,
            notes: vec![],
        }
    }

    #[test]
    fn models_are_paired_and_runs_are_averaged() {
        let named = |name: &str, held: &str| (name.to_string(), report(held, "fgsm"));
        // Nine images that only the second holds: p = 2 / 2^9.
        let table = compare(&[named("a", "1000000000"), named("b", "1111111111")]).unwrap();
        assert!(table.contains("| b |") && table.contains("| 0.0039 |"), "{table}");
        let table = compare(&[named("a", "1100"), named("b", "1111"), named("a", "1110")]).unwrap();
        assert!(table.contains("| a | 2 |") && table.contains("62.5 ± 17.7 (50.0 to 75.0)"), "{table}");
        assert!(!table.contains("Confidence"), "nothing measured it: {table}");
        let other = ("c".to_string(), report("1100", "pgd"));
        assert!(compare(&[named("a", "1100"), other]).unwrap_err().to_string().contains("c: is of other attacks"));
        let mut shown = named("d", "1100");
        shown.1.plan.points = vec![shown.1.plan.model.clone()];
        assert!(
            compare(&[named("a", "1100"), shown.clone()]).unwrap_err().to_string().contains("d: is of other attacks")
        );
        assert!(compare(&[shown]).unwrap().contains("attacks fgsm and points found on other models"));
        assert!(compare(&[]).is_err());
    }

    #[test]
    fn confidence_is_averaged_over_foreign_sets_and_then_over_runs() {
        let with = |name: &str, rates: [f64; 2], mistakes: Option<f64>| {
            let mut r = report("1100", "fgsm");
            let scores = |rate| Scores {
                rate,
                posterior: 0.0,
                spread: 0.0,
                picture: 0.0,
                posterior_entropy: 0.0,
                predictive_entropy: 0.25,
                relative_rate: 0.0,
                combination: 0.0,
            };
            let share = Proportion { correct: 1, n: 2 };
            let foreign =
                |name: &str, rate| Foreign { name: name.into(), n: 2, auroc: scores(rate), abstained: share };
            r.confidence = Some(Quality {
                n: 4,
                promised_percent: 5.0,
                abstained: share,
                accepted_accuracy: share,
                mistakes: mistakes.map(scores),
                mistakes_abstained: share,
                trust: Trust::PredictiveEntropy,
                trusted_accuracy_percent: 90.0,
                coverage: vec![],
                mean_covered_accuracy_percent: scores(0.0),
                ece_percent: 2.0,
                reliability: vec![],
                foreign: vec![foreign("noise", rates[0]), foreign("digits", rates[1])],
                corruptions: vec![],
            });
            (name.to_string(), r)
        };
        let runs = [
            with("a", [0.5, 0.7], None),
            with("a", [0.7, 0.9], None),
            with("b", [0.9, 0.9], Some(0.75)),
            ("c".to_string(), report("1111", "fgsm")),
        ];
        let table = compare(&runs).unwrap();
        assert!(table.contains("mean over noise / digits;"), "{table}");
        assert!(
            table.contains("| a | 0.700 ± 0.141 (0.600 to 0.800) | 0.250 ± 0.000 (0.250 to 0.250) | - |"),
            "{table}"
        );
        assert!(table.contains("| 0.750 ± 0.000 (0.750 to 0.750) | 2.0 ± 0.0 (2.0 to 2.0) |"), "{table}");
        assert_eq!(table.matches("| c |").count(), 1, "a run without confidence is left out of it: {table}");
    }

    #[test]
    fn a_line_a_model_is_drawn_from_clean_accuracy_on() {
        let named = |name: &str, held: &str| (name.to_string(), report(held, "fgsm"));
        let png = curves(&[named("a", "1000"), named("b", "1110")]).unwrap();
        let picture = image::load_from_memory(&png).unwrap().to_rgb8();
        // Pixels of a colour at the lower right: only the first line's interval, 5 to 70 %, reaches there.
        let of = |colour: [u8; 3]| {
            let low = |p: &(u32, u32, &image::Rgb<u8>)| p.0 > 450 && p.1 > 400 && p.2.0 == colour;
            picture.enumerate_pixels().filter(low).count()
        };
        assert!(of([0, 114, 178]) > 20 && of([213, 94, 0]) == 0, "{} {}", of([0, 114, 178]), of([213, 94, 0]));
        let mut l2 = named("c", "1111");
        l2.1.plan.norm = Norm::L2;
        assert!(curves(&[named("a", "1100"), l2]).unwrap_err().to_string().contains("c: is in another norm"));
        assert!(curves(&[]).is_err());
    }
}
