//! Two programs that take turns, so that a drift of the machine's speed meets both alike: each is a child that prints
//! `ready`, answers every line with seconds, and its last word after the end of its input.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// What a benchmark returns.
pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// One side, waiting for a line.
pub struct Side {
    child: Child,
    go: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Side {
    /// Starts a program and waits until it is ready.
    pub fn start(command: &mut Command) -> Outcome<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (go, out) = (child.stdin.take(), child.stdout.take().ok_or("no output")?);
        let mut side = Self { child, go, answers: BufReader::new(out) };
        match side.answer()?.as_str() {
            "ready" => Ok(side),
            other => Err(format!("{other:?} instead of ready").into()),
        }
    }

    fn answer(&mut self) -> Outcome<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim().to_string())
    }

    /// Sends a request and returns the seconds that it took, measured by the child.
    pub fn turn(&mut self, request: &str) -> Outcome<Vec<f64>> {
        // The other side's threads may still spin.
        std::thread::sleep(Duration::from_millis(30));
        writeln!(self.go.as_mut().ok_or("closed")?, "{request}")?;
        Ok(self.answer()?.split(' ').map(str::parse).collect::<Result<_, _>>()?)
    }

    /// Ends the child; its last word.
    pub fn finish(mut self) -> Outcome<String> {
        drop(self.go.take());
        let last = self.answer()?;
        self.child.wait()?;
        Ok(last)
    }
}

/// The median; the smaller of the middle two would be as good.
pub fn median(seconds: &[f64]) -> f64 {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// The repository's root: where this runs, or where it was built.
pub fn root() -> PathBuf {
    if Path::new("train/benches").exists() {
        return PathBuf::from(".");
    }
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A peer's program, beside the benchmarks.
pub fn script(name: &str) -> PathBuf {
    root().join("train/benches").join(name)
}
