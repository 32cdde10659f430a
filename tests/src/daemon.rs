//! A running `paradised serve`, asked over its socket.

use crate::program;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// It ends with its value.
pub struct Daemon {
    child: Child,
    /// Its own process, or that of the program that traces it.
    id: u32,
    /// Host and port.
    pub address: String,
}

impl Daemon {
    /// Starts it with bundles, on a free port unless `extra` says where.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(models: &[&Path], extra: &[&str]) -> Self {
        Self::serve(program("paradised"), models, extra)
    }

    /// [`Daemon::start`] under strace, with its options.
    ///
    /// # Panics
    /// If it does not start.
    pub fn traced(options: &[&str], models: &[&Path], extra: &[&str]) -> Self {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq"]).args(options).arg(program("paradised").get_program());
        let mut daemon = Self::serve(strace, models, extra);
        let strace = daemon.id;
        let children =
            std::fs::read_to_string(format!("/proc/{strace}/task/{strace}/children")).expect("strace runs");
        daemon.id = children.trim().parse().expect("its only child");
        daemon
    }

    fn serve(mut command: Command, models: &[&Path], extra: &[&str]) -> Self {
        let child = command
            .arg("serve")
            .args(if extra.contains(&"--listen") { &[][..] } else { &["--listen", "127.0.0.1:0"] })
            .args(models.iter().flat_map(|model| [Path::new("--model"), model]))
            .args(extra)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("paradised starts");
        Self::of(child)
    }

    /// Of a process that was started with a pipe as its standard output.
    ///
    /// # Panics
    /// If it does not say where it listens.
    pub fn of(mut child: Child) -> Self {
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a first line");
        let address = line.trim().strip_prefix("listening on http://").expect("an address").to_string();
        Self { id: child.id(), child, address }
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// A connection.
    ///
    /// # Panics
    /// If there is none.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        stream
    }

    /// Status and body of one request.
    ///
    /// # Panics
    /// If it cannot be sent.
    pub fn request(&self, method: &str, path: &str, body: &[u8]) -> (u16, serde_json::Value) {
        let mut stream = self.connect();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("sends");
        // A server that refuses early may close before all is sent.
        let _ = stream.write_all(body);
        answer(stream)
    }

    /// The body of an answer that is text.
    ///
    /// # Panics
    /// If it is none.
    pub fn text(&self, path: &str) -> String {
        let mut stream = self.connect();
        let head = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("sends");
        let mut all = String::new();
        stream.read_to_string(&mut all).expect("text");
        let (head, body) = all.split_once("\r\n\r\n").expect("a head");
        assert!(head.to_lowercase().contains("content-type: text/"), "{head}");
        body.to_string()
    }

    /// Ends it by SIGTERM; its exit code.
    ///
    /// # Panics
    /// If it cannot be waited for.
    pub fn stop(mut self) -> Option<i32> {
        let sent = Command::new("kill").args(["-TERM", &self.id.to_string()]).status().expect("kill runs");
        assert!(sent.success());
        self.child.wait().expect("ends").code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A test that failed must not leave a server behind.
        if self.id != self.child.id() && matches!(self.child.try_wait(), Ok(None)) {
            let _ = Command::new("kill").args(["-KILL", &self.id.to_string()]).status();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Status and body of an answer, which is JSON.
///
/// # Panics
/// If it says that it is something else.
pub fn answer(mut stream: TcpStream) -> (u16, serde_json::Value) {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    let all = String::from_utf8_lossy(&all).into_owned();
    let status = all.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    let (head, body) = all.split_once("\r\n\r\n").unwrap_or((&all, ""));
    assert!(status == 0 || head.to_lowercase().contains("content-type: application/json"), "{head}");
    (status, serde_json::from_str(body).unwrap_or_default())
}
