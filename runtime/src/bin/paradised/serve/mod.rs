//! `paradised serve`: pictures in, verdicts out, over HTTP.
//!
//! ```text
//! listen --> http: native.rs, oip.rs --> registry: name, version --> served: queue --> worker: one thread, one back end
//! ```

mod body;
mod http;
mod listen;
mod native;
mod oip;
mod registry;
mod served;
mod trouble;
mod worker;

pub use http::run;
