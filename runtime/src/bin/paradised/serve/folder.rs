//! Watched folders: a picture that is moved or written into one is answered once, whatever ends the process when. Its answer lies beside it, in
//! `NAME.json`, or is a line of a journal; what is there already is not answered again.

use super::http::Service;
use super::served::Refusal;
use crate::arguments::tables::Folder;
use anyhow::Context;
use inotify::{Inotify, WatchMask};
use jiff::Timestamp;
use paradise_runtime::bundle::hex;
use paradise_runtime::oip::Pictures;
use paradise_runtime::output::{open_lines, write_whole};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::runtime::Handle;

/// A file that nobody announced, and that was written in the last seconds, may still be written.
const SETTLED: Duration = Duration::from_secs(2);
/// Between two looks at the whole folder, for what came while nobody watched.
const LOOK: Duration = Duration::from_secs(2);
/// Between two looks at what was announced.
const TICK: Duration = Duration::from_millis(100);
/// Before a busy model is asked again.
const BUSY: Duration = Duration::from_millis(50);

/// By what a picture is told from another of its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Identity {
    picture: String,
    bytes: u64,
    modified_ns: i128,
}

impl Identity {
    fn of(path: &Path) -> std::io::Result<Option<Self>> {
        let about = std::fs::metadata(path)?;
        let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|_| about.is_file()) else {
            return Ok(None);
        };
        let modified_ns = i128::from(about.mtime()) * 1_000_000_000 + i128::from(about.mtime_nsec());
        Ok(Some(Self { picture: name.into(), bytes: about.len(), modified_ns }))
    }

    fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as i128;
        now - self.modified_ns >= SETTLED.as_nanos() as i128
    }
}

/// Where answers go.
struct Answers {
    journal: Option<(File, PathBuf)>,
    /// Pictures that are known to have one.
    answered: HashSet<Identity>,
}

impl Answers {
    fn open(settings: &Folder) -> anyhow::Result<Self> {
        let Some(path) = &settings.journal else { return Ok(Self { journal: None, answered: HashSet::new() }) };
        let open = || -> std::io::Result<(File, HashSet<Identity>)> {
            // Where a line broke off, its picture is answered again.
            let (mut file, _) = open_lines(path)?;
            let mut text = Vec::new();
            file.seek(SeekFrom::Start(0))?;
            file.read_to_end(&mut text)?;
            let lines = text.split(|byte| *byte == b'\n');
            Ok((file, lines.filter_map(|line| serde_json::from_slice(line).ok()).collect()))
        };
        let (file, answered) = open().with_context(|| path.display().to_string())?;
        Ok(Self { journal: Some((file, path.clone())), answered })
    }

    fn beside(picture: &Path) -> PathBuf {
        let mut name = picture.as_os_str().to_os_string();
        name.push(".json");
        name.into()
    }

    fn has(&mut self, path: &Path, identity: &Identity) -> bool {
        if self.answered.contains(identity) {
            return true;
        }
        let read = || serde_json::from_slice::<Identity>(&std::fs::read(Self::beside(path)).ok()?).ok();
        let has = self.journal.is_none() && read().as_ref() == Some(identity);
        if has {
            self.answered.insert(identity.clone());
        }
        has
    }

    fn put(&mut self, path: &Path, identity: Identity, answer: &Value) -> anyhow::Result<()> {
        match &mut self.journal {
            None => {
                let beside = Self::beside(path);
                let text = serde_json::to_vec_pretty(answer)?;
                write_whole(&beside, &text).with_context(|| beside.display().to_string())?;
            }
            Some((file, path)) => {
                let mut line = serde_json::to_vec(answer)?;
                line.push(b'\n');
                file.write_all(&line).and_then(|()| file.sync_data()).with_context(|| path.display().to_string())?;
            }
        }
        self.answered.insert(identity);
        Ok(())
    }
}

/// Starts to watch a folder.
///
/// # Errors
/// If it cannot be read.
pub fn start(service: &Arc<Service>, settings: &Folder, runtime: &Handle) -> anyhow::Result<()> {
    let at = || settings.path.display().to_string();
    let mut inotify = Inotify::init().context("inotify")?;
    let mask = WatchMask::MOVED_TO | WatchMask::CLOSE_WRITE | WatchMask::ONLYDIR;
    inotify.watches().add(&settings.path, mask).with_context(at)?;
    let mut answers = Answers::open(settings)?;
    let (service, settings, runtime) = (Arc::downgrade(service), settings.clone(), runtime.clone());
    std::thread::spawn(move || {
        let mut looked: Option<Instant> = None;
        loop {
            let announced = announced(&mut inotify);
            let whole = looked.is_none_or(|then| then.elapsed() >= LOOK);
            if whole {
                looked = Some(Instant::now());
            }
            let Some(service) = service.upgrade() else { return };
            // What was announced is whole; a file that was not may still be written.
            let outcome = if whole {
                files(&settings.path)
                    .and_then(|names| look(&service, &settings, &runtime, &mut answers, names, &announced))
            } else {
                let names = announced.iter().cloned().collect();
                look(&service, &settings, &runtime, &mut answers, names, &announced)
            };
            if let Err(error) = outcome {
                tracing::error!("{}: {error:#}", settings.path.display());
            }
            drop(service);
            std::thread::sleep(TICK);
        }
    });
    Ok(())
}

/// Files of which the system says that they came or were written to their end.
fn announced(inotify: &mut Inotify) -> HashSet<OsString> {
    let mut buffer = [0; 16384];
    match inotify.read_events(&mut buffer) {
        Ok(events) => events.filter_map(|event| event.name.map(OsString::from)).collect(),
        Err(_) => HashSet::new(),
    }
}

/// All files of a folder.
fn files(folder: &Path) -> anyhow::Result<Vec<OsString>> {
    let names = std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name()));
    Ok(names.collect::<Result<_, _>>()?)
}

/// Whether a file of this name may be a picture.
fn is_candidate(name: &OsStr) -> bool {
    let text = name.to_string_lossy();
    !text.starts_with('.') && ![".json", ".tmp", ".part"].iter().any(|ending| text.ends_with(ending))
}

/// Answers those of these files that have none.
fn look(
    service: &Service,
    settings: &Folder,
    runtime: &Handle,
    answers: &mut Answers,
    mut names: Vec<OsString>,
    announced: &HashSet<OsString>,
) -> anyhow::Result<()> {
    names.retain(|name| is_candidate(name));
    names.sort();
    for name in names {
        let path = settings.path.join(&name);
        // It may have been taken away meanwhile.
        let Ok(Some(identity)) = Identity::of(&path) else { continue };
        if !(announced.contains(&name) || identity.is_settled()) || answers.has(&path, &identity) {
            continue;
        }
        let Some(answer) = classify(service, settings, runtime, &path, &identity)? else { return Ok(()) };
        answers.put(&path, identity, &answer)?;
    }
    Ok(())
}

/// The answer to a picture; nothing if the model cannot answer now.
fn classify(
    service: &Service,
    settings: &Folder,
    runtime: &Handle,
    path: &Path,
    identity: &Identity,
) -> anyhow::Result<Option<Value>> {
    // It may be in service again later.
    let Ok(served) = service.registry.named(settings.model.as_deref()) else { return Ok(None) };
    let read = paradise_picture::read(path);
    let mut answer = json!({ "time": Timestamp::now(), "model": served.name, "version": served.version });
    match read {
        Err(error) => answer["error"] = json!(error.to_string()),
        Ok(bytes) => {
            answer["sha256"] = json!(hex(&Sha256::digest(&bytes)));
            match runtime.block_on(served.ask(Pictures::Encoded(vec![bytes]))) {
                Ok(verdicts) => {
                    let verdict = serde_json::to_value(verdicts.first().context("no verdict")?)?;
                    if let (Some(all), Value::Object(verdict)) = (answer.as_object_mut(), verdict) {
                        all.extend(verdict);
                    }
                }
                Err(Refusal::Picture(why)) => answer["error"] = json!(why),
                Err(Refusal::Busy | Refusal::Late) => {
                    std::thread::sleep(BUSY);
                    return Ok(None);
                }
                Err(Refusal::Down(_) | Refusal::Lost(_)) => return Ok(None),
            }
        }
    }
    if let (Some(all), Value::Object(identity)) = (answer.as_object_mut(), serde_json::to_value(identity)?) {
        all.extend(identity);
    }
    Ok(Some(answer))
}

/// Starts to watch all folders.
///
/// # Errors
/// If one cannot be read.
pub fn start_all(service: &Arc<Service>, folders: &[Folder], runtime: &Handle) -> anyhow::Result<()> {
    folders.iter().try_for_each(|folder| start(service, folder, runtime))
}
