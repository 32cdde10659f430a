//! Hard samples: pictures that were abstained from, or nearly were, kept for the next training if that was asked for. Without `[samples]` no
//! picture is ever written.

use super::asked::Name;
use super::http::{Service, answer};
use super::lock::locked;
use super::trouble::Trouble;
use crate::arguments::tables;
use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::{SignedDuration, Timestamp};
use metrics::{counter, gauge};
use paradise_runtime::Verdict;
use paradise_runtime::output::write_whole;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Pictures that wait to be written; more are not kept.
const WAITING: usize = 8;

/// What is written beside a picture.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct About {
    id: String,
    time: Timestamp,
    /// A camera's name, or `http`.
    source: String,
    model: String,
    /// The reason of the abstention, or `low margin`.
    why: String,
    /// Probability of the class less that of the next.
    margin: f32,
    label: String,
    bytes: u64,
    /// What the model said.
    answer: serde_json::Value,
}

struct Kept {
    samples: VecDeque<About>,
    bytes: u64,
}

/// A folder of pictures.
struct Store {
    settings: tables::Samples,
    kept: Mutex<Kept>,
    /// When one of each source was kept last.
    last: Mutex<BTreeMap<String, Instant>>,
}

/// What is kept, if anything is.
pub struct Samples {
    store: Option<Arc<Store>>,
    queue: Option<SyncSender<(About, Arc<[u8]>)>>,
}

/// Probability of the class less that of the next.
fn margin(verdict: &Verdict) -> f32 {
    let others = verdict.probabilities.iter().enumerate().filter(|(class, _)| *class != verdict.class);
    verdict.score - others.map(|(_, p)| *p).fold(0.0, f32::max)
}

impl Store {
    fn picture(&self, id: &str) -> PathBuf {
        self.settings.folder.join(format!("{id}.picture"))
    }

    fn about(&self, id: &str) -> PathBuf {
        self.settings.folder.join(format!("{id}.json"))
    }

    /// What lies in the folder, the oldest first.
    fn open(settings: tables::Samples) -> anyhow::Result<Self> {
        let folder = &settings.folder;
        if !folder.is_dir() {
            std::fs::create_dir(folder).with_context(|| folder.display().to_string())?;
        }
        let mut samples = Vec::new();
        for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.extension().is_some_and(|ending| ending == "json")
                && let Ok(about) = serde_json::from_slice::<About>(&std::fs::read(&path)?)
                && path.file_stem().is_some_and(|stem| *stem == *about.id)
            {
                samples.push(about);
            }
        }
        samples.sort_by_key(|about| about.time);
        let bytes = samples.iter().map(|about| about.bytes).sum();
        let kept = Kept { samples: samples.into(), bytes };
        Ok(Self { settings, kept: Mutex::new(kept), last: Mutex::default() })
    }

    /// Deletes one; whether it was there.
    fn delete(&self, id: &str) -> std::io::Result<bool> {
        let mut kept = locked(&self.kept);
        let Some(at) = kept.samples.iter().position(|about| about.id == id) else { return Ok(false) };
        // What says what it is goes last: until then it is found again.
        for path in [self.picture(id), self.about(id)] {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if let Some(about) = kept.samples.remove(at) {
            kept.bytes -= about.bytes;
        }
        gauge!("paradise_samples_bytes").set(kept.bytes as f64);
        Ok(true)
    }

    /// Deletes the oldest until so many bytes more fit, and what is too old.
    fn make_room(&self, more: u64) -> std::io::Result<()> {
        let oldest_day = Timestamp::now() - SignedDuration::from_hours(24 * i64::from(self.settings.days));
        loop {
            let oldest = {
                let kept = locked(&self.kept);
                let full = kept.bytes + more > self.settings.bytes;
                kept.samples.front().filter(|about| full || about.time < oldest_day).map(|about| about.id.clone())
            };
            let Some(id) = oldest else { return Ok(()) };
            self.delete(&id)?;
        }
    }

    fn write(&self, mut about: About, picture: &[u8]) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(&about)?;
        about.bytes = (text.len() + picture.len()) as u64;
        if about.bytes > self.settings.bytes {
            return Ok(());
        }
        self.make_room(about.bytes)?;
        write_whole(&self.picture(&about.id), picture)?;
        write_whole(&self.about(&about.id), &serde_json::to_vec_pretty(&about)?)?;
        let mut kept = locked(&self.kept);
        kept.bytes += about.bytes;
        kept.samples.push_back(about);
        counter!("paradise_samples_kept").increment(1);
        gauge!("paradise_samples_bytes").set(kept.bytes as f64);
        Ok(())
    }
}

impl Samples {
    /// As the table says; without one, nothing is kept.
    ///
    /// # Errors
    /// If the folder cannot be read or made.
    pub fn open(settings: Option<&tables::Samples>) -> anyhow::Result<Self> {
        let Some(settings) = settings else { return Ok(Self { store: None, queue: None }) };
        let store = Arc::new(Store::open(settings.clone())?);
        store.make_room(0)?;
        let (queue, waiting) = sync_channel::<(About, Arc<[u8]>)>(WAITING);
        let mine = store.clone();
        std::thread::spawn(move || {
            for (about, picture) in waiting {
                if let Err(error) = mine.write(about, &picture) {
                    tracing::error!("{}: a hard sample is not kept: {error:#}", mine.settings.folder.display());
                }
            }
        });
        Ok(Self { store: Some(store), queue: Some(queue) })
    }

    /// Whether any are kept.
    pub fn wants(&self) -> bool {
        self.store.is_some()
    }

    /// A picture was answered: it is kept if it was hard, and none of its source was of late.
    pub fn offer(&self, source: &str, model: &str, picture: &Arc<[u8]>, verdict: &Verdict) {
        let (Some(store), Some(queue)) = (&self.store, &self.queue) else { return };
        let margin = margin(verdict);
        let why = match verdict.decision.reason() {
            Some(reason) => reason.name(),
            None if margin < store.settings.margin => "low margin",
            None => return,
        };
        let between = Duration::from_secs(store.settings.between_seconds);
        {
            let mut last = locked(&store.last);
            if last.get(source).is_some_and(|last| last.elapsed() < between) {
                return;
            }
            last.insert(source.to_string(), Instant::now());
        }
        let time = Timestamp::now();
        let about = About {
            id: format!("{}-{source}", time.as_microsecond()),
            time,
            source: source.into(),
            model: model.into(),
            why: why.into(),
            margin,
            label: verdict.label.clone(),
            bytes: 0,
            answer: serde_json::to_value(verdict).unwrap_or_default(),
        };
        // A disk that is slow must not hold up a camera.
        let _ = queue.try_send((about, picture.clone()));
    }

    fn store(&self) -> Result<&Arc<Store>, Trouble> {
        let none = || Trouble::new(StatusCode::NOT_FOUND, "no pictures are kept: the settings have no [samples]");
        self.store.as_ref().ok_or_else(none)
    }
}

/// The paths.
pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/v1/samples", get(list).delete(clear))
        .route("/v1/samples/{sample}", get(picture).delete(delete))
}

async fn list(State(service): State<Arc<Service>>) -> Response {
    let Some(store) = &service.samples.store else {
        return answer(StatusCode::OK, &json!({ "kept": false, "samples": [] }));
    };
    let kept = locked(&store.kept);
    let said =
        json!({ "kept": true, "bytes": kept.bytes, "most_bytes": store.settings.bytes, "samples": kept.samples });
    answer(StatusCode::OK, &said)
}

fn missing(id: &str) -> Trouble {
    Trouble::new(StatusCode::NOT_FOUND, format!("no picture {id:?} is kept"))
}

async fn picture(State(service): State<Arc<Service>>, Name(id): Name) -> Result<Response, Trouble> {
    let store = service.samples.store()?;
    // A name that is kept has no path in it.
    if !locked(&store.kept).samples.iter().any(|about| about.id == id) {
        return Err(missing(&id));
    }
    let bytes = std::fs::read(store.picture(&id)).map_err(|_| missing(&id))?;
    let kind = super::camera::content_type(&bytes);
    Ok(([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-store")], bytes).into_response())
}

fn failed(error: &std::io::Error) -> Trouble {
    Trouble::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

async fn delete(State(service): State<Arc<Service>>, Name(id): Name) -> Result<Response, Trouble> {
    match service.samples.store()?.delete(&id) {
        Ok(true) => Ok(answer(StatusCode::OK, &json!({ "deleted": 1 }))),
        Ok(false) => Err(missing(&id)),
        Err(error) => Err(failed(&error)),
    }
}

async fn clear(State(service): State<Arc<Service>>) -> Result<Response, Trouble> {
    let store = service.samples.store()?;
    let all: Vec<String> = locked(&store.kept).samples.iter().map(|about| about.id.clone()).collect();
    let mut deleted = 0;
    for id in &all {
        deleted += u32::from(store.delete(id).map_err(|error| failed(&error))?);
    }
    Ok(answer(StatusCode::OK, &json!({ "deleted": deleted })))
}
