//! Looks at a camera's pictures, asks the model about those that are worth it, and says when something else is known.

use super::Live;
use super::newest::Newest;
use super::reader::News;
use crate::arguments::tables::Camera;
use crate::serve::http::Service;
use crate::serve::served::Served;
use crate::serve::sink::{Event, Known};
use crate::serve::worker::room;
use jiff::Timestamp;
use paradise_engine::Decision;
use paradise_picture::Picture;
use paradise_runtime::Verdict;
use paradise_runtime::camera::gate::{Cells, SIDE};
use paradise_runtime::camera::observer::Observer;
use paradise_runtime::oip::Pictures;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// A source that is silent for longer, and for ten intervals, hangs: it is ended, and opened anew.
const HANGS: Duration = Duration::from_secs(10);
/// Longest wait between two looks at the clock.
const TICK: Duration = Duration::from_millis(100);

/// Starts to look.
pub fn start(camera: Camera, frames: Arc<Newest<News>>, live: Arc<Live>, service: Weak<Service>, runtime: Handle) {
    let Some(observer) = Observer::new(camera.observed(), Instant::now()) else { return };
    std::thread::spawn(move || {
        let mut watch = Watch {
            hangs: HANGS.max(10 * camera.interval()),
            observer,
            live,
            runtime,
            silent: Instant::now(),
            served: None,
        };
        loop {
            let news = frames.take(TICK.min(camera.interval() / 2));
            let Some(service) = service.upgrade() else { return };
            if watch.live.is_stopped() {
                return;
            }
            watch.step(&service, news);
        }
    });
}

struct Watch {
    observer: Observer,
    live: Arc<Live>,
    runtime: Handle,
    hangs: Duration,
    /// Since when nothing comes.
    silent: Instant,
    /// The model that was asked last.
    served: Option<Arc<Served>>,
}

/// A picture that was looked at.
struct Looked {
    size: [u32; 2],
    digest: u32,
    region: Picture,
    cells: Cells,
}

impl Watch {
    fn step(&mut self, service: &Service, news: Option<News>) {
        let now = Instant::now();
        match news {
            Some(News::Picture(bytes)) => {
                self.silent = now;
                self.picture(service, bytes.into());
            }
            Some(News::Lost(why)) => {
                self.live.troubles(why);
                if self.observer.lost(now) {
                    self.tell(service, None);
                }
            }
            None => {
                if self.observer.tick(now) {
                    self.tell(service, None);
                }
                if now.duration_since(self.silent) > self.hangs {
                    self.silent = now;
                    self.live.end_source();
                }
            }
        }
    }

    fn picture(&mut self, service: &Service, bytes: Arc<[u8]>) {
        let Looked { size, digest, region, cells } = match self.look(service, &bytes) {
            Ok(looked) => looked,
            // It counts as none: a camera of which nothing can be read is silent.
            Err(why) => return self.live.troubles(why),
        };
        if self.live.site.wants()
            && let Ok((served, input)) = self.input(service, &region)
        {
            self.live.site.sees(&served, &input);
        }
        let (classify, mut turned) = self.observer.frame(digest, &cells, self.live.is_asked(), Instant::now());
        self.live.shows(bytes.clone(), size, self.observer.counts());
        let mut answer = None;
        if classify {
            match self.ask(service, &region) {
                Ok((served, verdict)) => {
                    let seen = match verdict.decision {
                        Decision::Accept => Ok((verdict.class, verdict.score)),
                        Decision::Abstain(why) => Err(why),
                    };
                    service.samples.offer(&self.live.name, &served.name, &bytes, &verdict);
                    let verdict = Arc::new(verdict);
                    self.live.answered(&served.name, verdict.clone());
                    self.served = Some(served);
                    turned |= self.observer.answered(seen, Instant::now());
                    answer = Some(verdict);
                }
                Err(why) => self.live.troubles(why),
            }
        }
        if turned {
            self.tell(service, answer);
        }
    }

    /// Decodes a picture, within limits, and cuts out its region.
    fn look(&self, service: &Service, bytes: &[u8]) -> Result<Looked, String> {
        let whole = room(bytes, service.max_decoded).and_then(|()| Picture::decode(bytes));
        let whole = whole.map_err(|error| error.to_string())?;
        let (size, digest) = ([whole.width(), whole.height()], crc32fast::hash(whole.pixels()));
        let region = match self.live.region() {
            None => whole,
            Some(region) => region.of(&whole).ok_or_else(|| {
                format!("the region, {region}, is not inside of a picture of {} x {}", size[0], size[1])
            })?,
        };
        let cells = region.means::<SIDE, { SIDE * SIDE }>();
        Ok(Looked { size, digest, region, cells })
    }

    /// The model, and its input for a region.
    fn input(&self, service: &Service, region: &Picture) -> Result<(Arc<Served>, Vec<u8>), String> {
        let served = service.registry.named(self.live.model.as_deref());
        let served = served.map_err(|missing| missing.why().to_string())?;
        let input = region.input(&served.policy, served.input).map_err(|error| error.to_string())?;
        Ok((served, input))
    }

    fn ask(&self, service: &Service, region: &Picture) -> Result<(Arc<Served>, Verdict), String> {
        let (served, input) = self.input(service, region)?;
        let asked = self.runtime.block_on(served.ask(Pictures::Ready(input)));
        match asked {
            Ok(verdicts) => match <[Verdict; 1]>::try_from(verdicts) {
                Ok([verdict]) => Ok((served, verdict)),
                Err(_) => Err("no verdict".into()),
            },
            Err(refusal) => Err(refusal.why().to_string()),
        }
    }

    /// Says what is known now.
    fn tell(&self, service: &Service, answer: Option<Arc<Verdict>>) {
        let labels = self.served.as_ref().map_or(&[][..], |served| &served.labels);
        let known = Known::of(self.observer.standing(), labels);
        tracing::info!(
            "camera {}: {}{}",
            self.live.name,
            known.state,
            known.label.as_deref().or(known.reason).map(|what| format!(": {what}")).unwrap_or_default()
        );
        self.live.knows(known.clone());
        let named = |read: fn(&Served) -> &str| self.served.as_deref().map_or("", read).to_string();
        service.sinks.tell(&Arc::new(Event {
            id: service.sinks.id(),
            time: Timestamp::now(),
            camera: self.live.name.clone(),
            model: named(|served| &served.name),
            version: named(|served| &served.version),
            known,
            answer,
        }));
    }
}
