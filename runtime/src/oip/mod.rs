//! The Open Inference Protocol, version 2, over HTTP: bytes of a request to pictures, verdicts to bytes of a response. No sockets here.
//!
//! ```text
//! body --Request::parse--> pictures, wanted outputs --(a back end)--> verdicts --Response::write--> body
//! ```
//! Both may be JSON alone, or JSON with raw tensors behind it (the binary tensor extension). A model has one input, `image`: UINT8
//! `[N, height, width, channels]`, ready for the model; or BYTES `[N]`, encoded pictures, made ready as everywhere. Its outputs
//! are the numbers of a [`Verdict`](crate::Verdict), one row a picture ([`outputs`]).

pub mod data;
pub mod metadata;
pub mod outputs;
mod request;
mod response;

pub use request::{Pictures, Request, Wanted};
pub use response::Response;

/// The one input.
pub const INPUT: &str = "image";
/// Most pictures of one request.
pub const MAX_PICTURES: usize = 64;
/// Where binary tensors begin in a body, as its sender says.
pub const HEADER_LENGTH: &str = "inference-header-content-length";
/// What a server of this protocol can do beyond it.
pub const EXTENSIONS: &[&str] = &["binary_tensor_data", "classification", "model_repository"];

/// What is wrong with a request, in words for whoever sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid(pub String);

impl std::fmt::Display for Invalid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Invalid {}

/// An error in words.
pub(crate) fn invalid<T>(why: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid(why.into()))
}

/// A body cut into its JSON and the raw tensors behind it; `header` is what [`HEADER_LENGTH`] says.
///
/// # Errors
/// If the header is no length, or longer than the body.
pub fn cut<'b>(body: &'b [u8], header: Option<&str>) -> Result<(&'b [u8], &'b [u8]), Invalid> {
    let Some(header) = header else { return Ok((body, &[])) };
    let Ok(length) = header.trim().parse::<usize>() else {
        return invalid(format!("Inference-Header-Content-Length: {header:?} is not a length"));
    };
    match body.split_at_checked(length) {
        Some(parts) => Ok(parts),
        None => {
            invalid(format!("Inference-Header-Content-Length: {length} bytes of JSON in a body of {}", body.len()))
        }
    }
}
