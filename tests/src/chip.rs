//! A board in QEMU that runs the firmware, asked over its serial port.

use crate::{deep, root, until};
use paradise_runtime::mcu::{Mcu, open};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// The bundle whose images are built.
pub const BUNDLE: &str = "cifar10-resnet8-pm";

/// A board that QEMU emulates, with its core.
#[derive(Clone, Copy)]
pub struct Board {
    /// Its name, to QEMU and to `firmware/boards/`.
    pub name: &'static str,
    core: &'static str,
}

/// A Cortex-M4.
pub const M4: Board = Board { name: "mps2-an386", core: "cortex-m4" };
/// A Cortex-M55.
pub const M55: Board = Board { name: "mps3-an547", core: "cortex-m55" };
/// A Cortex-M7.
pub const M7: Board = Board { name: "mps2-an500", core: "cortex-m7" };
/// A Cortex-M33.
pub const M33: Board = Board { name: "mps2-an505", core: "cortex-m33" };

/// One of each layout, or all four.
pub fn boards() -> Vec<Board> {
    if deep() { vec![M4, M7, M33, M55] } else { vec![M4, M55] }
}

/// The bundle that the images are of.
pub fn bundle() -> PathBuf {
    root().join("models").join(BUNDLE)
}

/// The image of a kind, a board and the features it has, as `make firmware-images` leaves it.
pub fn image(kind: &str) -> PathBuf {
    root().join("firmware/target/images").join(kind).join(BUNDLE)
}

/// A port that was free a moment ago, and is no other test's.
fn free_port() -> u16 {
    static TAKEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        if !taken.contains(&port) {
            taken.push(port);
            return port;
        }
    }
}

/// A running emulator.
pub struct Chip {
    qemu: Child,
    /// Host and port of its serial port.
    pub address: String,
}

impl Chip {
    /// Starts a board with an image whose checks can be made to fail.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(board: Board) -> Self {
        Self::logging(board, Stdio::null())
    }

    /// [`Chip::start`], its log kept.
    ///
    /// # Panics
    /// If it does not start.
    pub fn logging(board: Board, log: Stdio) -> Self {
        Self::with(board, "inject", log)
    }

    /// An image with a feature.
    ///
    /// # Panics
    /// If it does not start.
    pub fn with(Board { name, core }: Board, feature: &str, log: Stdio) -> Self {
        let image = image(&format!("{name}-{feature}"));
        assert!(image.exists(), "{} is missing: run `make firmware`, or set PARADISE_SKIP=firmware", image.display());
        let port = free_port();
        let qemu = Command::new("qemu-system-arm")
            .args(["-cpu", core, "-machine", name, "-display", "none", "-monitor", "none"])
            .args(["-serial", &format!("tcp:127.0.0.1:{port},server,nowait,nodelay")])
            .args(["-semihosting-config", "enable=on,target=native", "-kernel"])
            .arg(&image)
            .stdin(Stdio::null())
            .stdout(log)
            .spawn()
            .expect("qemu-system-arm starts");
        let address = format!("127.0.0.1:{port}");
        let chip = Self { qemu, address };
        until("qemu listens", || TcpStream::connect(&chip.address).is_ok());
        chip
    }

    /// A connection that was greeted.
    ///
    /// # Panics
    /// If there is none.
    pub fn greet(&self) -> Mcu {
        let mut last = None;
        for _ in 0..5 {
            match open(&format!("tcp:{}", self.address)).and_then(Mcu::greet) {
                Ok(mcu) => return mcu,
                Err(error) => last = Some(error),
            }
        }
        panic!("no greeting: {}", last.expect("tried"))
    }
}

impl Drop for Chip {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
