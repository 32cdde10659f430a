//! What happens to an image's values on their way to where kernels read them.

use crate::ops::lanes::{BLOCK, Lanes, get, put};

/// What happens to a value on its way.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Load<'a> {
    /// Nothing.
    Plain,
    /// `v * scale[c] + shift[c]`, then a ReLU where asked: a batch norm that was never written out.
    Affine { scale: &'a [f32], shift: &'a [f32], relu: bool },
    /// `v` where the same place of `mask` is positive: the gradient through a ReLU.
    Masked { mask: &'a [f32] },
}

impl Load<'_> {
    /// Panics unless it is for an image of `pixels` of `channels`.
    pub(super) fn check(self, pixels: usize, channels: usize) {
        match self {
            Load::Affine { scale, shift, .. } => assert!(scale.len() >= channels && shift.len() >= channels),
            Load::Masked { mask } => assert!(mask.len() >= pixels * channels),
            Load::Plain => (),
        }
    }
}

/// What a value becomes where it is put.
pub(super) trait Cell: Copy {
    /// # Safety
    /// As [`put`].
    unsafe fn put<L: Lanes>(values: L, to: *mut Self, count: usize);
}

impl Cell for f32 {
    #[inline(always)]
    unsafe fn put<L: Lanes>(values: L, to: *mut Self, count: usize) {
        // SAFETY: the caller's contract.
        unsafe { put(values, to, count) }
    }
}

/// A bf16.
impl Cell for u16 {
    #[inline(always)]
    unsafe fn put<L: Lanes>(values: L, to: *mut Self, count: usize) {
        // SAFETY: the caller's contract; no vector is longer than a block.
        unsafe {
            if count == L::N {
                values.store_bf16(to);
            } else {
                let mut all = [0; BLOCK];
                values.store_bf16(all.as_mut_ptr());
                to.copy_from_nonoverlapping(all.as_ptr(), count);
            }
        }
    }
}

/// The pixels of an image row that meet every so many columns at the same remainder.
pub(super) struct Phase {
    /// The first, and the column where it stands.
    pub x: usize,
    pub column: usize,
    /// Those that there are columns for.
    pub count: usize,
}

impl Phase {
    /// Phase `phase` of `phases`, of a row of `w` pixels behind `left` zeros, in `columns` columns a phase.
    #[inline(always)]
    pub fn new([phase, phases]: [usize; 2], left: usize, w: usize, columns: usize) -> Self {
        let x = (phase + phases - left % phases) % phases;
        let column = (x + left) / phases;
        let count = w.saturating_sub(x).div_ceil(phases).min(columns.saturating_sub(column));
        Self { x, column, count }
    }
}

/// Neighbouring pixels of one image row, or every so many, on their way to neighbouring places.
#[derive(Clone, Copy)]
pub(super) struct Run {
    /// First value in the image, first place.
    pub from: usize,
    pub to: usize,
    pub count: usize,
    /// Values from one pixel to the next in the image.
    pub stride: usize,
    /// Values from one place to the next.
    pub step: usize,
    /// Channels.
    pub depth: usize,
}

impl Run {
    /// `to = f(value, place in the image)` for every vector of every pixel; `start` gives `f` for a vector's channels.
    #[inline(always)]
    unsafe fn each<L: Lanes, T: Cell, F: Fn(L, usize) -> L>(
        self,
        from: &[f32],
        to: &mut [T],
        start: impl Fn(usize, usize) -> F,
    ) {
        let mut done = 0;
        while done < self.depth {
            let count = L::N.min(self.depth - done);
            let f = start(done, count);
            // SAFETY: the contract of `copy`.
            unsafe {
                let (mut x, mut at) = (self.from + done, to.as_mut_ptr().add(self.to + done));
                for _ in 0..self.count {
                    let v = get::<L>(from.as_ptr().add(x), count);
                    T::put(f(v, x), at, count);
                    x += self.stride;
                    at = at.add(self.step);
                }
            }
            done += count;
        }
    }

    /// Copies the run; its first value is of channel `channel`.
    ///
    /// # Safety
    /// The last pixel's last channel is inside the image and inside `to`, and `how` was checked for the image.
    #[inline(always)]
    pub unsafe fn copy<L: Lanes, T: Cell>(self, channel: usize, from: &[f32], how: Load, to: &mut [T]) {
        // SAFETY: the caller's contract.
        unsafe {
            match how {
                Load::Plain => self.each::<L, T, _>(from, to, |_, _| |v, _| v),
                Load::Affine { scale, shift, relu } => self.each::<L, T, _>(from, to, |done, count| {
                    let at = |v: &[f32]| get::<L>(v.as_ptr().add(channel + done), count);
                    let (a, b) = (at(scale), at(shift));
                    move |v: L, _| {
                        let v = b.fma(v, a);
                        if relu { v.relu() } else { v }
                    }
                }),
                Load::Masked { mask } => self.each::<L, T, _>(from, to, |_, count| {
                    move |v: L, x| v.where_positive(get::<L>(mask.as_ptr().add(x), count))
                }),
            }
        }
    }
}
