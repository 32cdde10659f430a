//! Cameras of Video4Linux, MJPEG or YUYV. No board has run this yet: the tests play recorded frames.

#![cfg_attr(not(feature = "camera"), allow(dead_code, reason = "only its tests use it then"))]

use super::{Open, Source};
use anyhow::{Context, ensure};
use paradise_runtime::camera::yuyv;

/// How frames are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// Each is a JPEG file.
    Mjpeg,
    /// Of so many columns and rows.
    Yuyv([u32; 2]),
}

/// What gives frames: a device, or what was recorded of one.
pub trait Frames: Send {
    /// Waits for the next frame.
    ///
    /// # Errors
    /// If the device is gone.
    fn next(&mut self) -> std::io::Result<Vec<u8>>;
}

/// Pictures of a device.
pub struct Device<F> {
    frames: F,
    coding: Coding,
}

impl<F: Frames> Source for Device<F> {
    fn next(&mut self) -> anyhow::Result<Vec<u8>> {
        let frame = self.frames.next().context("the device gives no frame")?;
        match self.coding {
            Coding::Mjpeg => {
                ensure!(frame.starts_with(&[0xff, 0xd8]), "the device's frame is no JPEG file");
                Ok(frame)
            }
            Coding::Yuyv([width, height]) => {
                let short = || format!("{} bytes are no {width} x {height} YUYV frame", frame.len());
                yuyv::ppm(&frame, width, height).with_context(short)
            }
        }
    }
}

/// A device by its path.
///
/// # Errors
/// If this build has no Video4Linux.
#[cfg(not(feature = "camera"))]
pub fn opener(path: &str) -> anyhow::Result<Open> {
    anyhow::bail!("v4l2:{path}: this build has no Video4Linux; build with --features camera")
}

/// A device by its path.
///
/// # Errors
/// None: it is opened later.
#[cfg(feature = "camera")]
pub fn opener(path: &str) -> anyhow::Result<Open> {
    let path = path.to_string();
    Ok(Box::new(move || Ok(Box::new(device::open(&path).with_context(|| path.clone())?))))
}

#[cfg(feature = "camera")]
mod device {
    use super::{Coding, Device, Frames};
    use anyhow::bail;
    use v4l::buffer::Type;
    use v4l::io::mmap::Stream;
    use v4l::io::traits::CaptureStream;
    use v4l::video::Capture;
    use v4l::{Device as Camera, FourCC};

    /// Buffers that the driver fills.
    const BUFFERS: u32 = 4;
    /// Longest wait for a frame.
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);
    /// What is asked for; a driver gives what comes next to it.
    const WIDTH: u32 = 640;
    const HEIGHT: u32 = 480;

    /// The device's frames.
    pub struct Live(Stream<'static>);

    impl Frames for Live {
        fn next(&mut self) -> std::io::Result<Vec<u8>> {
            let (bytes, about) = self.0.next()?;
            let used = (about.bytesused as usize).min(bytes.len());
            Ok(bytes[..used].to_vec())
        }
    }

    /// Opens a device, MJPEG where it can.
    pub fn open(path: &str) -> anyhow::Result<Device<Live>> {
        let camera = Camera::with_path(path)?;
        let mut format = camera.format()?;
        (format.width, format.height) = (WIDTH, HEIGHT);
        for code in [b"MJPG", b"YUYV"] {
            format.fourcc = FourCC::new(code);
            let got = camera.set_format(&format)?;
            if got.fourcc != format.fourcc {
                continue;
            }
            let coding = if code == b"MJPG" { Coding::Mjpeg } else { Coding::Yuyv([got.width, got.height]) };
            let mut stream = Stream::with_buffers(&camera, Type::VideoCapture, BUFFERS)?;
            stream.set_timeout(PATIENCE);
            return Ok(Device { frames: Live(stream), coding });
        }
        bail!("it gives neither MJPEG nor YUYV")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paradise_picture::Picture;

    /// Frames that were recorded.
    struct Recorded(std::vec::IntoIter<Vec<u8>>);

    impl Frames for Recorded {
        fn next(&mut self) -> std::io::Result<Vec<u8>> {
            self.0.next().ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
        }
    }

    fn device(coding: Coding, frames: &[&[u8]]) -> Device<Recorded> {
        let frames: Vec<Vec<u8>> = frames.iter().map(|frame| frame.to_vec()).collect();
        Device { frames: Recorded(frames.into_iter()), coding }
    }

    #[test]
    fn frames_become_pictures_and_broken_ones_open_the_device_anew() {
        let grey = [126, 128].repeat(16);
        let mut camera = device(Coding::Yuyv([4, 4]), &[&grey, &grey[..20]]);
        let picture = Picture::decode(&camera.next().unwrap()).unwrap();
        assert_eq!((picture.width(), picture.pixels()), (4, &[128; 48][..]));
        assert!(camera.next().unwrap_err().to_string().contains("20 bytes"));
        assert!(camera.next().is_err(), "the device was pulled out");
        let mut camera = device(Coding::Mjpeg, &[&[0xff, 0xd8, 1], &[0; 9]]);
        assert_eq!(camera.next().unwrap(), [0xff, 0xd8, 1]);
        assert!(camera.next().is_err());
    }
}
