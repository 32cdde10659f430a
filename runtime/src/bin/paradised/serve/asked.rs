//! What paths and queries name, refused in JSON as everything else is.

use super::trouble::Trouble;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use serde::Deserialize;

/// The one name in a path.
pub struct Name(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Trouble;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Trouble> {
        let Path(name) =
            Path::from_request_parts(parts, state).await.map_err(|error| Trouble::bad(error.body_text()))?;
        Ok(Self(name))
    }
}

/// The model that a query names, `?model=NAME`, if it does.
pub struct Which(pub Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for Which {
    type Rejection = Trouble;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Trouble> {
        #[derive(Deserialize)]
        struct Asked {
            model: Option<String>,
        }
        match Query::from_request_parts(parts, state).await {
            Ok(Query(Asked { model })) => Ok(Self(model)),
            Err(_) => Err(Trouble::bad("the path may end with ?model=NAME, and with nothing else")),
        }
    }
}
