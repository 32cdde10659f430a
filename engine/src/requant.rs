//! The only place an f32 becomes an int8: clamp, round half to even, add the zero point.

/// 1.5 * 2^23: adding it to a value in [-2^22, 2^22] rounds that value to an integer, half to even, in the
/// default IEEE rounding mode, and leaves the integer in the low mantissa bits.
const ROUND: f32 = 12_582_912.0;

/// The range of an int8 with zero point `zero`, centred on it, and that zero point.
///
/// `low` is raised to 0 by a fused ReLU.
///
/// ```
/// use paradise_engine::requant::Output;
/// let output = Output::new(-128, true);
/// assert_eq!(output.requantise(1000, 0.1), -28);
/// // A ReLU is a raised lower end, and the int8 range the upper one.
/// assert_eq!([output.requantise(-5, 1.0), output.requantise(i32::MAX, 1.0)], [-128, 127]);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Output {
    low: f32,
    high: f32,
    zero: i32,
}

impl Output {
    /// The clamp of a tensor with this zero point, with or without a fused ReLU.
    pub fn new(zero: i8, relu: bool) -> Self {
        let zero = i32::from(zero);
        let low = if relu { 0 } else { -128 - zero };
        Self { low: low as f32, high: (127 - zero) as f32, zero }
    }

    /// The clamp's bounds, centred on the zero point.
    pub fn bounds(&self) -> [f32; 2] {
        [self.low, self.high]
    }

    /// Whether there is a ReLU that the int8 range does not have as its own end, at zero point -128.
    pub fn cuts(&self) -> bool {
        self.low == 0.0 && self.zero != -128
    }

    /// The zero point.
    pub fn zero(&self) -> i32 {
        self.zero
    }

    /// `rne(clamp(value)) + zero`; NaN reads as the lower bound.
    ///
    /// Equals ONNX `QuantizeLinear` with scale 1: the bounds are integers, so clamping first changes nothing.
    #[inline(always)]
    pub fn quantise(&self, value: f32) -> i8 {
        let clamped = value.max(self.low).min(self.high);
        let rounded = (clamped + ROUND).to_bits() as i32 - ROUND.to_bits() as i32;
        (rounded + self.zero) as i8
    }

    /// An i32 accumulator at scale `scale`: `quantise(f32(acc) * scale)`, two f32 steps, no FMA.
    #[inline(always)]
    pub fn requantise(&self, accumulator: i32, scale: f32) -> i8 {
        self.quantise(accumulator as f32 * scale)
    }
}

#[cfg(test)]
mod tests {
    use super::Output;

    /// The definition in f64: exact product, halves decided by the f32 product's own value.
    fn by_definition(value: f32, zero: i8, relu: bool) -> i8 {
        let low = if relu { 0.0 } else { -128.0 - f64::from(zero) };
        let clamped = f64::from(value).clamp(low, 127.0 - f64::from(zero));
        let floor = libm::floor(clamped);
        let up = match (clamped - floor).partial_cmp(&0.5).unwrap() {
            core::cmp::Ordering::Less => 0.0,
            core::cmp::Ordering::Greater => 1.0,
            core::cmp::Ordering::Equal => (floor as i64).rem_euclid(2) as f64,
        };
        (floor + up + f64::from(zero)) as i8
    }

    #[test]
    fn halves_go_to_even_at_every_zero_point() {
        for zero in i8::MIN..=i8::MAX {
            for half_steps in -1100i32..=1100 {
                for nudge in [-1, 0, 1] {
                    let value = half_steps as f32 * 0.5;
                    let value = f32::from_bits(value.to_bits().wrapping_add_signed(nudge));
                    if !value.is_finite() {
                        continue;
                    }
                    for relu in [false, true] {
                        assert_eq!(
                            Output::new(zero, relu).quantise(value),
                            by_definition(value, zero, relu),
                            "{value} {zero} {relu}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn extremes_saturate() {
        for zero in [-128, -127, -1, 0, 1, 127] {
            let out = Output::new(zero, false);
            assert_eq!(out.requantise(i32::MAX, f32::MAX), 127);
            assert_eq!(out.requantise(i32::MIN, f32::MAX), -128);
            assert_eq!(out.requantise(0, f32::MAX), zero);
            assert_eq!(out.quantise(f32::NAN), -128);
            assert_eq!(out.quantise(f32::INFINITY), 127);
        }
    }
}
