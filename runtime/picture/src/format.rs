//! Which format bytes are of, by what they hold.

use image::ImageFormat;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The formats that are read, for help texts.
pub const PROMISED: &str = "JPEG, PNG, WebP, TIFF, BMP, GIF, PNM, QOI, TGA, ICO";

/// A format that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JPEG, by zune-jpeg directly.
    Jpeg,
    /// What the `image` crate decodes.
    Other(ImageFormat),
}

impl Format {
    /// The format of `bytes`; `None` if they begin like none that is read.
    ///
    /// ```
    /// use paradise_picture::Format;
    /// assert!(Format::of(b"\x89PNG\r\n\x1a\n").is_some());
    /// assert!(Format::of(b"not a picture").is_none());
    /// ```
    pub fn of(bytes: &[u8]) -> Option<Self> {
        Self::of_start(bytes, bytes.len() as u64)
    }

    /// The format of a file, by its first bytes and its length.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of_file(path: &Path) -> std::io::Result<Option<Self>> {
        let mut file = File::open(path)?;
        let mut start = Vec::with_capacity(START as usize);
        file.by_ref().take(START).read_to_end(&mut start)?;
        Ok(Self::of_start(&start, file.metadata()?.len()))
    }

    fn of_start(bytes: &[u8], len: u64) -> Option<Self> {
        if bytes.starts_with(&[0xff, 0xd8]) {
            return Some(Self::Jpeg);
        }
        let other = match image::guess_format(bytes) {
            Ok(
                known @ (ImageFormat::Png
                | ImageFormat::WebP
                | ImageFormat::Tiff
                | ImageFormat::Bmp
                | ImageFormat::Gif
                | ImageFormat::Pnm
                | ImageFormat::Qoi
                | ImageFormat::Ico),
            ) => Some(known),
            _ => None,
        };
        other.or_else(|| is_tga(bytes, len).then_some(ImageFormat::Tga)).map(Self::Other)
    }
}

/// Bytes that tell every format.
const START: u64 = 64;

/// Whether a file that begins with `bytes` is a TGA, which begins with no signature: every field of its header must make sense, and an
/// uncompressed one must hold its pixels.
fn is_tga(bytes: &[u8], len: u64) -> bool {
    let Some((header, _)) = bytes.split_first_chunk::<18>() else { return false };
    let rest = len.saturating_sub(18);
    let [id, has_map, kind, ..] = *header;
    let map_len = usize::from(u16::from_le_bytes([header[5], header[6]]));
    let (map_bits, depth, descriptor) = (header[7], header[16], header[17]);
    let [width, height] = [12, 14].map(|at| usize::from(u16::from_le_bytes([header[at], header[at + 1]])));
    let mapped = matches!(kind, 1 | 9);
    let colours = match kind {
        1 | 9 => has_map == 1 && map_len > 0 && matches!(map_bits, 15 | 16 | 24 | 32) && matches!(depth, 8 | 16),
        2 | 10 => has_map <= 1 && matches!(depth, 15 | 16 | 24 | 32),
        3 | 11 => has_map == 0 && matches!(depth, 8 | 16),
        _ => false,
    };
    // No map leaves its fields 0; the two highest bits of the descriptor were only ever used for interleaving.
    let tidy = (has_map == 1 || header[3..8] == [0; 5]) && descriptor & 0xc0 == 0;
    let before = usize::from(id) + if has_map == 1 { map_len * usize::from(map_bits).div_ceil(8) } else { 0 };
    let pixels = width * height * usize::from(depth).div_ceil(8);
    let holds = kind >= 9 || rest >= (before + pixels) as u64;
    colours && tidy && (mapped || has_map <= 1) && width > 0 && height > 0 && rest > before as u64 && holds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_like_nothing_is_nothing() {
        for bytes in [&b""[..], b"x", b"not a picture at all, just some text", &[0; 4096], &[255; 64]] {
            assert_eq!(Format::of(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn a_tga_is_known_by_its_header() {
        let mut tga = vec![0u8; 18 + 12];
        (tga[2], tga[12], tga[14], tga[16]) = (2, 2, 2, 24);
        assert_eq!(Format::of(&tga), Some(Format::Other(ImageFormat::Tga)));
        assert_eq!(Format::of(&tga[..29]), None);
        tga[3] = 1;
        assert_eq!(Format::of(&tga), None);
    }
}
