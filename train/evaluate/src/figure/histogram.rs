//! Histograms over a common axis, as shares of each series.

use super::{Area, colours, failed, legend};
use anyhow::Result;
use plotters::prelude::*;
use std::ops::Range;

/// What a histogram says beside its series.
#[derive(Debug, Clone, PartialEq)]
pub struct Bars<'a> {
    /// Above it.
    pub caption: &'a str,
    /// Along x, with the unit.
    pub x: &'a str,
    /// Extent of x; values outside are in the first and the last bin.
    pub range: Range<f32>,
    /// Number of bins.
    pub bins: usize,
}

/// From the smallest value to the one that 99 % of all do not exceed.
pub fn most(series: &[(String, Vec<f32>)]) -> Range<f32> {
    let mut all: Vec<f32> = series.iter().flat_map(|r| r.1.iter().copied()).filter(|v| v.is_finite()).collect();
    all.sort_by(f32::total_cmp);
    match all.first().zip(all.get(all.len().saturating_sub(1) * 99 / 100)) {
        Some((&low, &top)) => low..top.max(low + 1.0),
        None => 0.0..1.0,
    }
}

/// A histogram as a PNG.
///
/// # Errors
/// If drawing fails.
pub fn draw(series: &[(String, Vec<f32>)], bars: &Bars) -> Result<Vec<u8>> {
    super::page(900, 560, "", |page| chart(page, series, bars))
}

/// Draws the histogram into an area.
pub(super) fn chart(area: &Area, series: &[(String, Vec<f32>)], bars: &Bars) -> Result<()> {
    let Range { start: low, end: high } = bars.range;
    let step = (high - low) / bars.bins as f32;
    let counts = |values: &[f32]| {
        let mut shares = vec![0f32; bars.bins];
        for v in values {
            shares[(((v - low) / step).max(0.0) as usize).min(bars.bins - 1)] += 100.0 / values.len() as f32;
        }
        shares
    };
    let all: Vec<Vec<f32>> = series.iter().map(|r| counts(&r.1)).collect();
    let tallest = all.iter().flatten().copied().fold(1.0, f32::max).min(40.0);
    // A letter is about half as wide as its font is high; a long caption gets a smaller one.
    let fits = 1.7 * f64::from(area.dim_in_pixel().0) / bars.caption.chars().count().max(1) as f64;
    let mut chart = ChartBuilder::on(area)
        .caption(bars.caption, ("sans-serif", fits.min(26.0)))
        .margin(16)
        .margin_right(34)
        .x_label_area_size(50)
        .y_label_area_size(64)
        .build_cartesian_2d(low..high, 0f32..tallest * 1.05)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .x_desc(bars.x)
        .y_desc("images (%)")
        .label_style(("sans-serif", 18))
        .axis_desc_style(("sans-serif", 20))
        .light_line_style(WHITE)
        .draw()
        .map_err(failed)?;
    for (((name, _), shares), colour) in series.iter().zip(&all).zip(colours()) {
        let outline = shares.iter().enumerate().flat_map(|(i, &v)| {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_becomes_a_picture() {
        let series = [("a".to_string(), (0..100).map(|v| v as f32).collect::<Vec<f32>>())];
        assert_eq!(most(&series), 0.0..98.0);
        let bars = Bars { caption: "c", x: "x", range: 0.0..100.0, bins: 10 };
        let picture = image::load_from_memory(&draw(&series, &bars).unwrap()).unwrap().to_rgb8();
        assert!(picture.pixels().any(|p| p.0 == [0, 114, 178]));
    }
}
