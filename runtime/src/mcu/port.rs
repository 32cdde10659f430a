//! Where a chip is: a serial port, or TCP (an emulator, a serial server).

use super::McuError;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Bits a second of a serial port.
pub const BAUD: u32 = 115_200;

/// A line to a chip.
pub trait Port: Send {
    /// Sends bytes.
    ///
    /// # Errors
    /// If the line fails.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// The next byte that arrives before `until`.
    ///
    /// # Errors
    /// If the line fails or ends.
    fn read_byte(&mut self, until: Instant) -> io::Result<Option<u8>>;
}

/// Opens `tcp:HOST:PORT`, or a serial port by its path.
///
/// # Errors
/// If there is none, or it may not be opened.
pub fn open(address: &str) -> Result<Box<dyn Port>, McuError> {
    let failed = |why: io::Error| McuError::Open { port: address.into(), why };
    match address.strip_prefix("tcp:") {
        Some(host) => {
            let stream = TcpStream::connect(host).map_err(failed)?;
            stream.set_nodelay(true).map_err(failed)?;
            Ok(Box::new(Line::new(stream, |stream: &mut TcpStream, time| stream.set_read_timeout(Some(time)))))
        }
        None => {
            let port = serialport::new(address, BAUD).timeout(Duration::from_millis(100));
            let port = port.open().map_err(|e| failed(e.into()))?;
            Ok(Box::new(Line::new(port, |port: &mut Box<dyn serialport::SerialPort>, time| {
                port.set_timeout(time).map_err(io::Error::from)
            })))
        }
    }
}

/// A stream whose reads end after a while.
struct Line<S, T> {
    stream: S,
    set_timeout: T,
    read: Vec<u8>,
    at: usize,
}

impl<S: Read + Write, T: Fn(&mut S, Duration) -> io::Result<()>> Line<S, T> {
    fn new(stream: S, set_timeout: T) -> Self {
        Self { stream, set_timeout, read: Vec::new(), at: 0 }
    }
}

impl<S: Read + Write + Send, T: Fn(&mut S, Duration) -> io::Result<()> + Send> Port for Line<S, T> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    fn read_byte(&mut self, until: Instant) -> io::Result<Option<u8>> {
        while self.at == self.read.len() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            (self.set_timeout)(&mut self.stream, left.max(Duration::from_millis(1)))?;
            let mut bytes = [0; 256];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other side closed it")),
                Ok(n) => (self.read, self.at) = (bytes[..n].to_vec(), 0),
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.at += 1;
        Ok(Some(self.read[self.at - 1]))
    }
}
