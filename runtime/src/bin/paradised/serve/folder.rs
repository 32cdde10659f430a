//! Watched folders: a picture that is moved or written into one is answered once, whatever ends the process when. Its answer lies beside it, in
//! `NAME.json`, or is a line of a journal; what is there already is not answered again.

use super::http::Service;
use super::served::Refusal;
use crate::arguments::tables::Folder;
use anyhow::Context;
use inotify::{Inotify, WatchMask};
use jiff::Timestamp;
use paradise_runtime::oip::Pictures;
use paradise_runtime::output::write_whole;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::runtime::Handle;

/// A file that nobody announced, and that was written in the last seconds, may still be written.
const SETTLED: Duration = Duration::from_secs(2);
/// Between two looks at the whole folder.
const LOOK: Duration = Duration::from_secs(1);
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
enum Answers {
    Beside,
    Journal { file: File, path: PathBuf, answered: HashSet<Identity> },
}

impl Answers {
    fn open(settings: &Folder) -> anyhow::Result<Self> {
        let Some(path) = &settings.journal else { return Ok(Self::Beside) };
        let open = || -> std::io::Result<(File, HashSet<Identity>)> {
            let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
            let mut text = Vec::new();
            file.seek(SeekFrom::Start(0))?;
            file.read_to_end(&mut text)?;
            if text.last().is_some_and(|last| *last != b'\n') {
                // The process ended while a line was written: its picture is answered again, and this line is none.
                file.write_all(b"\n")?;
            }
            let lines = text.split(|byte| *byte == b'\n');
            Ok((file, lines.filter_map(|line| serde_json::from_slice(line).ok()).collect()))
        };
        let (file, answered) = open().with_context(|| path.display().to_string())?;
        Ok(Self::Journal { file, path: path.clone(), answered })
    }

    fn beside(picture: &Path) -> PathBuf {
        let mut name = picture.as_os_str().to_os_string();
        name.push(".json");
        name.into()
    }

    fn has(&self, path: &Path, identity: &Identity) -> bool {
        match self {
            Self::Beside => {
                let read = std::fs::read(Self::beside(path));
                read.ok().and_then(|bytes| serde_json::from_slice::<Identity>(&bytes).ok()).as_ref() == Some(identity)
            }
            Self::Journal { answered, .. } => answered.contains(identity),
        }
    }

    fn put(&mut self, path: &Path, identity: Identity, answer: &Value) -> anyhow::Result<()> {
        match self {
            Self::Beside => {
                let beside = Self::beside(path);
                let text = serde_json::to_vec_pretty(answer)?;
                write_whole(&beside, &text).with_context(|| beside.display().to_string())
            }
            Self::Journal { file, path, answered } => {
                let mut line = serde_json::to_vec(answer)?;
                line.push(b'\n');
                file.write_all(&line).and_then(|()| file.sync_data()).with_context(|| path.display().to_string())?;
                answered.insert(identity);
                Ok(())
            }
        }
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
        loop {
            // What was announced is whole; the rest of the folder is looked at, too, for what came while nobody watched.
            let announced = announced(&mut inotify);
            let Some(service) = service.upgrade() else { return };
            if let Err(error) = look(&service, &settings, &runtime, &mut answers, &announced) {
                tracing::error!("{}: {error:#}", settings.path.display());
            }
            drop(service);
            if announced.is_empty() {
                std::thread::sleep(LOOK / 10);
            }
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

fn look(
    service: &Service,
    settings: &Folder,
    runtime: &Handle,
    answers: &mut Answers,
    announced: &HashSet<OsString>,
) -> anyhow::Result<()> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&settings.path)? {
        let name = entry?.file_name();
        let text = name.to_string_lossy();
        if !text.starts_with('.') && !text.ends_with(".json") && !text.ends_with(".tmp") && !text.ends_with(".part") {
            files.push(name);
        }
    }
    files.sort();
    for name in files {
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
            answer["sha256"] =
                json!(Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>());
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
                Err(Refusal::Down | Refusal::Lost(_)) => return Ok(None),
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
