//! The kernels in `maps.s`, called with what they need.

// The assembly reads and writes through the pointers of a job; `Group::run` checks what they point to.
#![allow(unsafe_code)]

use crate::kernel::dsp::geometry::{GROUP, Geometry, Taps};
use crate::kernel::ring::{Conv, MAX_ROWS, Other};
use core::ptr::null;

unsafe extern "C" {
    fn paradise_dsp_three_stride1(job: *const Job);
    fn paradise_dsp_three_stride2(job: *const Job);
    fn paradise_dsp_runs(job: *const Job);
    // Not functions: what the three go on with.
    fn paradise_dsp_store();
    fn paradise_dsp_store_relu();
    fn paradise_dsp_sum();
    fn paradise_dsp_sum_relu();
}

/// What the assembly reads; `maps.s` knows the offsets.
#[derive(Debug)]
#[repr(C)]
struct Job {
    weight: *const u8,
    channels: usize,
    y: *mut i8,
    pitch: usize,
    other: *const i8,
    after: unsafe extern "C" fn(),
    /// Bytes of a row that are read four quads at a time, and all of them.
    main: usize,
    full: usize,
    zero: i32,
    other_zero: i32,
    sum_zero: i32,
    ratio: [f32; 2],
    /// Ended by a null pointer.
    rows: [*const u32; MAX_ROWS + 1],
}

/// A convolution whose groups are run.
#[derive(Debug)]
pub struct Group<'a> {
    geometry: &'a Geometry,
    entry: unsafe extern "C" fn(*const Job),
    job: Job,
}

impl<'a> Group<'a> {
    /// Of a convolution.
    pub fn new(conv: &'a Conv<'a>, geometry: &'a Geometry) -> Self {
        let channels = usize::from(conv.shapes[1].c);
        let Geometry { taps, stride, quads, .. } = *geometry;
        let entry = match (taps, stride) {
            (Taps::Three, 1) => paradise_dsp_three_stride1,
            (Taps::Three, _) => paradise_dsp_three_stride2,
            (Taps::Runs, _) => paradise_dsp_runs,
        };
        let after: unsafe extern "C" fn() = match &conv.sum {
            None if conv.out.cuts() => paradise_dsp_store_relu,
            None => paradise_dsp_store,
            Some(sum) if sum.out.cuts() => paradise_dsp_sum_relu,
            Some(_) => paradise_dsp_sum,
        };
        let quad = 4 * 2 * geometry.block();
        let job = Job {
            weight: conv.weight.as_ptr(),
            channels,
            y: core::ptr::null_mut(),
            pitch: channels,
            other: null(),
            after,
            main: quads / 4 * 4 * quad,
            full: quads * quad,
            zero: conv.out.zero(),
            other_zero: conv.sum.map_or(0, |sum| sum.zero.into()),
            sum_zero: conv.sum.map_or(0, |sum| sum.out.zero()),
            ratio: conv.sum.map_or([0.0; 2], |sum| sum.ratio),
            rows: [null(); MAX_ROWS + 1],
        };
        Self { geometry, entry, job }
    }

    /// From the words under each kernel row to int8 `[8][channels]`.
    ///
    /// # Panics
    /// If a slice does not have the length that the geometry says.
    pub fn run(&mut self, rows: &[&[u32]], other: Other, y: &mut [i8]) {
        let (geometry, channels) = (self.geometry, self.job.channels);
        assert!(rows.len() == geometry.rows && rows.iter().all(|row| row.len() == geometry.group_words()), "rows");
        assert!(channels > 0 && y.len() == GROUP * channels, "output");
        for (to, row) in self.job.rows.iter_mut().zip(rows) {
            *to = row.as_ptr();
        }
        self.job.y = y.as_mut_ptr();
        self.job.other = match other {
            Other::At(other) => {
                assert_eq!(other.len(), y.len(), "other operand");
                other.as_ptr()
            }
            _ => self.job.y,
        };
        // SAFETY: rows, output and other operand have the lengths that were checked above; `dsp::conv` checked that there is a
        // record for each channel, of the geometry's length; the assembly walks exactly through these.
        unsafe { (self.entry)(&self.job) };
    }
}
