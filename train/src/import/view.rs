//! How a value's numbers lie.

/// How the ONNX graph sees an activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// `[n, c, h, w]`.
    Nchw,
    /// `[n, h, w, c]`.
    Nhwc,
    /// `[n, c * h * w]`.
    Flat,
    /// `[n, h * w * c]`.
    FlatNhwc,
}
