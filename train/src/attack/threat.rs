//! The l_inf threat ball and the box of images. Every attack projects here and nowhere else.

/// The interval of one pixel: inside the ball around `clean` and inside [0, 1].
///
/// Both bounds are rounded f32 sums, so a projected pixel differs from `clean` by at most `eps` plus one rounding.
pub fn bounds(clean: f32, eps: f32) -> [f32; 2] {
    [(clean - eps).max(0.0), (clean + eps).min(1.0)]
}

/// `x` projected to the ball around `clean` and the box.
pub fn project(x: f32, clean: f32, eps: f32) -> f32 {
    let [low, high] = bounds(clean, eps);
    // A NaN gradient leaves the clean pixel's lower bound rather than spreading.
    x.max(low).min(high)
}

/// The 8-bit value nearest `x` that is at most `eps` from the 8-bit pixel `clean`.
pub fn to_grid(x: f32, clean: u8, eps: f32) -> u8 {
    // An eps such as 8/255 in f32 may fall just below 8 steps; a thousandth of a step is no perturbation.
    let reach = (eps * 255.0 + 1e-3).floor();
    let clean = f32::from(clean);
    let nearest = (x * 255.0).round();
    nearest.clamp((clean - reach).max(0.0), (clean + reach).min(255.0)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn projection_stays_in_ball_and_box(x in -2.0f32..3.0, clean in 0.0f32..=1.0, eps in 0.0f32..=1.0) {
            let p = project(x, clean, eps);
            prop_assert!((0.0..=1.0).contains(&p));
            prop_assert!((f64::from(p) - f64::from(clean)).abs() <= f64::from(eps) + 6e-8);
            prop_assert_eq!(project(clean, clean, eps), clean);
        }

        #[test]
        fn the_grid_point_stays_in_the_ball(x in 0.0f32..=1.0, clean: u8, steps in 0u8..=64) {
            let q = to_grid(x, clean, f32::from(steps) / 255.0);
            prop_assert!(q.abs_diff(clean) <= steps);
            prop_assert_eq!(to_grid(f32::from(clean) / 255.0, clean, 0.0), clean);
        }
    }
}
