//! Which output pixels are computed from the same taps, forward and, one phase of the stride after the other, backward.

use paradise_engine::Shape;
use paradise_engine::layer::Window;

/// Pixels `origin + step * k` of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pixels {
    pub rows: usize,
    pub columns: usize,
    /// The first.
    pub origin: [usize; 2],
    /// From one to the next.
    pub step: [usize; 2],
    /// Pixels of a row of the image.
    pub width: usize,
    /// Values of a pixel.
    pub pitch: usize,
}

impl Pixels {
    /// All of an image.
    pub fn all(image: Shape) -> Self {
        let [rows, columns, pitch] = [image.h, image.w, image.c].map(usize::from);
        Self { rows, columns, origin: [0, 0], step: [1, 1], width: columns, pitch }
    }

    /// Where the pixel at `row`, `column` of these begins in the image.
    pub fn at(&self, row: usize, column: usize) -> usize {
        let (y, x) = (self.origin[0] + row * self.step[0], self.origin[1] + column * self.step[1]);
        (y * self.width + x) * self.pitch
    }

    /// Panics unless the first `channels` of each pixel, of which there are some, are inside an image of `y` values and
    /// inside the residual, and have a bias where there is one.
    pub fn check(&self, channels: usize, y: usize, bias: Option<&[f32]>, residual: Option<&[f32]>) {
        let last = self.at(self.rows - 1, self.columns - 1) + channels;
        assert!(last <= y && residual.is_none_or(|r| last <= r.len()), "output of {y} values, {last} needed");
        assert!(bias.is_none_or(|b| b.len() >= channels), "a bias for each channel");
    }
}

/// The input's gradient seen from a padded gradient of the output.
pub(super) struct Adjoint {
    /// Rows and columns of the padded gradient, and zeros before its first pixel.
    pub side: [usize; 2],
    pub margin: [usize; 2],
    /// One a phase of the stride.
    pub parts: Vec<Part>,
}

/// Input pixels whose gradient comes through the same taps.
pub(super) struct Part {
    pub pixels: Pixels,
    /// Row and column of each tap in the padded gradient, from where the pixel's own window starts.
    pub taps: Vec<[usize; 2]>,
    /// The tap's index in the weights, `ky * kw + kx`.
    pub tap_index: Vec<usize>,
}

impl Adjoint {
    /// Of `window` from `input` to `output`.
    pub fn new(input: Shape, output: Shape, window: Window) -> Self {
        let vertical = Axis::new(input.h, output.h.into(), window, 0);
        let horizontal = Axis::new(input.w, output.w.into(), window, 1);
        let margin = [vertical.low, horizontal.low];
        let place = |at: i64, margin: usize| (at + margin as i64) as usize;
        let kw = usize::from(window.kernel[1]);
        let mut parts = Vec::new();
        for rows in &vertical.phases {
            for columns in &horizontal.phases {
                let taps = rows.taps.iter().flat_map(|r| columns.taps.iter().map(move |c| (r, c)));
                parts.push(Part {
                    pixels: Pixels {
                        rows: rows.count,
                        columns: columns.count,
                        origin: [rows.first, columns.first],
                        step: window.stride.map(usize::from),
                        ..Pixels::all(input)
                    },
                    taps: taps.clone().map(|(r, c)| [place(r.1, margin[0]), place(c.1, margin[1])]).collect(),
                    tap_index: taps.map(|(r, c)| r.0 * kw + c.0).collect(),
                });
            }
        }
        Self { side: [margin[0] + vertical.high, margin[1] + horizontal.high], margin, parts }
    }
}

/// Input pixels `first + stride * i` along one axis, and the output pixels that they meet.
struct Phase {
    first: usize,
    count: usize,
    /// Kernel index k, and how far from `i` the output pixel is that input pixel i meets at k.
    taps: Vec<(usize, i64)>,
}

/// One axis of a convolution seen from its input.
///
/// Input pixel `i * s + p` meets output pixel `i + (p + pad - k) / s` at every tap k that leaves no remainder.
struct Axis {
    phases: Vec<Phase>,
    /// Zeros needed before the first output pixel.
    low: usize,
    /// Pixels needed from the first output pixel on.
    high: usize,
}

impl Axis {
    /// Axis `n` of `window` from `size` input pixels to `output` pixels.
    fn new(size: u16, output: usize, window: Window, n: usize) -> Self {
        let (size, stride) = (usize::from(size), usize::from(window.stride[n]));
        let (kernel, pad) = (usize::from(window.kernel[n]), i64::from(window.pad[n]));
        let phase = |p: usize| {
            let taps = (0..kernel)
                .map(|k| (k, p as i64 + pad - k as i64))
                .filter(|(_, at)| at.rem_euclid(stride as i64) == 0)
                .map(|(k, at)| (k, at.div_euclid(stride as i64)));
            Phase { first: p, count: (size - p).div_ceil(stride), taps: taps.collect() }
        };
        let phases: Vec<Phase> = (0..stride.min(size)).map(phase).collect();
        let low = phases.iter().flat_map(|p| &p.taps).map(|t| -t.1).max().unwrap_or(0).max(0);
        let reach = |p: &Phase| p.taps.iter().map(|t| p.count as i64 + t.1).max();
        let high = phases.iter().filter_map(reach).max().unwrap_or(0).max(output as i64);
        Self { phases, low: low as usize, high: high as usize }
    }
}
