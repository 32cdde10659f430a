//! Shapes, and little-endian views of numbers inside a model file.

use serde::{Deserialize, Serialize};

/// Height, width and channels of one activation, stored NHWC with N = 1.
///
/// ```
/// use paradise_engine::Shape;
/// assert_eq!(Shape::new(28, 28, 1).len(), 784);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Rows.
    pub h: u16,
    /// Columns.
    pub w: u16,
    /// Channels.
    pub c: u16,
}

impl Shape {
    /// A shape from its three extents.
    pub const fn new(h: u16, w: u16, c: u16) -> Self {
        Self { h, w, c }
    }

    /// Number of elements; at most 2^48, so it always fits.
    pub const fn len(&self) -> u64 {
        self.h as u64 * self.w as u64 * self.c as u64
    }

    /// Whether an extent is 0.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Where a tensor lies in the blob of a sealed file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Bytes from the start of the blob, a multiple of 64.
    pub offset: u32,
    /// Length in bytes.
    pub len: u32,
}

impl Span {
    /// Whether it is [`Span::default`], which stands for no tensor.
    pub const fn is_none(&self) -> bool {
        self.offset == 0 && self.len == 0
    }
}

/// A borrowed run of four-byte little-endian numbers, readable at any alignment.
#[derive(Debug, Clone, Copy)]
pub struct Le<'a, T> {
    bytes: &'a [u8],
    number: core::marker::PhantomData<T>,
}

/// Numbers that [`Le`] reads.
pub trait FromLe: Copy {
    /// The number whose little-endian bytes these are.
    fn from_le(bytes: [u8; 4]) -> Self;
}

impl FromLe for f32 {
    fn from_le(bytes: [u8; 4]) -> Self {
        f32::from_le_bytes(bytes)
    }
}

impl FromLe for i32 {
    fn from_le(bytes: [u8; 4]) -> Self {
        i32::from_le_bytes(bytes)
    }
}

impl FromLe for u32 {
    fn from_le(bytes: [u8; 4]) -> Self {
        u32::from_le_bytes(bytes)
    }
}

impl<'a, T: FromLe> Le<'a, T> {
    /// A view of `bytes`; trailing bytes past a multiple of four are not part of it.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes: &bytes[..bytes.len() & !3], number: core::marker::PhantomData }
    }

    /// The bytes of the view, four a number.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Numbers in the view.
    pub fn len(&self) -> usize {
        self.bytes.len() / 4
    }

    /// Whether the view holds no number.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The `i`-th number.
    ///
    /// # Panics
    /// If `i >= len()`.
    pub fn at(&self, i: usize) -> T {
        let b = &self.bytes[4 * i..4 * i + 4];
        T::from_le([b[0], b[1], b[2], b[3]])
    }

    /// All numbers in order.
    pub fn iter(&self) -> impl Iterator<Item = T> + use<'a, T> {
        self.bytes.chunks_exact(4).map(|b| T::from_le([b[0], b[1], b[2], b[3]]))
    }

    /// The view of numbers `from..to`.
    ///
    /// # Panics
    /// If the range is not inside the view.
    pub fn slice(&self, from: usize, to: usize) -> Self {
        Self { bytes: &self.bytes[4 * from..4 * to], number: self.number }
    }

    /// Numbers before the first one for which `before` is false, in a sorted view.
    pub fn partition_point(&self, before: impl Fn(T) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if before(self.at(middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}
