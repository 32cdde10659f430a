//! Pictures that came over the broker: whoever of a group is free answers, and only then lets the broker forget the request. One that comes
//! again, because its answer was lost or its sender impatient, gets the answer that it had.

use super::client::{Client, Incoming};
use crate::serve::http::Service;
use crate::serve::lock::locked;
use crate::serve::served::Refusal;
use metrics::counter;
use paradise_runtime::oip::Pictures;
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

/// Answers that are remembered.
const ANSWERS: usize = 16_384;
/// Before a busy model is asked again.
const BUSY: Duration = Duration::from_millis(20);

/// Who asked, and by what they tell answers apart.
type Key = (String, Vec<u8>);

/// Answers of late.
#[derive(Default)]
pub struct Answers(Mutex<Known>);

#[derive(Default)]
struct Known {
    answers: HashMap<Key, Vec<u8>>,
    /// The oldest first.
    order: VecDeque<Key>,
}

impl Answers {
    fn get(&self, key: &Key) -> Option<Vec<u8>> {
        locked(&self.0).answers.get(key).cloned()
    }

    fn put(&self, key: Key, answer: Vec<u8>) {
        let mut known = locked(&self.0);
        let Known { answers, order } = &mut *known;
        if answers.insert(key.clone(), answer).is_none() {
            order.push_back(key);
        }
        if order.len() > ANSWERS
            && let Some(oldest) = order.pop_front()
        {
            answers.remove(&oldest);
        }
    }
}

/// Answers a request, if it says where to. When this returns, the broker has the answer.
pub async fn answer(service: &Service, client: &Client, answers: &Answers, device: &str, incoming: &Incoming) {
    let Some(topic) = incoming.response_topic() else {
        tracing::warn!("{}: a request without a response topic", incoming.topic());
        return;
    };
    let key = incoming.correlation().map(|correlation| (topic.to_string(), correlation.to_vec()));
    let known = key.as_ref().and_then(|key| answers.get(key));
    if known.is_some() {
        counter!("paradise_requests_repeated").increment(1);
    }
    let payload = match known {
        Some(payload) => payload,
        None => {
            let mut verdict = classify(service, incoming).await;
            verdict["device"] = json!(device);
            verdict.to_string().into_bytes()
        }
    };
    if let Some(key) = key {
        answers.put(key, payload.clone());
    }
    let Some(message) = incoming.answer(payload) else { return };
    while client.send(message.clone()).await.is_err() {
        client.up().await;
        tokio::time::sleep(BUSY).await;
    }
}

async fn classify(service: &Service, incoming: &Incoming) -> Value {
    let served = match service.registry.named(incoming.property("model")) {
        Ok(served) => served,
        Err(missing) => return json!({ "error": missing.why() }),
    };
    let pictures = || Pictures::Encoded(vec![incoming.payload().to_vec()]);
    loop {
        return match served.ask(pictures()).await {
            Ok(verdicts) => match verdicts.first().map(serde_json::to_value) {
                Some(Ok(mut verdict)) => {
                    verdict["model"] = json!(served.name);
                    verdict["version"] = json!(served.version);
                    verdict
                }
                _ => json!({ "error": "no verdict" }),
            },
            Err(Refusal::Busy) => {
                tokio::time::sleep(BUSY).await;
                continue;
            }
            Err(refusal) => json!({ "error": refusal.why() }),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_remembered_until_there_are_too_many() {
        let answers = Answers::default();
        let key = |k: usize| ("reply".to_string(), k.to_le_bytes().to_vec());
        for k in 0..=ANSWERS {
            answers.put(key(k), vec![k as u8]);
        }
        assert_eq!([answers.get(&key(0)), answers.get(&key(1))], [None, Some(vec![1])]);
    }
}
