//! `paradised serve`: pictures in, verdicts out, over HTTP.
//!
//! ```text
//! listen --> http: native.rs, oip.rs --> registry: name, version --> served: queue --> worker: one thread, one back end
//! sentry: memory, pictures, answers of late --> faults --> registry
//! cameras, folders --> served --> sinks: file, webhook, MQTT; hard samples
//! folder of models --> guard: what is new --> source: checks, self-test --> registry
//! ```

mod asked;
mod body;
mod camera;
mod exam;
mod faults;
mod folder;
mod gpio_lines;
mod guard;
mod here;
mod http;
mod http_client;
mod listen;
mod lock;
mod logs;
mod meters;
mod mqtt;
mod native;
mod notify;
mod oip;
mod page;
mod policy;
mod registry;
mod retries;
mod rules;
mod samples;
mod sandbox;
mod sentry;
mod served;
mod sink;
mod source;
mod thresholds;
mod tls;
mod trouble;
mod watched;
mod worker;

pub use http::run;
pub use mqtt::address;
pub use policy::check;
