//! Whether a network learns or stands still.

/// Where a batch norm's statistics come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The mini-batch; running statistics follow it.
    Learn,
    /// The running statistics, which stay.
    Fixed,
}
