//! Pictures, drawn with plotters and a font that is inside the program.

pub mod gallery;
pub mod histogram;
pub mod lines;
pub mod scatter;
pub mod search;
pub mod summary;

use anyhow::{Result, anyhow};
use image::ImageEncoder;
use plotters::coord::Shift;
use plotters::coord::ranged1d::Ranged;
use plotters::prelude::*;
use std::sync::Once;

/// Colours that stay apart for most eyes: blue, vermilion, green, purple, grey, orange, sky blue, black.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(148, 82, 160),
    RGBColor(110, 110, 110),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

/// A colour a series, however many there are.
fn colours() -> impl Iterator<Item = RGBColor> {
    COLOURS.into_iter().cycle()
}

type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

fn failed<E: std::fmt::Display>(error: E) -> anyhow::Error {
    anyhow!("cannot draw: {error}")
}

/// Registers the embedded font as `sans-serif`.
fn font() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let bytes = epaint_default_fonts::UBUNTU_LIGHT;
        // Refused only if the bytes are no font, and then text is missing from the picture, which a test would see.
        let _ = plotters::style::register_font("sans-serif", plotters::style::FontStyle::Normal, bytes);
    });
}

/// Draws a chart's legend in its upper right corner.
fn legend<'a, X, Y>(chart: &mut ChartContext<'a, BitMapBackend<'a>, Cartesian2d<X, Y>>) -> Result<()>
where
    X: Ranged,
    Y: Ranged,
{
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .label_font(("sans-serif", 18))
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .draw()
        .map_err(failed)
}

/// A white page of `width` x `height` pixels under a title, drawn by `draw`, as a PNG.
fn page(width: u32, height: u32, title: &str, draw: impl FnOnce(&Area) -> Result<()>) -> Result<Vec<u8>> {
    font();
    let mut pixels = vec![0; (width * height * 3) as usize];
    {
        let page = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        page.fill(&WHITE).map_err(failed)?;
        let page = page.margin(10, 0, 0, 0);
        let below = if title.is_empty() { page } else { page.titled(title, ("sans-serif", 34)).map_err(failed)? };
        draw(&below)?;
        below.present().map_err(failed)?;
    }
    let mut png = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut png);
    encoder.write_image(&pixels, width, height, image::ExtendedColorType::Rgb8)?;
    Ok(png)
}
