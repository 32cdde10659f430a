//! Why a request has no answer: a status and a sentence.

use super::http::answer;
use super::listen;
use super::registry::{Failed, Missing};
use super::served::Refusal;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Why there is none.
#[derive(Debug)]
pub struct Trouble {
    status: StatusCode,
    why: String,
    then: Then,
}

/// What goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Nothing,
    /// The connection ends: what else its client sends is not read.
    Close,
    /// In a second it may be otherwise.
    Retry,
}

impl Trouble {
    /// This status, for this reason.
    pub fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into(), then: Then::Nothing }
    }

    /// Something is wrong with the request.
    pub fn bad(why: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, why)
    }

    /// A body that is not wanted.
    pub fn body((status, why): (StatusCode, String)) -> Self {
        Self { status, why, then: Then::Close }
    }

    /// Pictures have no verdicts; `picture` is the status for what is wrong with one.
    pub fn refused(refusal: Refusal, picture: StatusCode) -> Self {
        match refusal {
            Refusal::Picture(why) => Self::new(picture, format!("request body: {why}")),
            Refusal::Busy => Self {
                status: StatusCode::SERVICE_UNAVAILABLE,
                why: "busy: the queue is full, try again".into(),
                then: Then::Retry,
            },
            Refusal::Down(why) => Self::new(StatusCode::SERVICE_UNAVAILABLE, format!("the model is down: {why}")),
            Refusal::Lost(why) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, why),
            Refusal::Late => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, format!("no answer within {} s", listen::ANSWER.as_secs()))
            }
        }
    }
}

impl From<Missing> for Trouble {
    fn from(missing: Missing) -> Self {
        match missing {
            Missing::Unknown(why) => Self::new(StatusCode::NOT_FOUND, why),
            Missing::Ambiguous(why) => Self::bad(why),
            Missing::Unavailable(why) => Self::new(StatusCode::SERVICE_UNAVAILABLE, why),
        }
    }
}

impl From<Failed> for Trouble {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Missing(missing) => missing.into(),
            Failed::Refused(error) => Self::new(StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}")),
        }
    }
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let mut response = answer(self.status, &json!({ "error": self.why }));
        match self.then {
            Then::Nothing => {}
            Then::Close => {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Then::Retry => {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
        }
        response
    }
}
