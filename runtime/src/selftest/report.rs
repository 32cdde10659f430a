//! The self-test's machine-readable outcome.

use super::check_names;
use crate::pipeline::BackendKind;
use serde::Serialize;
use std::path::Path;

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

/// One check.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// How it ended.
    pub status: Status,
    /// What was seen.
    pub detail: String,
}

/// All checks of one run.
#[derive(Debug, Clone, Serialize)]
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
    pub(super) fn new(folder: &Path, backend: BackendKind) -> Self {
        Self {
            name: folder.display().to_string(),
            backend,
            version: env!("CARGO_PKG_VERSION"),
            architecture: std::env::consts::ARCH,
            kernel: "none",
            checks: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, name: &'static str, status: Status, detail: impl Into<String>) {
        self.checks.push(Check { name, status, detail: detail.into() });
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

    /// 0: all that applies passed. 1: a check failed. 3: none failed, but one did not run.
    pub fn exit_code(&self) -> u8 {
        match (self.has(Status::Failed), self.has(Status::NotRun)) {
            (true, _) => 1,
            (false, true) => 3,
            (false, false) => 0,
        }
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
