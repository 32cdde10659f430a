//! Events as lines of JSON in a file; when it is full, it becomes `FILE.1`, what was that `FILE.2`, and so on.

use super::{Event, Sink, dropped};
use crate::arguments::tables::Events;
use anyhow::Context;
use paradise_runtime::output::open_lines;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

/// The file.
pub struct Lines {
    settings: Events,
    file: File,
    bytes: u64,
}

impl Lines {
    /// Goes on with a file, or begins one.
    ///
    /// # Errors
    /// With its path, if it cannot be written.
    pub fn open(settings: &Events) -> anyhow::Result<Self> {
        let (file, bytes) = open_lines(&settings.file).with_context(|| settings.file.display().to_string())?;
        Ok(Self { settings: settings.clone(), file, bytes })
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.settings.file.clone().into_os_string();
        if number > 0 {
            name.push(format!(".{number}"));
        }
        name.into()
    }

    fn turn(&mut self) -> std::io::Result<()> {
        for number in (0..self.settings.files).rev() {
            let (from, to) = (self.numbered(number), self.numbered(number + 1));
            if from.exists() {
                std::fs::rename(from, to)?;
            }
        }
        if self.settings.files == 0 {
            std::fs::remove_file(&self.settings.file)?;
        }
        (self.file, self.bytes) = open_lines(&self.settings.file)?;
        Ok(())
    }

    fn write(&mut self, event: &Event) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.settings.bytes {
            self.turn()?;
        }
        self.file.write_all(&line)?;
        self.bytes += line.len() as u64;
        self.file.sync_data()
    }
}

impl Sink for Lines {
    fn take(&mut self, event: &Event) {
        if let Err(error) = self.write(event) {
            tracing::error!("{}: {error}", self.settings.file.display());
            dropped("events");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::sink::Known;
    use jiff::Timestamp;

    fn event(number: usize) -> Event {
        Event {
            id: number.to_string(),
            time: Timestamp::UNIX_EPOCH,
            camera: "door".into(),
            model: String::new(),
            version: String::new(),
            known: Known::starting(),
            answer: None,
        }
    }

    #[test]
    fn files_turn_and_a_line_that_broke_off_spoils_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("events.jsonl");
        std::fs::write(&file, "{\"id\": \"bro").unwrap();
        let settings = Events { file: file.clone(), bytes: 600, files: 2 };
        let mut lines = Lines::open(&settings).unwrap();
        (0..20).for_each(|number| lines.take(&event(number)));
        let ids = |name: &str| {
            let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
            assert!(text.len() <= 600 && text.ends_with('\n'), "{text}");
            let id = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].clone();
            text.lines().map(|line| id(line).as_str().unwrap().parse::<usize>().unwrap()).collect::<Vec<_>>()
        };
        let kept = ["events.jsonl.2", "events.jsonl.1", "events.jsonl"].map(ids).concat();
        // The last ones, none missing, none twice; the oldest files are gone.
        assert_eq!(kept, (20 - kept.len()..20).collect::<Vec<_>>());
        assert!(kept.len() < 20 && std::fs::read_dir(folder.path()).unwrap().count() == 3);
        // It goes on where it was.
        let written = std::fs::read_to_string(&file).unwrap();
        Lines::open(&settings).unwrap().take(&event(20));
        let after = std::fs::read_to_string(&file).unwrap();
        assert!(after.starts_with(&written) || ids("events.jsonl.1").ends_with(&[19]), "{after}");
    }
}
