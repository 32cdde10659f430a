//! The report as a page to look at: the checks, and every probe picture with what this device makes of it. Nothing outside the file.

use super::{Report, Status, Verdict};
use crate::bundle::{Bundle, SELFTEST};
use crate::output::plain;
use crate::pipeline::{Backend, BackendError};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use paradise_engine::Shape;
use paradise_engine::golden::{Golden, Origin, Probes};
use std::fmt::Write;

const STYLE: &str = ":root{color-scheme:light dark;--good:#176b2c;--bad:#b3261e;--dim:#5f6368}\
@media(prefers-color-scheme:dark){:root{--good:#7ddc93;--bad:#ffb4ab;--dim:#a8adb3}}\
body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}\
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--dim);vertical-align:top}\
.passed{color:var(--good);font-weight:600}.failed{color:var(--bad);font-weight:600}.not-run,.not-applicable{color:var(--dim)}\
ul.probes{display:flex;flex-wrap:wrap;gap:.6rem;list-style:none;padding:0}\
ul.probes li{width:8.5rem;font-size:.8rem}ul.probes img{width:100%;image-rendering:pixelated;display:block}";

fn class(status: Status) -> &'static str {
    match status {
        Status::Passed => "passed",
        Status::Failed => "failed",
        Status::NotApplicable => "not-applicable",
        Status::NotRun => "not-run",
    }
}

/// A self-contained page of a report; its pictures are those of the bundle's probes, classified once more by `backend` if it was loaded.
///
/// # Errors
/// If the back end fails on a probe.
pub fn page(
    report: &Report,
    bundle: Option<&Bundle>,
    backend: Option<Box<dyn Backend>>,
) -> Result<String, BackendError> {
    let (verdict, words) = match report.verdict() {
        Verdict::Passed => ("passed", "passed: all that applies"),
        Verdict::Failed => ("failed", "FAILED"),
        Verdict::Incomplete => ("not-run", "not complete: a check did not run"),
    };
    let name = plain(&report.name);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>Self-test of {name}</title><style>{STYLE}</style></head><body>\n<main><h1>Self-test of {name}</h1>\n\
         <p class=\"{verdict}\">{words}</p>\n<p>{} back end, {}, kernel {}, paradise {}</p>\n\
         <table><caption>Checks, in the order in which they ran</caption>\n\
         <tr><th scope=\"col\">check</th><th scope=\"col\">ended</th><th scope=\"col\">what was seen</th></tr>\n",
        report.backend, report.architecture, report.kernel, report.version
    );
    for check in &report.checks {
        let _ = writeln!(
            page,
            "<tr><th scope=\"row\">{}</th><td class=\"{}\">{}</td><td>{}</td></tr>",
            check.name,
            class(check.status),
            check.status.name(),
            plain(&check.detail)
        );
    }
    page.push_str("</table>\n");
    if let (Some(bundle), Some(mut backend)) = (bundle, backend)
        && let Some(golden) = bundle.file(SELFTEST).ok().and_then(|bytes| Golden::parse(bytes).ok())
    {
        let (mut input, mut labels) = (Shape::new(0, 0, 0), Vec::new());
        backend.with_model(&mut |model| {
            input = model.header().input;
            labels = (0..model.header().classes.into()).map(|class| model.label(class).to_string()).collect();
        });
        for set in golden.header().probes.iter() {
            probes(&mut page, &golden, &set, input, &labels, backend.as_mut())?;
        }
    }
    page.push_str("</main></body></html>\n");
    Ok(page)
}

fn probes(
    page: &mut String,
    golden: &Golden,
    set: &Probes,
    input: Shape,
    labels: &[String],
    backend: &mut dyn Backend,
) -> Result<(), BackendError> {
    let eps = if set.eps_pixels > 0.0 { format!(", {:.1}/255", set.eps_pixels) } else { String::new() };
    let what = match golden.header().origin {
        Origin::DataSet => "test images of the data set",
        Origin::Synthesised => "synthesised from the network: of this device's arithmetic, not of the world",
    };
    let _ = writeln!(
        page,
        "<h2>{} probes{eps}</h2>\n<p>{} pictures, {} of which must be right: {what}.</p>\n<ul class=\"probes\">",
        set.kind.name(),
        set.n,
        set.min_correct
    );
    let (truth, each) = (golden.u32s(set.labels), golden.header().image_bytes as usize);
    let name = |class: usize| plain(labels.get(class).map_or("?", String::as_str));
    for (image, truth) in golden.bytes(set.images).chunks_exact(each).zip(truth.iter()) {
        let verdict = backend.verdict(image, None)?;
        let right = verdict.class == truth as usize;
        let decision = if verdict.is_accept() { "accepted" } else { "abstained from" };
        let said = format!("{}, {}", name(verdict.class), if right { "right" } else { "wrong" });
        let file = paradise_picture::png(image, input).unwrap_or_default();
        let _ = writeln!(
            page,
            "<li><img alt=\"a picture of the class {}\" src=\"data:image/png;base64,{}\"><span class=\"{}\">{said}</span>, \
             {decision}</li>",
            name(truth as usize),
            BASE64_STANDARD.encode(file),
            if right { "passed" } else { "failed" },
        );
    }
    page.push_str("</ul>\n");
    Ok(())
}
