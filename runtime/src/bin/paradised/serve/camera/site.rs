//! Thresholds for this place from what a camera shows: its pictures are looked at until there are enough, and then decide. Nothing but what the
//! model makes of them is kept.

use super::routes::named;
use crate::serve::asked::Name;
use crate::serve::body;
use crate::serve::http::{Service, answer};
use crate::serve::lock::locked;
use crate::serve::served::Served;
use crate::serve::trouble::Trouble;
use anyhow::Context;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use paradise_runtime::Backend;
use paradise_runtime::site::{MIN_PICTURES, Observations, Options};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Most pictures that are looked at.
const MOST: usize = 20_000;

/// Pictures of this place so far.
struct Collected {
    served: Arc<Served>,
    backend: Box<dyn Backend>,
    seen: Observations,
    last: Option<Instant>,
    repeated: usize,
}

/// What is collected of a camera, if anything is.
pub struct Site {
    now: Mutex<Option<Collected>>,
    /// Between two of its pictures.
    between: Duration,
}

impl Site {
    /// Nothing yet; pictures that follow one another quicker than this show little else.
    pub fn new(between: Duration) -> Self {
        Self { now: Mutex::default(), between }
    }

    fn begin(&self, served: Arc<Served>) -> anyhow::Result<()> {
        let backend = served.another()?;
        let seen = Observations::new(backend.as_ref());
        *locked(&self.now) = Some(Collected { served, backend, seen, last: None, repeated: 0 });
        Ok(())
    }

    /// Whether the next picture is wanted.
    pub fn wants(&self) -> bool {
        let collected = locked(&self.now);
        let fits =
            |one: &Collected| one.seen.len() < MOST && one.last.is_none_or(|last| last.elapsed() >= self.between);
        collected.as_ref().is_some_and(fits)
    }

    /// An input of the model that serves this camera.
    pub fn sees(&self, served: &Arc<Served>, input: &[u8]) {
        let mut collected = locked(&self.now);
        // Another version of the model has come meanwhile: what the old one made of pictures tells nothing of it.
        if collected.as_ref().is_some_and(|one| !Arc::ptr_eq(&one.served, served)) {
            *collected = None;
        }
        let Some(one) = &mut *collected else { return };
        one.last = Some(Instant::now());
        let name = one.seen.len().to_string();
        match one.seen.add(one.backend.as_mut(), &name, input, None) {
            Ok(is_new) => one.repeated += usize::from(!is_new),
            Err(error) => tracing::error!("a picture of this place is left out: {error}"),
        }
    }

    fn report(&self) -> Value {
        match &*locked(&self.now) {
            None => json!({ "collecting": false, "need": MIN_PICTURES }),
            Some(one) => json!({
                "collecting": true,
                "model": one.served.name,
                "pictures": one.seen.len(),
                "repeated": one.repeated,
                "abstained": one.seen.abstained().share(),
                "need": MIN_PICTURES,
            }),
        }
    }

    fn finish(&self, service: &Service, options: &Options) -> anyhow::Result<Value> {
        let mut collected = locked(&self.now);
        let one = collected.as_mut().context("no pictures are collected; POST begins")?;
        let (site, report) = one.seen.calibrate(one.backend.as_mut(), options)?;
        let said = site.to_string();
        one.served.decide_by(service.rules.settle(&one.served.name, site)?)?;
        service.faults.note("site", &one.served.name, &said);
        *collected = None;
        Ok(serde_json::to_value(&report)?)
    }
}

/// How far it is.
pub async fn report(State(service): State<Arc<Service>>, Name(name): Name) -> Result<Response, Trouble> {
    Ok(answer(StatusCode::OK, &named(&service, &name)?.site.report()))
}

/// Begins anew.
pub async fn begin(State(service): State<Arc<Service>>, Name(name): Name) -> Result<Response, Trouble> {
    let live = named(&service, &name)?;
    let served = service.registry.named(live.model.as_deref())?;
    let begun = tokio::task::block_in_place(|| live.site.begin(served));
    begun.map_err(|error| Trouble::new(StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}")))?;
    Ok(answer(StatusCode::ACCEPTED, &live.site.report()))
}

/// Forgets what was collected.
pub async fn forget(State(service): State<Arc<Service>>, Name(name): Name) -> Result<Response, Trouble> {
    let live = named(&service, &name)?;
    *locked(&live.site.now) = None;
    Ok(answer(StatusCode::OK, &live.site.report()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Promise {
    /// Share of ordinary pictures that may be abstained from.
    promise: f64,
}

impl Default for Promise {
    fn default() -> Self {
        Self { promise: Options::default().promise }
    }
}

/// Lets what was collected decide, from now on.
pub async fn settle(
    State(service): State<Arc<Service>>,
    Name(name): Name,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Trouble> {
    let live = named(&service, &name)?;
    let Promise { promise } = body::setting_if_any(&headers, body).await?.unwrap_or_default();
    if !(0.0..=0.5).contains(&promise) || promise == 0.0 {
        return Err(Trouble::bad(format!("promise {promise}: a share above 0, at most 0.5")));
    }
    let options = Options { promise, ..Options::default() };
    let done = tokio::task::block_in_place(|| live.site.finish(&service, &options));
    Ok(answer(StatusCode::OK, &done.map_err(|error| Trouble::new(StatusCode::CONFLICT, format!("{error:#}")))?))
}
