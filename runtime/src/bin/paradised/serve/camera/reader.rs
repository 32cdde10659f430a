//! Reads a source and hands on its newest picture; after a fault, opens it anew.

use super::Live;
use super::source::Open;
use crate::arguments::tables::Camera;
use crate::serve::lock::locked;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Between two tries to open, at first and at most: what comes back is seen within five seconds.
const AGAIN: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(3)];

/// What the reader has for whoever looks.
pub enum News {
    /// A picture.
    Picture(Vec<u8>),
    /// The source is lost, and why.
    Lost(String),
    /// Nothing came.
    Nothing,
}

/// Where the newest news lie; a picture that nobody took gives way to the next.
#[derive(Default)]
pub struct Frames {
    slot: Mutex<Option<News>>,
    came: Condvar,
}

impl Frames {
    fn put(&self, news: News) {
        *locked(&self.slot) = Some(news);
        self.came.notify_one();
    }

    /// Waits for news at most so long.
    pub fn take(&self, wait: Duration) -> News {
        let slot = locked(&self.slot);
        let waited = self.came.wait_timeout_while(slot, wait, |slot| slot.is_none());
        let (mut slot, _) = waited.unwrap_or_else(PoisonError::into_inner);
        slot.take().unwrap_or(News::Nothing)
    }
}

/// Starts to read.
pub fn start(camera: &Camera, open: Open, live: Arc<Live>) -> Arc<Frames> {
    let (frames, name) = (Arc::new(Frames::default()), camera.name.clone());
    let mine = frames.clone();
    std::thread::spawn(move || read(&name, &open, &live, &mine));
    frames
}

fn read(name: &str, open: &Open, live: &Live, frames: &Frames) {
    let [first, longest] = AGAIN;
    let (mut wait, mut said) = (first, None);
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
                    (wait, said) = (first, None);
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
            // The same again and again is said once.
            if said.as_ref() != Some(&why) {
                tracing::warn!("camera {name}: {why}");
            }
            frames.put(News::Lost(why.clone()));
            said = Some(why);
        }
        live.reopened();
        std::thread::sleep(wait);
        wait = (2 * wait).min(longest);
    }
}
