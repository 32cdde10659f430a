//! What the application needs of a board. Each real one has a file in `board/`; tests have one in memory.

/// Why the chip started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// Power was applied.
    Power,
    /// The watchdog bit.
    Watchdog,
    /// Software asked for it.
    Software,
    /// The reset pin, or what the board does not tell.
    Other,
}

impl Reset {
    /// As logs and the link name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Power => "power",
            Self::Watchdog => "watchdog",
            Self::Software => "software",
            Self::Other => "other",
        }
    }
}

/// A board.
pub trait Board {
    /// As logs and the link name it.
    fn name(&self) -> &'static str;

    /// A counter that goes up all the time and wraps.
    fn ticks(&mut self) -> u32;

    /// How much it counts a second.
    fn ticks_a_second(&self) -> u32;

    /// Sends bytes to the host.
    fn send(&mut self, bytes: &[u8]);

    /// Accept, abstain and fault lines.
    fn decide(&mut self, accept: bool, abstain: bool, fault: bool);

    /// The heartbeat line.
    fn heartbeat(&mut self, high: bool);

    /// Starts the watchdog: without [`Board::feed`] for so many milliseconds the chip restarts. Whether there is one.
    fn watch(&mut self, milliseconds: u32) -> bool;

    /// Tells the watchdog that all is well.
    fn feed(&mut self);

    /// Starts the chip anew.
    fn restart(&mut self) -> !;

    /// Called when a fault is latched, with all lines but the fault line low: what the machine around the chip needs to be
    /// safe. Nothing, unless the board has something.
    fn safe_state(&mut self) {}
}
