//! How fixed-size records lie in the bytes of a file: little-endian fields, read where they are and never copied as a whole.

use crate::tensor::{Shape, Span};
use core::marker::PhantomData;

/// A value of a fixed number of bytes.
///
/// What a program may have embedded is read while compiling as well: such types have a constant function of the same name.
pub trait Record: Sized {
    /// Bytes of one record.
    const SIZE: usize;

    /// The record that `fields` begins with, which remember if one has no meaning.
    fn read(fields: &mut Fields) -> Self;

    /// Writes the same fields.
    fn write(&self, to: &mut Writer);
}

/// The one record that `bytes` hold; `None` if it has no meaning, or another length.
pub fn one<R: Record>(bytes: &[u8]) -> Option<R> {
    let mut fields = Fields::new(bytes);
    let found = R::read(&mut fields);
    fields.end().then_some(found)
}

/// Reads fields one after the other. One that is not there, or has no meaning, reads as 0 and is remembered, so that a record is
/// read without a way out at every field.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    rest: &'a [u8],
    failed: bool,
}

impl<'a> Fields<'a> {
    /// The fields in `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, failed: false }
    }

    /// Record `i` of a table of records of `size` bytes; fields of nothing past the last.
    pub const fn nth(table: &'a [u8], size: usize, i: usize) -> Self {
        match i.checked_mul(size) {
            Some(from) if from <= table.len() && size <= table.len() - from => {
                Self::new(table.split_at(from).1.split_at(size).0)
            }
            _ => Self { rest: &[], failed: true },
        }
    }

    /// Without this, what was read has no meaning.
    pub const fn require(&mut self, holds: bool) {
        self.failed |= !holds;
    }

    /// Whether every field was there and had a meaning, and none is left.
    pub const fn end(&self) -> bool {
        !self.failed && self.rest.is_empty()
    }

    /// The next `N` bytes.
    pub const fn bytes<const N: usize>(&mut self) -> [u8; N] {
        match self.rest.split_first_chunk() {
            Some((first, rest)) => {
                self.rest = rest;
                *first
            }
            None => {
                self.failed = true;
                [0; N]
            }
        }
    }

    /// The next byte.
    pub const fn u8(&mut self) -> u8 {
        let [byte] = self.bytes();
        byte
    }

    /// The next byte, which must be 0 or 1.
    pub const fn flag(&mut self) -> bool {
        let byte = self.u8();
        self.require(byte <= 1);
        byte == 1
    }

    /// The next number.
    pub const fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.bytes())
    }

    /// The next number.
    pub const fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }

    /// The next number.
    pub const fn f32(&mut self) -> f32 {
        f32::from_le_bytes(self.bytes())
    }

    /// Bytes that must be 0.
    pub const fn zeros<const N: usize>(&mut self) {
        let (bytes, mut i) = (self.bytes::<N>(), 0);
        while i < N {
            self.require(bytes[i] == 0);
            i += 1;
        }
    }

    /// The next numbers.
    pub const fn u16s<const N: usize>(&mut self) -> [u16; N] {
        let (mut all, mut i) = ([0; N], 0);
        while i < N {
            all[i] = self.u16();
            i += 1;
        }
        all
    }

    /// The next record.
    pub fn record<R: Record>(&mut self) -> R {
        R::read(self)
    }
}

/// Writes fields one after the other into a buffer that is large enough for one record of any kind.
#[derive(Debug, Clone)]
pub struct Writer {
    bytes: [u8; 128],
    len: usize,
}

impl Default for Writer {
    fn default() -> Self {
        Self { bytes: [0; 128], len: 0 }
    }
}

impl Writer {
    /// What was written.
    pub fn written(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Appends bytes.
    ///
    /// # Panics
    /// Past 128 bytes: no record is as long.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
        self
    }

    /// Appends a byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes(&[value])
    }

    /// Appends a number.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Appends a number.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Appends a number.
    pub fn f32(&mut self, value: f32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Appends numbers.
    pub fn u16s(&mut self, values: &[u16]) -> &mut Self {
        for value in values {
            self.u16(*value);
        }
        self
    }

    /// Appends a record.
    pub fn record(&mut self, record: &impl Record) -> &mut Self {
        record.write(self);
        self
    }
}

impl Span {
    /// See [`Record::read`].
    pub const fn read(fields: &mut Fields) -> Self {
        Self { offset: fields.u32(), len: fields.u32() }
    }
}

impl Record for Span {
    const SIZE: usize = 8;

    fn read(fields: &mut Fields) -> Self {
        Self::read(fields)
    }

    fn write(&self, to: &mut Writer) {
        to.u32(self.offset).u32(self.len);
    }
}

impl Shape {
    /// See [`Record::read`].
    pub const fn read(fields: &mut Fields) -> Self {
        let [h, w, c] = fields.u16s();
        Self { h, w, c }
    }
}

impl Record for Shape {
    const SIZE: usize = 6;

    fn read(fields: &mut Fields) -> Self {
        Self::read(fields)
    }

    fn write(&self, to: &mut Writer) {
        to.u16s(&[self.h, self.w, self.c]);
    }
}

/// A table of records in the bytes of a file.
#[derive(Debug)]
pub struct Records<'a, R> {
    bytes: &'a [u8],
    record: PhantomData<R>,
}

impl<R> Clone for Records<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Records<'_, R> {}

impl<R> Default for Records<'_, R> {
    fn default() -> Self {
        Self::new(&[])
    }
}

impl<R> PartialEq for Records<'_, R> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl<'a, R> Records<'a, R> {
    /// The table in `bytes`. Whether they are records, [`Records::is_valid`] says.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, record: PhantomData }
    }

    /// The table.
    pub(crate) const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

impl<'a, R: Record> Records<'a, R> {
    /// Whether the table's length is a multiple of the record's, and each of them has a meaning.
    pub fn is_valid(&self) -> bool {
        self.bytes.len().is_multiple_of(R::SIZE) && (0..self.len()).all(|i| self.get(i).is_some())
    }

    /// Records in the table.
    pub fn len(&self) -> usize {
        self.bytes.len() / R::SIZE
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Record `i`; `None` past the last, or if it has no meaning.
    pub fn get(&self, i: usize) -> Option<R> {
        let mut fields = Fields::nth(self.bytes, R::SIZE, i);
        let found = R::read(&mut fields);
        fields.end().then_some(found)
    }

    /// Record `i` of a table that [is valid](Self::is_valid).
    ///
    /// # Panics
    /// If `i >= len()`.
    pub fn at(&self, i: usize) -> R {
        R::read(&mut Fields::new(&self.bytes[R::SIZE * i..R::SIZE * (i + 1)]))
    }

    /// The last record.
    pub fn last(&self) -> Option<R> {
        self.get(self.len().checked_sub(1)?)
    }

    /// All records in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = R> + ExactSizeIterator + use<'a, R> {
        let table = *self;
        (0..self.len()).map(move |i| table.at(i))
    }
}

/// The bytes of a table.
#[cfg(feature = "alloc")]
pub fn table<R: Record>(records: &[R]) -> alloc::vec::Vec<u8> {
    let mut bytes = alloc::vec::Vec::with_capacity(R::SIZE * records.len());
    for record in records {
        let mut one = Writer::default();
        record.write(&mut one);
        debug_assert_eq!(one.written().len(), R::SIZE);
        bytes.extend_from_slice(one.written());
    }
    bytes
}
