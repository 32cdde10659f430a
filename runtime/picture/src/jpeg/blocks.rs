//! Walks the entropy-coded data of a scan, block by block, to see that all of it is there. Coefficients are skipped, not
//! kept; of a progressive picture only which ones are not zero, since refinements depend on it (ITU-T T.81, F.2 and G.1).

use super::huffman::Table;
use crate::PictureError;
use crate::error::broken;

/// One component of the frame.
#[derive(Debug, Clone)]
pub(super) struct Component {
    pub id: u8,
    /// Horizontal and vertical sampling factor, 1..=4.
    pub sampling: [usize; 2],
    /// Columns and rows of blocks that carry the picture.
    pub blocks: [usize; 2],
    /// Columns of blocks, those beyond the picture's edge included.
    pub pitch: usize,
    /// Of a progressive picture, a bit a coefficient of every block: whether it is not zero.
    pub nonzero: Vec<u64>,
    /// The lowest bit of each coefficient that has come; 255 for none.
    pub reached: [u8; 64],
}

/// What a scan holds.
#[derive(Debug, Clone)]
pub(super) struct Scan<'t> {
    /// Index of each component, with its tables for DC and AC.
    pub parts: Vec<(usize, Option<&'t Table>, Option<&'t Table>)>,
    /// First and last coefficient.
    pub band: [u8; 2],
    /// The bit that an earlier scan reached; 0 for a coefficient's first scan.
    pub high: u8,
    pub progressive: bool,
    /// Units between restart markers; 0 for none.
    pub restart: usize,
    /// Columns and rows of units of an interleaved scan.
    pub units: [usize; 2],
}

/// The bits of a scan, up to the next marker.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    held: u64,
    count: u32,
}

impl Bits<'_> {
    /// Fills up to more than 48 bits where there are as many.
    fn fill(&mut self) {
        // Seven bytes or fewer in one go, where none of the next eight may be a marker's.
        const ONES: u64 = u64::from_ne_bytes([1; 8]);
        if self.count <= 48
            && let Some(next) = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk::<8>)
        {
            let next = u64::from_be_bytes(*next);
            // A byte of ones in `next` is one of zeros in its complement.
            if (!next).wrapping_sub(ONES) & next & (ONES << 7) == 0 {
                let bytes = (64 - self.count) / 8 - u32::from(self.count == 0);
                self.held = self.held << (8 * bytes) | next >> (64 - 8 * bytes);
                self.at += bytes as usize;
                self.count += 8 * bytes;
                return;
            }
        }
        while self.count <= 48 {
            let byte = match (self.bytes.get(self.at), self.bytes.get(self.at + 1)) {
                (Some(0xff), Some(0)) => {
                    self.at += 2;
                    0xff
                }
                // A marker, or half of one.
                (Some(0xff), _) | (None, _) => return,
                (Some(byte), _) => {
                    self.at += 1;
                    *byte
                }
            };
            self.held = self.held << 8 | u64::from(byte);
            self.count += 8;
        }
    }

    /// The next `n` <= 16 bits.
    fn take(&mut self, n: u32) -> Result<u32, PictureError> {
        if self.count < n {
            self.fill();
            if self.count < n {
                return Err(PictureError::EndsEarly);
            }
        }
        self.count -= n;
        Ok((self.held >> self.count) as u32 & ((1 << n) - 1))
    }

    fn symbol(&mut self, table: &Table) -> Result<u8, PictureError> {
        if self.count < 16 {
            self.fill();
        }
        // Past the end zeros follow, which only a code that lies wholly in the data may use.
        let next = match self.count {
            16.. => (self.held >> (self.count - 16)) as u32 & 0xffff,
            count => ((self.held << (16 - count)) as u32) & 0xffff,
        };
        let Some((length, symbol)) = table.decode(next) else {
            return Err(if self.count < 16 { PictureError::EndsEarly } else { broken("a code that no table has") });
        };
        self.take(length)?;
        Ok(symbol)
    }

    /// The next code's symbol, and past the value behind it, whose bits its lower half counts.
    #[inline(always)]
    fn valued(&mut self, table: &Table) -> Result<u8, PictureError> {
        if self.count < 32 {
            self.fill();
        }
        // A code and a value are at most 31 bits.
        if self.count >= 32
            && let Some((length, symbol)) = table.short((self.held >> (self.count - 16)) as u32 & 0xffff)
        {
            self.count -= length + u32::from(symbol & 15);
            return Ok(symbol);
        }
        let symbol = self.symbol(table)?;
        self.take(u32::from(symbol & 15))?;
        Ok(symbol)
    }

    /// Leaves the bits of the last byte and goes on behind the next restart marker.
    fn restart(&mut self) -> Result<(), PictureError> {
        (self.held, self.count) = (0, 0);
        while let Some(byte) = self.bytes.get(self.at) {
            self.at += 1;
            if *byte != 0xff {
                continue;
            }
            match self.bytes.get(self.at) {
                Some(0xd0..=0xd7) => {
                    self.at += 1;
                    return Ok(());
                }
                Some(0 | 0xff) => {}
                _ => break,
            }
        }
        Err(PictureError::EndsEarly)
    }
}

/// Walks a scan whose data begin at `bytes[from]`; returns where they end.
pub(super) fn walk(
    scan: &Scan,
    components: &mut [Component],
    bytes: &[u8],
    from: usize,
) -> Result<usize, PictureError> {
    let mut bits = Bits { bytes, at: from, held: 0, count: 0 };
    let mut run = 0u32;
    let [across, down] = match &scan.parts[..] {
        [(one, ..)] => components[*one].blocks,
        _ => scan.units,
    };
    let alone = scan.parts.len() == 1;
    let mut left = scan.restart;
    for y in 0..down {
        for x in 0..across {
            if scan.restart > 0 && left == 0 {
                bits.restart()?;
                (left, run) = (scan.restart, 0);
            }
            left = left.saturating_sub(1);
            for (index, dc, ac) in &scan.parts {
                let component = &mut components[*index];
                let [h, v] = if alone { [1, 1] } else { component.sampling };
                for block in 0..h * v {
                    let (column, row) = (x * h + block % h, y * v + block / h);
                    if scan.progressive {
                        let nonzero = component.nonzero.get_mut(row * component.pitch + column);
                        let nonzero = nonzero.ok_or_else(|| broken("a block outside the picture"))?;
                        progressive(scan, &mut bits, [*dc, *ac], nonzero, &mut run)?;
                    } else {
                        baseline(&mut bits, [*dc, *ac])?;
                    }
                }
            }
        }
    }
    Ok(bits.at)
}

fn table(table: Option<&Table>) -> Result<&Table, PictureError> {
    table.ok_or_else(|| broken("a Huffman table is missing"))
}

fn baseline(bits: &mut Bits, [dc, ac]: [Option<&Table>; 2]) -> Result<(), PictureError> {
    let (dc, ac) = (table(dc)?, table(ac)?);
    first_dc(bits, dc)?;
    let mut k = 1;
    while k < 64 {
        let symbol = bits.valued(ac)?;
        match (symbol >> 4, symbol & 15) {
            (15, 0) => k += 16,
            (_, 0) => break,
            (zeros, _) => {
                k += u32::from(zeros) + 1;
                // Sixteen zeros may reach past the end; a value may not.
                if k > 64 {
                    return Err(broken("a block of more than 64 coefficients"));
                }
            }
        }
    }
    Ok(())
}

fn first_dc(bits: &mut Bits, dc: &Table) -> Result<(), PictureError> {
    let size = bits.symbol(dc)?;
    if size > 16 {
        return Err(broken("a difference of more than 16 bits"));
    }
    bits.take(size.into())?;
    Ok(())
}

fn progressive(
    scan: &Scan,
    bits: &mut Bits,
    [dc, ac]: [Option<&Table>; 2],
    nonzero: &mut u64,
    run: &mut u32,
) -> Result<(), PictureError> {
    match (scan.band[0], scan.high) {
        (0, 0) => first_dc(bits, table(dc)?),
        (0, _) => bits.take(1).map(drop),
        (_, 0) => first_ac(scan, bits, table(ac)?, nonzero, run),
        _ => refined_ac(scan, bits, table(ac)?, nonzero, run),
    }
}

fn first_ac(scan: &Scan, bits: &mut Bits, ac: &Table, nonzero: &mut u64, run: &mut u32) -> Result<(), PictureError> {
    if *run > 0 {
        *run -= 1;
        return Ok(());
    }
    let last = u32::from(scan.band[1]);
    let mut k = u32::from(scan.band[0]);
    while k <= last {
        let symbol = bits.symbol(ac)?;
        match (symbol >> 4, symbol & 15) {
            (15, 0) => k += 16,
            (zeros, 0) => {
                *run = (1 << zeros) - 1 + bits.take(zeros.into())?;
                break;
            }
            (zeros, size) => {
                k += u32::from(zeros);
                bits.take(size.into())?;
                if k > last {
                    return Err(broken("a coefficient outside its band"));
                }
                *nonzero |= 1 << k;
                k += 1;
            }
        }
    }
    Ok(())
}

fn refined_ac(
    scan: &Scan,
    bits: &mut Bits,
    ac: &Table,
    nonzero: &mut u64,
    run: &mut u32,
) -> Result<(), PictureError> {
    let last = u32::from(scan.band[1]);
    let mut k = u32::from(scan.band[0]);
    if *run == 0 {
        while k <= last {
            let symbol = bits.symbol(ac)?;
            let (mut zeros, size) = (symbol >> 4, symbol & 15);
            if size == 0 && zeros < 15 {
                *run = (1 << zeros) + bits.take(zeros.into())?;
                break;
            }
            if size > 0 {
                bits.take(1)?;
            }
            // Coefficients that are not zero get a bit each on the way to the zero that becomes something.
            while k <= last {
                if *nonzero >> k & 1 == 1 {
                    bits.take(1)?;
                } else if zeros == 0 {
                    break;
                } else {
                    zeros -= 1;
                }
                k += 1;
            }
            if size > 0 && k <= last {
                *nonzero |= 1 << k;
            }
            k += 1;
        }
    }
    if *run > 0 {
        for k in k..=last {
            if *nonzero >> k & 1 == 1 {
                bits.take(1)?;
            }
        }
        *run -= 1;
    }
    Ok(())
}
