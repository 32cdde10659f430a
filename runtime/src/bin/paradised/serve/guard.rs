//! Looks after the folder of models while the service runs: what arrives is taken into service, what fails on probation goes back.

use super::http::Service;
use super::notify;
use super::registry::Registry;
use super::served::Served;
use super::source::Loader;
use anyhow::Context;
use inotify::{Inotify, WatchMask};
use paradise_runtime::store::{Store, Version};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// So long a version that was just taken into service is on probation.
const PROBATION: Duration = Duration::from_secs(60);
/// Back ends that a version may lose on probation.
const MOST_LOST: u64 = 1;
/// After something has changed, so long nothing may change until it is looked at.
const QUIET: Duration = Duration::from_millis(200);

/// Keeper of a folder of models.
pub struct Guard {
    loader: Arc<Loader>,
    store: Arc<Store>,
}

impl Guard {
    /// Of this folder.
    pub fn new(loader: Arc<Loader>, store: Store) -> Self {
        Self { loader, store: Arc::new(store) }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        self.store.root()
    }

    /// Takes into service what is new, model by model.
    pub fn rescan(&self, registry: &Registry) {
        let names = match self.store.names() {
            Ok(names) => names,
            Err(error) => return tracing::error!("{}: {error}", self.root().display()),
        };
        for name in names {
            registry.add(&name, self.loader.stored(&self.store, &name));
            // The registry has logged why.
            let _ = registry.refresh(&name);
        }
    }

    /// What has served without fault for long enough, or until a regular end, is proven; what lost its back ends goes back.
    fn judge(&self, registry: &Registry, served: &Served, at_the_end: bool) {
        let Ok(version) = served.version.parse::<Version>() else { return };
        let record = match self.store.record(&served.name) {
            Ok(record) => record,
            Err(error) => return tracing::error!("{error}"),
        };
        if record.proven || record.current.as_ref() != Some(&version) {
            return;
        }
        let lost = served.replaced() > MOST_LOST || !served.is_up();
        // A fault of the device is no fault of the version.
        if lost && served.watched.fault().is_none() {
            self.gives_up(registry, served, &format!("its back end failed {} times on probation", served.replaced()));
        } else if !lost
            && (at_the_end || served.whole.load(Ordering::Relaxed) && served.since.elapsed() >= PROBATION)
            && let Err(error) = self.store.prove(&served.name)
        {
            tracing::error!("{error}");
        }
    }

    /// Gives up a version that is on probation for the one before it; whether there is one.
    pub fn gives_up(&self, registry: &Registry, served: &Served, why: &str) -> bool {
        let Ok(version) = served.version.parse::<Version>() else { return false };
        let given_up = self.store.record(&served.name).and_then(|record| {
            if record.proven || record.current.as_ref() != Some(&version) || record.previous.is_none() {
                return Ok(false);
            }
            tracing::error!("{} {version} is given up: {why}", served.name);
            self.store.refuse(&served.name, &version, &served.bundle, &why)?;
            // What runs is no longer a candidate, so another is taken.
            Ok(registry.replace(&served.name).is_ok())
        });
        given_up.unwrap_or_else(|error| {
            tracing::error!("{error}");
            false
        })
    }

    fn look(&self, registry: &Registry, at_the_end: bool) {
        registry.loaded().iter().for_each(|served| self.judge(registry, served, at_the_end));
    }

    /// The newest version of a model that is there and may serve.
    pub fn newest(&self, model: &str) -> Option<String> {
        Some(self.store.candidates(model).ok()?.first()?.to_string())
    }

    /// The service ends as it should: what serves has not failed.
    pub fn ended_well(&self, registry: &Registry) {
        self.look(registry, true);
    }
}

/// Reads the certificate anew, and looks for models; blocks while they are loaded.
pub fn reload(service: &Service) {
    notify::reloading();
    if let Some(tls) = &service.tls {
        tls.reload();
    }
    match &service.guard {
        Some(guard) => guard.rescan(&service.registry),
        None => service.registry.index().iter().for_each(|(name, ..)| drop(service.registry.refresh(name))),
    }
    notify::ready(service);
}

/// Starts what goes on beside the requests: changes of the folder, SIGHUP, probation. SIGHUP loads every model anew where there is no
/// such folder.
///
/// # Errors
/// If the folder cannot be watched, or the signal not caught.
pub fn start(service: &Arc<Service>) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangup = signal(SignalKind::hangup()).context("SIGHUP")?;
    let weak = Arc::downgrade(service);
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            let Some(service) = weak.upgrade() else { return };
            tracing::info!("SIGHUP: looking for models");
            let reload = tokio::task::spawn_blocking(move || reload(&service));
            let _ = reload.await;
        }
    });
    let weak = Arc::downgrade(service);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let Some(service) = weak.upgrade() else { return };
            service.registry.loaded().iter().for_each(|served| served.replace_hung(service.longest));
        }
    });
    let Some(guard) = &service.guard else { return Ok(()) };
    let store = guard.store.clone();
    let mut inotify = Inotify::init().context("inotify")?;
    watch(&inotify, &store).with_context(|| store.root().display().to_string())?;
    let weak = Arc::downgrade(service);
    std::thread::spawn(move || changes(&mut inotify, &store, &weak));
    let weak = Arc::downgrade(service);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let Some(service) = weak.upgrade() else { return };
            let look = tokio::task::spawn_blocking(move || {
                if let Some(guard) = &service.guard {
                    guard.look(&service.registry, false);
                }
            });
            let _ = look.await;
        }
    });
    Ok(())
}

/// Watches the folder and those of its models; those of versions come whole, by a rename.
fn watch(inotify: &Inotify, store: &Store) -> std::io::Result<()> {
    let mask =
        WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::DELETE | WatchMask::MOVED_FROM | WatchMask::ONLYDIR;
    inotify.watches().add(store.root(), mask)?;
    for folder in store.folders()? {
        inotify.watches().add(&folder, mask)?;
    }
    Ok(())
}

fn changes(inotify: &mut Inotify, store: &Store, service: &Weak<Service>) {
    let (root, mut buffer) = (store.root(), [0; 4096]);
    loop {
        if let Err(error) = inotify.read_events_blocking(&mut buffer) {
            return tracing::error!("{}: no longer watched: {error}", root.display());
        }
        loop {
            std::thread::sleep(QUIET);
            match inotify.read_events(&mut buffer).map(Iterator::count) {
                Ok(1..) => {}
                _ => break,
            }
        }
        // A model that is new has a folder that is new.
        if let Err(error) = watch(inotify, store) {
            tracing::error!("{}: {error}", root.display());
        }
        let Some(service) = service.upgrade() else { return };
        if let Some(guard) = &service.guard {
            guard.rescan(&service.registry);
        }
    }
}
