//! Lines over a common axis, with bars where a value has an interval.

use super::{Area, colours, failed, legend};
use anyhow::Result;
use plotters::prelude::*;
use std::ops::Range;

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// x, y, and the interval of y.
    pub points: Vec<(f32, f32, Option<[f32; 2]>)>,
}

impl Series {
    /// A line without intervals.
    pub fn plain(name: &str, points: impl Iterator<Item = (f32, f32)>) -> Self {
        Self { name: name.into(), points: points.map(|(x, y)| (x, y, None)).collect() }
    }
}

/// What a chart says beside its lines.
#[derive(Debug, Clone, PartialEq)]
pub struct Axes<'a> {
    /// Above it.
    pub caption: &'a str,
    /// Along x, with the unit.
    pub x: &'a str,
    /// Along y, with the unit.
    pub y: &'a str,
    /// Extent of x.
    pub x_range: Range<f32>,
    /// Extent of y.
    pub y_range: Range<f32>,
}

/// A chart of lines as a PNG.
///
/// ```
/// use paradise_evaluate::figure::lines::{Axes, Series, draw};
/// let falls = Series::plain("model", [(0.0, 90.0), (8.0, 60.0)].into_iter());
/// let axes = Axes { caption: "Accuracy", x: "eps, 1/255", y: "%", x_range: 0.0..8.0, y_range: 0.0..100.0 };
/// assert!(draw(&[falls], &axes)?.starts_with(b"\x89PNG"));
/// # Ok::<(), anyhow::Error>(())
/// ```
///
/// # Errors
/// If drawing fails.
pub fn draw(lines: &[Series], axes: &Axes) -> Result<Vec<u8>> {
    super::page(760, 560, "", |page| chart(page, lines, axes))
}

/// Draws the chart into an area.
pub(super) fn chart(area: &Area, lines: &[Series], axes: &Axes) -> Result<()> {
    let mut chart = ChartBuilder::on(area)
        .caption(axes.caption, ("sans-serif", 26))
        .margin(16)
        .margin_right(34)
        .x_label_area_size(50)
        .y_label_area_size(64)
        .build_cartesian_2d(axes.x_range.clone(), axes.y_range.clone())
        .map_err(failed)?;
    chart
        .configure_mesh()
        .x_desc(axes.x)
        .y_desc(axes.y)
        .label_style(("sans-serif", 18))
        .axis_desc_style(("sans-serif", 20))
        .light_line_style(WHITE)
        .draw()
        .map_err(failed)?;
    for (line, colour) in lines.iter().zip(colours()) {
        let points = line.points.iter().map(|(x, y, _)| (*x, *y));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(3)).point_size(5))
            .map_err(failed)?
            .label(line.name.clone())
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 18, y + 5)], colour.filled()));
        let bars = line.points.iter().filter_map(|(x, y, interval)| {
            let [low, high] = (*interval)?;
            Some(ErrorBar::new_vertical(*x, low, *y, high, colour.stroke_width(2), 10))
        });
        chart.draw_series(bars).map_err(failed)?;
    }
    legend(&mut chart)
}

#[cfg(test)]
mod tests {
    use super::super::COLOURS;
    use super::*;

    #[test]
    fn lines_become_a_picture() {
        let bars = Series { name: "bars".into(), points: vec![(0.0, 10.0, Some([5.0, 20.0])), (1.0, 80.0, None)] };
        let more = (1..COLOURS.len())
            .map(|k| Series::plain(&k.to_string(), [(0.0, 10.0 * k as f32), (1.0, 40.0)].into_iter()));
        let axes = Axes { caption: "c", x: "x", y: "y", x_range: 0.0..1.0, y_range: 0.0..100.0 };
        let png = draw(&std::iter::once(bars).chain(more).collect::<Vec<_>>(), &axes).unwrap();
        let picture = image::load_from_memory(&png).unwrap().to_rgb8();
        for (k, colour) in COLOURS.iter().enumerate() {
            let drawn = picture.pixels().filter(|p| p.0 == [colour.0, colour.1, colour.2]).count();
            assert!(drawn > 100, "line {k}: {drawn} pixels");
        }
    }
}
