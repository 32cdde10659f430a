//! Figures 3 and 7: angles between the gradients of two models, and the gradients themselves.

use super::{Model, gradients};
use anyhow::{Result, ensure};
use paradise_data::Dataset;
use paradise_engine::Shape;
use paradise_evaluate::figure::gallery::{self, Cell, Row};
use paradise_evaluate::figure::histogram::{self, Bars};

/// The angle, degrees, between two models' gradients at each image; images where one has none are left out.
///
/// # Errors
/// If a model fails.
pub fn angles(models: [&Model; 2], set: &Dataset) -> Result<Vec<f64>> {
    let each = set.shape.len() as usize;
    let [a, b] = [gradients(&models[0].served, set)?, gradients(&models[1].served, set)?];
    Ok(a.chunks_exact(each).zip(b.chunks_exact(each)).filter_map(|(a, b)| angle(a, b)).collect())
}

fn angle(a: &[f32], b: &[f32]) -> Option<f64> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    (lengths > 0.0).then(|| (dot(a, b) / lengths).clamp(-1.0, 1.0).acos().to_degrees())
}

/// Figure 3.
///
/// # Errors
/// If no image has gradients, or drawing fails.
pub fn figure_3(models: [&Model; 2], set: &Dataset) -> Result<(Vec<u8>, Vec<f64>)> {
    let angles = angles(models, set)?;
    ensure!(!angles.is_empty(), "no image has a gradient in both models");
    let mean = angles.iter().sum::<f64>() / angles.len() as f64;
    let bars = Bars {
        caption: &format!(
            "Gradients of {} and {}: {} images, mean {mean:.1} degrees",
            models[0].name,
            models[1].name,
            angles.len()
        ),
        x: "angle between the gradients at the same image (degrees)",
        range: 0.0..180.0,
        bins: 60,
    };
    let series = [("images".to_string(), angles.iter().map(|a| *a as f32).collect())];
    Ok((histogram::draw(&series, &bars)?, angles))
}

/// A gradient `[h][w][c]` clipped to three standard deviations about its mean, as bytes.
fn shown(values: &[f32]) -> Vec<u8> {
    let n = values.len().max(1) as f64;
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
    let deviation = (values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n).sqrt().max(1e-30);
    let scaled = |v: &f32| (((f64::from(*v) - mean) / deviation).clamp(-3.0, 3.0) + 3.0) / 6.0 * 255.0;
    values.iter().map(|v| scaled(v).round() as u8).collect()
}

/// Figure 7: images, each model's gradients in colour and summed over the channels.
///
/// # Errors
/// If a model fails or drawing does.
pub fn figure_7(models: &[Model], set: &Dataset) -> Result<Vec<u8>> {
    let (each, c) = (set.shape.len() as usize, usize::from(set.shape.c));
    let cells = |of: &mut dyn FnMut(usize) -> Vec<u8>, shape: Shape, captions: bool| -> Vec<Cell> {
        let caption = |i: usize| {
            if captions { models[0].trained.splits.labels[usize::from(set.labels[i])].clone() } else { String::new() }
        };
        (0..set.len()).map(|i| Cell { pixels: of(i), shape, caption: caption(i) }).collect()
    };
    let mut rows = vec![Row { name: "image".into(), cells: cells(&mut |i| set.image(i).to_vec(), set.shape, true) }];
    for model in models {
        let all = gradients(&model.served, set)?;
        let own = |i: usize| &all[i * each..(i + 1) * each];
        if c == 3 {
            let pixels = &mut |i: usize| shown(own(i));
            rows.push(Row { name: model.name.clone(), cells: cells(pixels, set.shape, false) });
        }
        let summed = &mut |i: usize| shown(&own(i).chunks_exact(c).map(|p| p.iter().sum()).collect::<Vec<f32>>());
        let name = if c == 3 { "summed".into() } else { model.name.clone() };
        rows.push(Row { name, cells: cells(summed, Shape { c: 1, ..set.shape }, false) });
    }
    gallery::draw(&rows, "Gradients of the loss, 3 standard deviations about their mean", 112)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn angles_and_scales_are_those_of_the_definition() {
        assert!((angle(&[1.0, 0.0], &[0.0, 2.0]).unwrap() - 90.0).abs() < 1e-9);
        assert!((angle(&[1.0, 1.0], &[-1.0, -1.0]).unwrap() - 180.0).abs() < 1e-5);
        assert!((angle(&[1e-20, 0.0], &[1e-20, 1e-20]).unwrap() - 45.0).abs() < 1e-6);
        assert!(angle(&[0.0, 0.0], &[1.0, 0.0]).is_none());
        // Mean 0, deviation 1.
        assert_eq!(shown(&[-1.0, 1.0, -1.0, 1.0]), [85, 170, 85, 170]);
        assert_eq!(shown(&[0.0; 3]), [128; 3]);
    }
}
