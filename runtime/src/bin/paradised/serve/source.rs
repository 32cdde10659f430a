//! Where a model comes from, and how it is taken into service: checks, self-test, worker.

use super::faults::Faults;
use super::listen;
use super::lock::locked;
use super::registry::Load;
use super::rules::Rules;
use super::served::{Crew, Served, Terms, Test};
use super::watched::Watching;
use super::worker::{Fresh, Limits};
use crate::arguments::{Serve, keys};
use crate::gpio::Pins;
use crate::threads::Placed;
use anyhow::{Context, bail, ensure};
use paradise_runtime::BackendKind;
use paradise_runtime::bundle::CARD;
use paradise_runtime::int8::Int8;
use paradise_runtime::selftest::{self, Options};
use paradise_runtime::store::{Keys, Store, Version};
use paradise_runtime::threads::Threads;
use paradise_runtime::watch::Lockstep;
use paradise_runtime::{Backend, Bundle, load};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

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

/// Takes models into service, as the settings say. Keys are read once.
pub struct Loader {
    arguments: Serve,
    keys: Option<Arc<Keys>>,
    /// What is remembered of faults.
    pub faults: Arc<Faults>,
    /// What decides about answers.
    pub rules: Arc<Rules>,
}

impl Loader {
    /// Of these settings, with what is remembered of faults.
    ///
    /// # Errors
    /// If a key is none.
    pub fn new(arguments: Serve, faults: Faults) -> anyhow::Result<Arc<Self>> {
        let keys = keys(&arguments.model.key)?;
        let rules = Arc::new(Rules::new(&arguments));
        Ok(Arc::new(Self { arguments, keys, faults: Arc::new(faults), rules }))
    }

    /// The settings.
    pub fn arguments(&self) -> &Serve {
        &self.arguments
    }

    /// A bundle that is named by its folder: its name, and how it is loaded, anew each time but the first.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn folder(self: &Arc<Self>, folder: &Path) -> anyhow::Result<(String, Load)> {
        let bundle = Bundle::open(folder)?;
        let (name, first) = (bundle.name().to_string(), Mutex::new(Some(bundle)));
        let (loader, folder) = (self.clone(), folder.to_path_buf());
        let model = name.clone();
        let load = move |running: Option<&str>| {
            loader.faults.none(&model)?;
            let first = locked(&first).take();
            let bundle = first.map_or_else(|| Bundle::open(&folder), Ok)?;
            let served = loader.serve(&folder, &bundle, VERSION, running.is_none());
            served.map(Some).with_context(|| folder.display().to_string())
        };
        Ok((name, Arc::new(load)))
    }

    /// The folder of models, where there is one.
    ///
    /// # Errors
    /// If it cannot be used, or nobody said by whose keys.
    pub fn store(&self) -> anyhow::Result<Option<Store>> {
        let model = &self.arguments.model;
        let Some(root) = &model.models else { return Ok(None) };
        ensure!(
            self.keys.is_some() || model.unsigned,
            "--models {}: by whose --key are its bundles signed? (--unsigned takes them from anybody)",
            root.display()
        );
        let state = model.remembered().unwrap_or_default();
        Ok(Some(Store::open(root, &state, self.keys.clone())?))
    }

    /// A model of the folder of models: its newest version that may serve and passes its self-test.
    pub fn stored(self: &Arc<Self>, store: &Arc<Store>, name: &str) -> Load {
        let (loader, store, name) = (self.clone(), store.clone(), name.to_string());
        Arc::new(move |running| loader.newest(&store, &name, running))
    }

    fn newest(&self, store: &Store, name: &str, running: Option<&str>) -> anyhow::Result<Option<Served>> {
        self.faults.none(name)?;
        let running: Option<Version> = running.and_then(|version| version.parse().ok());
        let mut refused = Vec::new();
        for version in store.candidates(name)? {
            if let Some(why) = store.was_refused(name, &version)? {
                refused.push(why);
                continue;
            }
            // What serves goes on, though its folder may have been taken away and an older one stayed.
            if running.as_ref().is_some_and(|running| version <= *running) {
                break;
            }
            match self.try_one(store, name, &version, running.is_none()) {
                Ok(served) => return Ok(Some(served)),
                Err(error) => {
                    tracing::error!("{name} {version} is not taken into service: {error:#}");
                    refused.push(format!("{version}: {error:#}"));
                }
            }
        }
        if running.is_some() {
            return Ok(None);
        }
        if refused.is_empty() {
            bail!("{}: no version that may serve", store.root().join(name).display());
        }
        bail!("no version may serve: {}", refused.join("; "))
    }

    /// `brief`: nothing serves meanwhile.
    fn try_one(&self, store: &Store, name: &str, version: &Version, brief: bool) -> anyhow::Result<Served> {
        let bundle = store.begin(name, version)?;
        let served = self.serve(&store.folder(name, version), &bundle, &version.to_string(), brief);
        match &served {
            Ok(_) => store.accept(name, version)?,
            Err(error) => store.refuse(name, version, &bundle.fingerprint(), &format!("{error:#}"))?,
        }
        served
    }

    /// A bundle's workers, if the bundle passes its self-test: where nothing serves meanwhile, its brief part, which the whole
    /// follows.
    fn serve(&self, folder: &Path, bundle: &Bundle, version: &str, brief: bool) -> anyhow::Result<Served> {
        let (arguments, kind) = (&self.arguments, self.arguments.model.backend);
        let (rules, keys, name) = (self.rules.clone(), self.keys.clone(), bundle.name().to_string());
        let options =
            move |brief| Options { site: rules.site_path(&name), keys: keys.clone(), brief, ..Options::default() };
        let report = selftest::of(bundle, kind, &options(brief))?;
        if report.exit_code() == 1 {
            return Err(SelfTestFailed(report.to_string()).into());
        }
        let threads = arguments.threads.threads(kind)?;
        let workers = arguments.workers.map_or_else(|| (cores() / threads.count()).max(1), usize::from);
        let crew = crew(bundle, kind, [workers, listen::threads()], arguments.lockstep, &threads)?;
        let rule = self.rules.begin(crew.workers.first().context("no workers")?.as_ref())?;
        match rule.site() {
            Some(site) => tracing::info!("{}: thresholds: {site}", bundle.name()),
            None => tracing::info!("{}: thresholds: the maker's", bundle.name()),
        }
        let pins = Pins::open(arguments.pins.gpio.as_deref())?;
        // What the folder holds later, if that is still the same.
        let (folder, tested) = (folder.to_path_buf(), bundle.fingerprint());
        let again = Arc::new(move || {
            let bundle = Bundle::open(&folder)?;
            ensure!(bundle.fingerprint() == tested, "{}: it is another bundle than was tested", folder.display());
            anyhow::Ok(bundle)
        });
        let (same, open, shared) = (again.clone(), again.clone(), crew.lockstep.as_ref().map(Lockstep::beside));
        // The engine's memory is watched, so another worker may share it.
        let fresh: Fresh = match shared {
            Some(shared) => Arc::new(move || Ok(sharing(&shared, &threads, 0))),
            None => Arc::new(move || Ok(load(&same()?, kind)?)),
        };
        let test: Test = Arc::new(move || Ok(selftest::of(&again()?, kind, &options(false))?));
        let limits = Limits { waiting: arguments.queue.into(), decoded: u64::from(arguments.max_decoded) << 20 };
        let watching = Watching {
            round: Duration::from_secs(arguments.round_seconds.into()),
            longest: arguments.stale_seconds.map(|seconds| Duration::from_secs(seconds.into())),
        };
        let makers = promised(bundle);
        let terms = Terms { rule, makers, pins, limits, watching, open };
        let served = Served::start((version, bundle.fingerprint()), crew, fresh, terms, test)?;
        served.whole.store(!brief, Ordering::Relaxed);
        Ok(served)
    }
}

/// Back ends; those of the engine share one model in memory, one count of answers, one scalar copy.
fn crew(
    bundle: &Bundle,
    kind: BackendKind,
    [workers, callers]: [usize; 2],
    every: u32,
    threads: &Threads,
) -> anyhow::Result<Crew> {
    if kind == BackendKind::Int8 {
        let lockstep = Lockstep::new(Int8::load(bundle)?, every);
        let workers = (0..workers).map(|worker| sharing(&lockstep, threads, worker)).collect();
        // What is answered where it was received takes less than calling others would.
        let callers = (0..callers).map(|_| Box::new(lockstep.beside()) as Box<dyn Backend>).collect();
        return Ok(Crew { workers, callers, lockstep: Some(lockstep) });
    }
    // Each has the network in memory of its own, and takes long enough for a thread of its own.
    let workers = (0..workers).map(|_| load(bundle, kind)).collect::<Result<_, _>>()?;
    Ok(Crew { workers, callers: Vec::new(), lockstep: None })
}

/// The engine of a worker.
fn sharing(lockstep: &Lockstep, threads: &Threads, worker: usize) -> Box<dyn Backend> {
    let own = lockstep.beside().with_team(threads.team(worker));
    Box::new(Placed::new(Box::new(own), threads, worker))
}

/// The share of ordinary pictures that the maker's thresholds may abstain from, as the card says.
fn promised(bundle: &Bundle) -> Option<f64> {
    let card: toml::Table = std::str::from_utf8(bundle.file(CARD).ok()?).ok()?.parse().ok()?;
    card.get("false_abstain_promised_percent")?.as_float().map(|percent| percent / 100.0)
}

/// Cores that this process may use, at most eight.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get().min(8))
}
