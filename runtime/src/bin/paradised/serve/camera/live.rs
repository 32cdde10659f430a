//! What is known of a camera now, for whoever asks, and what they ask of it.

use super::site::Site;
use super::source::Ender;
use crate::arguments::tables::Camera;
use crate::serve::lock::locked;
use crate::serve::sink::Known;
use jiff::Timestamp;
use paradise_runtime::Verdict;
use paradise_runtime::camera::gate::Counts;
use paradise_runtime::camera::region::Region;
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Answers that are remembered.
const ANSWERS: usize = 512;

/// An answer of late.
#[derive(Debug, Clone, Serialize)]
pub struct Answered {
    /// When.
    pub time: Timestamp,
    /// What.
    #[serde(flatten)]
    pub verdict: Arc<Verdict>,
}

/// What changes all the time.
struct Now {
    known: Known,
    picture: Option<Arc<[u8]>>,
    /// Columns and rows of the picture.
    size: Option<[u32; 2]>,
    came: Option<Timestamp>,
    region: Option<Region>,
    answers: VecDeque<Answered>,
    counts: Counts,
    trouble: Option<String>,
    model: String,
}

/// A camera, from outside.
pub struct Live {
    /// What it is called.
    pub name: String,
    /// The model that is asked, if one was named.
    pub model: Option<String>,
    /// Pictures of this place, if they are collected.
    pub site: Site,
    now: Mutex<Now>,
    asked: AtomicBool,
    stopped: AtomicBool,
    reopened: AtomicU64,
    ender: Mutex<Option<Ender>>,
}

/// How a camera stands, as it is sent.
#[derive(Serialize)]
pub struct Report {
    camera: String,
    model: String,
    #[serde(flatten)]
    known: Known,
    region: Option<Region>,
    /// Columns and rows of its pictures.
    size: Option<[u32; 2]>,
    /// When the last picture came.
    picture_at: Option<Timestamp>,
    pictures: u64,
    classified: u64,
    changes: u64,
    reopened: u64,
    trouble: Option<String>,
    answer: Option<Answered>,
}

impl Live {
    /// A camera that has shown nothing yet.
    pub fn new(camera: &Camera) -> Self {
        Self {
            name: camera.name.clone(),
            model: camera.model.clone(),
            site: Site::new(camera.interval()),
            now: Mutex::new(Now {
                known: Known::starting(),
                picture: None,
                size: None,
                came: None,
                region: camera.region,
                answers: VecDeque::new(),
                counts: Counts::default(),
                trouble: None,
                model: camera.model.clone().unwrap_or_default(),
            }),
            asked: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            reopened: AtomicU64::new(0),
            ender: Mutex::default(),
        }
    }

    /// Wants its next picture to be classified.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    /// Whether somebody wanted that.
    pub fn is_asked(&self) -> bool {
        self.asked.swap(false, Ordering::Relaxed)
    }

    /// Ends its source, for good.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.end_source();
    }

    /// Ends its source, which is opened anew.
    pub fn end_source(&self) {
        if let Some(end) = &*locked(&self.ender) {
            end();
        }
    }

    /// How that is done.
    pub fn ends_by(&self, ender: Option<Ender>) {
        *locked(&self.ender) = ender;
        if self.is_stopped() {
            self.end_source();
        }
    }

    /// Whether it was ended for good.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Its source was lost.
    pub fn reopened(&self) {
        self.reopened.fetch_add(1, Ordering::Relaxed);
    }

    /// A picture came, of so many columns and rows.
    pub fn shows(&self, picture: Arc<[u8]>, size: [u32; 2], counts: Counts) {
        let mut now = locked(&self.now);
        (now.picture, now.size, now.counts) = (Some(picture), Some(size), counts);
        (now.came, now.trouble) = (Some(Timestamp::now()), None);
    }

    /// Something is wrong with it.
    pub fn troubles(&self, why: String) {
        locked(&self.now).trouble = Some(why);
    }

    /// A picture was answered.
    pub fn answered(&self, model: &str, verdict: Arc<Verdict>) {
        let mut now = locked(&self.now);
        now.model = model.into();
        now.answers.push_back(Answered { time: Timestamp::now(), verdict });
        if now.answers.len() > ANSWERS {
            now.answers.pop_front();
        }
    }

    /// This is known.
    pub fn knows(&self, known: Known) {
        locked(&self.now).known = known;
    }

    /// What is known.
    pub fn known(&self) -> Known {
        locked(&self.now).known.clone()
    }

    /// The part that is looked at.
    pub fn region(&self) -> Option<Region> {
        locked(&self.now).region
    }

    /// Looks at another part from now on.
    pub fn look_at(&self, region: Option<Region>) {
        locked(&self.now).region = region;
    }

    /// The last picture, as it came.
    pub fn picture(&self) -> Option<Arc<[u8]>> {
        locked(&self.now).picture.clone()
    }

    /// Columns and rows of the last picture.
    pub fn size(&self) -> Option<[u32; 2]> {
        locked(&self.now).size
    }

    /// Answers of late, the oldest first.
    pub fn answers(&self) -> Vec<Answered> {
        locked(&self.now).answers.iter().cloned().collect()
    }

    /// How it stands.
    pub fn report(&self) -> Report {
        let now = locked(&self.now);
        Report {
            camera: self.name.clone(),
            model: now.model.clone(),
            known: now.known.clone(),
            region: now.region,
            size: now.size,
            picture_at: now.came,
            pictures: now.counts.frames,
            classified: now.counts.passed,
            changes: now.counts.changes,
            reopened: self.reopened.load(Ordering::Relaxed),
            trouble: now.trouble.clone(),
            answer: now.answers.back().cloned(),
        }
    }
}
