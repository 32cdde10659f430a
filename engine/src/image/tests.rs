use super::*;
use crate::record::{self, Record, Writer};
use proptest::prelude::*;
extern crate std;
use std::{vec, vec::Vec};

const STRETCH: ImagePolicy = ImagePolicy { geometry: Geometry::Stretch, polarity: Polarity::AsTaken };

fn rgba(width: u32, height: u32, bytes: &[u8]) -> Pixels<'_> {
    Pixels::new(width, height, Layout::Rgba, bytes).unwrap()
}

fn grey(w: u32, h: u32, f: impl Fn(u32, u32) -> u8) -> Vec<u8> {
    (0..h).flat_map(|y| (0..w).map(move |x| (x, y))).flat_map(|(x, y)| [f(x, y), f(x, y), f(x, y), 255]).collect()
}

/// The triangle filter in f64, from its definition.
fn reference(px: &[u8], w: usize, h: usize, tw: usize, th: usize, x: usize, y: usize) -> f64 {
    let axis = |i: usize, size: usize, out: usize| -> Vec<f64> {
        let scale = size as f64 / out as f64;
        let centre = (i as f64 + 0.5) * scale;
        (0..size).map(|j| (1.0 - ((j as f64 + 0.5) - centre).abs() / scale.max(1.0)).max(0.0)).collect()
    };
    let (wx, wy) = (axis(x, w, tw), axis(y, h, th));
    let (mut sum, mut total) = (0.0, 0.0);
    for j in 0..h {
        for i in 0..w {
            sum += wx[i] * wy[j] * f64::from(px[4 * (j * w + i)]);
            total += wx[i] * wy[j];
        }
    }
    sum / total
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn resize_is_the_triangle_filter(w in 1usize..50, h in 1usize..50, tw in 1u16..40, th in 1u16..40, seed: u32) {
        let px = grey(w as u32, h as u32, |x, y| (seed ^ x.wrapping_mul(2654435761) ^ y.wrapping_mul(40503)).wrapping_mul(747796405).to_le_bytes()[3]);
        let picture = rgba(w as u32, h as u32, &px);
        let mut out = vec![0; tw as usize * th as usize];
        fit(&picture, &STRETCH, Shape::new(th, tw, 1), &mut out).unwrap();
        for y in 0..th as usize {
            for x in 0..tw as usize {
                let exact = reference(&px, w, h, tw as usize, th as usize, x, y);
                prop_assert!((f64::from(out[y * tw as usize + x]) - exact).abs() <= 0.5 + 1e-9);
            }
        }
    }
}

#[test]
fn same_size_grey_passes_unchanged() {
    let px = grey(28, 28, |x, y| (x * 9 + y * 7) as u8);
    let mut out = vec![0; 784];
    fit(&rgba(28, 28, &px), &STRETCH, Shape::new(28, 28, 1), &mut out).unwrap();
    assert!(out.iter().enumerate().all(|(i, v)| *v == px[4 * i]));
}

#[test]
fn alpha_is_over_black_and_colour_is_kept() {
    let px = [200, 100, 50, 0, 255, 255, 255, 128, 10, 20, 30, 255];
    let mut out = vec![0; 9];
    fit(&rgba(3, 1, &px), &STRETCH, Shape::new(1, 3, 3), &mut out).unwrap();
    assert_eq!(out, [0, 0, 0, 128, 128, 128, 10, 20, 30]);
}

#[test]
fn crop_takes_the_centre() {
    let px = grey(4, 2, |x, _| if (1..3).contains(&x) { 200 } else { 0 });
    let mut out = vec![0; 4];
    fit(&rgba(4, 2, &px), &crop(ALL_PARTS), Shape::new(2, 2, 1), &mut out).unwrap();
    assert_eq!(out, [200; 4]);
    // 224 of 256, and CelebA's 148 of 178 x 218.
    let part = |w, h, parts| {
        let axes = axes(&rgba(w, h, &vec![0; 4 * (w * h) as usize]), &crop(parts), Shape::new(64, 64, 3));
        [axes.0, axes.1].map(|a| (a.from, a.size))
    };
    assert_eq!(part(256, 300, 8750), [(38, 224), (16, 224)]);
    assert_eq!(part(178, 218, 8315), [(35, 148), (15, 148)]);
    assert_eq!(part(1, 1, 1), [(0, 1), (0, 1)]);
}

#[test]
fn a_letterbox_keeps_all_and_is_black_beside_it() {
    let px = grey(4, 2, |_, _| 200);
    let policy = ImagePolicy { geometry: Geometry::Letterbox, polarity: Polarity::AsTaken };
    let mut out = vec![9; 16];
    fit(&rgba(4, 2, &px), &policy, Shape::new(4, 4, 1), &mut out).unwrap();
    assert_eq!(out, [[0; 4], [200; 4], [200; 4], [0; 4]].concat());
    let mut thin = vec![9; 9];
    let line = vec![255; 4 * 4000];
    fit(&rgba(1, 4000, &line), &policy, Shape::new(3, 3, 1), &mut thin).unwrap();
    assert_eq!(thin, [0, 255, 0, 0, 255, 0, 0, 255, 0]);
}

#[test]
fn what_is_inverted_is_black_where_the_picture_is_transparent() {
    let px = [200, 200, 200, 255, 0, 0, 0, 255, 10, 10, 10, 0];
    let policy = ImagePolicy { geometry: Geometry::Stretch, polarity: Polarity::Inverted };
    let mut out = vec![0; 3];
    fit(&rgba(3, 1, &px), &policy, Shape::new(1, 3, 1), &mut out).unwrap();
    assert_eq!(out, [55, 255, 0]);
}

proptest! {
    #[test]
    fn two_passes_equal_the_definition(
        side in [1u32..60, 1u32..60], target in [1u16..40, 1u16..40], layout in 1u8..5, colour: bool,
        geometry in 0u8..4, invert: bool, same: bool, seed: u32,
    ) {
        let layout = [Layout::Luma, Layout::LumaAlpha, Layout::Rgb, Layout::Rgba][layout as usize - 1];
        let [w, h] = side;
        let noise = |i: u32| (seed ^ i.wrapping_mul(2654435761)).wrapping_mul(747796405).to_le_bytes()[3];
        let bytes: Vec<u8> = (0..w * h * layout as u32).map(noise).collect();
        let picture = Pixels::new(w, h, layout, &bytes).unwrap();
        let geometry = [
            Geometry::Stretch,
            Geometry::Crop { parts: ALL_PARTS },
            Geometry::Crop { parts: 1 + (seed % 10_000) as u16 },
            Geometry::Letterbox,
        ][geometry as usize];
        let polarity = if invert { Polarity::Inverted } else { Polarity::AsTaken };
        let policy = ImagePolicy { geometry, polarity };
        let [th, tw] = if same { [h as u16, w as u16] } else { target };
        let target = Shape::new(th, tw, if colour { 3 } else { 1 });
        let [mut fast, mut plain] = [1, 2].map(|v| vec![v; target.len() as usize]);
        fit(&picture, &policy, target, &mut fast).unwrap();
        fit_in_place(&picture, &policy, target, &mut plain).unwrap();
        prop_assert_eq!(fast, plain);
    }
}

fn crop(parts: u16) -> ImagePolicy {
    ImagePolicy { geometry: Geometry::Crop { parts }, polarity: Polarity::AsTaken }
}

#[test]
fn a_policy_that_keeps_nothing_is_not_valid() {
    assert!(!crop(0).is_valid() && !crop(ALL_PARTS + 1).is_valid() && crop(1).is_valid() && STRETCH.is_valid());
    for policy in [crop(8750), STRETCH] {
        let mut bytes = Writer::default();
        policy.write(&mut bytes);
        assert_eq!(record::one::<ImagePolicy>(bytes.written()), Some(policy));
    }
    assert_eq!(record::one::<ImagePolicy>(&[0, 0, 1, 0]), None);
    assert!(std::format!("{}", crop(8750)).contains("87.50 %"));
}

#[test]
fn extreme_sides_do_not_overflow() {
    let px = vec![255; 4 * MAX_SIDE as usize];
    for (w, h) in [(MAX_SIDE, 1), (1, MAX_SIDE)] {
        let mut out = [0; 1];
        fit(&rgba(w, h, &px), &STRETCH, Shape::new(1, 1, 1), &mut out).unwrap();
        assert_eq!(out, [255]);
    }
    assert!(Pixels::new(MAX_SIDE + 1, 1, Layout::Luma, &[]).is_err());
    assert!(Pixels::new(0, 1, Layout::Luma, &[]).is_err() && Pixels::new(2, 1, Layout::Rgb, &[0; 5]).is_err());
}
