//! The only file that knows the MQTT library: a connection that comes back by itself, messages out until the broker has them, messages in that
//! are acknowledged when they were dealt with.

use crate::arguments::secret;
use crate::arguments::tables::Mqtt;
use crate::serve::retries::Retries;
use anyhow::{Context, bail, ensure};
use rumqttc::{
    AckMode, AsyncClient, ConnectionError, Event, EventLoop, IncomingPacketSizeLimit, LastWill, MqttOptions, Packet,
    PersistedAckMode, PersistedSession, Publish, PublishOptions, PublishProperties, QoS, SessionStore,
    SessionStoreError, SessionStoreKey, TlsConfiguration, Transport,
};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Messages that may be out, or in, without an acknowledgement.
const IN_FLIGHT: u16 = 32;
/// The broker keeps what is for this client so long after it has gone.
const KEPT_SECONDS: u32 = 24 * 3600;
/// Seconds between signs of life.
const ALIVE_SECONDS: u16 = 15;
/// Between two tries to connect, at first and at most.
const AGAIN: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(5)];

/// A message that goes out.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// Where to.
    pub topic: String,
    /// What.
    pub payload: Vec<u8>,
    /// Whether those who come later get it, too.
    pub retain: bool,
    /// What it answers.
    pub correlation: Option<Vec<u8>>,
    /// What it is.
    pub content_type: Option<&'static str>,
}

/// A message that came in.
#[derive(Debug, Clone)]
pub struct Incoming {
    publish: Publish,
    /// The connection over which it came.
    connection: u64,
}

impl Message {
    /// A text in JSON.
    pub fn json(topic: String, payload: impl Into<Vec<u8>>) -> Self {
        Self { topic, payload: payload.into(), content_type: Some("application/json"), ..Self::default() }
    }

    /// The same for those who come later, too.
    pub fn retained(self) -> Self {
        Self { retain: true, ..self }
    }
}

impl Incoming {
    /// An answer in JSON; nothing if none is expected.
    pub fn answer(&self, payload: Vec<u8>) -> Option<Message> {
        let correlation = self.correlation().map(<[u8]>::to_vec);
        Some(Message { correlation, ..Message::json(self.response_topic()?.into(), payload) })
    }

    /// Where it was sent.
    pub fn topic(&self) -> &str {
        std::str::from_utf8(&self.publish.topic).unwrap_or_default()
    }

    /// What it says.
    pub fn payload(&self) -> &[u8] {
        &self.publish.payload
    }

    /// Whether it was there before anybody asked for it.
    pub fn is_retained(&self) -> bool {
        self.publish.retain
    }

    /// Where the answer is expected.
    pub fn response_topic(&self) -> Option<&str> {
        self.publish.properties.as_ref()?.response_topic.as_deref()
    }

    /// By what the one who asked tells answers apart.
    pub fn correlation(&self) -> Option<&[u8]> {
        self.publish.properties.as_ref()?.correlation_data.as_deref()
    }

    /// What was written beside it under a name.
    pub fn property(&self, name: &str) -> Option<&str> {
        let all = &self.publish.properties.as_ref()?.user_properties;
        all.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What a connection has to say.
#[derive(Debug)]
pub enum News {
    /// It is there; whether the broker still knew this client.
    Up(bool),
    /// A message.
    Message(Box<Incoming>),
}

/// Sends messages.
#[derive(Clone)]
pub struct Client {
    inner: AsyncClient,
    up: watch::Receiver<bool>,
    /// The number of the connection that is there, or was last.
    connection: Arc<AtomicU64>,
}

/// The other side of [`Client`], to be run.
pub struct Connection {
    events: EventLoop,
    up: watch::Sender<bool>,
    number: Arc<AtomicU64>,
    broker: String,
}

/// Whatever was out when a process ended is sent anew by those who know of it, so that a new process begins with an empty session on its
/// side, and with what the broker kept on the other.
#[derive(Debug)]
struct NothingOut(PersistedSession);

type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, SessionStoreError>> + Send + 'a>>;

impl SessionStore for NothingOut {
    fn load<'a>(&'a self, _: &'a SessionStoreKey) -> StoreFuture<'a, Option<PersistedSession>> {
        Box::pin(async { Ok(Some(self.0.clone())) })
    }

    fn save<'a>(&'a self, _: &'a SessionStoreKey, _: &'a PersistedSession) -> StoreFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn clear<'a>(&'a self, _: &'a SessionStoreKey) -> StoreFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }
}

/// Host, port and whether there is TLS, of `mqtt://HOST[:PORT]` or `mqtts://HOST[:PORT]`.
///
/// # Errors
/// If it is neither.
pub fn address(broker: &str) -> anyhow::Result<(String, u16, bool)> {
    let (rest, tls) = match (broker.strip_prefix("mqtt://"), broker.strip_prefix("mqtts://")) {
        (Some(rest), _) => (rest, false),
        (_, Some(rest)) => (rest, true),
        _ => bail!("broker {broker:?}: mqtt://HOST[:PORT] or mqtts://HOST[:PORT]"),
    };
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            (host, port.parse().with_context(|| format!("broker {broker:?}: no port {port:?}"))?)
        }
        _ => (rest, if tls { 8883 } else { 1883 }),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    ensure!(!host.is_empty() && !host.contains('/'), "broker {broker:?}: no host");
    Ok((host.into(), port, tls))
}

/// A client of a broker that says `will` for it if it is gone without a word.
///
/// # Errors
/// If the settings are not possible, or a file that they name cannot be read.
pub fn client(settings: &Mqtt, client_id: &str, will: Message) -> anyhow::Result<(Client, Connection)> {
    let (host, port, tls) = address(&settings.broker)?;
    let mut options = MqttOptions::new(client_id, (host, port));
    options
        .set_keep_alive(ALIVE_SECONDS)
        .set_clean_start(false)
        .set_session_expiry_interval(Some(KEPT_SECONDS))
        .set_receive_maximum(Some(IN_FLIGHT))
        .set_outgoing_inflight_upper_limit(IN_FLIGHT)
        .set_incoming_packet_size_limit(IncomingPacketSizeLimit::Bytes(settings.max_bytes))
        .set_ack_mode(AckMode::Manual)
        .set_session_store(NothingOut(PersistedSession {
            format_version: 1,
            client_id: client_id.into(),
            clean_start: false,
            session_expiry_interval: Some(KEPT_SECONDS),
            outgoing_inflight_upper_limit: Some(IN_FLIGHT),
            ack_mode: PersistedAckMode::Manual,
            last_pkid: 0,
            last_puback: 0,
            replay: Vec::new(),
            incoming_qos2: Vec::new(),
        }))
        .set_last_will(LastWill::new(will.topic, will.payload, QoS::AtLeastOnce, will.retain, None));
    if let Some(user) = &settings.user {
        let password = settings.password_file.as_deref().map(secret).transpose()?;
        options.set_credentials(user, password.unwrap_or_default());
    }
    if tls {
        let configuration = match &settings.ca {
            Some(path) => {
                let ca = std::fs::read(path).with_context(|| path.display().to_string())?;
                TlsConfiguration::Simple { ca, alpn: None, client_auth: None }
            }
            None => TlsConfiguration::try_default_rustls().context("the authorities that this machine trusts")?,
        };
        options.set_transport(Transport::tls_with_config(configuration));
    }
    let (inner, events) = AsyncClient::builder(options).capacity(usize::from(IN_FLIGHT)).build();
    let (up, watched) = watch::channel(false);
    let number: Arc<AtomicU64> = Arc::default();
    let client = Client { inner, up: watched, connection: number.clone() };
    Ok((client, Connection { events, up, number, broker: settings.broker.clone() }))
}

impl Client {
    /// Waits until there is a connection.
    pub async fn up(&self) {
        // The other side goes with the process.
        let _ = self.up.clone().wait_for(|up| *up).await;
    }

    /// The number of the connection that is there, or was last.
    pub fn connection(&self) -> u64 {
        self.connection.load(Ordering::SeqCst)
    }

    /// Sends a message, and waits until the broker has it.
    ///
    /// # Errors
    /// If it does not get there; it is to be sent anew then.
    pub async fn send(&self, message: Message) -> anyhow::Result<()> {
        let Message { topic, payload, retain, correlation, content_type } = message;
        let properties = PublishProperties {
            correlation_data: correlation.map(Into::into),
            content_type: content_type.map(Into::into),
            ..PublishProperties::default()
        };
        let options = PublishOptions::new(QoS::AtLeastOnce).retain(retain).properties(properties);
        let sent = self.inner.publish_tracked(topic, payload, options).await?;
        sent.wait_completion_async().await?;
        Ok(())
    }

    /// Asks for messages.
    ///
    /// # Errors
    /// If the broker refuses.
    pub async fn subscribe(&self, filter: &str) -> anyhow::Result<()> {
        let asked = self.inner.subscribe_tracked(filter, QoS::AtLeastOnce).await?;
        asked.wait_completion_async().await.with_context(|| filter.to_string())
    }

    /// A message was dealt with: the broker may forget it.
    pub async fn done(&self, incoming: &Incoming) {
        // Over another connection it comes again.
        if incoming.connection == self.connection() {
            let _ = self.inner.ack(&incoming.publish).await;
        }
    }

    /// Leaves without the will being said.
    pub async fn leave(&self) {
        let _ = self.inner.disconnect_with_timeout(Duration::from_secs(2)).await;
    }
}

impl Connection {
    /// Keeps it up, and hands on what it says; ends when nobody listens any more.
    pub async fn run(mut self, news: mpsc::Sender<News>) {
        let mut retries = Retries::new(AGAIN);
        loop {
            match self.events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(answer))) => {
                    tracing::info!("{}: connected", self.broker);
                    self.number.fetch_add(1, Ordering::SeqCst);
                    retries.end();
                    // Before anybody sends: who waits for the connection must be waiting already.
                    if news.send(News::Up(answer.session_present)).await.is_err() {
                        return;
                    }
                    self.up.send_replace(true);
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    // What is acknowledged has a bound; of what is not, some may be lost.
                    let connection = self.number.load(Ordering::SeqCst);
                    let message = News::Message(Box::new(Incoming { publish, connection }));
                    if news.try_send(message).is_err() && news.is_closed() {
                        return;
                    }
                }
                Ok(_) => {}
                Err(ConnectionError::RequestsDone) => return,
                Err(error) => {
                    let why = error.to_string();
                    self.up.send_replace(false);
                    if news.is_closed() {
                        return;
                    }
                    if retries.is_news(&why) {
                        tracing::warn!("{}: {why}", self.broker);
                    }
                    tokio::time::sleep(retries.next_wait()).await;
                }
            }
        }
    }
}
