//! Where a model comes from, and how it is taken into service: checks, self-test, worker.

use super::registry::Load;
use super::served::{Served, Test};
use super::worker::{Fresh, Limits};
use crate::arguments::{Serve, keys};
use crate::gpio::Pins;
use anyhow::{Context, bail, ensure};
use paradise_runtime::selftest::{self, Options};
use paradise_runtime::store::{Store, Version};
use paradise_runtime::{Bundle, load};
use std::path::Path;
use std::sync::Arc;

/// A self-test failed: its report.
#[derive(Debug)]
pub struct SelfTestFailed(pub String);

impl std::fmt::Display for SelfTestFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("its self-test failed:\n")?;
        f.write_str(&self.0)
    }
}

impl std::error::Error for SelfTestFailed {}

/// The version of a bundle that lies in no folder of versions.
const VERSION: &str = "1";

/// A bundle that is named by its folder: loaded anew each time.
pub fn folder(arguments: &Arc<Serve>, folder: &Path) -> anyhow::Result<(String, Load)> {
    let name = Bundle::open(folder)?.name().to_string();
    let (arguments, folder) = (arguments.clone(), folder.to_path_buf());
    let load = move |_: Option<&str>| {
        let served = serve(&arguments, &folder, &Bundle::open(&folder)?, VERSION);
        served.map(Some).with_context(|| folder.display().to_string())
    };
    Ok((name, Arc::new(load)))
}

/// The folder of models, where there is one.
pub fn store(arguments: &Serve) -> anyhow::Result<Option<Arc<Store>>> {
    let Some(root) = &arguments.model.models else { return Ok(None) };
    let keys = keys(&arguments.model.key)?;
    ensure!(
        keys.is_some() || arguments.model.unsigned,
        "--models {}: by whose --key are its bundles signed? (--unsigned takes them from anybody)",
        root.display()
    );
    let state = arguments.model.state.clone().unwrap_or_else(|| root.join(".paradised"));
    Ok(Some(Arc::new(Store::open(root, &state, keys)?)))
}

/// A model of the folder of models: its newest version that may serve and passes its self-test.
pub fn stored(arguments: &Arc<Serve>, store: &Arc<Store>, name: &str) -> Load {
    let (arguments, store, name) = (arguments.clone(), store.clone(), name.to_string());
    Arc::new(move |running| newest(&arguments, &store, &name, running))
}

fn newest(arguments: &Serve, store: &Store, name: &str, running: Option<&str>) -> anyhow::Result<Option<Served>> {
    let mut refused = Vec::new();
    for version in store.candidates(name)? {
        if let Some(why) = store.was_refused(name, &version)? {
            refused.push(why);
            continue;
        }
        if running.is_some_and(|running| running == version.to_string()) {
            return Ok(None);
        }
        match try_one(arguments, store, name, &version) {
            Ok(served) => return Ok(Some(served)),
            Err(error) => {
                tracing::error!("{name} {version} is not taken into service: {error:#}");
                refused.push(format!("{version}: {error:#}"));
            }
        }
    }
    if running.is_some() {
        // What serves may have been taken away; it goes on.
        return Ok(None);
    }
    if refused.is_empty() {
        bail!("{}: no version that may serve", store.root().join(name).display());
    }
    bail!("no version may serve: {}", refused.join("; "))
}

fn try_one(arguments: &Serve, store: &Store, name: &str, version: &Version) -> anyhow::Result<Served> {
    let bundle = store.begin(name, version)?;
    let served = serve(arguments, &store.folder(name, version), &bundle, &version.to_string());
    match &served {
        Ok(_) => store.accept(name, version)?,
        Err(error) => store.refuse(name, version, &bundle.fingerprint(), &format!("{error:#}"))?,
    }
    served
}

/// A bundle's worker, if the bundle passes its self-test.
fn serve(arguments: &Serve, folder: &Path, bundle: &Bundle, version: &str) -> anyhow::Result<Served> {
    let kind = arguments.model.backend;
    let options =
        Options { site: arguments.site.site.clone(), keys: keys(&arguments.model.key)?, ..Options::default() };
    let report = selftest::of(bundle, folder, kind, &options)?;
    if report.exit_code() == 1 {
        return Err(SelfTestFailed(report.to_string()).into());
    }
    let backend = load(bundle, kind)?;
    let rule = arguments.thresholds.over(arguments.site.rule(backend.as_ref())?)?;
    match rule.site() {
        Some(site) => tracing::info!("{}: thresholds: {site}", bundle.name()),
        None => tracing::info!("{}: thresholds: the maker's", bundle.name()),
    }
    let pins = Pins::open(arguments.pins.gpio.as_deref())?;
    let (folder, tested) = (folder.to_path_buf(), bundle.fingerprint());
    let (own, same, at) = (tested.clone(), tested.clone(), folder.clone());
    // What the folder holds, if that is still the same.
    let fresh: Fresh = Arc::new(move || {
        let bundle = Bundle::open(&folder)?;
        ensure!(bundle.fingerprint() == tested, "{}: it is another bundle than was tested", folder.display());
        Ok(load(&bundle, kind)?)
    });
    let test: Test = Arc::new(move || {
        let bundle = Bundle::open(&at)?;
        ensure!(bundle.fingerprint() == same, "{}: it is another bundle than serves", at.display());
        Ok(selftest::of(&bundle, &at, kind, &options)?)
    });
    let limits = Limits {
        waiting: arguments.queue.into(),
        decoded: u64::from(arguments.max_decoded) << 20,
        workers: arguments.workers.map_or_else(cores, usize::from),
    };
    Served::start((version, own), backend, fresh, rule, pins, limits, test)
}

/// Cores that this process may use, at most eight.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get().min(8))
}
