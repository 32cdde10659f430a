//! The body of a request, within the limits of size and time: a picture's bytes and nothing around them, or anything.

use super::listen::BODY;
use super::trouble::Trouble;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// What is told to whoever sends something else.
const WANTED: &str =
    "the body must be the bytes of one picture file, as `curl --data-binary @picture.jpg` sends them";

/// How long, and how much of, a refused body is still read, so that its sender sees the answer and not a broken connection.
const DRAIN: (Duration, u64) = (Duration::from_secs(10), 256 << 20);

/// Why a body is refused.
pub type Refusal = (StatusCode, String);

fn value(headers: &HeaderMap, name: header::HeaderName) -> String {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("").trim().to_lowercase()
}

/// Refuses bodies that are more than a picture, by what their headers say.
fn is_picture(headers: &HeaderMap) -> Result<(), Refusal> {
    let kind = value(headers, header::CONTENT_TYPE);
    let wrapped = kind.starts_with("multipart/") || kind.starts_with("application/json") || kind.contains("+json");
    if wrapped {
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("{kind}: {WANTED}")));
    }
    is_plain(headers, WANTED)
}

/// Refuses bodies that are compressed.
fn is_plain(headers: &HeaderMap, wanted: &str) -> Result<(), Refusal> {
    match &*value(headers, header::CONTENT_ENCODING) {
        "" | "identity" => Ok(()),
        encoding => Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("content encoding {encoding}: {wanted}"))),
    }
}

/// Reads a picture's bytes, at most `limit`. A body whose length is announced as more is refused before it is read.
pub async fn picture(headers: &HeaderMap, body: Body, limit: usize) -> Result<Vec<u8>, Refusal> {
    let bytes = read(headers, body, limit, is_picture(headers)).await?;
    look(&bytes).map(|()| bytes)
}

/// Reads a body of any kind, as [`picture`].
pub async fn any(headers: &HeaderMap, body: Body, limit: usize) -> Result<Vec<u8>, Refusal> {
    read(headers, body, limit, is_plain(headers, "send it as it is")).await
}

/// Refuses bodies that are more than a picture, by how they begin.
fn look(bytes: &[u8]) -> Result<(), Refusal> {
    let what = match bytes {
        [0x1f, 0x8b, ..] => "gzip",
        [b'{' | b'[' | b'"', ..] => "JSON",
        [b'-', b'-', ..] => "multipart",
        _ => return Ok(()),
    };
    Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("this looks like {what}: {WANTED}")))
}

/// Largest body of a setting, bytes.
const MAX_SETTING: usize = 4096;

/// Reads the body of a setting: an object in JSON.
pub async fn setting<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<T, Trouble> {
    let bytes = any(headers, body, MAX_SETTING).await.map_err(Trouble::body)?;
    object(&bytes).map_err(Trouble::bad)
}

/// [`setting`], or nothing where there is no body.
pub async fn setting_if_any<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<Option<T>, Trouble> {
    let bytes = any(headers, body, MAX_SETTING).await.map_err(Trouble::body)?;
    if bytes.is_empty() { Ok(None) } else { object(&bytes).map(Some).map_err(Trouble::bad) }
}

/// What an object in JSON says; serde would also take its values in a list, in their order.
///
/// # Errors
/// If it is none, or says something else.
pub fn object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    serde_json::from_value(object.into()).map_err(|error| error.to_string())
}

fn too_large(limit: usize) -> Refusal {
    (StatusCode::PAYLOAD_TOO_LARGE, format!("the body exceeds the limit of {limit} bytes"))
}

/// Reads a body of at most `limit` bytes, unless it is refused for another reason.
async fn read(
    headers: &HeaderMap,
    mut body: Body,
    limit: usize,
    wanted: Result<(), Refusal>,
) -> Result<Vec<u8>, Refusal> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    let refused = match announced {
        Some(length) if length > limit as u64 => Err(too_large(limit)),
        _ => wanted,
    };
    if let Err(refusal) = refused {
        drain(body);
        return Err(refusal);
    }
    let mut bytes = Vec::with_capacity(announced.unwrap_or(0).min(limit as u64) as usize);
    let receive = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|why| (StatusCode::BAD_REQUEST, format!("the body broke off: {why}")))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > limit {
                return Err(too_large(limit));
            }
            bytes.extend_from_slice(&data);
        }
        Ok(())
    };
    match tokio::time::timeout(BODY, receive).await {
        Ok(Ok(())) => Ok(bytes),
        Ok(Err(refusal)) => {
            drain(body);
            Err(refusal)
        }
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, format!("the body did not arrive within {} s", BODY.as_secs()))),
    }
}

/// Reads on and forgets, while the answer is being sent.
fn drain(mut body: Body) {
    tokio::spawn(async move {
        let (time, most) = DRAIN;
        let forget = async {
            let mut left = most;
            while let Some(Ok(frame)) = body.frame().await {
                let length = frame.data_ref().map_or(0, |d| d.len() as u64);
                left = left.saturating_sub(length);
                if left == 0 {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(time, forget).await;
    });
}
