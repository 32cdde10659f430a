//! A board's lines by their names, on any Linux: outputs that say how a camera stands, a heartbeat, inputs that ask for a picture. No board has
//! run this yet: what decides about lines is tested with simulated ones.

use super::http::Service;
use super::sink::{Event, Sink};
use crate::arguments::tables::Pins;
use anyhow::{Context, bail};
use embedded_hal::digital::{ErrorKind, ErrorType, OutputPin, StatefulOutputPin};
use gpiocdev::Request;
use gpiocdev::line::{EdgeDetection, Value};
use paradise_runtime::pins::{CheckedPins, Shown};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Half a beat.
const BEAT: Duration = Duration::from_millis(500);
/// An edge that follows so soon is a switch that bounces.
const BOUNCE: Duration = Duration::from_millis(20);

/// An output line.
pub struct Line(Request);

/// What the kernel said.
#[derive(Debug)]
pub struct LineError(#[allow(dead_code, reason = "it is shown by Debug")] gpiocdev::Error);

impl embedded_hal::digital::Error for LineError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}

impl ErrorType for Line {
    type Error = LineError;
}

impl OutputPin for Line {
    fn set_low(&mut self) -> Result<(), LineError> {
        self.0.set_lone_value(Value::Inactive).map_err(LineError)
    }

    fn set_high(&mut self) -> Result<(), LineError> {
        self.0.set_lone_value(Value::Active).map_err(LineError)
    }
}

impl StatefulOutputPin for Line {
    fn is_set_high(&mut self) -> Result<bool, LineError> {
        self.0.lone_value().map(|value| value == Value::Active).map_err(LineError)
    }

    fn is_set_low(&mut self) -> Result<bool, LineError> {
        self.is_set_high().map(|high| !high)
    }
}

/// The line of a name.
fn found(name: &str) -> anyhow::Result<gpiocdev::FoundLine> {
    match gpiocdev::find_named_line(name) {
        Some(line) => Ok(line),
        None => bail!("no line {name:?} on this machine (`gpioinfo` lists them)"),
    }
}

fn output(name: &str) -> anyhow::Result<Line> {
    let request = Request::builder()
        .with_consumer("paradised")
        .with_found_line(&found(name)?)
        .as_output(Value::Inactive)
        .request()
        .with_context(|| name.to_string())?;
    Ok(Line(request))
}

/// How a camera stands, on three lines.
pub struct Lines {
    camera: Option<String>,
    pins: CheckedPins<Line>,
}

impl Lines {
    /// As the table says.
    ///
    /// # Errors
    /// If a line is not there, or is held by something else.
    pub fn open(settings: &Pins) -> anyhow::Result<Self> {
        let lines = [output(&settings.accept)?, output(&settings.abstain)?, output(&settings.fault)?];
        let pins = CheckedPins::new(lines).map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(Self { camera: settings.camera.clone(), pins })
    }
}

impl Sink for Lines {
    fn take(&mut self, event: &Event) {
        if self.camera.as_ref().is_some_and(|camera| *camera != event.camera) {
            return;
        }
        let shown = match event.known.state {
            "label" => Shown::Accept,
            "unknown" => Shown::Abstain,
            _ => Shown::Fault,
        };
        if let Err(error) = self.pins.show(shown) {
            tracing::error!("GPIO: {error}");
        }
    }
}

/// A line that beats as long as the service answers.
///
/// # Errors
/// If it is not there.
pub fn beat(service: &Arc<Service>, name: &str) -> anyhow::Result<()> {
    let (mut line, service) = (output(name)?, Arc::downgrade(service));
    std::thread::spawn(move || {
        let mut high = false;
        while let Some(service) = service.upgrade() {
            // One that stays as it is says that something is wrong.
            if service.is_ready() {
                high = !high;
                let set = if high { line.set_high() } else { line.set_low() };
                if let Err(error) = set {
                    tracing::error!("GPIO: heartbeat: {error:?}");
                }
            }
            drop(service);
            std::thread::sleep(BEAT);
        }
    });
    Ok(())
}

/// Asks a camera for a picture each time a line rises.
///
/// # Errors
/// If it is not there.
pub fn trigger(service: &Arc<Service>, camera: &str, name: &str) -> anyhow::Result<()> {
    let request = Request::builder()
        .with_consumer("paradised")
        .with_found_line(&found(name)?)
        .as_input()
        .with_edge_detection(EdgeDetection::RisingEdge)
        .with_debounce_period(BOUNCE)
        .request()
        .with_context(|| name.to_string())?;
    let (service, camera): (Weak<Service>, String) = (Arc::downgrade(service), camera.to_string());
    std::thread::spawn(move || {
        while request.read_edge_event().is_ok() {
            let Some(service) = service.upgrade() else { return };
            if let Some(live) = service.cameras.get(&camera) {
                live.ask();
            }
        }
        tracing::error!("GPIO: the line that asks camera {camera} is gone");
    });
    Ok(())
}
