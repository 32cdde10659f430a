//! A log of what mattered - self-tests, faults, alarms, versions - as JSON lines, each with the SHA-256 of the line before: a line that
//! was changed, lost or put between shows. Who may write the file can write the whole of it anew; against that, keep the last hash
//! elsewhere.

use crate::bundle::hex;
use crate::output::open_lines;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{Error, Result, Write};
use std::path::{Path, PathBuf};

/// The file, in the folder of what is remembered.
const FILE: &str = "journal.jsonl";
/// The file before it.
const BEFORE: &str = "journal.1.jsonl";
/// Bytes from which another is begun; two are kept.
const MOST: u64 = 1 << 20;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// From 1, without a gap over all files.
    pub number: u64,
    /// When, by the device's clock.
    pub at: Timestamp,
    /// What happened, in one word.
    pub event: String,
    /// To which model; empty for the service itself.
    pub model: String,
    /// In words.
    pub detail: String,
    /// SHA-256 of the line before, without its end; empty for the first of all.
    pub previous: String,
}

/// Where a chain is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub why: String,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

impl std::error::Error for Broken {}

fn hash(line: &str) -> String {
    hex(&Sha256::digest(line.as_bytes()))
}

/// A journal that is written.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    file: File,
    len: u64,
    number: u64,
    previous: String,
}

impl Journal {
    /// Goes on with a folder's journal, or begins one.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let at = |e: Error| Error::new(e.kind(), format!("{}: {e}", path.display()));
        let (file, _) = open_lines(&path).map_err(at)?;
        let bytes = std::fs::read(&path).map_err(at)?;
        let text = String::from_utf8_lossy(&bytes);
        let (mut number, mut previous) = (0, String::new());
        if let Some(last) = text.lines().last() {
            previous = hash(last);
            let read = text.lines().rev().find_map(|line| serde_json::from_str::<Entry>(line).ok());
            number = read.map_or(0, |entry| entry.number);
        }
        Ok(Self { folder: folder.to_path_buf(), file, len: bytes.len() as u64, number, previous })
    }

    /// Writes a line, synced.
    ///
    /// # Errors
    /// If it cannot be written; nothing of it is left then.
    pub fn add(&mut self, at: Timestamp, event: &str, model: &str, detail: &str) -> Result<()> {
        if self.len >= MOST {
            self.turn()?;
        }
        let (number, previous) = (self.number + 1, self.previous.clone());
        let [event, model, detail] = [event, model, detail].map(String::from);
        let line = serde_json::to_string(&Entry { number, at, event, model, detail, previous })?;
        let written = self.file.write_all(format!("{line}\n").as_bytes()).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // A full disk may have taken half of it.
            self.file.set_len(self.len)?;
            return Err(error);
        }
        (self.number, self.previous) = (number, hash(&line));
        self.len += line.len() as u64 + 1;
        Ok(())
    }

    /// SHA-256 of the last line: what to keep elsewhere.
    pub fn head(&self) -> &str {
        &self.previous
    }

    /// The file becomes the one before.
    fn turn(&mut self) -> Result<()> {
        let path = self.folder.join(FILE);
        std::fs::rename(&path, self.folder.join(BEFORE))?;
        self.file = OpenOptions::new().append(true).create(true).open(path)?;
        self.len = 0;
        Ok(())
    }

    /// Reads a file of a journal from its first line to its last, and says how many entries there are, how many lines the power cut
    /// short, and the last hash. The first line is believed.
    ///
    /// # Errors
    /// The first line that does not follow from the one before.
    pub fn verify(text: &str) -> std::result::Result<(u64, u64, String), Broken> {
        let (mut entries, mut torn, mut last): (u64, u64, Option<(Option<u64>, String)>) = (0, 0, None);
        for (i, line) in text.lines().enumerate() {
            let broken = |why: String| Broken { line: i + 1, why };
            let number = match serde_json::from_str::<Entry>(line) {
                Ok(entry) => {
                    if let Some((number, hash)) = &last {
                        if entry.previous != *hash {
                            return Err(broken("it does not follow from the line before".into()));
                        }
                        if number.is_some_and(|number| entry.number != number + 1) {
                            return Err(broken(format!("number {} after {}", entry.number, number.unwrap_or(0))));
                        }
                    } else if entry.number == 1 && !entry.previous.is_empty() {
                        return Err(broken("the first of all follows from nothing".into()));
                    }
                    entries += 1;
                    Some(entry.number)
                }
                Err(error) if line.starts_with('{') && error.is_eof() => {
                    torn += 1;
                    last.as_ref().and_then(|(number, _)| *number)
                }
                Err(error) => return Err(broken(format!("not an entry: {error}"))),
            };
            last = Some((number, hash(line)));
        }
        Ok((entries, torn, last.map(|(_, hash)| hash).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(folder: &Path) -> String {
        std::fs::read_to_string(folder.join(FILE)).unwrap()
    }

    fn add(journal: &mut Journal, n: usize) {
        for i in 0..n {
            journal.add(Timestamp::UNIX_EPOCH, "selftest", "net", &format!("passed, \"{i}\"\n")).unwrap();
        }
    }

    #[test]
    fn what_was_changed_lost_or_put_between_shows() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path()).unwrap();
        add(&mut journal, 3);
        drop(journal);
        let mut journal = Journal::open(folder.path()).unwrap();
        add(&mut journal, 3);
        let whole = text(folder.path());
        assert_eq!(Journal::verify(&whole), Ok((6, 0, journal.head().to_string())));
        assert_eq!(Journal::verify(""), Ok((0, 0, String::new())));
        let lines: Vec<&str> = whole.lines().collect();
        let broken = |lines: &[&str]| Journal::verify(&lines.join("\n")).unwrap_err().line;
        let without: Vec<&str> = lines.iter().enumerate().filter(|(i, _)| *i != 2).map(|(_, line)| *line).collect();
        assert_eq!(broken(&without), 3);
        let changed = lines[3].replace("passed", "failed");
        assert_eq!(broken(&[lines[0], lines[1], lines[2], &changed, lines[4]]), 5);
        assert_eq!(broken(&[lines[0], lines[1], lines[1]]), 3);
        assert_eq!(broken(&[lines[0], "what is this?"]), 2);
        assert_eq!(broken(&[&lines[0].replace("\"previous\":\"\"", "\"previous\":\"ab\"")]), 1);
        // A file that begins in the middle, as the second of two does.
        assert_eq!(Journal::verify(&lines[2..].join("\n")).unwrap().0, 4);
    }

    #[test]
    fn a_line_that_the_power_cut_short_stays_and_the_chain_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path()).unwrap();
        add(&mut journal, 2);
        drop(journal);
        let whole = text(folder.path());
        for cut in [1, 10, 100] {
            std::fs::write(folder.path().join(FILE), &whole[..whole.len() - cut]).unwrap();
            let mut journal = Journal::open(folder.path()).unwrap();
            add(&mut journal, 2);
            let (entries, torn, head) = Journal::verify(&text(folder.path())).unwrap();
            // A line that lacks its end alone is whole.
            assert_eq!((entries, torn), if cut == 1 { (4, 0) } else { (3, 1) });
            assert_eq!(head, journal.head());
        }
    }

    #[test]
    fn a_long_one_is_turned_and_the_chain_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path()).unwrap();
        add(&mut journal, 2);
        journal.len = MOST;
        add(&mut journal, 2);
        let before = std::fs::read_to_string(folder.path().join(BEFORE)).unwrap();
        let both = before + &text(folder.path());
        assert_eq!(Journal::verify(&both), Ok((4, 0, journal.head().to_string())));
        assert_eq!(text(folder.path()).lines().count(), 2);
        drop(journal);
        // A file whose only line is torn still follows from it.
        std::fs::write(folder.path().join(FILE), "{\"number\":9").unwrap();
        let mut journal = Journal::open(folder.path()).unwrap();
        add(&mut journal, 1);
        assert_eq!(Journal::verify(&text(folder.path())).unwrap().0, 1);
    }
}
