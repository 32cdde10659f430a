//! Lines on standard output, and files that are written whole. Who reads may leave at any time, and a disk may be full: neither is a
//! panic.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;

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

/// Opens a file to which lines are added, and ends a line that broke off when the power went: it stays, as a line that is none. The file and
/// its length.
///
/// # Errors
/// If it cannot be read or written.
pub fn open_lines(path: &Path) -> std::io::Result<(File, u64)> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    let bytes = file.metadata()?.len();
    let mut last = [b'\n'];
    if bytes > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    if last == *b"\n" {
        return Ok((file, bytes));
    }
    file.write_all(b"\n")?;
    Ok((file, bytes + 1))
}

/// Text that means nothing to HTML.
///
/// ```
/// assert_eq!(paradise_runtime::output::plain("<b> & \""), "&lt;b&gt; &amp; &quot;");
/// ```
pub fn plain(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
