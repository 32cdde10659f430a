//! Every instruction set of this CPU against the scalar kernels: single maps with what follows them, at every edge.
//! Whole networks are compared in `tests/kernels.rs`.

use crate::kernel::grid::{Grid, View};
use crate::kernel::isa::Isa;
use crate::kernel::map::{Affine, Map, SLACK, Sum, Wide, reach};
use crate::kernel::packed::{CacheLine, LANES, Packed, push_constants};
use crate::kernel::scalar::{self, Rows, Source, Target};
use crate::kernel::team::Team;
use crate::kernel::winograd::{self, Winograd};
use crate::layer::Window;
use crate::plan::{depthwise, depthwise_taps};
use crate::requant::Output;
use crate::tensor::{Le, Shape};
use proptest::prelude::*;
use std::io::Write as _;
use std::sync::{Mutex, Once, PoisonError};
use std::{vec, vec::Vec};

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

/// Every instruction set of this CPU, AVX-VNNI's kernels in AVX-512's encoding among them; a test says so where there is none.
fn sets() -> Vec<Isa> {
    let all: Vec<Isa> = Isa::all().collect();
    let why = if all.is_empty() {
        Some("the tests of tiles need an instruction set that has kernels")
    } else if cfg!(target_arch = "x86_64") && !all.iter().any(|isa| isa.name() == "avx-vnni") {
        Some("AVX-VNNI as such, which this CPU has not: its kernels ran as AVX-512 encodes them, or not at all")
    } else {
        None
    };
    if let Some(why) = why {
        // Past the harness, which would keep the words of a passing test to itself.
        static ONCE: Once = Once::new();
        ONCE.call_once(|| drop(writeln!(std::io::stderr(), "skipped: {why}")));
    }
    all
}

/// A linear map's numbers.
struct Case {
    weight: Vec<i8>,
    bias: Vec<u8>,
    scale: Vec<u8>,
}

impl Case {
    fn new(channels: usize, width: usize, seed: u64) -> Self {
        let bias = (0..channels as i32).map(|o| (o * 7919 - 30_000) as u32);
        let scale = (0..channels).map(|o| (1e-3f32 / (width as f32).sqrt() * (1.0 + o as f32)).to_bits());
        Self { weight: bytes(channels * width, seed ^ 5, -127), bias: words(bias), scale: words(scale) }
    }

    fn rows(&self) -> Rows<'_> {
        Rows { weight: &self.weight, bias: Le::new(&self.bias), scale: Le::new(&self.scale) }
    }
}

/// Memory in which grids are laid one after the other.
struct Memory {
    bytes: Vec<u8>,
    flip: u8,
}

impl Memory {
    fn grid(&mut self, shape: Shape, pad: [usize; 4], zero: i8, x: Option<&[i8]>) -> Grid {
        let at = self.bytes.len() - SLACK;
        let grid = Grid { shape, pad, at, zero: zero as u8 ^ self.flip };
        self.bytes.resize(at + grid.len() + SLACK, 0x55);
        grid.fill_border(&mut self.bytes);
        if let Some(x) = x {
            grid.write(&mut self.bytes, self.flip, x);
        }
        grid
    }

    fn read(&self, grid: &Grid) -> Vec<i8> {
        let mut x = vec![0; grid.shape.len() as usize];
        grid.read(&self.bytes, self.flip, &mut x);
        x
    }
}

/// A convolution alone, with a sum, with an affine map, and with both, against the scalar kernels one after the other: pixel by
/// pixel, and by Winograd's tiles of both sizes where there are such.
fn convolution_is_equal(isa: Isa, shape: Shape, window: Window, channels: usize, zeros: [i8; 4], seed: u64) {
    static TEAM: Mutex<Option<Team>> = Mutex::new(None);
    let mut team = TEAM.lock().unwrap_or_else(PoisonError::into_inner);
    let team = team.get_or_insert_with(|| Team::new(3));
    let Some([h, w]) = window.output(shape) else { return };
    let by_tiles = isa.winograd().filter(|_| window.kernel == [3, 3] && window.stride == [1, 1]);
    for side in [None, Some(4), Some(2)].into_iter().filter(|side| side.is_none() || by_tiles.is_some()) {
        convolution_is_equal_by((isa, side, &mut *team), (shape, window), [h, w], channels, zeros, seed);
    }
}

fn convolution_is_equal_by(
    (isa, side, team): (Isa, Option<usize>, &mut Team),
    (shape, window): (Shape, Window),
    [h, w]: [u16; 2],
    channels: usize,
    zeros: [i8; 4],
    seed: u64,
) {
    let extent = [h, w].map(usize::from);
    let run = window.kernel[1] as usize * shape.c as usize;
    let case = Case::new(channels, window.kernel[0] as usize * run, seed);
    let x = bytes(shape.len() as usize, seed, -128);
    let pixels = extent[0] * extent[1];
    let other = bytes(pixels * channels, seed ^ 9, -128);
    let constant = |k: usize| [0.5, -0.013, 1.7, 33.0, f32::MAX][(k + seed as usize % 5) % 5].to_bits();
    let (mul, add) = (words((0..channels).map(constant)), words((1..=channels).map(constant)));
    let ratio = [[0.5, 0.25], [0.013, 1.7], [3.0, 1e30]][seed as usize % 3];
    for relu in [false, true] {
        let out = |zero| Output::new(zero, relu);
        let mut own = vec![0; pixels * channels];
        let source = Source { x: &x, shape, zero: zeros[0] };
        scalar::conv(source, &window, 1, case.rows(), Target { y: &mut own, extent, out: out(zeros[1]) });
        for (with_sum, with_affine) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut want = own.clone();
            let mut zero = zeros[1];
            if with_sum {
                scalar::add(&own, &other, [zeros[1], zeros[2]], ratio, out(zeros[2]), &mut want);
                zero = zeros[2];
            }
            let mut mapped = vec![0; want.len()];
            scalar::affine(&want, zero, Le::new(&mul), Le::new(&add), out(zeros[3]), &mut mapped);

            let flip = isa.flip();
            let mut memory = Memory { bytes: vec![0x55; SLACK], flip };
            let from = memory.grid(shape, window.pad.map(usize::from), zeros[0], Some(&x));
            let y_shape = Shape::new(h, w, channels as u16);
            let residual = memory.grid(y_shape, [1, 0, 0, 2], zeros[2], Some(&other));
            let y = memory.grid(y_shape, [0, 1, 1, 0], zero, None);
            let after = memory.grid(y_shape, [0; 4], zeros[3], None);
            let mut lines: Vec<CacheLine> = Vec::new();
            push_constants(&mut lines, mul.as_chunks().0.iter().copied());
            let summands = lines.len();
            push_constants(&mut lines, add.as_chunks().0.iter().copied());
            let (packed, winograd) = match (side, isa.winograd()) {
                (Some(side), Some(uses)) => {
                    let pushed = winograd::push(&mut lines, case.rows(), shape.c.into(), side, uses.order, flip);
                    let Some(packed) = pushed else { return };
                    let w = Winograd::new(side, shape.c.into(), extent);
                    // Few tiles together, so that several groups are run.
                    (packed, Some(Winograd { together: 1 + seed as usize % w.together, ..w }))
                }
                _ => {
                    let kernel = window.kernel[0] as usize;
                    (Packed::push(&mut lines, case.rows(), kernel, run, isa.order(), flip), None)
                }
            };
            let room = memory.bytes.len();
            let winograd = winograd.map(|w| Winograd { at: room, ..w });
            let start = from.before(window.pad[0] as usize, window.pad[1] as usize);
            let taps: Vec<usize> = (0..window.kernel[0] as usize).map(|run| run * start.pitch).collect();
            let step = [window.stride[1] as usize * shape.c as usize, window.stride[0] as usize * start.pitch];
            // Widened, few rows at a time, or as they are.
            let wide = (side.is_none() && isa.order().is_wide() && !seed.is_multiple_of(4)).then(|| {
                let reach = reach(extent[1], step[0], taps[taps.len() - 1], packed.steps);
                Wide::new(room, extent[0], reach, step[1], (seed % 4) as usize * step[1] * 2)
            });
            let each = winograd.map_or(0, |w| w.len()).max(wide.map_or(0, |w| w.len));
            memory.bytes.resize(room + team.members() * each + SLACK, 0x55);
            let map = Map {
                x: start.at,
                winograd,
                room: each,
                wide,
                step,
                extent,
                y: Some(y.inside()),
                sum: with_sum.then(|| Sum {
                    other: residual.inside(),
                    other_zero: residual.zero,
                    ratio,
                    out: out(zeros[2]),
                }),
                affine: with_affine.then(|| Affine { mul: 0, add: summands, out: out(zeros[3]), y: after.inside() }),
                ..Map::new(&lines, packed, &taps, out(zeros[1]))
            };
            let mut alone = memory.bytes.clone();
            isa.map(&map, &mut alone, None);
            isa.map(&map, &mut memory.bytes, Some(team));
            let name =
                std::format!("{} {side:?} {shape:?} {window:?} {channels} {with_sum} {with_affine}", isa.name());
            assert!(alone[..room] == memory.bytes[..room], "{name}: by a team");
            assert_eq!(memory.read(&y), want, "{name}");
            if with_affine {
                assert_eq!(memory.read(&after), mapped, "{name}");
            }
            // Nothing else was touched: borders and inputs are what they were.
            assert_eq!(memory.read(&from), x, "{name}");
            assert_eq!(memory.read(&residual), other, "{name}");
            let mut refilled = memory.bytes.clone();
            [from, residual, y, after].iter().for_each(|g| g.fill_border(&mut refilled));
            assert!(refilled == memory.bytes, "{name}: a border was overwritten");
            let end = memory.bytes.len() - SLACK;
            let unused = memory.bytes[room - SLACK..room].iter().chain(&memory.bytes[end..]);
            assert!(unused.copied().all(|b| b == 0x55), "{name}");
        }
    }
}

/// What computes each channel for itself over a window: depthwise convolutions and both pools.
fn channelwise_operations_are_equal(shape: Shape, window: Window, scale: f32, zeros: [i8; 2], seed: u64) {
    let Some([h, w]) = window.output(shape) else { return };
    let (extent, channels) = ([h, w].map(usize::from), shape.c as usize);
    let x = bytes(shape.len() as usize, seed, -128);
    let case = Case::new(channels, window.kernel.map(usize::from).iter().product(), seed);
    let source = Source { x: &x, shape, zero: zeros[0] };
    for relu in [false, true] {
        let out = Output::new(zeros[1], relu);
        let [mut conv, mut mean, mut most] = [(); 3].map(|()| vec![0; extent[0] * extent[1] * channels]);
        scalar::conv(source, &window, channels, case.rows(), Target { y: &mut conv, extent, out });
        scalar::avg_pool(source, &window, scale, Target { y: &mut mean, extent, out });
        scalar::max_pool(source, &window, &mut most, extent);
        for isa in sets() {
            // Borders wider than the window's, as another reader may need.
            let pad = [0, 1, 2, 3].map(|side| window.pad[side] as usize + (seed as usize >> side) % 2);
            let flip = isa.flip();
            let mut memory = Memory { bytes: vec![0x55; SLACK], flip };
            let from = memory.grid(shape, pad, zeros[0], Some(&x));
            let to = memory.grid(Shape::new(h, w, shape.c), [0, 2, 1, 0], zeros[1], None);
            let kernel = window.kernel.map(usize::from);
            let mut lines = vec![CacheLine([0; 64]); 3];
            let packed = Packed::push_depthwise(&mut lines, case.rows(), kernel, isa.depthwise(), flip);
            let reads = depthwise(isa.depthwise(), &from, &window, &to);
            let taps = depthwise_taps(&reads, &from, &window);
            let room = memory.bytes.len();
            let [right, down] = [window.stride[1], window.stride[0]].map(usize::from);
            let mut map =
                Map { extent, depthwise: Some(reads), y: Some(to.inside()), ..Map::new(&lines, packed, &taps, out) };
            let len = map.columns().map_or(0, |columns| columns.len());
            if len > 0 {
                (map.x, map.room, map.step) = (room, len, [right * 64, 0]);
            } else {
                let [top, left, ..] = window.pad.map(usize::from);
                let first = from.before(top, left);
                (map.x, map.step) = (first.at, [right * shape.c as usize, down * first.pitch]);
            }
            memory.bytes.resize(room + len + SLACK, 0x55);
            isa.map(&map, &mut memory.bytes, None);
            assert_eq!(memory.read(&to), conv, "{} conv {shape:?} {window:?}", isa.name());
            assert!(memory.bytes[room + len..].iter().all(|b| *b == 0x55), "{} left its columns", isa.name());
            memory.bytes.truncate(room);
            for (name, want) in [("avg-pool", &mean), ("max-pool", &most)] {
                let (left, right) = memory.bytes.split_at_mut(to.at);
                let (x, y) = ((&from, &left[from.range()]), (&to, &mut right[..to.len()]));
                match name {
                    "avg-pool" => isa.avg_pool(x, &window, scale, out, y),
                    _ => isa.max_pool(x, &window, y),
                }
                assert_eq!(&memory.read(&to), want, "{} {name} {shape:?} {window:?}", isa.name());
                let mut refilled = memory.bytes.clone();
                [from, to].iter().for_each(|g| g.fill_border(&mut refilled));
                assert!(refilled == memory.bytes, "{} {name}: a border was overwritten", isa.name());
            }
        }
    }
}

#[test]
fn channelwise_operations_of_every_width_are_equal() {
    for channels in (1..=70).chain(255..=257) {
        for (kernel, stride, pad) in [(3, 1, 1), (2, 2, 0), (5, 2, 2), (1, 1, 0)] {
            let window = Window { kernel: [kernel; 2], stride: [stride; 2], pad: [pad; 4] };
            channelwise_operations_are_equal(Shape::new(5, 6, channels), window, 0.04, [-128, 3], channels.into());
        }
    }
}

#[test]
fn lengths_at_every_edge_are_equal() {
    for isa in sets() {
        for n in (1..=70).chain(255..=257) {
            lengths_are_equal(isa, n);
        }
    }
}

fn lengths_are_equal(isa: Isa, n: usize) {
    let one = Window { kernel: [1, 1], stride: [1, 1], pad: [0; 4] };
    for channels in [1, 7, 8, 9, 15, 16, 17, 33, 48, 64] {
        convolution_is_equal(isa, Shape::new(1, 1, n as u16), one, channels, [-128, -3, 7, 127], n as u64);
        let case = Case::new(channels, n, n as u64);
        let x = bytes(n, n as u64, -128);
        let mut want = vec![0.0; channels];
        scalar::head(&x, case.rows(), &mut want);
        let mut memory = Memory { bytes: vec![0x55; SLACK], flip: isa.flip() };
        let grid = memory.grid(Shape::new(1, 1, n as u16), [0; 4], 0, Some(&x));
        let mut lines = Vec::new();
        let packed = Packed::push(&mut lines, case.rows(), 1, n, isa.order(), isa.flip());
        let (x, out) = (grid.inside(), Output::new(0, false));
        let map = Map { x: x.at, ..Map::new(&lines, packed, &[0], out) };
        let mut got = vec![0.0; channels];
        isa.real(&map, &memory.bytes, &mut got);
        assert_eq!(got, want, "{} {n} {channels}", isa.name());
    }
    let (a, b) = (bytes(n, 1, -128), bytes(n, 2, -128));
    let (out, shape) = (Output::new(5, n.is_multiple_of(2)), Shape::new(1, 1, n as u16));
    let (mut want, flip) = (vec![0; n], isa.flip());
    let grid = |zero: i8| Grid { shape, pad: [0; 4], at: 0, zero: zero as u8 ^ flip };
    let stored = |x: &[i8]| x.iter().map(|x| *x as u8 ^ flip).collect::<Vec<u8>>();
    let mut got = vec![0x55; n];
    // Some products land on halves, some leave f32's range.
    for ratio in [[0.5, 0.25], [0.013, 1.7], [f32::MAX, -f32::MAX]] {
        scalar::add(&a, &b, [-7, 100], ratio, out, &mut want);
        isa.add([(&grid(-7), &stored(&a)), (&grid(100), &stored(&b))], ratio, out, (&grid(5), &mut got));
        assert_eq!(got, stored(&want), "{} {n}", isa.name());
    }
    let constant = |k: usize| [0.5, -0.013, 1.7, f32::MAX][k % 4].to_bits();
    let (mul, add) = (words((0..n).map(constant)), words((1..=n).map(constant)));
    let constants = [Le::new(&mul), Le::new(&add)];
    scalar::affine(&a, 11, constants[0], constants[1], out, &mut want);
    isa.affine((&grid(11), &stored(&a)), constants, out, (&grid(5), &mut got));
    assert_eq!(got, stored(&want), "{} {n}", isa.name());
}

#[test]
fn the_shapes_of_real_networks_are_equal() {
    let square = |kernel, stride, pad| Window { kernel: [kernel; 2], stride: [stride; 2], pad: [pad; 4] };
    for (shape, window, channels) in [
        (Shape::new(32, 32, 3), square(3, 1, 1), 16),
        (Shape::new(7, 13, 16), square(3, 1, 1), 16),
        (Shape::new(8, 8, 128), square(3, 1, 1), 24),
        (Shape::new(32, 32, 16), square(3, 1, 1), 16),
        (Shape::new(32, 32, 16), square(3, 2, 1), 32),
        (Shape::new(32, 32, 16), square(1, 2, 0), 32),
        (Shape::new(16, 16, 32), square(3, 1, 1), 32),
        (Shape::new(8, 8, 64), square(3, 1, 1), 64),
        (Shape::new(8, 8, 40), square(3, 1, 1), 48),
        (Shape::new(28, 28, 1), square(5, 2, 2), 16),
        (Shape::new(14, 14, 16), square(3, 2, 1), 32),
    ] {
        sets().into_iter().for_each(|isa| convolution_is_equal(isa, shape, window, channels, [-128, 3, -9, -128], 7));
    }
}

/// All inputs 127 and all weights 127 or -127 make the largest sums that there are: of 115 channels they fit, of 116 they do not.
#[test]
fn the_largest_sums_are_exact_and_larger_ones_refused() {
    let window = Window { kernel: [3, 3], stride: [1, 1], pad: [0; 4] };
    for (isa, uses) in sets().into_iter().filter_map(|isa| Some((isa, isa.winograd()?))) {
        let flip = isa.flip();
        let most: usize = if flip == 0 { 229 } else { 115 };
        for (c, weight) in [(most, 127i8), (most, -127), (most + 1, 127), (most + 1, -127)] {
            let (shape, width) = (Shape::new(6, 6, c as u16), 9 * c);
            let case = Case {
                weight: vec![weight; width],
                bias: words([7].into_iter()),
                scale: words([3e-6f32.to_bits()].into_iter()),
            };
            let mut lines = Vec::new();
            let Some(packed) = winograd::push(&mut lines, case.rows(), c, 4, uses.order, flip) else {
                assert!(c > most && lines.is_empty(), "{} refuses {c} channels", isa.name());
                continue;
            };
            assert_eq!(c, most, "{} packs {c} channels", isa.name());
            let input = if flip == 0 { -128 } else { 127i8 };
            let x = vec![input; shape.len() as usize];
            let mut want = vec![0; 16];
            let out = Output::new(if (weight > 0) == (input > 0) { -128 } else { 127 }, false);
            let source = Source { x: &x, shape, zero: 0 };
            scalar::conv(source, &window, 1, case.rows(), Target { y: &mut want, extent: [4, 4], out });
            let mut memory = Memory { bytes: vec![0x55; SLACK], flip };
            let from = memory.grid(shape, [0; 4], 0, Some(&x));
            let y = memory.grid(Shape::new(4, 4, 1), [0; 4], 0, None);
            let w = Winograd { at: memory.bytes.len(), ..Winograd::new(4, c, [4, 4]) };
            memory.bytes.resize(w.at + w.len() + SLACK, 0x55);
            let step = [c, from.pitch()];
            let map = Map {
                x: from.inside().at,
                step,
                extent: [4, 4],
                y: Some(y.inside()),
                winograd: Some(w),
                ..Map::new(&lines, packed, &[], out)
            };
            isa.map(&map, &mut memory.bytes, None);
            assert_eq!(memory.read(&y), want, "{} {c} {weight}", isa.name());
        }
    }
}

#[test]
fn a_map_that_would_leave_its_memory_is_refused() {
    let case = Case::new(LANES, 4, 1);
    let mut lines = Vec::new();
    let packed = Packed::push(&mut lines, case.rows(), 1, 4, crate::kernel::packed::Order::Quads, 0);
    let view = |at| View { at, pitch: 16 };
    let map = |x: usize, y: usize, lines| Map {
        x,
        step: [4, 16],
        y: Some(view(y)),
        ..Map::new(lines, packed, &[0], Output::new(0, false))
    };
    map(0, 16, &lines).check(32, 1);
    for bad in [map(29, 16, &lines), map(0, 17, &lines), map(0, 16, &lines[1..])] {
        assert!(std::panic::catch_unwind(|| bad.check(32, 1)).is_err());
    }
}

/// Fewer where an emulator runs them.
const CASES: u32 = if cfg!(target_arch = "aarch64") { 60 } else { 300 };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]
    #[test]
    fn convolutions_and_pools_are_equal(
        h in 1u16..12, w in 1u16..20, c in 1u16..36, channels in 1usize..70, kernel in [1u16..6, 1u16..6],
        stride in [1u16..4, 1u16..4], pad in [0u16..4, 0u16..4, 0u16..4, 0u16..4], zeros in any::<[i8; 4]>(),
        scale in 1e-4f32..1e-1, seed: u64,
    ) {
        let (shape, window) = (Shape::new(h, w, c), Window { kernel, stride, pad });
        sets().into_iter().for_each(|isa| convolution_is_equal(isa, shape, window, channels, zeros, seed));
        channelwise_operations_are_equal(shape, window, scale, [zeros[0], zeros[1]], seed);
    }

    #[test]
    fn convolutions_by_winograds_tiles_are_equal(
        h in 1u16..20, w in 1u16..20, c in 1u16..70, channels in 1usize..40, pad in [0u16..3, 0u16..3, 0u16..3, 0u16..3],
        zeros in any::<[i8; 4]>(), seed: u64,
    ) {
        let window = Window { kernel: [3, 3], stride: [1, 1], pad };
        sets().into_iter().for_each(|isa| convolution_is_equal(isa, Shape::new(h, w, c), window, channels, zeros, seed));
    }
}
