//! The program's own code in memory, compared with what it was when the program started. Only pages that are in memory are looked at: the
//! others run nothing, and looking would bring them in.

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::FileExt;

/// Bytes of a slice.
const BYTES: u64 = 1 << 16;
/// The entry of `/proc/self/auxv` that has the size of a page.
const PAGE_SIZE: u64 = 6;
/// Of an entry of `/proc/self/pagemap`: the page is in memory.
const PRESENT: u64 = 1 << 63;

/// A piece of code that is mapped into memory, and CRC-32 of each page.
#[derive(Debug)]
struct Piece {
    start: u64,
    len: u64,
    sums: Vec<u32>,
}

/// The executable parts of the program's own file, as they lie in memory. Libraries of the system are not among them.
#[derive(Debug)]
pub struct Code {
    memory: File,
    pages: File,
    page: u64,
    pieces: Vec<Piece>,
}

fn sum(file: &File, at: u64, len: u64) -> Result<u32> {
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, at)?;
    Ok(crc32fast::hash(&bytes))
}

/// Pages, or slices, of so many bytes, the last perhaps shorter.
fn parts(len: u64, each: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..len.div_ceil(each)).map(move |i| (i * each, each.min(len - i * each)))
}

fn page_size() -> Result<u64> {
    let auxv = std::fs::read("/proc/self/auxv")?;
    let word = |bytes: &[u8]| bytes.try_into().map(usize::from_ne_bytes).map_or(0, |word| word as u64);
    let (pairs, _) = auxv.as_chunks::<{ 2 * size_of::<usize>() }>();
    let size = pairs.iter().map(|pair| pair.split_at(size_of::<usize>())).find(|(key, _)| word(key) == PAGE_SIZE);
    let size = size.map_or(0, |(_, value)| word(value));
    if (1..=BYTES).contains(&size) { Ok(size) } else { Err(Error::other(format!("pages of {size} bytes"))) }
}

impl Code {
    /// Sums the code in the program's file.
    ///
    /// # Errors
    /// If `/proc` does not show it.
    pub fn new() -> Result<Self> {
        let program = std::fs::read_link("/proc/self/exe")?;
        let (file, memory) = (File::open("/proc/self/exe")?, File::open("/proc/self/mem")?);
        let (pages, page) = (File::open("/proc/self/pagemap")?, page_size()?);
        let maps = std::fs::read_to_string("/proc/self/maps")?;
        let own = maps.lines().filter_map(mapped).filter(|m| program.to_str() == Some(m.path));
        let piece = |Mapped { start, end, offset, .. }: Mapped| {
            let pages = parts(end - start, page);
            let sums = pages.map(|(at, len)| sum_of_file(&file, offset + at, len)).collect::<Result<_>>()?;
            Ok(Piece { start, len: end - start, sums })
        };
        let pieces: Vec<Piece> = own.map(piece).collect::<Result<_>>()?;
        if pieces.is_empty() {
            return Err(Error::new(ErrorKind::NotFound, "/proc/self/maps shows no code of this program"));
        }
        Ok(Self { memory, pages, page, pieces })
    }

    /// How many slices there are.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(|piece| parts(piece.len, BYTES).count()).sum()
    }

    /// Whether there are none; there always are.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of them.
    pub fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len).sum()
    }

    /// Whether a slice is as it was, as far as it is in memory.
    pub fn holds(&self, slice: usize) -> bool {
        let mut slices = self.pieces.iter().flat_map(|piece| parts(piece.len, BYTES).map(move |part| (piece, part)));
        let Some((piece, (at, len))) = slices.nth(slice) else { return false };
        parts(len, self.page).all(|(inside, len)| {
            let expected = piece.sums[((at + inside) / self.page) as usize];
            let start = piece.start + at + inside;
            !self.is_present(start) || sum(&self.memory, start, len).is_ok_and(|sum| sum == expected)
        })
    }

    /// Whether a page is in memory; where the system does not say, it counts as being there.
    fn is_present(&self, address: u64) -> bool {
        let mut entry = [0; 8];
        let read = self.pages.read_exact_at(&mut entry, address / self.page * 8);
        read.is_err() || u64::from_ne_bytes(entry) & PRESENT != 0
    }
}

/// [`sum`] of a file; what a page has beyond the file's end is 0.
fn sum_of_file(file: &File, at: u64, len: u64) -> Result<u32> {
    let there = file.metadata()?.len().saturating_sub(at).min(len);
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes[..there as usize], at)?;
    Ok(crc32fast::hash(&bytes))
}

/// A line of `/proc/self/maps` about code.
struct Mapped<'a> {
    start: u64,
    end: u64,
    offset: u64,
    path: &'a str,
}

fn mapped(line: &str) -> Option<Mapped<'_>> {
    let mut fields = line.split_ascii_whitespace();
    let (range, permissions, offset) = (fields.next()?, fields.next()?, fields.next()?);
    let (start, end) = range.split_once('-')?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    // Device and inode stand before the path.
    let path = fields.nth(2)?;
    (permissions.starts_with("r-x")).then_some(Mapped {
        start: hex(start)?,
        end: hex(end)?,
        offset: hex(offset)?,
        path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_programs_code_is_as_it_was_and_another_would_be_noticed() {
        let mut code = Code::new().unwrap();
        assert!(code.bytes() > 100_000 && code.len() >= 2 && !code.is_empty());
        assert!((0..code.len()).all(|i| code.holds(i)) && !code.holds(code.len()));
        // What it is compared with is another's: as if memory had changed. Of this slice all pages are, and this code runs.
        let here = Code::holds as *const () as u64 - code.pieces[0].start;
        code.pieces[0].sums[(here / code.page) as usize] ^= 1;
        let slice = (here / BYTES) as usize;
        assert!(!code.holds(slice) && (0..code.len()).all(|i| i == slice || code.holds(i)));
    }

    #[test]
    fn lines_of_code_are_told_from_others() {
        let line = "55d0c0a00000-55d0c0b00000 r-xp 00012000 fe:00 1234                       /usr/bin/paradised";
        let Mapped { start, end, offset, path } = mapped(line).unwrap();
        assert_eq!((start, end - start, offset, path), (0x55d0_c0a0_0000, 0x10_0000, 0x12000, "/usr/bin/paradised"));
        for other in ["", "55d0-55d1 rw-p 0 0 0 /usr/bin/paradised", "x-y r-xp 0 0 0 /a", "55d0-55d1 r-xp 0 00:00 0"]
        {
            assert!(mapped(other).is_none(), "{other}");
        }
    }
}
