//! mosquitto, and a paho client that reads what it is sent.

use crate::root;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A broker on a free port; it ends with its value.
pub struct Mosquitto {
    child: Option<Child>,
    /// Its port.
    pub port: u16,
    folder: tempfile::TempDir,
}

impl Mosquitto {
    /// Starts it; it remembers sessions and what is retained over restarts. `more`: lines of its settings.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let settings = format!(
            "listener {port} 127.0.0.1\n{more}\npersistence true\npersistence_location {}/\nautosave_interval 1\n\
             autosave_on_changes true\nmax_queued_messages 0\n{}",
            folder.path().display(),
            if more.contains("allow_anonymous") { "" } else { "allow_anonymous true\n" }
        );
        std::fs::write(folder.path().join("settings"), settings).expect("settings");
        let mut broker = Self { child: None, port, folder };
        broker.begin();
        broker
    }

    /// Its folder, in which it may read files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Begins again.
    ///
    /// # Panics
    /// If it does not.
    pub fn begin(&mut self) {
        let path = ["/usr/sbin/mosquitto", "mosquitto"].into_iter().find(|path| Path::new(path).exists());
        let mut command = Command::new(path.unwrap_or("mosquitto"));
        command.arg("-c").arg(self.folder.path().join("settings")).stderr(Stdio::null()).stdout(Stdio::null());
        // Debian's drops root's rights, and then cannot write a folder of root's.
        std::fs::set_permissions(self.folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777))
            .expect("permissions");
        self.child = Some(command.spawn().expect("mosquitto starts"));
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("mosquitto does not listen");
    }

    /// Ends it, in good order.
    ///
    /// # Panics
    /// If it cannot be.
    pub fn end(&mut self) {
        let mut child = self.child.take().expect("it runs");
        let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill");
        assert!(sent.success());
        child.wait().expect("ends");
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The script with paho.
fn script() -> Command {
    let mut command = Command::new(root().join(".venv-clients/bin/python"));
    command.arg(root().join("tests/clients/mqtt.py"));
    command
}

/// Everything that is sent on a broker, as paho reads it.
pub struct Reader {
    child: Child,
    heard: Arc<Mutex<Vec<Value>>>,
}

impl Reader {
    /// Reads from now on, what is retained first.
    ///
    /// # Panics
    /// If Python does not start.
    pub fn start(port: u16) -> Self {
        let mut child =
            script().args(["read", &port.to_string()]).stdout(Stdio::piped()).spawn().expect("Python starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe"));
        let heard: Arc<Mutex<Vec<Value>>> = Arc::default();
        let mine = heard.clone();
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                mine.lock().expect("messages").push(serde_json::from_str(&line).expect("JSON"));
            }
        });
        Self { child, heard }
    }

    /// The messages of a topic, as `{topic, retain, text | json | bytes, correlation}`.
    ///
    /// # Panics
    /// If its thread panicked.
    pub fn on(&self, topic: &str) -> Vec<Value> {
        let heard = self.heard.lock().expect("messages");
        heard.iter().filter(|message| message["topic"] == topic).cloned().collect()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a message, with a response topic and correlation data if they are not empty.
///
/// # Panics
/// If it cannot be sent.
pub fn send(port: u16, topic: &str, payload: &str, response: &str, correlation: &str) {
    let sent = script().args(["send", &port.to_string(), topic, payload, response, correlation]).status();
    assert!(sent.expect("Python runs").success());
}

/// Sends so many requests with pictures of a folder, resends what is not answered, and counts.
///
/// # Panics
/// If Python does not start.
pub fn requests(port: u16, base: &str, count: usize, pictures: &Path) -> Child {
    script()
        .args(["requests", &port.to_string(), base, &count.to_string()])
        .arg(pictures)
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python starts")
}
