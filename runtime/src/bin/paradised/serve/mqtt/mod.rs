//! MQTT 5: what is known goes out, retained; commands, pictures and requests come in.
//!
//! ```text
//! sinks --> outbox --> client <--> broker --> commands | a camera's pictures | requests of a group, acknowledged once they are answered
//! ```

mod client;
mod commands;
mod homeassistant;
mod outbox;
mod requests;
mod standing;
mod topics;

pub use client::address;
pub use outbox::{Outbox, Post};

use super::http::Service;
use crate::arguments::tables::Mqtt;
use anyhow::Context;
use client::{Client, Incoming, Message, News};
use requests::Answers;
use std::sync::{Arc, Weak};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use topics::Topics;

/// News that wait; requests and commands that are acknowledged are fewer.
const WAITING: usize = 1024;

/// What this device is called: as the table says, or as the machine is.
pub fn device(settings: &Mqtt) -> String {
    let machine = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name = settings.device.clone().unwrap_or_else(machine);
    // A name is part of topics.
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '_' }).collect()
}

/// This device, as the broker sees it.
struct Device {
    settings: Mqtt,
    device: String,
    topics: Topics,
    client: Client,
    outbox: Arc<Outbox>,
    answers: Arc<Answers>,
    service: Weak<Service>,
}

/// Connects, and goes on for as long as the service does.
///
/// # Errors
/// If the settings are not possible.
pub fn start(service: &Arc<Service>, settings: &Mqtt, outbox: Arc<Outbox>) -> anyhow::Result<Leave> {
    let device = device(settings);
    let topics = Topics::new(settings, &device);
    let will = status(&topics, "offline");
    let client_id = settings.client_id.clone().unwrap_or_else(|| format!("paradised-{device}"));
    let (client, connection) = client::client(settings, &client_id, will).context("[mqtt]")?;
    let (news, heard) = mpsc::channel(WAITING);
    tokio::spawn(connection.run(news));
    let (pictures, weak) = (settings.pictures, Arc::downgrade(service));
    tokio::spawn(outbox.clone().run(client.clone(), topics.clone(), move |camera| {
        let service = weak.upgrade().filter(|_| pictures)?;
        service.cameras.get(camera)?.picture()
    }));
    tokio::spawn(standing::follow(client.clone(), topics.clone(), Arc::downgrade(service)));
    let leave = Leave { client: client.clone(), says: status(&topics, "offline") };
    let answers = Arc::default();
    let post = Device {
        settings: settings.clone(),
        device,
        topics,
        client,
        outbox,
        answers,
        service: Arc::downgrade(service),
    };
    tokio::spawn(post.listen(heard));
    Ok(leave)
}

/// Whether the device is there, for those who come later, too.
fn status(topics: &Topics, payload: &str) -> Message {
    Message { topic: topics.status(), payload: payload.into(), ..Message::default() }.retained()
}

/// Says that the device leaves.
pub struct Leave {
    client: Client,
    says: Message,
}

impl Leave {
    /// Says so, and leaves.
    pub async fn leave(self) {
        let said = tokio::time::timeout(std::time::Duration::from_secs(1), self.client.send(self.says));
        let _ = said.await;
        self.client.leave().await;
    }
}

impl Device {
    async fn listen(self, mut heard: mpsc::Receiver<News>) {
        let (later, order) = mpsc::unbounded_channel();
        tokio::spawn(acknowledge(self.client.clone(), order));
        let mut known = false;
        while let Some(news) = heard.recv().await {
            let Some(service) = self.service.upgrade() else { return };
            match news {
                News::Up(kept) => {
                    if !kept && known {
                        self.outbox.restore();
                    }
                    known = true;
                    let (client, says) = (self.client.clone(), self.greeting(&service));
                    let asks = self.filters(&service);
                    tokio::spawn(async move {
                        client.up().await;
                        for filter in asks {
                            if let Err(error) = client.subscribe(&filter).await {
                                tracing::error!("MQTT: {filter}: {error:#}");
                            }
                        }
                        for message in says {
                            let _ = client.send(message).await;
                        }
                    });
                }
                News::Message(incoming) => {
                    let work = self.work(&service, &incoming);
                    let _ = later.send((incoming, work));
                }
            }
        }
    }

    /// What is said when the connection is there.
    fn greeting(&self, service: &Service) -> Vec<Message> {
        let mut all = vec![status(&self.topics, "online")];
        if !self.settings.homeassistant.is_empty() {
            let (topic, message) = homeassistant::discovery(
                &self.settings.homeassistant,
                &self.device,
                &self.topics,
                &service.cameras,
                self.settings.pictures,
            );
            all.push(Message::json(topic, message.to_string()).retained());
        }
        all
    }

    /// What is listened to.
    fn filters(&self, service: &Service) -> Vec<String> {
        let mut all = vec![self.topics.command("+"), self.topics.trigger("+")];
        if !self.settings.homeassistant.is_empty() {
            all.push(format!("{}/status", self.settings.homeassistant));
        }
        all.extend(service.cameras.inlets().map(|(topic, _)| topic.to_string()));
        if let Some(group) = &self.settings.share {
            all.push(format!("$share/{group}/{}", self.topics.requests()));
        }
        all
    }

    /// Deals with a message; what takes time goes on beside.
    fn work(&self, service: &Arc<Service>, incoming: &Incoming) -> Option<JoinHandle<()>> {
        let topic = incoming.topic();
        if let Some((_, inlet)) = service.cameras.inlets().find(|(own, _)| *own == topic) {
            inlet.put(incoming.payload().to_vec());
            return None;
        }
        if topic == format!("{}/status", self.settings.homeassistant) {
            if incoming.payload() == b"online" {
                let (client, says) = (self.client.clone(), self.greeting(service));
                return Some(tokio::spawn(async move {
                    for message in says {
                        let _ = client.send(message).await;
                    }
                }));
            }
            return None;
        }
        let (service, client, incoming) = (service.clone(), self.client.clone(), incoming.clone());
        if topic == self.topics.requests() {
            let (answers, device) = (self.answers.clone(), self.device.clone());
            return Some(tokio::spawn(async move {
                requests::answer(&service, &client, &answers, &device, &incoming).await;
            }));
        }
        let words: Vec<&str> = self.topics.below(topic)?.split('/').collect();
        match words[..] {
            ["command", name] => {
                let (topics, name) = (self.topics.clone(), name.to_string());
                Some(tokio::spawn(async move { commands::obey(&service, &client, &topics, &name, &incoming).await }))
            }
            ["camera", name, "classify"] => {
                if let Some(live) = service.cameras.get(name) {
                    live.ask();
                }
                None
            }
            _ => None,
        }
    }
}

/// Lets the broker forget messages when they were dealt with, in the order in which they came (MQTT-4.6.0-2).
async fn acknowledge(client: Client, mut order: mpsc::UnboundedReceiver<(Box<Incoming>, Option<JoinHandle<()>>)>) {
    while let Some((incoming, work)) = order.recv().await {
        // One that panicked is forgotten, too: it would panic again.
        if let Some(work) = work {
            let _ = work.await;
        }
        client.done(&incoming).await;
    }
}
