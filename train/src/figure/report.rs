//! The demo's one-page report: accuracy against eps, rates in and out of distribution, samples with perturbations.

use super::{Area, COLOURS, failed, legend};
use crate::statistics::Proportion;
use anyhow::Result;
use paradise_engine::Shape;
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
    rates: &[(String, Vec<f32>)],
    labels: &[String],
    note: &str,
) -> Result<Vec<u8>> {
    super::page(WIDTH, HEIGHT, "paradise demo: Fashion-MNIST subset", |page| {
        let (charts, pictures) = page.split_vertically(560);
        let (left, right) = charts.split_horizontally(WIDTH / 2);
        accuracy(&left, curves)?;
        histogram(&right, rates)?;
        grid(&pictures, samples, curves, labels, note)
    })
}

fn accuracy(area: &Area, curves: &[Curve]) -> Result<()> {
    let last = curves.iter().flat_map(|c| c.points.last()).map(|p| p.0).fold(1.0, f32::max);
    let mut chart = ChartBuilder::on(area)
        .caption("Accuracy under attack", ("sans-serif", 26))
        .margin(16)
        .x_label_area_size(50)
        .y_label_area_size(64)
        .build_cartesian_2d(0f32..last * 1.03, 0f32..100f32)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .x_desc("eps (1/255), l_inf")
        .y_desc("accuracy (%)")
        .label_style(("sans-serif", 18))
        .axis_desc_style(("sans-serif", 20))
        .light_line_style(WHITE)
        .draw()
        .map_err(failed)?;
    for (curve, colour) in curves.iter().zip(COLOURS) {
        let line = curve.points.iter().map(|(eps, p)| (*eps, p.percent() as f32));
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(3)).point_size(5))
            .map_err(failed)?
            .label(curve.name.clone())
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 18, y + 5)], colour.filled()));
        let bars = curve.points.iter().map(|(eps, p)| {
            let [low, high] = p.wilson_percent().map(|v| v as f32);
            ErrorBar::new_vertical(*eps, low, p.percent() as f32, high, colour.stroke_width(2), 10)
        });
        chart.draw_series(bars).map_err(failed)?;
    }
    legend(&mut chart)
}

fn histogram(area: &Area, rates: &[(String, Vec<f32>)]) -> Result<()> {
    const BINS: usize = 60;
    let mut all: Vec<f32> = rates.iter().flat_map(|r| r.1.iter().copied()).filter(|v| v.is_finite()).collect();
    all.sort_by(f32::total_cmp);
    let Some((&low, &top)) = all.first().zip(all.get(all.len().saturating_sub(1) * 99 / 100)) else {
        return Ok(());
    };
    let high = top.max(low + 1.0);
    let step = (high - low) / BINS as f32;
    let counts = |values: &[f32]| {
        let mut bins = vec![0f32; BINS];
        for v in values {
            // The last bin also holds the 1 % beyond it.
            bins[(((v - low) / step).max(0.0) as usize).min(BINS - 1)] += 100.0 / values.len() as f32;
        }
        bins
    };
    let series: Vec<Vec<f32>> = rates.iter().map(|r| counts(&r.1)).collect();
    let tallest = series.iter().flatten().copied().fold(1.0, f32::max).min(40.0);
    let mut chart = ChartBuilder::on(area)
        .caption("Rate in and out of distribution (int8 engine)", ("sans-serif", 26))
        .margin(16)
        .x_label_area_size(50)
        .y_label_area_size(64)
        .build_cartesian_2d(low..high, 0f32..tallest * 1.05)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .x_desc("rate (nats); the last bin holds what lies beyond")
        .y_desc("images (%)")
        .label_style(("sans-serif", 18))
        .axis_desc_style(("sans-serif", 20))
        .light_line_style(WHITE)
        .draw()
        .map_err(failed)?;
    for (((name, _), bins), colour) in rates.iter().zip(&series).zip(COLOURS) {
        let outline = bins.iter().enumerate().flat_map(|(i, &v)| {
            let at = low + i as f32 * step;
            [(at, v.min(tallest)), (at + step, v.min(tallest))]
        });
        let outline: Vec<(f32, f32)> = outline.collect();
        chart
            .draw_series(
                AreaSeries::new(outline.iter().copied(), 0.0, colour.mix(0.18)).border_style(colour.stroke_width(2)),
            )
            .map_err(failed)?
            .label(name.clone())
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 18, y + 5)], colour.filled()));
    }
    legend(&mut chart)
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
        picture(area, x, row_y(0), CELL, sample, |at| sample.clean[at])?;
        text(&labels[sample.label as usize], x, row_y(0) + CELL + 6, 18, &BLACK)?;
        for (m, (shown, class)) in sample.shown.iter().enumerate() {
            let difference = |at: usize| {
                let change = i32::from(shown[at]) - i32::from(sample.clean[at]);
                (128 + change * 8).clamp(0, 255) as u8
            };
            picture(area, x, row_y(1 + 2 * m), CELL, sample, difference)?;
            picture(area, x, row_y(2 + 2 * m), CELL, sample, |at| shown[at])?;
            let right = *class == sample.label;
            let colour = if right { RGBColor(0, 110, 60) } else { RGBColor(190, 30, 30) };
            let verdict = format!("{}{}", if right { "" } else { "wrong: " }, labels[*class as usize]);
            text(&verdict, x, row_y(2 + 2 * m) + CELL + 6, 18, &colour)?;
        }
    }
    text(note, 20, row_y(rows.len()) + 8, 17, &RGBColor(90, 90, 90))
}

fn picture(area: &Area, x: i32, y: i32, size: i32, sample: &Sample, value: impl Fn(usize) -> u8) -> Result<()> {
    let (h, w, c) = (sample.shape.h as usize, sample.shape.w as usize, sample.shape.c as usize);
    for py in 0..size {
        for px in 0..size {
            let at = (py as usize * h / size as usize * w + px as usize * w / size as usize) * c;
            let v = value(at);
            area.draw_pixel((x + px, y + py), &RGBColor(v, v, v)).map_err(failed)?;
        }
    }
    Ok(())
}
