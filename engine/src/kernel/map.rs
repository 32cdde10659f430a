//! A linear map at every pixel of a grid, and what follows in the same registers: residual sum and per-channel affine map.

use super::grid::View;
use super::packed::{CacheLine, DEPTH, LANES, Packed};
use super::part::{Part, Parts};
use super::winograd::Winograd;
use crate::requant::Output;

/// Bytes after the last grid that a tile may read: what lies there meets weights of 0 or is not stored.
pub const SLACK: usize = 64;

/// A residual sum, as [`super::scalar::add`] with the map's output as its operand `own`.
#[derive(Debug, Clone, Copy)]
pub struct Sum {
    /// The other operand's pixels.
    pub other: View,
    /// The byte that stands for 0 there, flipped as it is stored.
    pub other_zero: u8,
    /// What the map's output and the other operand are multiplied by.
    pub ratio: [f32; 2],
    /// Rounding of the sum.
    pub out: Output,
}

/// A per-channel affine map, as [`super::scalar::affine`].
#[derive(Debug, Clone, Copy)]
pub struct Affine {
    /// The first line of the factors.
    pub mul: usize,
    /// The first line of the summands.
    pub add: usize,
    /// Rounding.
    pub out: Output,
    /// Where it is written.
    pub y: View,
}

/// Columns of a depthwise convolution's input: of sixteen channels, four rows side by side, `[column][16 channels][4 rows]`.
///
/// With these a channel's taps of one kernel column are what four neighbouring inputs are to other maps.
#[derive(Debug, Clone, Copy)]
pub struct Columns {
    /// The first tap of output pixel (0, 0) in the input, and bytes from row to row.
    pub x: View,
    /// Bytes from one row of pixels' first taps to the next one's.
    pub down: usize,
    /// Channels of the input, which are bytes from column to column.
    pub channels: usize,
    /// Columns, and kernel rows.
    pub extent: [usize; 2],
}

impl Columns {
    /// Bytes of them for one block of channels, [`DEPTH`] rows after [`DEPTH`] rows.
    pub fn len(&self) -> usize {
        self.extent[1].div_ceil(DEPTH) * self.pitch()
    }

    /// Bytes from four rows' columns to the next four rows'.
    pub fn pitch(&self) -> usize {
        self.extent[0] * LANES * DEPTH
    }

    /// For each four rows: the first byte of each, for a block of channels and a row of pixels, and where their columns are
    /// laid. What a kernel has no row for meets weights of 0; its last row stands there. Only to be used where
    /// [`Map::check`] has held for the bytes at `memory`.
    #[inline(always)]
    pub fn strips(
        &self,
        m: &Map,
        [block, row]: [usize; 2],
        memory: *mut u8,
    ) -> impl Iterator<Item = ([*const u8; DEPTH], *mut u8)> {
        let (rows, Self { x, .. }) = (self.extent[1], *self);
        let (from, to) = (memory.wrapping_add(x.at + row * self.down + block * LANES), memory.wrapping_add(m.x));
        let pitch = self.pitch();
        (0..rows.div_ceil(DEPTH)).map(move |strip| {
            let start = |r: usize| from.wrapping_add((strip * DEPTH + r).min(rows - 1) * x.pitch).cast_const();
            (core::array::from_fn(start), to.wrapping_add(strip * pitch))
        })
    }
}

/// Where inputs lie widened to i16, a few rows of pixels at a time, each byte at twice its distance from the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wide {
    /// The first byte.
    pub at: usize,
    /// Bytes, a multiple of [`Wide::STEP`].
    pub len: usize,
    /// The row of pixels whose inputs are the first there.
    pub first: usize,
}

impl Wide {
    /// Bytes that are written at once.
    pub const STEP: usize = 32;

    /// Bytes that stay near while all blocks of channels read them; more only where a single row needs them.
    pub const NEAR: usize = 32 << 10;

    /// For a map of so many rows, `reach` bytes of input a row, `down` from one to the next.
    pub fn new(at: usize, rows: usize, reach: usize, down: usize, near: usize) -> Self {
        let len = |rows: usize| (2 * (reach + (rows - 1) * down)).next_multiple_of(Self::STEP);
        Self { at, len: len(rows).min(near.max(len(1))) / Self::STEP * Self::STEP, first: 0 }
    }

    /// Rows that fit.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    fn rows(&self, reach: usize, down: usize) -> usize {
        // Without a way down there is one row.
        (self.len / 2 - reach).checked_div(down).map_or(1, |further| 1 + further)
    }
}

/// Bytes of input that a row of so many pixels reads, `right` from one to the next, whose last tap has so many `steps`.
pub fn reach(columns: usize, right: usize, last_tap: usize, steps: usize) -> usize {
    // Up to sixteen inputs are read at once.
    (columns - 1) * right + last_tap + (4 * steps).next_multiple_of(16)
}

/// What the channels of a depthwise convolution read.
#[derive(Debug, Clone, Copy)]
pub enum Depthwise {
    /// Rows laid side by side before each row of pixels.
    Columns(Columns),
    /// The input itself, at an even number of taps.
    Taps,
}

/// A linear map over a grid.
#[derive(Debug, Clone, Copy)]
pub struct Map<'a> {
    /// The block in which all numbers lie.
    pub lines: &'a [CacheLine],
    /// The map.
    pub packed: Packed,
    /// The first tap of output pixel (0, 0).
    pub x: usize,
    /// Bytes from there to each run of the pixel's taps.
    pub taps: &'a [usize],
    /// Bytes from one output pixel's taps to the next one's, along a row and from row to row.
    pub step: [usize; 2],
    /// Rows and columns of output pixels.
    pub extent: [usize; 2],
    /// Bytes from one output pixel to the next, in every view that is written or summed.
    pub pixel: usize,
    /// Rounding of the map itself.
    pub out: Output,
    /// For a depthwise convolution: what it reads.
    pub depthwise: Option<Depthwise>,
    /// Bytes from where one thread lays columns, tiles or widened inputs to where the next one does.
    pub room: usize,
    /// Where its inputs are widened, if they are.
    pub wide: Option<Wide>,
    /// For a convolution by tiles of more than one pixel: how they lie.
    pub winograd: Option<Winograd>,
    /// Where the map, or the sum if there is one, is written, if anyone reads it.
    pub y: Option<View>,
    /// The sum that follows.
    pub sum: Option<Sum>,
    /// The affine map that follows the map or the sum.
    pub affine: Option<Affine>,
}

/// Writes the first bytes of a block, often half of it. A call, since a branch in the inner loops would cost them registers.
#[inline(never)]
pub fn keep(block: &[u8; LANES], to: &mut [u8]) {
    let (half, _) = block.split_at(LANES / 2);
    if to.len() == half.len() {
        to.copy_from_slice(half);
    } else {
        to.iter_mut().zip(block).for_each(|(to, byte)| *to = *byte);
    }
}

/// What an instruction set makes of the roundings of a map's own output, its sum and its affine map.
pub struct Roundings<T> {
    /// The map's own.
    pub own: T,
    /// The sum's, if there is one.
    pub sum: Option<T>,
    /// The affine map's, if there is one.
    pub affine: Option<T>,
}

impl<'a> Map<'a> {
    /// A map of one pixel at the memory's beginning that is written nowhere yet.
    pub fn new(lines: &'a [CacheLine], packed: Packed, taps: &'a [usize], out: Output) -> Self {
        Self {
            lines,
            packed,
            x: 0,
            taps,
            step: [0; 2],
            extent: [1; 2],
            pixel: packed.channels,
            out,
            depthwise: None,
            wide: None,
            winograd: None,
            room: 0,
            y: None,
            sum: None,
            affine: None,
        }
    }

    /// The first tap of a tile's first pixel, and its block's weights; only to be read where [`Map::check`] has held.
    #[inline(always)]
    pub fn tile(&self, [block, row, column]: [usize; 3], memory: *const u8) -> (*const u8, *const CacheLine) {
        let from = memory.wrapping_add(self.x + row * self.step[1] + column * self.step[0]);
        (from, self.line(self.packed.at + block * self.packed.span()))
    }

    /// Its roundings, each by `new`.
    #[inline(always)]
    pub fn roundings<T>(&self, new: impl Fn(Output) -> T) -> Roundings<T> {
        Roundings { own: new(self.out), sum: self.sum.map(|s| new(s.out)), affine: self.affine.map(|a| new(a.out)) }
    }

    /// Every pixel and channel.
    pub fn whole(&self) -> Part {
        Parts::new(self, 1).nth(0)
    }

    /// The same map for so many threads: Winograd's tiles in groups that are enough for all.
    pub fn for_members(&self, members: usize) -> Self {
        let winograd = self.winograd.filter(|_| members > 1).map(|w| {
            let each = (w.tiles[0] * w.tiles[1]).div_ceil(2 * members).max(2);
            Winograd { together: w.together.min(each), ..w }
        });
        Self { winograd: winograd.or(self.winograd), ..*self }
    }

    /// The same map for another thread, whose columns, tiles or widened inputs lie in the `member`-th room.
    pub fn of_member(&self, member: usize) -> Self {
        let further = member * self.room;
        let winograd = self.winograd.map(|w| Winograd { at: w.at + further, ..w });
        let wide = self.wide.map(|w| Wide { at: w.at + further, ..w });
        Self { x: self.x + if self.columns().is_some() { further } else { 0 }, wide, winograd, ..*self }
    }

    /// Bytes of input that a row of pixels reads from its first tap on.
    fn reach(&self) -> usize {
        let last_tap = self.taps.iter().max().copied().unwrap_or(0);
        reach(self.extent[1], self.step[0], last_tap, self.packed.steps)
    }

    /// The same map with inputs that are widened from row `first` on, how many bytes of them there are where, and the row after the
    /// last of those that fit.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub fn widened(&self, wide: &Wide, [first, end]: [usize; 2]) -> (Self, [usize; 2], usize) {
        let (reach, down) = (self.reach(), self.step[1]);
        let rows = wide.rows(reach, down).min(end - first);
        let map = Self { wide: Some(Wide { first, ..*wide }), ..*self };
        (map, [self.x + first * down, reach + (rows - 1) * down], first + rows)
    }

    /// The columns that are laid side by side for it, if any.
    #[inline(always)]
    pub fn columns(&self) -> Option<&Columns> {
        self.depthwise.as_ref().and_then(|d| if let Depthwise::Columns(columns) = d { Some(columns) } else { None })
    }

    /// Refuses a memory of `len` bytes that a tile of one of so many threads would leave.
    ///
    /// # Panics
    /// If it would.
    pub fn check(&self, len: usize, members: usize) {
        if members > 1 {
            let need = match (self.columns(), &self.winograd) {
                (Some(c), _) => c.len(),
                (None, Some(w)) => w.len(),
                (None, None) => self.wide.map_or(0, |w| w.len),
            };
            assert!(need <= self.room, "room for {} bytes, not {need}", self.room);
            self.of_member(members - 1).check(len, 1);
        }
        let Self { packed, extent: [rows, columns], .. } = *self;
        assert!(rows > 0 && columns > 0 && packed.runs > 0 && packed.channels > 0, "an empty map");
        let last = (rows - 1) * self.step[1] + (columns - 1) * self.step[0];
        let farthest = self.taps.iter().max().copied().unwrap_or(0);
        let blocks = packed.channels.div_ceil(LANES);
        if self.winograd.is_none() {
            let each = if let Some(Depthwise::Taps) = self.depthwise { 2 } else { 1 };
            assert_eq!(self.taps.len(), each * packed.runs, "runs of taps");
        }
        let end = match (&self.depthwise, &self.winograd) {
            (Some(Depthwise::Taps), None) => self.x + last + farthest + blocks * LANES,
            (None, None) => {
                let end = self.x + (rows - 1) * self.step[1] + self.reach();
                self.wide.map_or(end, |wide| {
                    let need = 2 * self.reach();
                    assert!(wide.len >= need, "a row needs {need} bytes of {} for widened inputs", wide.len);
                    (end + Wide::STEP / 2).max(wide.at + wide.len)
                })
            }
            (_, Some(w)) => {
                let cut = Winograd { together: w.together, at: w.at, ..Winograd::new(w.side, w.width, self.extent) };
                assert_eq!((*w, packed.runs, 2 * packed.steps), (cut, w.positions(), w.width), "tiles of {packed:?}");
                assert!(matches!(w.side, 2 | 4) && w.together > 0, "tiles of {w:?}");
                // Two rows and columns more than outputs, each pixel in whole blocks.
                let input = self.x + last + 2 * self.step[0] + 2 * self.step[1] + w.width;
                input.max(w.at + w.len())
            }
            (Some(Depthwise::Columns(c)), None) => {
                // Every row of pixels reads the same columns; the input is read in whole blocks.
                let read = (columns - 1) * self.step[0] + farthest + packed.steps * LANES * DEPTH;
                assert!(
                    read <= c.len() && self.step[1] == 0,
                    "a tile would read byte {read} of {} in columns",
                    c.len()
                );
                let [width, height] = c.extent.map(|n| n - 1);
                let input = c.x.at + (rows - 1) * c.down + height * c.x.pitch + width * c.channels + blocks * LANES;
                input.max(self.x + c.len())
            }
        };
        assert!(end <= len, "a tile would read byte {end} of {len}");
        // A whole block is read, and written where it is whole.
        let views = [self.y, self.sum.map(|s| s.other), self.affine.map(|a| a.y)];
        for view in views.into_iter().flatten() {
            let end = view.at + (rows - 1) * view.pitch + (columns - 1) * self.pixel + blocks * LANES;
            assert!(end <= len, "a tile would reach byte {end} of {len}");
        }
        let mut last = packed.end();
        if let Some(affine) = &self.affine {
            last = last.max(affine.mul.max(affine.add) + blocks);
        }
        assert!(last <= self.lines.len(), "a tile would read line {last} of {}", self.lines.len());
    }

    /// Line `at` of the block; only to be read where [`Map::check`] has held.
    #[inline(always)]
    pub fn line(&self, at: usize) -> *const CacheLine {
        self.lines.as_ptr().wrapping_add(at)
    }

    /// The biases, i32, whole blocks.
    #[inline(always)]
    pub fn bias(&self) -> *const i32 {
        self.line(self.packed.bias()).cast()
    }

    /// The scales, f32, whole blocks.
    #[inline(always)]
    pub fn scale(&self) -> *const f32 {
        self.line(self.packed.scale()).cast()
    }
}
