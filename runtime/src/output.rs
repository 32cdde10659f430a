//! Lines on standard output, and files that are written whole. Who reads may leave at any time, and a disk may be full: neither is a
//! panic.

use std::io::{ErrorKind, Write};

/// Exit code where standard output takes nothing any more.
pub const GONE: i32 = 4;

/// Prints a line as `println!` does; ends the program with [`output::GONE`](crate::output::GONE) where that is impossible.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => { $crate::output::line(&format!($($text)*)) };
}

/// Prints a line; ends the program where that is impossible: quietly where the reader left, with a message where the disk is
/// full.
pub fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush()) {
        if error.kind() != ErrorKind::BrokenPipe {
            eprintln!("standard output: {error}");
        }
        std::process::exit(GONE);
    }
}

/// Writes a file whole or not at all; an old one stays until then.
///
/// # Errors
/// If it cannot be written.
pub fn write_whole(path: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
    crate::files::replace(path, bytes)
}
