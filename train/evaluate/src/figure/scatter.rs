//! Points in two dimensions, coloured by class.

use super::{failed, legend};
use anyhow::Result;
use plotters::prelude::*;

/// A point in two dimensions, and its class.
pub type Point = ([f32; 2], u16);

/// The scatter as a PNG.
///
/// # Errors
/// If drawing fails.
pub fn draw(points: &[Point], labels: &[String], axes: [&str; 2], title: &str) -> Result<Vec<u8>> {
    super::page(1000, 900, title, |page| {
        let range = |k: usize| {
            let of = points.iter().map(|p| p.0[k]);
            let (low, high) = of.fold((f32::MAX, f32::MIN), |(l, h), v| (l.min(v), h.max(v)));
            let room = ((high - low) * 0.05).max(1e-3);
            low - room..high + room
        };
        let mut chart = ChartBuilder::on(page)
            .margin(16)
            .x_label_area_size(50)
            .y_label_area_size(64)
            .build_cartesian_2d(range(0), range(1))
            .map_err(failed)?;
        chart
            .configure_mesh()
            .x_desc(axes[0])
            .y_desc(axes[1])
            .axis_desc_style(("sans-serif", 20))
            .label_style(("sans-serif", 16))
            .draw()
            .map_err(failed)?;
        for (class, label) in labels.iter().enumerate() {
            let colour = Palette99::pick(class).to_rgba();
            let own = points.iter().filter(|p| usize::from(p.1) == class);
            chart
                .draw_series(own.map(|p| Circle::new((p.0[0], p.0[1]), 2, colour.mix(0.6).filled())))
                .map_err(failed)?
                .label(label)
                .legend(move |(x, y)| Circle::new((x + 8, y), 5, colour.filled()));
        }
        legend(&mut chart)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_become_a_picture() {
        let points: Vec<Point> = (0..50u16).map(|i| ([f32::from(i), f32::from(i % 7)], i % 2)).collect();
        let png = draw(&points, &["even".into(), "odd".into()], ["mu 0", "mu 1"], "test").unwrap();
        let picture = image::load_from_memory(&png).unwrap().to_rgb8();
        assert!(picture.pixels().filter(|p| p.0 != [255, 255, 255]).count() > 1000);
    }
}
