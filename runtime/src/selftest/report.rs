//! The self-test's machine-readable outcome.

use super::check_names;
use super::checks::Outcome;
use crate::pipeline::BackendKind;
use serde::Serialize;
use std::collections::BTreeMap;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It ran and held.
    Passed,
    /// It ran and did not hold.
    Failed,
    /// It has no meaning for this back end or bundle.
    NotApplicable,
    /// It has a meaning but did not run.
    NotRun,
}

impl Status {
    /// As the table shows it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::NotApplicable => "not applicable",
            Self::NotRun => "not run",
        }
    }
}

/// Numbers of a check, by name: what was found, and what was needed.
pub type Figures = BTreeMap<&'static str, f64>;

/// The format of the JSON report, which `docs/selftest.schema.json` describes: a field that is there stays, with its meaning.
pub const FORMAT: u32 = 1;

/// What a self-test says in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// All that applies passed.
    Passed,
    /// A check failed.
    Failed,
    /// None failed, but one did not run.
    Incomplete,
}

impl Verdict {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Incomplete => "incomplete",
        }
    }
}

/// One check.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// How it ended.
    pub status: Status,
    /// What was seen.
    pub detail: String,
    /// The same in numbers.
    pub figures: Figures,
}

/// All checks of one run. In JSON [`FORMAT`], verdict and exit code stand before them.
#[derive(Debug, Clone)]
pub struct Report {
    /// Name of the bundle, or its folder where that is unreadable.
    pub name: String,
    /// Back end.
    pub backend: BackendKind,
    /// Version of this program.
    pub version: &'static str,
    /// Processor architecture.
    pub architecture: &'static str,
    /// What runs the encoder: the engine's kernels, or tract; none before it is loaded.
    pub kernel: &'static str,
    /// In order.
    pub checks: Vec<Check>,
}

impl Report {
    pub(super) fn new(name: String, backend: BackendKind) -> Self {
        Self {
            name,
            backend,
            version: env!("CARGO_PKG_VERSION"),
            architecture: std::env::consts::ARCH,
            kernel: "none",
            checks: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, name: &'static str, status: Status, detail: impl Into<String>) {
        self.checks.push(Check { name, status, detail: detail.into(), figures: Figures::new() });
    }

    pub(super) fn ended(&mut self, name: &'static str, outcome: Outcome) {
        let Outcome { status, detail, figures } = outcome;
        self.checks.push(Check { name, status, detail, figures });
    }

    pub(super) fn rest_not_run(&mut self) {
        for name in check_names() {
            if !self.checks.iter().any(|c| c.name == name) {
                self.add(name, Status::NotRun, "an earlier check failed");
            }
        }
    }

    fn has(&self, status: Status) -> bool {
        self.checks.iter().any(|c| c.status == status)
    }

    /// What it comes to.
    pub fn verdict(&self) -> Verdict {
        match (self.has(Status::Failed), self.has(Status::NotRun)) {
            (true, _) => Verdict::Failed,
            (false, true) => Verdict::Incomplete,
            (false, false) => Verdict::Passed,
        }
    }

    /// 0: all that applies passed. 1: a check failed. 3: none failed, but one did not run.
    pub fn exit_code(&self) -> u8 {
        match self.verdict() {
            Verdict::Passed => 0,
            Verdict::Failed => 1,
            Verdict::Incomplete => 3,
        }
    }
}

impl Serialize for Report {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Written<'a> {
            format: u32,
            verdict: Verdict,
            exit_code: u8,
            name: &'a str,
            backend: BackendKind,
            version: &'static str,
            architecture: &'static str,
            kernel: &'static str,
            checks: &'a [Check],
        }
        let Self { name, backend, version, architecture, kernel, checks } = self;
        let (verdict, exit_code) = (self.verdict(), self.exit_code());
        let (backend, version, architecture, kernel) = (*backend, *version, *architecture, *kernel);
        Written { format: FORMAT, verdict, exit_code, name, backend, version, architecture, kernel, checks }
            .serialize(serializer)
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "self-test of {} on {} ({}, kernel {}), paradise {}",
            self.name, self.backend, self.architecture, self.kernel, self.version
        )?;
        for check in &self.checks {
            writeln!(f, "  {:<22}{:<16}{}", check.name, check.status.name(), check.detail)?;
        }
        write!(
            f,
            "{}",
            match self.exit_code() {
                0 => "PASSED",
                1 => "FAILED",
                _ => "NOT COMPLETE: a check did not run",
            }
        )
    }
}
