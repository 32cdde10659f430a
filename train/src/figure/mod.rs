//! Pictures, drawn with plotters and a font that is inside the program.

pub mod report;

use std::sync::Once;

/// Registers the embedded font as `sans-serif`.
pub(crate) fn font() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let bytes = epaint_default_fonts::UBUNTU_LIGHT;
        // Refused only if the bytes are no font, and then text is missing from the picture, which a test would see.
        let _ = plotters::style::register_font("sans-serif", plotters::style::FontStyle::Normal, bytes);
    });
}
