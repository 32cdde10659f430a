//! `paradised serve`: pictures in, verdicts out, over HTTP.
//!
//! ```text
//! listen --> http: native.rs, oip.rs --> registry: name, version --> served: queue --> worker: one thread, one back end
//! sentry: memory, pictures, answers of late --> faults --> registry
//! folder of models --> guard: what is new --> source: checks, self-test --> registry
//! ```

mod body;
mod exam;
mod faults;
mod guard;
mod here;
mod http;
mod listen;
mod lock;
mod logs;
mod meters;
mod native;
mod notify;
mod oip;
mod policy;
mod registry;
mod sandbox;
mod sentry;
mod served;
mod source;
mod tls;
mod trouble;
mod watched;
mod worker;

pub use http::run;
pub use policy::check;
