//! Where events go. Each place has a queue of its own: one that is slow or gone holds up neither a camera nor another place, and what it
//! loses is counted.

mod event;
mod lines;
mod webhook;

pub use event::{Event, Known};

use super::gpio_lines;
use super::mqtt::{Outbox, Post};
use crate::arguments::tables::Tables;
use anyhow::Context;
use metrics::counter;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

/// Events that wait for a place.
const WAITING: usize = 1000;

/// A place.
pub trait Sink: Send {
    /// Takes an event; blocks as long as it needs.
    fn take(&mut self, event: &Event);
}

struct Place {
    name: &'static str,
    queue: SyncSender<Arc<Event>>,
}

/// All places.
pub struct Sinks {
    places: Vec<Place>,
    outbox: Option<Arc<Outbox>>,
    /// Of events, since this start.
    number: AtomicU64,
    /// Microseconds at this start.
    start: i64,
}

impl Sinks {
    /// As the tables say.
    ///
    /// # Errors
    /// If a place cannot be opened.
    pub fn open(tables: &Tables) -> anyhow::Result<Self> {
        let mut places = Vec::new();
        if let Some(events) = &tables.events {
            places.push(place("events", Box::new(lines::Lines::open(events)?)));
        }
        for hook in &tables.webhook {
            places.push(place("webhook", Box::new(webhook::Hook::new(hook)?)));
        }
        if let Some(pins) = &tables.pins {
            let lines = gpio_lines::Lines::open(pins).context("[pins]")?;
            places.push(place("pins", Box::new(lines)));
        }
        let outbox = tables.mqtt.as_ref().map(|mqtt| Outbox::new(mqtt.waiting));
        places.extend(outbox.iter().map(|outbox| place("mqtt", Box::new(Post(outbox.clone())))));
        Ok(Self { places, outbox, number: AtomicU64::new(0), start: jiff::Timestamp::now().as_microsecond() })
    }

    /// What waits for the broker, where there is one.
    pub fn outbox(&self) -> Option<Arc<Outbox>> {
        self.outbox.clone()
    }

    /// An event's name.
    pub fn id(&self) -> String {
        format!("{:x}-{}", self.start, self.number.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Tells every place.
    pub fn tell(&self, event: &Arc<Event>) {
        for place in &self.places {
            if let Err(TrySendError::Full(_)) = place.queue.try_send(event.clone()) {
                dropped(place.name);
            }
        }
    }
}

/// An event that a place never gets; the log says so at the first, the second, the fourth and so on.
pub fn dropped(place: &'static str) {
    static LOST: AtomicU64 = AtomicU64::new(0);
    counter!("paradise_events_dropped", "sink" => place).increment(1);
    let lost = LOST.fetch_add(1, Ordering::Relaxed) + 1;
    if lost.is_power_of_two() {
        tracing::error!("{place}: an event is lost, {lost} in all since the start");
    }
}

fn place(name: &'static str, mut sink: Box<dyn Sink>) -> Place {
    let (queue, events): (_, Receiver<Arc<Event>>) = sync_channel(WAITING);
    std::thread::spawn(move || events.iter().for_each(|event| sink.take(&event)));
    Place { name, queue }
}
