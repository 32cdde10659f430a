//! The report as one page that needs nothing else: tables, and pictures inside it.

use super::markdown::{opening, tables};
use super::{Picture, Report};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}\
    table{border-collapse:collapse;margin:.6rem 0;font-size:.92rem}\
    th,td{padding:.25rem .7rem;border-bottom:1px solid #ddd;text-align:left;vertical-align:top}\
    th{border-bottom:2px solid #888}h2{margin-top:2.2rem;font-size:1.2rem}img{max-width:100%;height:auto}\
    .flagged{color:#b02020;font-weight:600}.note{color:#666;font-size:.9rem}ul{padding-left:1.2rem}";

/// Text that cannot be markup.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The page.
pub(super) fn write(report: &Report, pictures: &[Picture]) -> String {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Robustness report: {}</title>\
         <style>{STYLE}</style></head><body>\n<h1>Robustness report</h1>\n<ul>\n",
        escaped(&report.plan.model.name)
    );
    let flagged = report.checks.as_ref().is_some_and(|c| c.flagged());
    for line in opening(report) {
        let class = if flagged && line.starts_with("Masking") { " class=\"flagged\"" } else { "" };
        page.push_str(&format!("<li{class}>{}</li>\n", escaped(&line)));
    }
    report.notes.iter().for_each(|n| page.push_str(&format!("<li>Note: {}</li>\n", escaped(n))));
    page.push_str("</ul>\n");
    for picture in pictures {
        page.push_str(&format!(
            "<figure><img alt=\"{0}\" src=\"data:image/png;base64,{1}\"><figcaption class=\"note\">{0}</figcaption></figure>\n",
            escaped(&picture.caption),
            STANDARD.encode(&picture.png)
        ));
    }
    for table in tables(report) {
        page.push_str(&format!("<h2>{}</h2>\n<table><thead>", escaped(&table.title)));
        let row = |cells: &[String], tag: &str| {
            let cell = |c: &String| {
                let class = if c == "FLAGGED" { " class=\"flagged\"" } else { "" };
                format!("<{tag}{class}>{}</{tag}>", escaped(c))
            };
            format!("<tr>{}</tr>\n", cells.iter().map(cell).collect::<String>())
        };
        page.push_str(&row(&table.head, "th"));
        page.push_str("</thead><tbody>\n");
        table.rows.iter().for_each(|r| page.push_str(&row(r, "td")));
        page.push_str("</tbody></table>\n");
        if !table.note.is_empty() {
            page.push_str(&format!("<p class=\"note\">{}</p>\n", escaped(&table.note)));
        }
    }
    page.push_str("</body></html>\n");
    page
}
