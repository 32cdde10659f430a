//! A model in the order in which register tiles read it, and its layers by the tiles' kernels.

use crate::artifact::Model;
use crate::encoder::{Heads, Kernels, Scalar};
use crate::kernel::isa::Isa;
use crate::kernel::packed::{self, Map, Order, Packed};
use crate::kernel::scalar::{Source, Target};
use crate::layer::{Head, Layer, Op, Window};
use crate::requant::Output;
use crate::tensor::Shape;
use alloc::vec::Vec;

/// Layers in a kernel's order.
#[derive(Debug, Clone)]
enum Step {
    Conv(Packed),
    Dense(Packed),
    /// Read from the model as it is.
    Plain,
}

/// Largest frame, bytes: borders are not bounded by a model's size, and a larger one runs on the scalar kernels.
const MAX_FRAME: usize = 64 << 20;

fn frame_len(shape: Shape, window: &Window, order: Order) -> usize {
    let [rows, pitch] = packed::frame_extent(&Source { x: &[], shape, zero: 0 }, window, order);
    rows.saturating_mul(pitch)
}

/// A model's numbers for tiles.
#[derive(Debug, Clone)]
pub(crate) struct Tiled {
    isa: Isa,
    steps: Vec<Step>,
    heads: [Packed; 2],
    scratch: usize,
    /// Of every packed number, as they were loaded.
    checksum: u32,
}

impl Tiled {
    /// The model for an instruction set.
    pub fn new(model: &Model, isa: Isa) -> Self {
        let order = isa.order();
        let header = model.header();
        let mut scratch = 0;
        let mut need = |bytes: usize| scratch = scratch.max(bytes + packed::SLACK);
        let mut steps = Vec::with_capacity(header.layers.len());
        for layer in &header.layers {
            let x = header.activations[layer.inputs[0] as usize].shape;
            steps.push(match &layer.op {
                Op::Conv { window, groups: 1, weight, bias, scale, .. }
                    if frame_len(x, window, order) <= MAX_FRAME =>
                {
                    need(frame_len(x, window, order));
                    let [kernel_h, kernel_w] = window.kernel.map(usize::from);
                    let rows = Scalar::rows(model, *weight, *bias, *scale);
                    Step::Conv(Packed::new(rows, kernel_h, kernel_w * x.c as usize, order))
                }
                Op::Dense { weight, bias, scale, .. } => {
                    need(x.len() as usize * order.width());
                    Step::Dense(Packed::new(Scalar::rows(model, *weight, *bias, *scale), 1, x.len() as usize, order))
                }
                _ => Step::Plain,
            });
        }
        let features = model.features().shape.len() as usize;
        need(features * order.width());
        let head = |h: &Head| Packed::new(Scalar::rows(model, h.weight, h.bias, h.scale), 1, features, order);
        let heads = [head(&header.mu), head(&header.sigma)];
        let mut this = Self { isa, steps, heads, scratch, checksum: 0 };
        this.checksum = this.sum();
        this
    }

    /// The kernels, as reports name them.
    pub fn kernels(&self) -> &'static str {
        self.isa.name()
    }

    /// Whether every packed number is as it was loaded.
    pub fn is_intact(&self) -> bool {
        self.sum() == self.checksum
    }

    /// CRC-32 of every packed number.
    fn sum(&self) -> u32 {
        let mut hash = crc32fast::Hasher::new();
        let mut packed = |p: &Packed| {
            p.lines.iter().for_each(|l| hash.update(&l.0.map(|w| w as u8)));
            p.bias.iter().for_each(|b| hash.update(&b.to_le_bytes()));
            p.scale.iter().for_each(|s| hash.update(&s.to_le_bytes()));
        };
        for step in &self.steps {
            if let Step::Conv(p) | Step::Dense(p) = step {
                packed(p);
            }
        }
        self.heads.iter().for_each(&mut packed);
        hash.finalize()
    }

    /// Bytes of scratch memory of an inference.
    pub fn scratch_len(&self) -> usize {
        self.scratch
    }
}

/// One inference's kernels and their memory.
pub(crate) struct Running<'a, 'm> {
    pub tiled: &'a Tiled,
    /// For what has no tile.
    pub scalar: Scalar<'a, 'm>,
    pub scratch: &'a mut [u8],
}

impl Running<'_, '_> {
    /// A linear map of one pixel.
    fn flat<'s>(scratch: &'s mut [u8], x: &[i8], order: Order, packed: &'s Packed) -> Map<'s> {
        let len = x.len() * order.width();
        packed::inputs(x, order, &mut scratch[..len]);
        scratch[len..len + packed::SLACK].fill(0);
        Map { frame: &scratch[..len + packed::SLACK], pitch: 0, step: [0, 0], extent: [1, 1], packed }
    }
}

impl Kernels for Running<'_, '_> {
    fn step(&mut self, index: usize, layer: &Layer, a: &[i8], b: &[i8], y: &mut [i8]) {
        let header = self.scalar.0.header();
        let [x, second] = layer.inputs.map(|i| header.activations[i as usize]);
        let target = header.activations[index + 1];
        let extent = [target.shape.h as usize, target.shape.w as usize];
        let source = Source { x: a, shape: x.shape, zero: x.zero_point };
        let out = |relu| Output::new(target.zero_point, relu);
        let isa = self.tiled.isa;
        let order = isa.order();
        match (&self.tiled.steps[index], &layer.op) {
            (Step::Conv(packed), Op::Conv { window, relu, .. }) => {
                let [rows, pitch] = packed::frame_extent(&source, window, order);
                let frame = &mut self.scratch[..rows * pitch + packed::SLACK];
                packed::frame(&source, window, order, frame);
                let [down, right] = window.stride.map(usize::from);
                let step = [right * x.shape.c as usize * order.width(), down * pitch];
                isa.requantised(&Map { frame, pitch, step, extent, packed }, out(*relu), y);
            }
            (Step::Dense(packed), Op::Dense { relu, .. }) => {
                isa.requantised(&Self::flat(self.scratch, a, order, packed), out(*relu), y);
            }
            (_, Op::Affine { mul, add, relu }) => {
                let model = self.scalar.0;
                isa.affine(a, x.zero_point, model.f32s(*mul), model.f32s(*add), out(*relu), y);
            }
            (_, Op::Add { ratio, relu }) => {
                isa.add(a, b, [x.zero_point, second.zero_point], *ratio, out(*relu), y);
            }
            (_, Op::AvgPool { window, scale }) => {
                isa.avg_pool(source, window, *scale, Target { y, extent, out: out(false) });
            }
            _ => self.scalar.step(index, layer, a, b, y),
        }
    }

    fn heads(&mut self, features: &[i8], heads: Heads) {
        for (packed, to) in self.tiled.heads.iter().zip([heads.mu, heads.s]) {
            self.tiled.isa.real(&Self::flat(self.scratch, features, self.tiled.isa.order(), packed), to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::scalar::{self, Rows};
    use crate::tensor::Le;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// Bytes with many extremes.
    fn bytes(n: usize, seed: u64, low: i8) -> Vec<i8> {
        let mut state = seed | 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        (0..n)
            .map(|_| match next() % 8 {
                0 => low,
                1 => 127,
                2 => [-1, 0, 1][next() as usize % 3],
                _ => ((next() % 256) as u8 as i8).max(low),
            })
            .collect()
    }

    fn words(values: impl Iterator<Item = u32>) -> Vec<u8> {
        values.flat_map(u32::to_le_bytes).collect()
    }

    /// Every instruction set of this CPU; a test says so where there is none.
    fn sets() -> Vec<Isa> {
        let all: Vec<Isa> = Isa::all().collect();
        if all.is_empty() {
            std::eprintln!("skipped: this CPU has none of the instruction sets that have kernels");
        }
        all
    }

    struct Case {
        x: Vec<i8>,
        weight: Vec<i8>,
        bias: Vec<u8>,
        scale: Vec<u8>,
    }

    impl Case {
        fn new(inputs: usize, channels: usize, width: usize, seed: u64) -> Self {
            let bias = (0..channels as i32).map(|o| (o * 7919 - 30_000) as u32);
            let scale = (0..channels).map(|o| (1e-3f32 / (width as f32).sqrt() * (1.0 + o as f32)).to_bits());
            Self {
                x: bytes(inputs, seed, -128),
                weight: bytes(channels * width, seed ^ 5, -127),
                bias: words(bias),
                scale: words(scale),
            }
        }

        fn rows(&self) -> Rows<'_> {
            Rows { weight: &self.weight, bias: Le::new(&self.bias), scale: Le::new(&self.scale) }
        }
    }

    fn convolution_is_equal(isa: Isa, shape: Shape, window: Window, channels: usize, zeros: [i8; 2], seed: u64) {
        let Some(extent) = window.output(shape) else { return };
        let extent = extent.map(usize::from);
        let run = window.kernel[1] as usize * shape.c as usize;
        let case = Case::new(shape.len() as usize, channels, window.kernel[0] as usize * run, seed);
        let source = Source { x: &case.x, shape, zero: zeros[0] };
        for relu in [false, true] {
            let out = Output::new(zeros[1], relu);
            let mut want = vec![0; extent[0] * extent[1] * channels];
            scalar::conv(source, &window, 1, case.rows(), Target { y: &mut want, extent, out });
            let order = isa.order();
            let packed = Packed::new(case.rows(), window.kernel[0] as usize, run, order);
            let [rows, pitch] = packed::frame_extent(&source, &window, order);
            let mut frame = vec![0xaa; rows * pitch + packed::SLACK];
            packed::frame(&source, &window, order, &mut frame);
            let step =
                [window.stride[1] as usize * shape.c as usize * order.width(), window.stride[0] as usize * pitch];
            let mut got = vec![0x55; want.len()];
            let map = Map { frame: &frame, pitch, step, extent, packed: &packed };
            isa.requantised(&map, out, &mut got);
            assert_eq!(got, want, "{} {shape:?} {window:?} {channels} channels", isa.name());
        }
    }

    use std::vec;

    #[test]
    fn lengths_at_every_edge_are_equal() {
        for isa in sets() {
            for n in (1..=70).chain(255..=257) {
                lengths_are_equal(isa, n);
            }
        }
    }

    fn lengths_are_equal(isa: Isa, n: usize) {
        let order = isa.order();
        for channels in [1, 7, 8, 9, 15, 16, 17, 33, 48, 64] {
            let case = Case::new(n, channels, n, n as u64);
            let packed = Packed::new(case.rows(), 1, n, order);
            let mut scratch = vec![0x77; n * order.width() + packed::SLACK];
            let out = Output::new(-3, false);
            let (mut want, mut got) = (vec![0; channels], vec![0; channels]);
            scalar::dense(&case.x, case.rows(), out, &mut want);
            isa.requantised(&Running::flat(&mut scratch, &case.x, order, &packed), out, &mut got);
            assert_eq!(got, want, "{} {n} {channels}", isa.name());
            let (mut want, mut got) = (vec![0.0; channels], vec![0.0; channels]);
            scalar::head(&case.x, case.rows(), &mut want);
            isa.real(&Running::flat(&mut scratch, &case.x, order, &packed), &mut got);
            assert_eq!(got, want, "{} {n} {channels}", isa.name());
        }
        let (a, b) = (bytes(n, 1, -128), bytes(n, 2, -128));
        let (out, mut want, mut got) = (Output::new(5, n.is_multiple_of(2)), vec![0; n], vec![0; n]);
        // Some products land on halves, some leave f32's range.
        for ratio in [[0.5, 0.25], [0.013, 1.7], [f32::MAX, -f32::MAX]] {
            scalar::add(&a, &b, [-7, 100], ratio, out, &mut want);
            isa.add(&a, &b, [-7, 100], ratio, out, &mut got);
            assert_eq!(got, want, "{} {n}", isa.name());
        }
        let constant = |k: usize| [0.5, -0.013, 1.7, f32::MAX][k % 4].to_bits();
        let (mul, add) = (words((0..n).map(constant)), words((1..=n).map(constant)));
        let x = bytes(3 * n, 9, -128);
        let (mut want, mut got) = (vec![0; 3 * n], vec![0; 3 * n]);
        scalar::affine(&x, 11, Le::new(&mul), Le::new(&add), out, &mut want);
        isa.affine(&x, 11, Le::new(&mul), Le::new(&add), out, &mut got);
        assert_eq!(got, want, "{} {n}", isa.name());
    }

    #[test]
    fn the_shapes_of_real_networks_are_equal() {
        let square = |kernel, stride, pad| Window { kernel: [kernel; 2], stride: [stride; 2], pad: [pad; 4] };
        for (shape, window, channels) in [
            (Shape::new(32, 32, 3), square(3, 1, 1), 16),
            (Shape::new(32, 32, 16), square(3, 1, 1), 16),
            (Shape::new(32, 32, 16), square(3, 2, 1), 32),
            (Shape::new(32, 32, 16), square(1, 2, 0), 32),
            (Shape::new(16, 16, 32), square(3, 1, 1), 32),
            (Shape::new(8, 8, 64), square(3, 1, 1), 64),
            (Shape::new(8, 8, 40), square(3, 1, 1), 48),
            (Shape::new(28, 28, 1), square(5, 2, 2), 16),
            (Shape::new(14, 14, 16), square(3, 2, 1), 32),
        ] {
            sets().into_iter().for_each(|isa| convolution_is_equal(isa, shape, window, channels, [-128, 3], 7));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn convolutions_and_pools_are_equal(
            h in 1u16..12, w in 1u16..20, c in 1u16..36, channels in 1usize..70, kernel in [1u16..6, 1u16..6],
            stride in [1u16..4, 1u16..4], pad in [0u16..4, 0u16..4, 0u16..4, 0u16..4], zeros in any::<[i8; 2]>(),
            scale in 1e-4f32..1e-1, seed: u64,
        ) {
            let (shape, window) = (Shape::new(h, w, c), Window { kernel, stride, pad });
            sets().into_iter().for_each(|isa| convolution_is_equal(isa, shape, window, channels, zeros, seed));
            if let Some(extent) = window.output(shape) {
                let extent = extent.map(usize::from);
                let x = bytes(shape.len() as usize, seed, -128);
                let source = Source { x: &x, shape, zero: zeros[0] };
                let out = Output::new(zeros[1], false);
                let mut want = vec![0; extent[0] * extent[1] * c as usize];
                scalar::avg_pool(source, &window, scale, Target { y: &mut want, extent, out });
                for isa in sets() {
                    let mut got = vec![0x55; want.len()];
                    isa.avg_pool(source, &window, scale, Target { y: &mut got, extent, out });
                    prop_assert_eq!(&got, &want, "{}", isa.name());
                }
            }
        }
    }
}
