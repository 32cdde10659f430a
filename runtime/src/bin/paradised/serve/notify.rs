//! What the service tells systemd: that it is ready, reloads, stops, and every so often that it is well. Without systemd, nothing.

use super::http::Service;
use sd_notify::NotifyState;
use std::sync::Arc;

fn tell(state: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("systemd cannot be told: {error}");
    }
}

/// Requests are answered.
pub fn ready(service: &Service) {
    let models: Vec<String> = service.registry.loaded().iter().map(|m| format!("{} {}", m.name, m.version)).collect();
    tell(&[NotifyState::Ready, NotifyState::Status(&format!("serving {}", models.join(", ")))]);
}

/// Models are looked for; [`ready`] follows.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!("no monotonic clock: {error}"),
    }
}

/// No more requests are taken.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells the watchdog twice in its time that the service is well, as long as it is: a model whose worker is gone and cannot be replaced
/// is a reason to start anew.
pub fn watch(service: &Arc<Service>) {
    let Some(time) = sd_notify::watchdog_enabled() else { return };
    let service = Arc::downgrade(service);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(time / 2).await;
            let Some(service) = service.upgrade() else { return };
            if service.registry.loaded().iter().all(|model| model.is_up()) {
                tell(&[NotifyState::Watchdog]);
            }
        }
    });
}
