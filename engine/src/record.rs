//! How fixed-size records lie in the bytes of a file: little-endian fields, read where they are and never copied as a whole.

use crate::tensor::{Shape, Span};
use core::marker::PhantomData;

/// A value of a fixed number of bytes.
pub trait Record: Sized {
    /// Bytes of one record.
    const SIZE: usize;

    /// The record that `fields` begins with; `None` if a field has no meaning or there are too few bytes.
    fn read(fields: &mut Fields) -> Option<Self>;

    /// Writes the same fields.
    fn write(&self, to: &mut Writer);
}

/// Reads fields one after the other.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The fields in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Bytes not read yet.
    pub fn rest(&self) -> usize {
        self.0.len()
    }

    /// The next `N` bytes.
    pub fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    /// The next byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.bytes::<1>().map(|b| b[0])
    }

    /// The next byte, which must be 0 or 1.
    pub fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// The next number.
    pub fn u16(&mut self) -> Option<u16> {
        self.bytes().map(u16::from_le_bytes)
    }

    /// The next number.
    pub fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    /// The next number.
    pub fn f32(&mut self) -> Option<f32> {
        self.bytes().map(f32::from_le_bytes)
    }

    /// Bytes that must be 0.
    pub fn zeros<const N: usize>(&mut self) -> Option<()> {
        (self.bytes::<N>()? == [0; N]).then_some(())
    }

    /// The next numbers.
    pub fn u16s<const N: usize>(&mut self) -> Option<[u16; N]> {
        let mut all = [0; N];
        for value in &mut all {
            *value = self.u16()?;
        }
        Some(all)
    }

    /// The next record.
    pub fn record<R: Record>(&mut self) -> Option<R> {
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

impl Record for Span {
    const SIZE: usize = 8;

    fn read(fields: &mut Fields) -> Option<Self> {
        Some(Self { offset: fields.u32()?, len: fields.u32()? })
    }

    fn write(&self, to: &mut Writer) {
        to.u32(self.offset).u32(self.len);
    }
}

impl Record for Shape {
    const SIZE: usize = 6;

    fn read(fields: &mut Fields) -> Option<Self> {
        let [h, w, c] = fields.u16s()?;
        Some(Self { h, w, c })
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
        Self { bytes: &[], record: PhantomData }
    }
}

impl<R> PartialEq for Records<'_, R> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl<'a, R: Record> Records<'a, R> {
    /// The table in `bytes`; `None` if its length is no multiple of the record's, or a record has no meaning.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        let table = Self { bytes, record: PhantomData };
        let whole = bytes.len().is_multiple_of(R::SIZE) && (0..table.len()).all(|i| table.get(i).is_some());
        whole.then_some(table)
    }

    /// Records in the table.
    pub fn len(&self) -> usize {
        self.bytes.len() / R::SIZE
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Record `i`; `None` past the last.
    pub fn get(&self, i: usize) -> Option<R> {
        let from = i.checked_mul(R::SIZE)?;
        R::read(&mut Fields::new(self.bytes.get(from..from.checked_add(R::SIZE)?)?))
    }

    /// Record `i`.
    ///
    /// # Panics
    /// If `i >= len()`.
    pub fn at(&self, i: usize) -> R {
        match self.get(i) {
            Some(record) => record,
            // Every record was read once by `new`.
            None => panic!("record {i} of {}", self.len()),
        }
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
