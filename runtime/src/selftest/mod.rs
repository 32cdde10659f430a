//! The self-test: does this device still answer as its maker said? Each check says passed, failed, not applicable or
//! not run, and not run is never passed.

mod campaign;
mod checks;
mod device;
mod page;
mod report;

pub use campaign::{Campaign, Place, Row, campaign};
pub use page::page;
pub use report::{Check, FORMAT, Figures, Report, Status, Verdict};

use crate::bundle::{Bundle, BundleError, ENCODER, SELFTEST};
use crate::load::Loaded;
use crate::pipeline::BackendKind;
use crate::store::{Claims, Keys};
use checks::Subject;
use paradise_engine::golden::Golden;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a self-test is asked to do.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Largest p99 latency, milliseconds; without it latency is measured but not judged.
    pub max_latency_ms: Option<f64>,
    /// Checks to leave out, by name; they report `not run`.
    pub skip: Vec<String>,
    /// Flip this bit of the resident weights after loading, to see the test fail.
    pub flip_weight_bit: Option<usize>,
    /// A site file whose thresholds are in force.
    pub site: Option<PathBuf>,
    /// Keys, one of which must have signed the bundle.
    pub keys: Option<Arc<Keys>>,
    /// Seed of the noise that is drawn; another each time without one.
    pub noise_seed: Option<u32>,
    /// Only the checks that a device makes before it answers: hashes, signature, golden images, thresholds. The others report
    /// `not run`.
    pub brief: bool,
}

/// Tests the bundle in `folder` on one back end.
///
/// Whatever is wrong with a bundle is a failed check, so the report always has every check in it.
///
/// ```
/// use paradise_runtime::{BackendKind, selftest};
/// # let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/fashion-mnist-small");
/// let options = selftest::Options { skip: vec!["latency".into()], ..Default::default() };
/// let report = selftest::run(&folder, BackendKind::Int8, &options)?;
/// // 0: all passed; 1: a check failed; 3: one did not run, here because it was left out.
/// assert_eq!(report.exit_code(), 3);
/// # Ok::<(), paradise_runtime::BundleError>(())
/// ```
///
/// # Errors
/// If there is nothing to test: no bundle in the folder, or none with the file that the back end runs.
pub fn run(folder: &Path, kind: BackendKind, options: &Options) -> Result<Report, BundleError> {
    match Bundle::open(folder) {
        Ok(bundle) => of(&bundle, kind, options),
        Err(error @ BundleError::NoBundle(_)) => Err(error),
        Err(error) => {
            let mut report = Report::new(folder.display().to_string(), kind);
            report.add("manifest", Status::Failed, error.to_string());
            report.rest_not_run();
            Ok(report)
        }
    }
}

/// [`run`] of a bundle that was read.
///
/// # Errors
/// If it has not the file that the back end runs.
pub fn of(bundle: &Bundle, kind: BackendKind, options: &Options) -> Result<Report, BundleError> {
    let mut report = Report::new(bundle.name().to_string(), kind);
    let skip = |name: &str| options.skip.iter().any(|s| s == name);
    if kind == BackendKind::Tract {
        bundle.file(ENCODER)?;
    }
    report.add("manifest", Status::Passed, format!("{} files match their SHA-256", bundle.files().count()));
    let (status, said) = signature(bundle, options.keys.as_deref());
    report.add("signature", status, said);
    if status == Status::Failed {
        report.rest_not_run();
        return Ok(report);
    }
    let loaded = Loaded::open(bundle, kind).map_err(|e| e.to_string());
    let golden = bundle
        .file(SELFTEST)
        .map_err(|e| e.to_string())
        .and_then(|b| Golden::parse(b).map_err(|e| format!("{}: {e}", bundle.path(SELFTEST).display())));
    match (loaded, golden) {
        (Ok(mut loaded), Ok(golden)) => {
            if let (Some(bit), Some(int8)) = (options.flip_weight_bit, loaded.int8()) {
                *int8 = int8.with_flipped_bit(bit);
            }
            report.kernel = loaded.int8().map_or("tract", |int8| int8.kernels());
            report.add(
                "load",
                Status::Passed,
                format!("{kind} back end and {} golden images", golden.header().cases.len()),
            );
            let mut subject = Subject { loaded: &mut loaded, golden: &golden, options };
            for (name, check) in checks::ALL {
                if skip(name) {
                    report.add(name, Status::NotRun, "left out on request");
                } else if options.brief && !checks::BRIEF.contains(name) {
                    report.add(name, Status::NotRun, "it follows");
                } else {
                    report.ended(name, check(&mut subject));
                }
            }
        }
        (Err(error), _) | (_, Err(error)) => {
            report.add("load", Status::Failed, error);
            report.rest_not_run();
        }
    }
    Ok(report)
}

/// Whom the bundle is from.
fn signature(bundle: &Bundle, keys: Option<&Keys>) -> (Status, String) {
    match (keys, bundle.signature()) {
        (Some(keys), _) => match keys.claims(bundle) {
            Ok(Claims { model, version, expires }) => {
                (Status::Passed, format!("signed as {model}, version {version}, until {expires}"))
            }
            Err(why) => (Status::Failed, why.to_string()),
        },
        (None, Some(_)) => (Status::NotRun, "it is signed, and no key was given (--key)".into()),
        (None, None) => (Status::NotApplicable, "the bundle is not signed, and no key was given".into()),
    }
}

/// Names of the checks that may be left out.
pub fn optional_names() -> impl Iterator<Item = &'static str> {
    checks::ALL.iter().map(|(name, _)| *name)
}

/// Names of every check, in order.
pub fn check_names() -> impl Iterator<Item = &'static str> {
    ["manifest", "signature", "load"].into_iter().chain(optional_names())
}
