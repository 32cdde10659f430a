//! The self-test while the service runs: on demand and on a schedule, one at a time. A model that fails it is taken out of service.

use super::http::Service;
use super::listen;
use super::lock::locked;
use super::meters;
use super::served::Served;
use paradise_runtime::selftest::{Report, Status, Verdict};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The last reports, by model.
#[derive(Default)]
pub struct Exams {
    last: Mutex<BTreeMap<String, Arc<Report>>>,
    /// Held while one runs.
    one: tokio::sync::Mutex<()>,
}

impl Exams {
    /// A model's last report since the service started.
    pub fn last(&self, model: &str) -> Option<Arc<Report>> {
        locked(&self.last).get(model).cloned()
    }

    /// Tests a model, after any test that is under way; `None` if that takes too long.
    pub async fn test(&self, service: &Arc<Service>, served: &Arc<Served>) -> Option<anyhow::Result<Arc<Report>>> {
        let _one = tokio::time::timeout(listen::ANSWER, self.one.lock()).await.ok()?;
        let (service, served) = (service.clone(), served.clone());
        let tested = tokio::task::spawn_blocking(move || {
            let report = Arc::new((served.test)()?);
            let said = format!("version {}: {}", served.version, report.verdict().name());
            tracing::info!("{}: self-test of {said}", served.name);
            meters::tested(&served.name, report.verdict().name());
            service.faults.note("selftest", &served.name, &said);
            served.whole.store(true, Ordering::Relaxed);
            if report.verdict() == Verdict::Failed {
                failed(&service, &served, &report);
            }
            let mut last = locked(&service.exams.last);
            last.insert(served.name.clone(), report.clone());
            Ok(report)
        });
        Some(tested.await.unwrap_or_else(|_| Err(anyhow::anyhow!("the self-test panicked; the log says where"))))
    }
}

/// A model failed: one on probation gives way to the version before it, any other to nothing.
fn failed(service: &Service, served: &Arc<Served>, report: &Report) {
    let check = report.checks.iter().find(|check| check.status == Status::Failed);
    let why = check.map(|check| format!(": {}: {}", check.name, check.detail)).unwrap_or_default();
    let why = format!("its self-test failed while it served{why}");
    if service.guard.as_ref().is_some_and(|guard| guard.gives_up(&service.registry, served, &why)) {
        return service.faults.note("rollback", &served.name, &format!("version {}: {why}", served.version));
    }
    service.faults.latch(&served.name, &served.version, &why);
    service.registry.refuse(served, why);
}

/// Tests a model that nobody asked to be tested; false, and the log says why, if its bundle cannot be tested.
async fn ran(service: &Arc<Service>, served: &Arc<Served>) -> bool {
    let tested = service.exams.test(service, served).await;
    if let Some(Err(error)) = &tested {
        tracing::error!("{}: the self-test did not run: {error:#}", served.name);
    }
    !matches!(tested, Some(Err(_)))
}

/// Runs the whole self-test of every model that was taken into service after its brief part, as soon as it serves.
pub fn follow(service: &Arc<Service>) {
    let service = Arc::downgrade(service);
    tokio::spawn(async move {
        loop {
            let Some(service) = service.upgrade() else { return };
            for served in service.registry.loaded().into_iter().filter(|one| !one.whole.load(Ordering::Relaxed)) {
                if !ran(&service, &served).await {
                    served.whole.store(true, Ordering::Relaxed);
                }
            }
            drop(service);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
}

/// Tests every model each time so much time has passed.
pub fn schedule(service: &Arc<Service>, every: Duration) {
    let service = Arc::downgrade(service);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(every).await;
            let Some(service) = service.upgrade() else { return };
            for served in service.registry.loaded() {
                ran(&service, &served).await;
            }
        }
    });
}
