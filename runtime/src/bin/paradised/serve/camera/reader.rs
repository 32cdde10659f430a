//! Reads a source and hands on its newest picture; after a fault, opens it anew.

use super::Live;
use super::newest::Newest;
use super::source::Open;
use crate::arguments::tables::Camera;
use crate::serve::retries::Retries;
use std::sync::Arc;
use std::time::Duration;

/// Between two tries to open, at first and at most: what comes back is seen within five seconds.
const AGAIN: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(3)];

/// What the reader has for whoever looks.
pub enum News {
    /// A picture.
    Picture(Vec<u8>),
    /// The source is lost, and why.
    Lost(String),
}

/// Starts to read.
pub fn start(camera: &Camera, open: Open, live: Arc<Live>) -> Arc<Newest<News>> {
    let (frames, name) = (Arc::<Newest<News>>::default(), camera.name.clone());
    let mine = frames.clone();
    std::thread::spawn(move || read(&name, &open, &live, &mine));
    frames
}

fn read(name: &str, open: &Open, live: &Live, frames: &Newest<News>) {
    let mut retries = Retries::new(AGAIN);
    while !live.is_stopped() {
        let mut came = 0u64;
        let opened = open().and_then(|mut source| {
            live.ends_by(source.ender());
            loop {
                let picture = source.next()?;
                if live.is_stopped() {
                    return Ok(());
                }
                if came == 0 {
                    tracing::info!("camera {name}: pictures come");
                    retries.end();
                }
                came += 1;
                frames.put(News::Picture(picture));
            }
        });
        live.ends_by(None);
        if live.is_stopped() {
            return;
        }
        if let Err(why) = opened {
            let why = format!("{why:#}");
            if retries.is_news(&why) {
                tracing::warn!("camera {name}: {why}");
            }
            frames.put(News::Lost(why));
        }
        live.reopened();
        std::thread::sleep(retries.next_wait());
    }
}
