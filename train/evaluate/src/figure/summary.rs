//! The demo's one-page report: accuracy against eps, how far foreign images are from the known ones, samples with perturbations.

use super::gallery::{self, Cell};
use super::histogram::{self, Bars};
use super::lines::{self, Axes, Series};
use super::{Area, failed};
use anyhow::Result;
use paradise_engine::Shape;
use paradise_support::statistics::Proportion;
use plotters::prelude::*;

const WIDTH: u32 = 1500;
const HEIGHT: u32 = 1330;
/// Robust accuracy of one model.
#[derive(Debug, Clone)]
pub struct Curve {
    /// Name of the model.
    pub name: String,
    /// Radius in 1/255 and the share that kept its class.
    pub points: Vec<(f32, Proportion)>,
}

/// One image and, for each model, what it was shown and which class it gave.
#[derive(Debug, Clone)]
pub struct Sample {
    /// u8 HWC.
    pub clean: Vec<u8>,
    /// Extents.
    pub shape: Shape,
    /// True class.
    pub label: u16,
    /// Adversarial image on the 8-bit grid and predicted class, one a model.
    pub shown: Vec<(Vec<u8>, u16)>,
}

/// The report as a PNG.
///
/// # Errors
/// If drawing fails.
pub fn draw(
    curves: &[Curve],
    samples: &[Sample],
    distances: &[(String, Vec<f32>)],
    labels: &[String],
    note: &str,
) -> Result<Vec<u8>> {
    super::page(WIDTH, HEIGHT, "paradise demo: Fashion-MNIST subset", |page| {
        let (charts, pictures) = page.split_vertically(560);
        let (left, right) = charts.split_horizontally(WIDTH / 2);
        accuracy(&left, curves)?;
        let bars = Bars {
            caption: "Posterior typicality: test images and foreign ones (int8 engine)",
            x: "Mahalanobis distance of (log sigma, mu) to the nearest class; the last bin holds what lies beyond",
            range: histogram::most(distances),
            bins: 60,
        };
        histogram::chart(&right, distances, &bars)?;
        grid(&pictures, samples, curves, labels, note)
    })
}

fn accuracy(area: &Area, curves: &[Curve]) -> Result<()> {
    let last = curves.iter().flat_map(|c| c.points.last()).map(|p| p.0).fold(1.0, f32::max);
    let point = |(eps, p): &(f32, Proportion)| (*eps, p.percent() as f32, Some(p.wilson_percent().map(|v| v as f32)));
    let line = |c: &Curve| Series { name: c.name.clone(), points: c.points.iter().map(point).collect() };
    let lines: Vec<Series> = curves.iter().map(line).collect();
    let axes = Axes {
        caption: "Accuracy under attack",
        x: "eps (1/255), l_inf",
        y: "accuracy (%)",
        x_range: 0.0..last * 1.03,
        y_range: 0.0..100.0,
    };
    lines::chart(area, &lines, &axes)
}

/// Rows: clean image, then for each model the perturbation (mid-grey is none, full contrast 16/255) and what it saw.
fn grid(area: &Area, samples: &[Sample], curves: &[Curve], labels: &[String], note: &str) -> Result<()> {
    const CELL: i32 = 96;
    const LEFT: i32 = 200;
    let text = |t: &str, x: i32, y: i32, size: i32, colour: &RGBColor| -> Result<()> {
        area.draw(&Text::new(t.to_string(), (x, y), ("sans-serif", size).into_font().color(colour))).map_err(failed)
    };
    text("What each model was shown at eps 8/255, and what it said", 20, 6, 26, &BLACK)?;
    let mut rows = vec!["clean image".to_string()];
    for curve in curves {
        rows.push(format!("attack on {}", curve.name));
        rows.push(format!("seen by {}", curve.name));
    }
    let row_y = |r: usize| 52 + r as i32 * (CELL + 34);
    for (r, name) in rows.iter().enumerate() {
        text(name, 20, row_y(r) + CELL / 2 - 10, 19, &BLACK)?;
    }
    for (i, sample) in samples.iter().enumerate() {
        let x = LEFT + i as i32 * 158;
        let show = |pixels: Vec<u8>, y: i32| {
            let cell = Cell { pixels, shape: sample.shape, caption: String::new() };
            gallery::picture(area, x, y, CELL as usize, &cell)
        };
        show(sample.clean.clone(), row_y(0))?;
        text(&labels[sample.label as usize], x, row_y(0) + CELL + 6, 18, &BLACK)?;
        for (m, (shown, class)) in sample.shown.iter().enumerate() {
            let difference = |at: usize| {
                let change = i32::from(shown[at]) - i32::from(sample.clean[at]);
                (128 + change * 8).clamp(0, 255) as u8
            };
            show((0..shown.len()).map(difference).collect(), row_y(1 + 2 * m))?;
            show(shown.clone(), row_y(2 + 2 * m))?;
            let right = *class == sample.label;
            let colour = if right { RGBColor(0, 110, 60) } else { RGBColor(190, 30, 30) };
            let verdict = format!("{}{}", if right { "" } else { "wrong: " }, labels[*class as usize]);
            text(&verdict, x, row_y(2 + 2 * m) + CELL + 6, 18, &colour)?;
        }
    }
    text(note, 20, row_y(rows.len()) + 8, 17, &RGBColor(90, 90, 90))
}
