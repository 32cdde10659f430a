//! Cameras: each has a thread that reads its source and one that looks at the pictures.
//!
//! ```text
//! source --reader: opens, reads, opens anew--> the newest picture --watch: region, gate, pace--> model --> standing --> sinks
//!                                                                        |
//!                                                                        +--> live: what the page and the paths show
//! ```

mod live;
mod newest;
mod reader;
pub mod routes;
mod site;
mod source;
mod watch;

pub use live::Live;
pub use routes::content_type;
pub use source::Inlet;

use super::http::Service;
use crate::arguments::tables::{Camera, Tables};
use anyhow::Context;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::runtime::Handle;

/// All cameras, by name.
#[derive(Default)]
pub struct Cameras {
    live: BTreeMap<String, Arc<Live>>,
    /// Those that were not started yet.
    waiting: Mutex<Vec<(Camera, source::Open)>>,
    /// Topics on which pictures come.
    inlets: Vec<(String, Arc<Inlet>)>,
}

impl Cameras {
    /// As the tables say; nothing is opened yet.
    ///
    /// # Errors
    /// If one never can be.
    pub fn new(tables: &Tables) -> anyhow::Result<Self> {
        let mut cameras = Self::default();
        for camera in &tables.camera {
            let open = match camera.topic() {
                Some(topic) => {
                    let inlet = Arc::<Inlet>::default();
                    cameras.inlets.push((topic.to_string(), inlet.clone()));
                    source::of_inlet(inlet)
                }
                None => source::opener(camera).with_context(|| format!("[[camera]] {:?}", camera.name))?,
            };
            cameras.live.insert(camera.name.clone(), Arc::new(Live::new(camera)));
            super::lock::locked(&cameras.waiting).push((camera.clone(), open));
        }
        Ok(cameras)
    }

    /// The one of a name.
    pub fn get(&self, name: &str) -> Option<&Arc<Live>> {
        self.live.get(name)
    }

    /// All of them, by name.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Live>> {
        self.live.values()
    }

    /// Topics on which cameras' pictures come, and where they go.
    pub fn inlets(&self) -> impl Iterator<Item = (&str, &Arc<Inlet>)> {
        self.inlets.iter().map(|(topic, inlet)| (topic.as_str(), inlet))
    }

    /// Ends programs that were started.
    pub fn stop(&self) {
        self.all().for_each(|live| live.stop());
    }
}

/// Starts all cameras; questions to models are asked on `runtime`.
pub fn start(service: &Arc<Service>, runtime: &Handle) {
    for (camera, open) in std::mem::take(&mut *super::lock::locked(&service.cameras.waiting)) {
        let Some(live) = service.cameras.get(&camera.name).cloned() else { continue };
        let frames = reader::start(&camera, open, live.clone());
        watch::start(camera, frames, live, Arc::downgrade(service), runtime.clone());
    }
}
