//! A network camera that shows what a test wants, and somebody who is told.

use paradise_engine::Shape;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What is before the lens.
#[derive(Clone)]
pub struct Scene {
    /// Its pixels, grey, row by row.
    pub pixels: Vec<u8>,
    /// Columns.
    pub width: u32,
    /// Whether the sensor has no noise, as one that hangs.
    pub frozen: bool,
}

struct Shared {
    scene: Mutex<Scene>,
    asked: AtomicU64,
    silent: AtomicBool,
    stopped: AtomicBool,
}

/// `GET /` gives a picture, PNG.
pub struct Snapshots {
    /// Where it is asked.
    pub url: String,
    shared: Arc<Shared>,
}

impl Snapshots {
    /// Shows a scene on a free port.
    ///
    /// # Panics
    /// If there is none.
    pub fn start(scene: Scene) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let (asked, silent, stopped) = (AtomicU64::new(0), AtomicBool::new(false), AtomicBool::new(false));
        let shared = Arc::new(Shared { scene: Mutex::new(scene), asked, silent, stopped });
        let mine = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if mine.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (stream, shared) = (stream.expect("a connection"), mine.clone());
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { url, shared }
    }

    /// Shows another scene.
    ///
    /// # Panics
    /// If a thread of it panicked.
    pub fn show(&self, scene: Scene) {
        *self.shared.scene.lock().expect("a scene") = scene;
    }

    /// Does not answer, or does again.
    pub fn falls_silent(&self, silent: bool) {
        self.shared.silent.store(silent, Ordering::SeqCst);
    }

    /// How often it was asked.
    pub fn asked(&self) -> u64 {
        self.shared.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Snapshots {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
    }
}

/// Head and body of a request; nothing if there is none.
fn request(stream: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line.trim().is_empty() {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((head, body))
}

fn serve(stream: TcpStream, shared: &Shared) {
    let mut out = stream.try_clone().expect("a stream");
    let mut stream = BufReader::new(stream);
    while request(&mut stream).is_some() {
        while shared.silent.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let number = shared.asked.fetch_add(1, Ordering::SeqCst);
        let Scene { mut pixels, width, frozen } = shared.scene.lock().expect("a scene").clone();
        if !frozen {
            let mut rng = fastrand::Rng::with_seed(number);
            pixels.iter_mut().for_each(|pixel| *pixel = pixel.saturating_add(rng.u8(..3)));
        }
        let height = pixels.len() as u32 / width;
        let picture = paradise_picture::png(&pixels, Shape::new(height as u16, width as u16, 1)).expect("a picture");
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: {}\r\n\r\n", picture.len());
        if out.write_all(&[head.as_bytes(), &picture].concat()).is_err() {
            return;
        }
    }
}

/// Takes what is posted; the first `refuse` are not taken.
pub struct Hook {
    /// Where to post.
    pub url: String,
    taken: Arc<Mutex<Vec<serde_json::Value>>>,
}

impl Hook {
    /// On a free port.
    ///
    /// # Panics
    /// If there is none.
    pub fn start(refuse: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        let taken: Arc<Mutex<Vec<serde_json::Value>>> = Arc::default();
        let mine = taken.clone();
        std::thread::spawn(move || {
            let mut left = refuse;
            for stream in listener.incoming() {
                let mut out = stream.expect("a connection");
                let Some((head, body)) = request(&mut BufReader::new(out.try_clone().expect("a stream"))) else {
                    continue;
                };
                let status = if left > 0 { "503 Busy" } else { "204 Taken" };
                if left == 0 {
                    assert!(head.contains("POST /hook"), "{head}");
                    mine.lock().expect("events").push(serde_json::from_slice(&body).expect("JSON"));
                }
                left = left.saturating_sub(1);
                let _ = write!(out, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
        });
        Self { url, taken }
    }

    /// What was taken.
    ///
    /// # Panics
    /// If a thread of it panicked.
    pub fn taken(&self) -> Vec<serde_json::Value> {
        self.taken.lock().expect("events").clone()
    }
}
