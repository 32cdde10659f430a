//! Every layout's convolution, with what stands before and after it, against the scalar kernels one after the other.

use super::*;
use crate::kernel::ring::{Affine, Sum};
use crate::kernel::scalar::{self, Rows, Source, Target};
use crate::requant::Output;
use crate::tensor::Le;
use proptest::prelude::*;
extern crate std;
use std::{vec, vec::Vec};

/// Bytes with many extremes.
fn bytes(n: usize, seed: u64) -> Vec<i8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    (0..n)
        .map(|_| match next() % 6 {
            0 => -127,
            1 => 127,
            _ => ((next() % 255) as i8).max(-127),
        })
        .collect()
}

fn words(values: impl Iterator<Item = u32>) -> Vec<u8> {
    values.flat_map(u32::to_le_bytes).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn what_stands_before_and_after_a_convolution_gives_the_scalar_bits(
        extent in [1u16..12, 1u16..27], channels in [1u16..19, 1u16..6],
        kernel in (1u16..5, prop_oneof![Just(3u16), 1u16..6]), stride in [1u16..4, 1u16..4], pad in [0u16..3, 0u16..3, 0u16..3, 0u16..3],
        (before, after, in_place) in (any::<bool>(), 0u8..4, any::<bool>()),
        zeros in any::<[i8; 5]>(), seed: u64,
    ) {
        let x_shape = Shape::new(extent[0], extent[1], channels[0]);
        let kernel = [kernel.0, kernel.1];
        let window = Window { kernel, stride, pad };
        let Some([h, w]) = window.output(x_shape) else { return Ok(()) };
        let y_shape = Shape::new(h, w, 4 * channels[1]);
        let (c, out) = (usize::from(channels[0]), usize::from(y_shape.c));
        let width = usize::from(kernel[0] * kernel[1]) * c;
        let (x, weight) = (bytes(x_shape.len() as usize, seed), bytes(out * width, seed ^ 1));
        let bias = words((0..out as i32).map(|o| (o * 517 - 900) as u32));
        let scale = words((0..out).map(|o| (2e-4f32 * (1.0 + o as f32)).to_bits()));
        let rows = Rows { weight: &weight, bias: Le::new(&bias), scale: Le::new(&scale) };
        let mul = words((0..c).map(|i| (0.3f32 + i as f32 * 0.1 - seed as u8 as f32 * 0.004).to_bits()));
        let add = words((0..c).map(|i| (i as f32 * 3.3 - 20.0).to_bits()));
        // A ReLU on the map, on a convolution alone, on a sum; at zero point -128 and at others.
        let before = before.then(|| Affine {
            zero: zeros[0], mul: Le::new(&mul), add: Le::new(&add), out: Output::new(zeros[1], after % 2 == 0),
        });
        let sum = (after >= 2).then(|| Sum { ratio: [0.7, 1.3], zero: zeros[3], out: Output::new(zeros[4], after == 3) });
        let out_zero = if seed % 3 == 0 { -128 } else { zeros[2] };
        let rounding = Output::new(out_zero, after == 1);
        let operand = bytes(y_shape.len() as usize, seed ^ 2);

        let mut mapped = x.clone();
        if let Some(map) = &before {
            scalar::affine(&x, map.zero, map.mul, map.add, map.out, &mut mapped);
        }
        let source = Source { x: &mapped, shape: x_shape, zero: zeros[1] };
        let mut want = vec![0; operand.len()];
        let target = Target { y: &mut want, extent: [usize::from(h), usize::from(w)], out: rounding };
        scalar::conv(source, &window, 1, rows, target);
        if let Some(Sum { ratio, zero, out }) = sum {
            scalar::add_in_place(&mut want, &operand, [out_zero, zero], ratio, out);
        }

        for layout in Layout::ALL {
            let geometry = Geometry::new(layout, &window, x_shape, y_shape).expect("of four channels each");
            let packed = geometry.pack(rows);
            prop_assert_eq!(packed.len(), geometry.weight_len(out));
            prop_assert_eq!(geometry.check(&packed), Ok(()));
            let conv = Conv {
                window, shapes: [x_shape, y_shape], zero: zeros[1], before, weight: &packed, out: rounding, sum,
            };
            let mut scratch = vec![0x6666_6666; geometry.scratch_words(out)];
            let mut got = if in_place { operand.clone() } else { vec![0; operand.len()] };
            let other = match (sum, in_place) {
                (None, _) => Other::None,
                (_, true) => Other::Place,
                (_, false) => Other::At(&operand),
            };
            geometry.conv(&conv, &x, other, &mut got, &mut scratch);
            prop_assert!(got == want, "{}: {:?}", layout.name(), geometry);
        }
    }
}

#[test]
fn records_that_could_overflow_or_do_not_scale_are_refused() {
    let window = Window { kernel: [3, 3], stride: [1, 1], pad: [1; 4] };
    for layout in Layout::ALL {
        let geometry = Geometry::new(layout, &window, Shape::new(8, 8, 16), Shape::new(8, 8, 8)).unwrap();
        let weight = vec![1i8; 8 * 9 * 16];
        let (bias, scale) = (words([5; 8].into_iter()), words([0.5f32.to_bits(); 8].into_iter()));
        let packed = geometry.pack(Rows { weight: &weight, bias: Le::new(&bias), scale: Le::new(&scale) });
        assert_eq!(geometry.check(&packed), Ok(()));
        let [together, bytes, _] = geometry.record();
        let channel = bytes * (8 / together - 1);
        let mut high = packed.clone();
        high[channel + 3] = 0x7f;
        high[channel..channel + 3].fill(0xff);
        assert!(geometry.check(&high).is_err(), "{}: a bias at the end of i32", layout.name());
        for bad in [f32::NAN, f32::INFINITY, 0.0, -1.0] {
            let mut wrong = packed.clone();
            wrong[channel + 4 * together..][..4].copy_from_slice(&bad.to_le_bytes());
            assert!(geometry.check(&wrong).is_err(), "{}: scale {bad}", layout.name());
        }
    }
}
