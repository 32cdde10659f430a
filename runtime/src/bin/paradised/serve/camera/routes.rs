//! Paths of cameras, under `/v1/cameras`.

use super::{Live, site};
use crate::serve::asked::Name;
use crate::serve::body;
use crate::serve::http::{Service, answer};
use crate::serve::trouble::Trouble;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use paradise_engine::Shape;
use paradise_picture::Picture;
use paradise_runtime::camera::region::Region;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

/// The paths.
pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/v1/cameras", get(all))
        .route("/v1/cameras/{camera}", get(one))
        .route("/v1/cameras/{camera}/picture", get(picture))
        .route("/v1/cameras/{camera}/answers", get(answers))
        .route("/v1/cameras/{camera}/classify", post(classify))
        .route("/v1/cameras/{camera}/region", put(region))
        .route(
            "/v1/cameras/{camera}/site",
            get(site::report).post(site::begin).put(site::settle).delete(site::forget),
        )
}

/// The camera of a name.
pub fn named<'s>(service: &'s Service, name: &str) -> Result<&'s Arc<Live>, Trouble> {
    service.cameras.get(name).ok_or_else(|| {
        let known: Vec<&str> = service.cameras.all().map(|live| live.name.as_str()).collect();
        Trouble::new(StatusCode::NOT_FOUND, format!("no camera {name:?}; there are {}", known.join(", ")))
    })
}

/// How each camera stands.
async fn all(State(service): State<Arc<Service>>) -> Response {
    let cameras: Vec<_> = service.cameras.all().map(|live| live.report()).collect();
    answer(StatusCode::OK, &json!({ "cameras": cameras }))
}

async fn one(State(service): State<Arc<Service>>, Name(name): Name) -> Result<Response, Trouble> {
    Ok(answer(StatusCode::OK, &named(&service, &name)?.report()))
}

/// The last picture, as it came.
async fn picture(State(service): State<Arc<Service>>, Name(name): Name) -> Result<Response, Trouble> {
    let Some(bytes) = named(&service, &name)?.picture() else {
        return Err(Trouble::new(StatusCode::NOT_FOUND, format!("camera {name:?} has shown no picture yet")));
    };
    let bytes = shown(bytes)?;
    let headers = [(header::CONTENT_TYPE, content_type(&bytes)), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, bytes.to_vec()).into_response())
}

/// A picture as browsers show it: one without compression becomes a PNG file.
fn shown(bytes: Arc<[u8]>) -> Result<Vec<u8>, Trouble> {
    if !bytes.starts_with(b"P6") {
        return Ok(bytes.to_vec());
    }
    let failed = || Trouble::new(StatusCode::INTERNAL_SERVER_ERROR, "the picture cannot be shown");
    let picture = Picture::decode(&bytes).map_err(|_| failed())?;
    let side = |side: u32| u16::try_from(side).map_err(|_| failed());
    let shape = Shape::new(side(picture.height())?, side(picture.width())?, 3);
    paradise_picture::png(picture.pixels(), shape).ok_or_else(failed)
}

/// What a picture's bytes are.
pub fn content_type(bytes: &[u8]) -> &'static str {
    match bytes {
        [0xff, 0xd8, ..] => "image/jpeg",
        [0x89, b'P', b'N', b'G', ..] => "image/png",
        _ => "application/octet-stream",
    }
}

/// Answers of late, the oldest first.
async fn answers(State(service): State<Arc<Service>>, Name(name): Name) -> Result<Response, Trouble> {
    Ok(answer(StatusCode::OK, &json!({ "answers": named(&service, &name)?.answers() })))
}

/// Asks for the next picture to be classified.
async fn classify(State(service): State<Arc<Service>>, Name(name): Name) -> Result<Response, Trouble> {
    named(&service, &name)?.ask();
    Ok(answer(StatusCode::ACCEPTED, &json!({ "camera": name })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Looks {
    region: Option<Region>,
}

/// Looks at another part from now on, until the service is started anew.
async fn region(
    State(service): State<Arc<Service>>,
    Name(name): Name,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Trouble> {
    let live = named(&service, &name)?;
    let Looks { region } = body::setting(&headers, body).await?;
    if let (Some(region), Some([width, height])) = (region, live.size()) {
        let [x, y, w, h] = region.into();
        if x + w > width || y + h > height {
            return Err(Trouble::bad(format!("{region} is not inside of the picture of {width} x {height}")));
        }
    }
    live.look_at(region);
    service.faults.note("region", live.model.as_deref().unwrap_or_default(), &format!("camera {name}: {region:?}"));
    Ok(answer(StatusCode::OK, &json!({ "camera": name, "region": region })))
}
