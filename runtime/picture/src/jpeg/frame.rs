//! The segments of a JPEG file: what its headers say, whether the picture is whole, and the picture without the rest.

use super::blocks::{Component, Scan, walk};
use super::huffman::{Table, usual};
use crate::PictureError;
use crate::error::broken;
use image::metadata::Orientation;

/// Most scans of a picture: encoders write about ten.
pub(super) const MAX_SCANS: usize = 100;

/// What the headers say.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub width: u16,
    pub height: u16,
    pub components: u8,
    pub progressive: bool,
    pub orientation: Orientation,
}

/// A marker with the body of its segment, empty for those that have none.
struct Segment<'a> {
    marker: u8,
    body: &'a [u8],
    /// First byte behind it.
    end: usize,
}

/// The next marker at or behind `at`; `None` at the end of the file.
fn next(bytes: &[u8], mut at: usize) -> Result<Option<Segment<'_>>, PictureError> {
    // Stray bytes and fill bytes may stand before a marker.
    loop {
        match (bytes.get(at), bytes.get(at + 1)) {
            (Some(0xff), Some(0 | 0xff)) => at += 1,
            (Some(0xff), Some(marker)) => {
                at += 2;
                if matches!(marker, 0x01 | 0xd0..=0xd9) {
                    return Ok(Some(Segment { marker: *marker, body: &[], end: at }));
                }
                let length = bytes.get(at..at + 2).ok_or(PictureError::EndsEarly)?;
                let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
                if length < 2 {
                    return Err(broken("a segment of no length"));
                }
                let body = bytes.get(at + 2..at + length).ok_or(PictureError::EndsEarly)?;
                return Ok(Some(Segment { marker: *marker, body, end: at + length }));
            }
            (Some(_), Some(_)) => at += 1,
            _ => return Ok(None),
        }
    }
}

const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const DQT: u8 = 0xdb;
const DRI: u8 = 0xdd;
const DHT: u8 = 0xc4;
const APP0: u8 = 0xe0;
const APP1: u8 = 0xe1;
const APP14: u8 = 0xee;

fn is_frame(marker: u8) -> bool {
    matches!(marker, 0xc0..=0xcf) && !matches!(marker, DHT | 0xc8 | 0xcc)
}

/// Reads up to the first scan.
pub(super) fn headers(bytes: &[u8]) -> Result<Frame, PictureError> {
    let mut at = 2;
    let (mut frame, mut orientation) = (None, Orientation::NoTransforms);
    while let Some(segment) = next(bytes, at)? {
        at = segment.end;
        match segment.marker {
            APP1 => orientation = exif(segment.body).unwrap_or(orientation),
            SOS | EOI => break,
            marker if is_frame(marker) => frame = Some(start(&segment)?),
            _ => {}
        }
    }
    frame.map(|frame| Frame { orientation, ..frame }).ok_or(PictureError::EndsEarly)
}

fn exif(body: &[u8]) -> Option<Orientation> {
    Orientation::from_exif_chunk(body.strip_prefix(b"Exif\0\0")?)
}

fn start(segment: &Segment) -> Result<Frame, PictureError> {
    let progressive = match segment.marker {
        0xc0 | 0xc1 => false,
        0xc2 => true,
        _ => return Err(broken("a lossless, hierarchical or arithmetic-coded JPEG")),
    };
    let [depth, a, b, c, d, components, ..] = *segment.body else { return Err(PictureError::EndsEarly) };
    if depth != 8 {
        return Err(broken(&format!("a JPEG of {depth} bits a sample")));
    }
    if !matches!(components, 1 | 3 | 4) {
        return Err(broken(&format!("a JPEG of {components} components")));
    }
    if segment.body.len() != 6 + 3 * usize::from(components) {
        return Err(broken("a frame header of another length"));
    }
    let (height, width) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    Ok(Frame { width, height, components, progressive, orientation: Orientation::NoTransforms })
}

/// What was read so far.
struct Reader {
    frame: Option<Frame>,
    components: Vec<Component>,
    /// Columns and rows of units.
    units: [usize; 2],
    dc: [Option<Table>; 4],
    ac: [Option<Table>; 4],
    restart: usize,
    /// Colour transform of an Adobe segment.
    adobe: Option<u8>,
    jfif: bool,
    /// Where the frame header lies in what is written.
    header_at: usize,
    written: Vec<u8>,
}

/// The picture of a JPEG file and nothing else, every block of it there.
pub(super) fn whole(bytes: &[u8]) -> Result<Vec<u8>, PictureError> {
    let mut reader = Reader {
        frame: None,
        components: Vec::new(),
        units: [0; 2],
        dc: [const { None }; 4],
        ac: [const { None }; 4],
        restart: 0,
        adobe: None,
        jfif: false,
        header_at: 0,
        written: vec![0xff, 0xd8],
    };
    let (mut at, mut scans, mut ended) = (2, 0, false);
    while let Some(segment) = next(bytes, at)? {
        at = segment.end;
        match segment.marker {
            APP0 => reader.jfif |= segment.body.starts_with(b"JFIF\0"),
            APP14 if segment.body.starts_with(b"Adobe") => reader.adobe = segment.body.get(11).copied(),
            DQT => reader.write(DQT, segment.body),
            DHT => reader.tables(segment.body)?,
            DRI => {
                let [a, b] = *segment.body else { return Err(broken("a restart interval of another length")) };
                reader.restart = u16::from_be_bytes([a, b]).into();
                reader.write(DRI, segment.body);
            }
            SOS => {
                scans += 1;
                if scans > MAX_SCANS {
                    return Err(broken(&format!("more than {MAX_SCANS} scans")));
                }
                at = reader.scan(&segment, bytes)?;
            }
            EOI => {
                ended = true;
                break;
            }
            0xcc | 0xdc | 0xde | 0xdf => return Err(broken("a lossless, hierarchical or arithmetic-coded JPEG")),
            marker if is_frame(marker) => reader.start(&segment)?,
            // Comments, thumbnails, profiles.
            _ => {}
        }
    }
    reader.finish(ended)
}

impl Reader {
    fn write(&mut self, marker: u8, body: &[u8]) {
        self.written.extend([0xff, marker]);
        self.written.extend((body.len() as u16 + 2).to_be_bytes());
        self.written.extend(body);
    }

    fn tables(&mut self, body: &[u8]) -> Result<(), PictureError> {
        let mut rest = body;
        while let Some((&kind, after)) = rest.split_first() {
            let (counts, after) = after.split_first_chunk::<16>().ok_or_else(|| broken("half a Huffman table"))?;
            let count = counts.iter().map(|c| usize::from(*c)).sum();
            let symbols = after.get(..count).ok_or_else(|| broken("half a Huffman table"))?;
            let (class, id) = (kind >> 4, usize::from(kind & 15));
            let tables = match class {
                0 => &mut self.dc,
                1 => &mut self.ac,
                _ => return Err(broken("a Huffman table of no known class")),
            };
            let table = tables.get_mut(id).ok_or_else(|| broken("a fifth Huffman table"))?;
            *table = Some(Table::new(counts, symbols)?);
            rest = &after[count..];
        }
        self.write(DHT, body);
        Ok(())
    }

    fn start(&mut self, segment: &Segment) -> Result<(), PictureError> {
        if self.frame.is_some() {
            return Err(broken("two frames"));
        }
        let frame = start(segment)?;
        if frame.width == 0 || frame.height == 0 {
            return Err(broken("no pixels"));
        }
        for part in segment.body[6..].chunks_exact(3) {
            let sampling = [part[1] >> 4, part[1] & 15].map(usize::from);
            if !sampling.iter().all(|s| (1..=4).contains(s)) {
                return Err(broken("a sampling factor that is not 1 to 4"));
            }
            let reached = [255; 64];
            let (blocks, nonzero) = ([0; 2], Vec::new());
            self.components.push(Component { id: part[0], sampling, blocks, pitch: 0, nonzero, reached });
        }
        if (1..self.components.len()).any(|i| (0..i).any(|j| self.components[i].id == self.components[j].id)) {
            return Err(broken("two components of one name"));
        }
        let most = |axis: usize| self.components.iter().map(|c| c.sampling[axis]).max().unwrap_or(1);
        let (most, size) = ([most(0), most(1)], [frame.width, frame.height].map(usize::from));
        self.units = [0, 1].map(|axis| size[axis].div_ceil(8 * most[axis]));
        for component in &mut self.components {
            component.blocks =
                [0, 1].map(|axis| (size[axis] * component.sampling[axis]).div_ceil(most[axis]).div_ceil(8));
            component.pitch = self.units[0] * component.sampling[0];
            if frame.progressive {
                component.nonzero = vec![0; component.pitch * self.units[1] * component.sampling[1]];
            }
        }
        self.header_at = self.written.len();
        self.write(segment.marker, segment.body);
        self.frame = Some(frame);
        Ok(())
    }

    /// Walks a scan and writes it; returns where its data end.
    fn scan(&mut self, segment: &Segment, bytes: &[u8]) -> Result<usize, PictureError> {
        let wrong = || broken("a scan header that cannot be meant");
        let progressive = self.frame.as_ref().ok_or_else(|| broken("a scan before its frame"))?.progressive;
        let (&count, body) = segment.body.split_first().ok_or_else(wrong)?;
        let count = usize::from(count);
        if !(1..=self.components.len()).contains(&count) || body.len() != 2 * count + 3 {
            return Err(wrong());
        }
        let (named, tail) = body.split_at(2 * count);
        let (band, high, low) = ([tail[0], tail[1]], tail[2] >> 4, tail[2] & 15);
        if progressive {
            let dc = band == [0, 0];
            let ac = count == 1 && band[0] >= 1 && band[0] <= band[1] && band[1] <= 63;
            if !(dc || ac) || low > 13 || (high != 0 && high != low + 1) {
                return Err(wrong());
            }
        }
        let mut chosen: Vec<(usize, usize, usize)> = Vec::new();
        for name in named.chunks_exact(2) {
            let index = self.components.iter().position(|c| c.id == name[0]).ok_or_else(wrong)?;
            let [dc, ac] = [name[1] >> 4, name[1] & 15].map(usize::from);
            if dc > 3 || ac > 3 || chosen.iter().any(|(other, ..)| *other == index) {
                return Err(wrong());
            }
            chosen.push((index, dc, ac));
        }
        // A camera's bare frame brings no tables: the usual ones are meant.
        if self.dc.iter().chain(&self.ac).all(Option::is_none) {
            self.tables(&usual())?;
        }
        let parts = chosen.iter().map(|&(i, dc, ac)| (i, self.dc[dc].as_ref(), self.ac[ac].as_ref())).collect();
        let (restart, units) = (self.restart, self.units);
        let scan = Scan { parts, band, high, progressive, restart, units };
        let end = walk(&scan, &mut self.components, bytes, segment.end)?;
        for (index, ..) in chosen {
            let band = if progressive { band.map(usize::from) } else { [0, 63] };
            self.components[index].reached[band[0]..=band[1]].fill(if progressive { low } else { 0 });
        }
        self.write(SOS, segment.body);
        self.written.extend(&bytes[segment.end..end]);
        Ok(end)
    }

    fn finish(mut self, ended: bool) -> Result<Vec<u8>, PictureError> {
        let frame = self.frame.as_ref().ok_or(PictureError::EndsEarly)?;
        // Without an end marker only a picture to the last bit is whole. With one, its maker may have left details out.
        let arrived = |c: &Component| if ended { c.reached[0] != 255 } else { c.reached == [0; 64] };
        if !self.components.iter().all(arrived) {
            return Err(PictureError::EndsEarly);
        }
        self.written.extend([0xff, EOI]);
        if frame.components == 1 {
            // An Adobe segment has nothing to say of grey, and zune-jpeg believes it.
            return Ok(self.written);
        }
        if frame.components == 4 {
            if let Some(transform) = self.adobe {
                let mut segment = vec![0xff, APP14, 0, 14];
                segment.extend(b"Adobe\0\x64\0\0\0\0");
                segment.push(transform);
                self.written.splice(2..2, segment);
            }
            return Ok(self.written);
        }
        // Red, green and blue are known to zune-jpeg by their names alone, to others by an Adobe segment first.
        let named_rgb = self.components.iter().map(|c| c.id).eq(*b"RGB");
        let rgb = match self.adobe {
            Some(transform) => transform == 0,
            None => named_rgb && !self.jfif,
        };
        if rgb != named_rgb {
            rename(&mut self.written, self.header_at, &self.components, if rgb { b"RGB" } else { &[1, 2, 3] });
        }
        Ok(self.written)
    }
}

/// Gives three components other names, in the frame header at `at` and in every scan header behind it.
fn rename(written: &mut [u8], at: usize, components: &[Component], names: &[u8; 3]) {
    for (i, name) in names.iter().enumerate() {
        written[at + 10 + 3 * i] = *name;
    }
    let mut from = at;
    while let Ok(Some(Segment { marker, body, end })) = next(written, from) {
        from = end;
        if marker == SOS {
            let (first, count) = (end - body.len(), usize::from(body[0]));
            for k in 0..count {
                let old = written[first + 1 + 2 * k];
                if let Some(index) = components.iter().position(|c| c.id == old) {
                    written[first + 1 + 2 * k] = names[index];
                }
            }
        }
    }
}
