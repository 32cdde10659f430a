//! Events as JSON, posted to an address. One that is not taken is tried again for a minute, while others wait.

use super::{Event, Sink, dropped};
use crate::arguments::secret;
use crate::arguments::tables::Webhook;
use crate::serve::http_client::client;
use crate::serve::retries::Retries;
use std::time::{Duration, Instant};
use ureq::Agent;

/// Longest wait for an answer.
const WAIT: Duration = Duration::from_secs(5);
/// So long one event is tried.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two tries, at first and at most.
const AGAIN: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(10)];

/// An address.
pub struct Hook {
    agent: Agent,
    url: String,
    token: Option<String>,
}

/// Why an event was not taken.
enum Refused {
    /// It never will be.
    Ever(String),
    Now(String),
}

impl Hook {
    /// As the table says.
    ///
    /// # Errors
    /// If the token or the certificate to trust cannot be read.
    pub fn new(settings: &Webhook) -> anyhow::Result<Self> {
        let token = settings.token.as_deref().map(secret).transpose()?.map(|token| token.trim().to_string());
        Ok(Self { agent: client(WAIT, settings.ca.as_deref())?, url: settings.url.clone(), token })
    }

    fn post(&self, id: &str, body: &str) -> Result<(), Refused> {
        let mut request = self.agent.post(&self.url).content_type("application/json").header("Idempotency-Key", id);
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        match request.send(body) {
            Ok(_) => Ok(()),
            // What they do not understand now they will not later; but for those that say so.
            Err(ureq::Error::StatusCode(status @ (400..=407 | 409..=428 | 430..=499))) => {
                Err(Refused::Ever(format!("status {status}")))
            }
            Err(error) => Err(Refused::Now(error.to_string())),
        }
    }
}

impl Sink for Hook {
    fn take(&mut self, event: &Event) {
        let Ok(body) = serde_json::to_string(event) else { return dropped("webhook") };
        let (began, mut retries) = (Instant::now(), Retries::new(AGAIN));
        loop {
            let why = match self.post(&event.id, &body) {
                Ok(()) => return,
                Err(Refused::Now(why)) => {
                    let wait = retries.next_wait();
                    if began.elapsed() + wait < PATIENCE {
                        std::thread::sleep(wait);
                        continue;
                    }
                    why
                }
                Err(Refused::Ever(why)) => why,
            };
            tracing::error!("{}: {why}", self.url);
            return dropped("webhook");
        }
    }
}
