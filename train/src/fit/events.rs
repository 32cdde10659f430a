//! TensorBoard event files: length, masked CRC-32C, a protobuf `Event`, masked CRC-32C, one record after the other.

use anyhow::{Context, Result};
use prost::Message;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The part of TensorFlow's `event.proto` that scalars need.
#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// An event file that grows, made when there is something to write.
pub(super) struct Events {
    path: PathBuf,
    file: Option<File>,
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    [&length[..], &masked_crc(&length).to_le_bytes(), bytes, &masked_crc(bytes).to_le_bytes()].concat()
}

impl Events {
    /// A new file in `folder`; TensorBoard joins those of one run.
    pub fn new(folder: &Path) -> Self {
        let name = format!("events.out.tfevents.{:.0}.{}.paradise", now(), std::process::id());
        Self { path: folder.join(name), file: None }
    }

    fn put(&mut self, event: Event) -> std::io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            empty => {
                let file = empty.insert(OpenOptions::new().create(true).append(true).open(&self.path)?);
                let version = Some("brain.Event:2".into());
                let first = Event { wall_time: now(), step: 0, file_version: version, summary: None };
                file.write_all(&record(&first.encode_to_vec()))?;
                file
            }
        };
        file.write_all(&record(&event.encode_to_vec()))?;
        file.flush()
    }

    /// Every number in `values`, nested names joined by slashes, at `step`.
    ///
    /// # Errors
    /// With the path, if it cannot be written.
    pub fn scalars(&mut self, step: u64, values: &serde_json::Value) -> Result<()> {
        let mut value = Vec::new();
        flatten("", values, &mut value);
        let event =
            Event { wall_time: now(), step: step as i64, file_version: None, summary: Some(Summary { value }) };
        self.put(event).with_context(|| format!("{}: cannot write", self.path.display()))
    }
}

fn flatten(name: &str, value: &serde_json::Value, out: &mut Vec<Value>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                let name = if name.is_empty() { key.clone() } else { format!("{name}/{key}") };
                flatten(&name, value, out);
            }
        }
        _ => {
            if let Some(number) = value.as_f64() {
                out.push(Value { tag: name.into(), simple_value: Some(number as f32) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn records_are_whole_and_hold_their_scalars() {
        // RFC 3720, B.4: CRC-32C of 32 zero bytes.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        let folder = tempfile::tempdir().unwrap();
        let mut events = Events::new(folder.path());
        events.scalars(7, &json!({ "train": { "total": 1.5, "matching": null }, "seconds": 3 })).unwrap();
        let bytes = std::fs::read(&events.path).unwrap();
        let (mut at, mut found) = (0, Vec::new());
        while at < bytes.len() {
            let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
            let body = &bytes[at + 12..at + 12 + length];
            assert_eq!(record(body), bytes[at..at + 16 + length]);
            found.push(Event::decode(body).unwrap());
            at += 16 + length;
        }
        assert_eq!(found[0].file_version.as_deref(), Some("brain.Event:2"));
        let named: Vec<_> =
            found[1].summary.as_ref().unwrap().value.iter().map(|v| (&v.tag[..], v.simple_value)).collect();
        assert_eq!((found[1].step, named), (7, vec![("seconds", Some(3.0)), ("train/total", Some(1.5))]));
    }
}
