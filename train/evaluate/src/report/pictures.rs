//! The report's pictures.

use super::Report;
use crate::confidence::{Quality, SCORES};
use crate::figure::gallery::{self, Cell, Row};
use crate::figure::lines::{self, Axes, Series};
use anyhow::{Result, ensure};
use paradise_attack::Outcome;
use paradise_attack::threat::Norm;
use paradise_data::Dataset;
use paradise_support::statistics::Proportion;

/// A picture of the report.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// What it shows.
    pub caption: String,
    /// The file.
    pub png: Vec<u8>,
}

/// Images that are shown.
const EXAMPLES: usize = 8;

pub(super) fn draw(report: &Report, set: &Dataset, worst: &Outcome, classes: &[u16]) -> Result<Vec<Picture>> {
    let mut all = Vec::new();
    if report.radii.len() > 1 {
        all.push(curve(report)?);
    }
    all.extend(examples(report, set, worst, classes)?);
    if let Some(quality) = &report.confidence {
        all.extend(confidence(quality)?);
    }
    Ok(all)
}

fn curve(report: &Report) -> Result<Picture> {
    let lines = [
        line("worst case of all attacks", report, |r| &r.worst),
        line("rounded to 8 bits", report, |r| &r.worst_on_grid),
    ];
    Ok(Picture {
        caption: "Robust accuracy against eps; bars are Wilson's 95 % intervals".into(),
        png: against_eps(&lines, report.plan.norm)?,
    })
}

/// Robust accuracy of several models, the worst case of the attacks, against the radius, as a PNG.
///
/// # Errors
/// If there is no report, one has another norm than the first, or drawing fails.
pub fn curves(reports: &[(String, Report)]) -> Result<Vec<u8>> {
    let [(_, first), ..] = reports else { anyhow::bail!("no report to draw") };
    let norm = first.plan.norm;
    for (name, report) in reports {
        ensure!(report.plan.norm == norm, "{name}: is in another norm than the first");
    }
    let lines: Vec<Series> = reports.iter().map(|(name, r)| line(name, r, |r| &r.worst)).collect();
    against_eps(&lines, norm)
}

/// A share against the radius, from clean accuracy on.
fn line(name: &str, report: &Report, pick: impl Fn(&super::Radius) -> &Proportion) -> Series {
    let unit = if report.plan.norm == Norm::Linf { 255.0 } else { 1.0 };
    let point =
        |eps: f32, s: &Proportion| (eps * unit, s.percent() as f32, Some(s.wilson_percent().map(|v| v as f32)));
    let mut order: Vec<&super::Radius> = report.radii.iter().collect();
    order.sort_by(|a, b| a.eps.total_cmp(&b.eps));
    let clean = order.first().is_none_or(|r| r.eps > 0.0).then(|| point(0.0, &report.clean));
    Series {
        name: name.into(),
        points: clean.into_iter().chain(order.iter().map(|r| point(r.eps, pick(r)))).collect(),
    }
}

fn against_eps(lines: &[Series], norm: Norm) -> Result<Vec<u8>> {
    let last = lines.iter().flat_map(|l| &l.points).fold(1e-3, |last: f32, p| last.max(p.0));
    let axes = Axes {
        caption: "Accuracy under attack",
        x: if norm == Norm::Linf { "eps (1/255), l_inf" } else { "eps, l_2" },
        y: "accuracy (%)",
        x_range: 0.0..last * 1.03,
        y_range: 0.0..100.0,
    };
    lines::draw(lines, &axes)
}

/// The first images that were right and fell.
fn examples(report: &Report, set: &Dataset, worst: &Outcome, classes: &[u16]) -> Result<Option<Picture>> {
    let grid = worst.on_grid(set);
    let moved = |i: &usize| classes[*i] != set.labels[*i] && grid.image(*i) != set.image(*i);
    let chosen: Vec<usize> = (0..set.len()).filter(moved).take(EXAMPLES).collect();
    if chosen.is_empty() || !matches!(set.shape.c, 1 | 3) {
        return Ok(None);
    }
    let name = |class: u16| report.labels.get(usize::from(class)).cloned().unwrap_or_default();
    let cell = |pixels: Vec<u8>, caption: String| Cell { pixels, shape: set.shape, caption };
    let row = |title: &str, make: &dyn Fn(usize) -> Cell| Row {
        name: title.into(),
        cells: chosen.iter().map(|i| make(*i)).collect(),
    };
    let reach = chosen
        .iter()
        .flat_map(|i| set.image(*i).iter().zip(grid.image(*i)).map(|(a, b)| a.abs_diff(*b)))
        .max()
        .map_or(1.0, f32::from);
    let rows = [
        row("clean", &|i| cell(set.image(i).to_vec(), name(set.labels[i]))),
        row("perturbation", &|i| cell(gallery::difference(set.image(i), grid.image(i), reach), String::new())),
        row("what the model sees", &|i| cell(grid.image(i).to_vec(), name(classes[i]))),
    ];
    let eps = report.plan.norm.radius(report.plan.eps[0]);
    let caption = format!("Images that fell at eps {eps}; full contrast of a perturbation is {reach}/255");
    Ok(Some(Picture { caption, png: gallery::draw(&rows, &format!("Adversarial images at eps {eps}"), 112)? }))
}

fn confidence(q: &Quality) -> Result<[Picture; 3]> {
    // Typicality is the rate in other numbers, and orders images alike.
    let names = SCORES.iter().enumerate();
    let by_score = names.map(|(k, name)| {
        let points =
            q.coverage.iter().map(move |c| (c.covered_percent as f32, c.accuracy_percent.values()[k] as f32));
        Series::plain(name, points)
    });
    let by_score: Vec<Series> = by_score.collect();
    let lowest = by_score.iter().flat_map(|l| &l.points).map(|p| p.1).fold(100.0, f32::min);
    let coverage = Axes {
        caption: "Risk and coverage",
        x: "images answered (%)",
        y: "accuracy on them (%)",
        x_range: 50.0..100.0,
        y_range: (lowest - 2.0).max(0.0)..100.0,
    };
    let reliability = [
        Series::plain("model", q.reliability.iter().map(|b| (b.probability as f32, b.accuracy as f32))),
        Series::plain("honest", [(0.0, 0.0), (1.0, 1.0)].into_iter()),
    ];
    let honest = Axes {
        caption: "Reliability of the probabilities",
        x: "mean probability of the given class",
        y: "share that is right",
        x_range: 0.0..1.0,
        y_range: 0.0..1.0,
    };
    let mean = |name: &str, pick: &dyn Fn(&crate::confidence::Corrupted) -> f64| {
        let level = |level: usize| {
            let own: Vec<f64> = q.corruptions.iter().filter(|c| c.level == level).map(pick).collect();
            (level as f32, (own.iter().sum::<f64>() / own.len().max(1) as f64) as f32)
        };
        Series::plain(name, (1..=paradise_data::corruption::LEVELS).map(level))
    };
    let corrupted = [
        mean("accuracy", &|c| c.accuracy.percent()),
        mean("accuracy of the accepted", &|c| {
            if c.accepted_accuracy.n > 0 { c.accepted_accuracy.percent() } else { 100.0 }
        }),
        mean("abstained", &|c| c.abstained.percent()),
    ];
    let levels = Axes {
        caption: "Mean over the 15 corruptions",
        x: "level",
        y: "images (%)",
        x_range: 0.9..5.1,
        y_range: 0.0..100.0,
    };
    let picture = |caption: &str, lines: &[Series], axes: &Axes| -> Result<Picture> {
        Ok(Picture { caption: caption.into(), png: lines::draw(lines, axes)? })
    };
    Ok([
        picture("Accuracy of the images that each score trusts most", &by_score, &coverage)?,
        picture("Probabilities against the share that is right, 15 bins", &reliability, &honest)?,
        picture("Corruptions by level", &corrupted, &levels)?,
    ])
}
