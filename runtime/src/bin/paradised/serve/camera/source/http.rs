//! Network cameras: an address that gives a picture each time it is asked, or one that gives pictures without end (`multipart/x-mixed-replace`).

use super::{Open, Source};
use crate::arguments::tables::Camera;
use crate::serve::http_client::client;
use anyhow::{Context, ensure};
use paradise_runtime::camera::mjpeg::{MAX_FRAME, Splitter};
use std::collections::VecDeque;
use std::io::Read;
use std::time::{Duration, Instant};
use ureq::Agent;

/// Shortest time that a camera has for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Longest wait for a part of an answer.
fn wait(camera: &Camera) -> Duration {
    PATIENCE.max(2 * camera.interval())
}

struct Snapshots {
    agent: Agent,
    url: String,
    every: Duration,
    due: Instant,
}

/// A picture each interval.
///
/// # Errors
/// If the certificate to trust cannot be read.
pub fn snapshots(url: &str, camera: &Camera) -> anyhow::Result<Open> {
    let (agent, url, every) = (client(wait(camera), camera.ca.as_deref())?, url.to_string(), camera.interval());
    Ok(Box::new(move || {
        let (agent, url) = (agent.clone(), url.clone());
        Ok(Box::new(Snapshots { agent, url, every, due: Instant::now() }))
    }))
}

impl Source for Snapshots {
    fn next(&mut self) -> anyhow::Result<Vec<u8>> {
        std::thread::sleep(self.due.saturating_duration_since(Instant::now()));
        // What is late is not made up for.
        self.due = (self.due + self.every).max(Instant::now());
        let mut answer = self.agent.get(&self.url).call()?;
        Ok(answer.body_mut().with_config().limit(MAX_FRAME as u64).read_to_vec()?)
    }
}

struct Stream {
    body: Box<dyn Read + Send>,
    splitter: Splitter,
    ready: VecDeque<Vec<u8>>,
    buffer: Vec<u8>,
}

/// Pictures as they come.
///
/// # Errors
/// If the certificate to trust cannot be read.
pub fn stream(url: &str, camera: &Camera) -> anyhow::Result<Open> {
    let (agent, url) = (client(wait(camera), camera.ca.as_deref())?, url.to_string());
    Ok(Box::new(move || {
        let answer = agent.get(&url).call()?;
        let body = answer.into_body().into_with_config().limit(u64::MAX).reader();
        Ok(Box::new(Stream::new(Box::new(body))))
    }))
}

impl Stream {
    fn new(body: Box<dyn Read + Send>) -> Self {
        Self { body, splitter: Splitter::default(), ready: VecDeque::new(), buffer: vec![0; 64 << 10] }
    }
}

impl Source for Stream {
    fn next(&mut self) -> anyhow::Result<Vec<u8>> {
        loop {
            if let Some(picture) = self.ready.pop_front() {
                return Ok(picture);
            }
            let read = self.body.read(&mut self.buffer).context("the stream broke off")?;
            ensure!(read > 0, "the stream ended");
            let ready = &mut self.ready;
            self.splitter.push(&self.buffer[..read], &mut |picture| ready.push_back(picture));
        }
    }
}

/// Pictures out of any stream of bytes.
pub fn pictures(body: Box<dyn Read + Send>) -> impl Source {
    Stream::new(body)
}
