//! How everything stands, as a page without a script.

use crate::serve::http::Service;
use crate::serve::registry::State;
use paradise_runtime::output::plain;
use std::fmt::Write;

/// A row of a table; the first cell is its head.
fn row(page: &mut String, cells: &[String]) {
    let [head, rest @ ..] = cells else { return };
    let _ = write!(page, "<tr><th scope=\"row\">{}</th>", plain(head));
    rest.iter().for_each(|cell| {
        let _ = write!(page, "<td>{}</td>", plain(cell));
    });
    page.push_str("</tr>\n");
}

fn table(page: &mut String, caption: &str, heads: &[&str], rows: &[Vec<String>]) {
    let _ = write!(page, "<table><caption>{caption}</caption>\n<tr>");
    heads.iter().for_each(|head| {
        let _ = write!(page, "<th scope=\"col\">{head}</th>");
    });
    page.push_str("</tr>\n");
    rows.iter().for_each(|cells| row(page, cells));
    page.push_str("</table>\n");
}

/// The page.
pub fn text(service: &Service) -> String {
    let mut page = String::from(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>paradised: report</title><link rel=\"stylesheet\" href=\"page.css\"></head>\
         <body><main><h1>How this device stands</h1>\n",
    );
    let _ =
        writeln!(page, "<p>{}; <a href=\"/\">the live page</a></p>", jiff::Timestamp::now().strftime("%F %T UTC"));
    let cameras: Vec<Vec<String>> = service
        .cameras
        .all()
        .map(|live| {
            let known = live.known();
            let what = known.label.clone().or(known.reason.map(String::from)).unwrap_or_default();
            let last =
                known.last.map(|last| format!("{} at {}", last.label, last.at.strftime("%F %T"))).unwrap_or_default();
            vec![live.name.clone(), known.state.into(), what, known.since.strftime("%F %T").to_string(), last]
        })
        .collect();
    if !cameras.is_empty() {
        table(&mut page, "Cameras", &["camera", "state", "what", "since", "last known"], &cameras);
    }
    let mut drifts = Vec::new();
    let models: Vec<Vec<String>> = service
        .registry
        .index()
        .into_iter()
        .map(|(name, version, state)| {
            let mut thresholds = String::new();
            if let State::Ready(served) = &state {
                thresholds = served.rule().site().map_or("the maker's".into(), ToString::to_string);
                for shift in served.watched.shifts() {
                    let usual = if shift.alarm { "otherwise than calibrated" } else { "as calibrated" };
                    drifts.push(vec![name.clone(), shift.of.into(), format!("{:.3}", shift.index), usual.into()]);
                }
            }
            let tested =
                service.exams.last(&name).map_or("not yet".into(), |report| report.verdict().name().to_string());
            let stands = format!("{} {}", state.name().to_lowercase(), state.reason());
            vec![name, version, stands.trim().to_string(), thresholds, tested]
        })
        .collect();
    table(&mut page, "Models", &["model", "version", "state", "thresholds", "last self-test"], &models);
    if !drifts.is_empty() {
        table(&mut page, "Answers of late", &["model", "of", "index", "they are"], &drifts);
    }
    let faults = service.faults.all();
    let faults: Vec<Vec<String>> = faults
        .into_iter()
        .map(|(model, fault)| vec![model, fault.at.strftime("%F %T").to_string(), fault.why])
        .collect();
    if faults.is_empty() {
        page.push_str("<p>No faults.</p>\n");
    } else {
        table(&mut page, "Faults", &["model", "since", "why"], &faults);
    }
    for served in service.registry.loaded().iter().filter(|served| service.exams.last(&served.name).is_some()) {
        let name = plain(&served.name);
        let _ = writeln!(
            page,
            "<p><a href=\"/v1/selftest/page?model={name}\">The last self-test of {name}, with its pictures</a></p>"
        );
    }
    page.push_str("</main></body></html>\n");
    page
}
