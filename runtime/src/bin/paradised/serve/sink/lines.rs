//! Events as lines of JSON in a file; when it is full, it becomes `FILE.1`, what was that `FILE.2`, and so on.

use super::{Event, Sink, dropped};
use crate::arguments::tables::Events;
use anyhow::Context;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The file.
pub struct Lines {
    settings: Events,
    file: File,
    bytes: u64,
}

fn open(path: &Path) -> std::io::Result<(File, u64)> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    let bytes = file.metadata()?.len();
    let mut last = [b'\n'];
    if bytes > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    if last != *b"\n" {
        // The power went while a line was written.
        file.write_all(b"\n")?;
        return Ok((file, bytes + 1));
    }
    Ok((file, bytes))
}

impl Lines {
    /// Goes on with a file, or begins one.
    ///
    /// # Errors
    /// With its path, if it cannot be written.
    pub fn open(settings: &Events) -> anyhow::Result<Self> {
        let (file, bytes) = open(&settings.file).with_context(|| settings.file.display().to_string())?;
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
        (self.file, self.bytes) = open(&self.settings.file)?;
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
