//! The self-test while the service runs: on demand and on a schedule, one at a time. A model that fails it is taken out of service.

use super::http::Service;
use super::served::Served;
use paradise_runtime::selftest::{Report, Verdict};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
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
        self.last.lock().unwrap_or_else(PoisonError::into_inner).get(model).cloned()
    }

    /// Tests a model; `None` if another test is under way.
    pub async fn test(&self, service: &Arc<Service>, served: &Arc<Served>) -> Option<anyhow::Result<Arc<Report>>> {
        let _one = self.one.try_lock().ok()?;
        let (service, served) = (service.clone(), served.clone());
        let tested = tokio::task::spawn_blocking(move || {
            let report = Arc::new((served.test)()?);
            tracing::info!("{} {}: self-test {:?}", served.name, served.version, report.verdict());
            if report.verdict() == Verdict::Failed {
                let failed =
                    report.checks.iter().find(|check| check.status == paradise_runtime::selftest::Status::Failed);
                let why = failed.map(|check| format!(": {}: {}", check.name, check.detail)).unwrap_or_default();
                service.registry.refuse(&served, format!("its self-test failed while it served{why}"));
            }
            let mut last = service.exams.last.lock().unwrap_or_else(PoisonError::into_inner);
            last.insert(served.name.clone(), report.clone());
            Ok(report)
        });
        Some(tested.await.unwrap_or_else(|_| Err(anyhow::anyhow!("the self-test panicked; the log says where"))))
    }
}

/// Tests every model each time so much time has passed.
pub fn schedule(service: &Arc<Service>, every: Duration) {
    let service = Arc::downgrade(service);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(every).await;
            let Some(service) = service.upgrade() else { return };
            for served in service.registry.loaded() {
                match service.exams.test(&service, &served).await {
                    Some(Ok(_)) | None => {}
                    Some(Err(error)) => tracing::error!("{}: the self-test did not run: {error:#}", served.name),
                }
            }
        }
    });
}
