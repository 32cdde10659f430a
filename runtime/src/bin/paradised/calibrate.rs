//! `paradised calibrate`: thresholds from pictures of the place where the device stands.

use crate::arguments::Calibrate;
use anyhow::{Context, ensure};
use paradise_runtime::site::{Observations, Options};
use paradise_runtime::{Bundle, load, say};
use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Most pictures that are looked at: a month of one a minute, and a bound on memory.
const MAX_PICTURES: usize = 50_000;
/// How often progress is told where nobody looks at a terminal.
const PROGRESS: Duration = Duration::from_secs(10);

/// All files below a folder, in order, hidden ones and links left out.
fn below(folder: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("{}: cannot read", folder.display()))?;
    let mut entries: Vec<_> = entries.collect::<Result<_, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let kind = entry.file_type()?;
        if kind.is_dir() {
            below(&entry.path(), found)?;
        } else if kind.is_file() {
            found.push(entry.path());
        }
        too_many(found)?;
    }
    Ok(())
}

fn too_many(found: &[PathBuf]) -> anyhow::Result<()> {
    ensure!(found.len() <= MAX_PICTURES, "more than {MAX_PICTURES} pictures; choose some of them");
    Ok(())
}

/// The pictures that were named.
fn pictures(images: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = vec![];
    if images == Path::new("-") {
        for line in std::io::stdin().lock().lines() {
            let line = line.context("standard input is not a list of paths")?;
            if !line.is_empty() {
                found.push(PathBuf::from(line));
            }
            too_many(&found)?;
        }
    } else {
        ensure!(images.is_dir(), "{}: not a folder", images.display());
        below(images, &mut found)?;
    }
    Ok(found)
}

/// The class whose name the picture's folder has.
fn label(path: &Path, labels: &[String]) -> Option<usize> {
    let folder = path.parent()?.file_name()?.to_str()?;
    labels.iter().position(|label| label == folder)
}

/// A line of progress: in place on a terminal, else one every few seconds.
struct Progress {
    terminal: bool,
    told: Instant,
}

impl Progress {
    fn show(&mut self, done: usize, all: usize) {
        if self.terminal && (done.is_multiple_of(20) || done == all) {
            eprint!("\rcalibrate: {done} of {all} pictures{}", if done == all { "\n" } else { "" });
        } else if !self.terminal && self.told.elapsed() >= PROGRESS {
            eprintln!("calibrate: {done} of {all} pictures");
            self.told = Instant::now();
        }
    }
}

/// Looks at every picture, then writes the site file; pictures that cannot be read are named and left out.
pub fn run(arguments: &Calibrate) -> anyhow::Result<u8> {
    let bundle = Bundle::open(&arguments.model.model)?;
    let mut backend = load(&bundle, arguments.model.backend)?;
    let mut labels = vec![];
    backend.with_model(&mut |model| {
        labels = (0..model.header().classes as usize).map(|class| model.label(class).to_string()).collect();
    });
    let paths = pictures(&arguments.images)?;
    let mut seen = Observations::new(backend.as_ref());
    let mut progress = Progress { terminal: std::io::stderr().is_terminal(), told: Instant::now() };
    for (i, path) in paths.iter().enumerate() {
        let input = paradise_picture::read(path).and_then(|bytes| backend.input(&bytes));
        match input {
            Ok(input) => {
                let name = path.display().to_string();
                seen.add(backend.as_mut(), &name, &input, label(path, &labels))?;
            }
            Err(error) => eprintln!("paradised: {}: {error}; left out", path.display()),
        }
        progress.show(i + 1, paths.len());
    }
    let options = Options { promise: arguments.promise, max_abstained: arguments.max_abstained };
    let (site, report) = seen
        .calibrate(backend.as_mut(), &options)
        .with_context(|| format!("{}: no site file is written", arguments.images.display()))?;
    site.write(&arguments.out)?;
    if arguments.json {
        say!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        say!("{report}");
        say!("written to {}; use it with --site", arguments.out.display());
    }
    Ok(0)
}
