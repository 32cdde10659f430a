//! Pictures as many cameras give them without compression: YUYV, two pixels in four bytes (luma, blue, luma, red), of BT.601 in its limited
//! range, to a file that every part of this program reads (PPM).

/// A PPM file of a YUYV picture; nothing if there are not `width` x `height` pixels, or `width` is odd.
///
/// ```
/// use paradise_runtime::camera::yuyv::ppm;
/// // Black and white.
/// assert_eq!(ppm(&[16, 128, 235, 128], 2, 1).unwrap(), b"P6 2 1 255\n\x00\x00\x00\xff\xff\xff");
/// assert!(ppm(&[16, 128, 235], 2, 1).is_none());
/// ```
pub fn ppm(bytes: &[u8], width: u32, height: u32) -> Option<Vec<u8>> {
    let pixels = (width as usize).checked_mul(height as usize)?;
    // Some cameras fill up the last page.
    let bytes = bytes.get(..pixels.checked_mul(2)?).filter(|bytes| !bytes.is_empty() && width.is_multiple_of(2))?;
    let mut file = format!("P6 {width} {height} 255\n").into_bytes();
    file.reserve(3 * pixels);
    for pair in bytes.chunks_exact(4) {
        for luma in [pair[0], pair[2]] {
            file.extend(rgb(luma, pair[1], pair[3]));
        }
    }
    Some(file)
}

/// In units of 2^-16: 255/219, and 255/224 times what BT.601's coefficients give.
fn rgb(luma: u8, blue: u8, red: u8) -> [u8; 3] {
    let [y, b, r] = [(luma, 16), (blue, 128), (red, 128)].map(|(value, zero)| i32::from(value) - zero);
    let y = 76309 * y + (1 << 15);
    [y + 104_597 * r, y - 25_675 * b - 53_279 * r, y + 132_201 * b].map(|value| (value >> 16).clamp(0, 255) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pixel_is_as_the_recommendation_defines_it() {
        // ITU-R BT.601-7: E'R - E'Y over 1.402, E'B - E'Y over 1.772; luma in 16..=235, differences in 16..=240.
        for luma in (0..=255u8).step_by(3) {
            for blue in (0..=255u8).step_by(5) {
                for red in (0..=255u8).step_by(5) {
                    let (y, b, r) = (
                        (f64::from(luma) - 16.0) / 219.0,
                        (f64::from(blue) - 128.0) / 224.0,
                        (f64::from(red) - 128.0) / 224.0,
                    );
                    let [red_light, blue_light] = [y + 1.402 * r, y + 1.772 * b];
                    let green_light = (y - 0.299 * red_light - 0.114 * blue_light) / 0.587;
                    for (ours, truth) in rgb(luma, blue, red).iter().zip([red_light, green_light, blue_light]) {
                        let truth = (255.0 * truth).clamp(0.0, 255.0);
                        assert!((f64::from(*ours) - truth).abs() <= 0.51, "{luma} {blue} {red}: {ours} {truth}");
                    }
                }
            }
        }
    }
}
