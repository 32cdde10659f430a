//! Where a camera's pictures come from. Whatever it is, it is opened, gives one picture after the other, and is opened anew after a fault.

mod command;
mod http;
mod inlet;
mod v4l2;

pub use inlet::{Inlet, of_inlet};

use crate::arguments::tables::Camera;
use std::sync::Arc;

/// A camera that is open.
pub trait Source: Send {
    /// Waits for the next picture: the bytes of its file.
    ///
    /// # Errors
    /// If there will be none, or none came for too long; it is to be opened anew then.
    fn next(&mut self) -> anyhow::Result<Vec<u8>>;

    /// What ends a wait for a picture from another thread, where that is possible.
    fn ender(&self) -> Option<Ender> {
        None
    }
}

/// Ends a source that hangs.
pub type Ender = Arc<dyn Fn() + Send + Sync>;

/// Opens a camera.
pub type Open = Box<dyn Fn() -> anyhow::Result<Box<dyn Source>> + Send>;

/// How a camera is opened.
///
/// # Errors
/// If it never can be.
pub fn opener(camera: &Camera) -> anyhow::Result<Open> {
    if let Some((program, arguments)) = camera.command.split_first() {
        return Ok(command::opener(program.clone(), arguments.to_vec()));
    }
    if let Some(url) = camera.source.strip_prefix("mjpeg+") {
        return http::stream(url, camera);
    }
    if let Some(path) = camera.source.strip_prefix("v4l2:") {
        return v4l2::opener(path);
    }
    http::snapshots(&camera.source, camera)
}
