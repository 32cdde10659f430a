//! Events that wait for the broker. When there are too many, the oldest give way and are counted; each is sent until the broker has it, in
//! their order.

use super::client::{Client, Message};
use super::topics::Topics;
use crate::serve::lock::locked;
use crate::serve::sink::{Event, Sink, dropped};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

/// Before what did not get there is sent anew.
const AGAIN: Duration = Duration::from_millis(200);

#[derive(Default)]
struct Waiting {
    events: VecDeque<(String, Vec<u8>)>,
    /// The one that is being sent.
    out: Option<(String, Vec<u8>)>,
    /// The last of each camera that the broker has.
    sent: BTreeMap<String, Vec<u8>>,
}

/// Events of all cameras.
pub struct Outbox {
    waiting: Mutex<Waiting>,
    most: usize,
    came: Notify,
}

impl Outbox {
    /// Empty; most events that may wait.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { waiting: Mutex::default(), most, came: Notify::new() })
    }

    fn put(&self, camera: String, event: Vec<u8>) {
        let mut waiting = locked(&self.waiting);
        waiting.events.push_back((camera, event));
        if waiting.events.len() > self.most {
            waiting.events.pop_front();
            dropped("mqtt");
        }
        self.came.notify_one();
    }

    /// The broker has forgotten what it had: it gets the last of each camera for which nothing newer waits.
    pub fn restore(&self) {
        let mut waiting = locked(&self.waiting);
        let Waiting { events, out, sent } = &mut *waiting;
        let newer = |camera: &String| events.iter().chain(out.iter()).any(|(other, _)| other == camera);
        let old = sent.iter().filter(|(camera, _)| !newer(camera));
        let old: Vec<_> = old.map(|(camera, event)| (camera.clone(), event.clone())).collect();
        old.into_iter().rev().for_each(|event| events.push_front(event));
        self.came.notify_one();
    }

    /// The one to be sent next, until the broker has it.
    fn next(&self) -> Option<(String, Vec<u8>)> {
        let mut waiting = locked(&self.waiting);
        if waiting.out.is_none() {
            waiting.out = waiting.events.pop_front();
        }
        waiting.out.clone()
    }

    /// The broker has it.
    fn has(&self) {
        let mut waiting = locked(&self.waiting);
        if let Some((camera, event)) = waiting.out.take() {
            waiting.sent.insert(camera, event);
        }
    }

    /// Sends what comes; `picture`: what a camera shows now.
    pub async fn run(
        self: Arc<Self>,
        client: Client,
        topics: Topics,
        picture: impl Fn(&str) -> Option<Arc<[u8]>> + Send + 'static,
    ) {
        loop {
            let Some((camera, payload)) = self.next() else {
                self.came.notified().await;
                continue;
            };
            client.up().await;
            if client.send(Message::json(topics.camera(&camera), payload).retained()).await.is_err() {
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            self.has();
            if let Some(picture) = picture(&camera) {
                let jpeg = picture.starts_with(&[0xff, 0xd8]).then_some("image/jpeg");
                let (topic, payload) = (topics.picture(&camera), picture.to_vec());
                // The next one is as good.
                let message = Message { topic, payload, retain: true, content_type: jpeg, ..Message::default() };
                let _ = client.send(message).await;
            }
        }
    }
}

/// The sink's side.
pub struct Post(pub Arc<Outbox>);

impl Sink for Post {
    fn take(&mut self, event: &Event) {
        match serde_json::to_vec(event) {
            Ok(bytes) => self.0.put(event.camera.clone(), bytes),
            Err(_) => dropped("mqtt"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_give_way_and_what_the_broker_has_forgotten_comes_back_once() {
        let outbox = Outbox::new(3);
        let waits = || locked(&outbox.waiting).events.iter().map(|(_, e)| e[0]).collect::<Vec<_>>();
        for k in 0..5 {
            outbox.put(["door", "yard"][k % 2].into(), vec![k as u8]);
        }
        assert_eq!(waits(), [2, 3, 4]);
        while outbox.next().is_some() {
            outbox.has();
        }
        outbox.put("door".into(), vec![9]);
        outbox.restore();
        outbox.restore();
        // That of the yard; the door has newer news.
        assert_eq!(waits(), [3, 9]);
    }
}
