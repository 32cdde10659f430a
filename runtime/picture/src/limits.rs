//! How large a picture may be.

use crate::error::{PictureError, broken};

/// Largest picture file, bytes.
pub const MAX_FILE: u64 = 64 << 20;
/// Most bytes of decoded pixels, and of what else a decoder keeps beside them.
pub const MAX_DECODED: u64 = 256 << 20;
/// Most memory that a picture which is refused has taken, bytes: pixels, a GIF's colour indices beside them, and tables.
pub const MAX_REFUSED: u64 = MAX_DECODED + MAX_DECODED / 4 + (16 << 20);
pub use paradise_engine::image::MAX_SIDE;

/// Refuses a picture by its size and the bytes that its decoder needs.
pub(crate) fn within(width: u32, height: u32, bytes_a_pixel: u64) -> Result<(), PictureError> {
    let bytes = u64::from(width).saturating_mul(height.into()).saturating_mul(bytes_a_pixel);
    if width == 0 || height == 0 {
        return Err(broken("no pixels"));
    }
    if width > MAX_SIDE || height > MAX_SIDE || bytes > MAX_DECODED {
        return Err(PictureError::Size { width, height, mib: MAX_DECODED >> 20, side: MAX_SIDE });
    }
    Ok(())
}
