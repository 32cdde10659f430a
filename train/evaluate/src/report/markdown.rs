//! The report's tables as Markdown.

use super::Report;
use crate::confidence::{Corrupted, SCORES, Scores};
use crate::masking::Verdict;
use paradise_support::statistics::Proportion;
use std::fmt::Write;

/// A table's head and rows.
pub(super) struct Table {
    /// Above it.
    pub title: String,
    /// One cell a column.
    pub head: Vec<String>,
    /// Cells.
    pub rows: Vec<Vec<String>>,
    /// Below it.
    pub note: String,
}

fn cells<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(String::from).to_vec()
}

/// Lines that open the report.
pub(super) fn opening(report: &Report) -> Vec<String> {
    let plan = &report.plan;
    vec![
        format!("Model: {}, sha256 {}", plan.model.name, &plan.model.sha256[..plan.model.sha256.len().min(16)]),
        format!("Images: {} of {}", plan.images.n, plan.images.source),
        format!(
            "Attacks: {}; {}; seed {}; surrogate: {}",
            plan.described(),
            plan.norm.name(),
            plan.seed,
            plan.surrogate.as_ref().map_or("none", |s| &s.name)
        ),
        format!("Clean accuracy: {}", report.clean.short()),
        format!("Masking checks: {}", report.masking()),
        format!("paradise {}; intervals are Wilson's, 95 %", report.paradise),
    ]
}

/// Every table, in order.
pub(super) fn tables(report: &Report) -> Vec<Table> {
    let mut all = vec![summary(report)];
    all.extend(report.radii.iter().map(|r| {
        let eps = report.plan.norm.radius(r.eps);
        let mut rows: Vec<Vec<String>> =
            r.attacks.iter().map(|a| vec![a.attack.clone(), a.seen.to_string(), accuracy(a)]).collect();
        rows.push(vec!["worst case per image".into(), report.plan.images.n.to_string(), r.worst.short()]);
        rows.push(vec!["the same, rounded to 8 bits".into(), String::new(), r.worst_on_grid.short()]);
        Table {
            title: format!("Attacks at {} eps {eps}", report.plan.norm.name()),
            head: cells(["attack", "images it saw", "accuracy"]),
            rows,
            note:
                "An attack that saw fewer images saw what those before it in its group had left; its accuracy counts \
                   them all."
                    .into(),
        }
    }));
    all.extend(checks(report));
    all.extend(abstention(report));
    all.extend(confidence(report));
    all
}

/// Accuracy under an attack, and its success rate where that is its measure.
fn accuracy(row: &crate::radius::Row) -> String {
    match &row.success {
        Some(success) => format!("{}; attack success rate {}", row.robust.short(), success.short()),
        None => row.robust.short(),
    }
}

fn summary(report: &Report) -> Table {
    let row = |r: &super::Radius| {
        vec![report.plan.norm.radius(r.eps), r.worst.short(), r.worst_on_grid.short(), report.masking()]
    };
    Table {
        title: "Robust accuracy: per-image worst case over all attacks".into(),
        head: cells(["eps", "accuracy", "on the 8-bit grid", "masking checks"]),
        rows: report.radii.iter().map(row).collect(),
        note: String::new(),
    }
}

fn checks(report: &Report) -> Option<Table> {
    let checks = report.checks.as_ref()?;
    let row = |c: &crate::masking::Check| {
        let verdict = match c.verdict {
            Verdict::Passed => "passed",
            Verdict::Flagged => "FLAGGED",
            Verdict::NotRun => "not run",
        };
        let value = c.value.map_or_else(String::new, |v| format!("{v:.1}"));
        vec![c.name.clone(), c.measured.clone(), value, c.limit.clone(), verdict.into()]
    };
    Some(Table {
        title: format!("Masking checks: {} images, eps {}", checks.n, report.plan.norm.radius(checks.eps)),
        head: cells(["check", "measured", "value", "limit", "verdict"]),
        rows: checks.checks.iter().map(row).collect(),
        note: "A flag says that the robust accuracy above may come from gradients that mislead the attacks, or from \
               attacks that are too weak."
            .into(),
    })
}

fn abstention(report: &Report) -> Option<Table> {
    let a = report.abstention.as_ref()?;
    let row = |name: &str, s: &Proportion| vec![name.into(), s.short()];
    Some(Table {
        title: format!(
            "Abstention under attack ({}, eps {}, {} images)",
            report.confidence_of,
            report.plan.norm.radius(a.eps),
            a.n
        ),
        head: cells(["images", "wrong and accepted"]),
        rows: vec![
            row("as they are", &a.clean),
            row("attacked for a wrong class", &a.plain),
            row(&format!("attacked for a wrong class that is accepted (3 walks of {} steps)", a.steps), &a.adaptive),
            row("worst case of these", &a.worst),
        ],
        note: "Points are on the 8-bit grid.".into(),
    })
}

fn four(s: &Scores) -> Vec<String> {
    s.values().iter().map(|v| format!("{v:.3}")).collect()
}

fn confidence(report: &Report) -> Vec<Table> {
    let Some(q) = &report.confidence else { return Vec::new() };
    let with_scores =
        |first: &[&str]| -> Vec<String> { first.iter().chain(SCORES.iter()).map(|s| (*s).to_string()).collect() };
    let mut rows: Vec<Vec<String>> = q
        .foreign
        .iter()
        .map(|f| [vec![f.name.clone(), f.n.to_string(), f.abstained.short()], four(&f.auroc)].concat())
        .collect();
    if let Some(mistakes) = &q.mistakes {
        let found = vec![
            "misclassified test images".into(),
            q.mistakes_abstained.n.to_string(),
            q.mistakes_abstained.short(),
        ];
        rows.push([found, four(mistakes)].concat());
    }
    let by = q.coverage.iter().map(|c| {
        let values = c.accuracy_percent.values();
        [vec![format!("{:.0} %", c.covered_percent)], values.iter().map(|v| format!("{v:.1} %")).collect()].concat()
    });
    let mean = q.mean_covered_accuracy_percent.values().map(|v| format!("{v:.1} %"));
    let mut coverage: Vec<Vec<String>> = by.collect();
    coverage.push([vec!["mean over all coverages".to_string()], mean.to_vec()].concat());
    let mut kinds: Vec<&str> = q.corruptions.iter().map(|c| &*c.name).collect();
    kinds.dedup();
    let of = |kind: &str| q.corruptions.iter().filter(move |c| c.name == kind).collect::<Vec<&Corrupted>>();
    let levels = |rows: &[&Corrupted], pick: &dyn Fn(&Corrupted) -> f64, digits: usize| {
        rows.iter().map(|c| format!("{:.digits$}", pick(c))).collect::<Vec<_>>().join(" / ")
    };
    let corrupted = kinds.iter().map(|kind| {
        let rows = of(kind);
        vec![
            (*kind).to_string(),
            levels(&rows, &|c| c.accuracy.percent(), 1),
            levels(&rows, &|c| c.accepted_accuracy.percent(), 1),
            levels(&rows, &|c| c.abstained.percent(), 0),
            levels(&rows, &|c| c.auroc.rate, 2),
        ]
    });
    vec![
        Table {
            title: format!("Confidence ({}): telling images apart, area under the ROC curve", report.confidence_of),
            head: with_scores(&["images", "n", "abstained"]),
            rows,
            note: format!(
                "Of the {} test images {} are abstained (promised: {:.0} %); of the accepted ones {} are right. \
                 Expected calibration error: {:.1} %.",
                q.n,
                q.abstained.short(),
                q.promised_percent,
                q.accepted_accuracy.short(),
                q.ece_percent
            ),
        },
        Table {
            title: "Accuracy of the test images that a score trusts most".into(),
            head: with_scores(&["covered"]),
            rows: coverage,
            note: format!(
                "On calibration images mistakes are told best by {}: of the four fifths that it trusts most, {:.1} % are \
                 right.",
                q.trust.name(),
                q.trusted_accuracy_percent
            ),
        },
        Table {
            title: "Corruptions, levels 1 to 5".into(),
            head: cells([
                "corruption",
                "accuracy, %",
                "accuracy of the accepted, %",
                "abstained, %",
                "AUROC of the rate",
            ]),
            rows: corrupted.collect(),
            note: format!("{} test images each.", q.corruptions.first().map_or(0, |c| c.accuracy.n)),
        },
    ]
}

/// The whole report.
pub(super) fn write(report: &Report) -> String {
    let mut text = String::from("# Robustness report\n\n");
    for line in opening(report) {
        let _ = writeln!(text, "- {line}");
    }
    for note in &report.notes {
        let _ = writeln!(text, "- Note: {note}");
    }
    for table in tables(report) {
        let _ = write!(text, "\n## {}\n\n", table.title);
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        text.push_str(&line(&table.head));
        text.push_str(&format!("|{}\n", "---|".repeat(table.head.len())));
        table.rows.iter().for_each(|row| text.push_str(&line(row)));
        if !table.note.is_empty() {
            let _ = write!(text, "\n{}\n", table.note);
        }
    }
    text
}
