//! A hyper-parameter search at a glance: rates of training and validation images, and the score, a run.

use super::{Area, colours, failed, legend};
use anyhow::Result;
use plotters::prelude::*;

/// One run.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// Its name.
    pub name: String,
    /// Mean rates of training and of validation images, nats.
    pub rates: [f64; 2],
    /// Selection score on validation images.
    pub score: f64,
}

/// The search as a PNG: rates above, scores below.
///
/// # Errors
/// If drawing fails.
pub fn draw(bars: &[Bar]) -> Result<Vec<u8>> {
    super::page(1100, 900, "Search", |page| {
        let (rates, scores) = page.split_vertically(430);
        let series = |k: usize, name| (name, bars.iter().map(|b| b.rates[k]).collect());
        chart(&rates, "Mini-batch rate, nats", bars, &[series(0, "training"), series(1, "validation")])?;
        let score = ("score", bars.iter().map(|b| b.score).collect());
        chart(&scores, "Selection score, validation images", bars, &[score])
    })
}

fn chart(area: &Area, caption: &str, bars: &[Bar], series: &[(&str, Vec<f64>)]) -> Result<()> {
    let all = || series.iter().flat_map(|s| s.1.iter().copied());
    let (low, high) = all().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
    let room = ((high - low) * 0.15).max(0.5);
    let mut chart = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 24))
        .margin(14)
        .x_label_area_size(46)
        .y_label_area_size(70)
        .build_cartesian_2d(-0.5..bars.len() as f64 - 0.5, low - room..high + room)
        .map_err(failed)?;
    let name = |x: &f64| {
        let at = x.round();
        let close = (x - at).abs() < 1e-6 && at >= 0.0;
        close.then(|| bars.get(at as usize).map(|b| b.name.clone())).flatten().unwrap_or_default()
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(2 * bars.len() + 1)
        .x_label_formatter(&name)
        .label_style(("sans-serif", 18))
        .draw()
        .map_err(failed)?;
    for ((name, values), colour) in series.iter().zip(colours()) {
        let points = || values.iter().enumerate().map(|(i, v)| (i as f64, *v));
        chart
            .draw_series(LineSeries::new(points(), colour.stroke_width(2)))
            .map_err(failed)?
            .label(*name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 22, y)], colour.stroke_width(3)));
        chart.draw_series(points().map(|p| Circle::new(p, 5, colour.filled()))).map_err(failed)?;
    }
    legend(&mut chart)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_becomes_a_picture() {
        let bar = |k: u8| Bar { name: format!("run-{k}"), rates: [f64::from(k), f64::from(k) + 1.0], score: 80.0 };
        let png = draw(&[bar(1), bar(2), bar(5)]).unwrap();
        assert!(image::load_from_memory(&png).unwrap().to_rgb8().pixels().any(|p| p.0 == [0, 114, 178]));
        assert!(draw(&[bar(1)]).is_ok());
    }
}
