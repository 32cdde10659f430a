//! The sentry: a thread that goes round the memory of models and program, sees that pictures and answers are as they were, and takes a
//! model out of service in which a fault is found.

use super::http::Service;
use super::listen;
use super::served::Served;
use super::watched::Beat;
use paradise_runtime::watch::{Area, Code};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// Longest that a fault that a worker found goes unseen here; the worker itself answers nothing from then on.
const TICK: Duration = Duration::from_millis(100);
/// Between looks at pictures and answers.
const LOOK: Duration = Duration::from_secs(1);

/// Starts it.
pub fn start(service: &Arc<Service>, receivers: Handle) {
    let weak = Arc::downgrade(service);
    let round = service.round;
    std::thread::spawn(move || walk(&weak, round, &receivers));
}

/// A thread that receives, and computes a request for longer than it should, may be the one that looks after the sockets: another is
/// woken to do that. If none is left, only a new start helps.
fn wake(service: &Service, models: &[Arc<Served>], receivers: &Handle) {
    let hung = |longest| models.iter().map(|served| served.callers_hung(longest)).sum::<usize>();
    if hung(TICK) > 0 {
        receivers.spawn(async {});
    }
    if hung(service.longest) >= listen::threads() {
        tracing::error!("every thread that receives computes without end; the service ends, to be started anew");
        std::process::exit(HUNG);
    }
}

/// Exit code of a service that hangs.
const HUNG: i32 = 70;

/// The program's code, if the system shows it.
fn code(round: Duration) -> Option<Beat> {
    match Code::new() {
        Ok(code) => {
            let (bytes, beat) = (code.bytes(), Beat::new(vec![Area::Code(code)], round));
            tracing::info!("{bytes} bytes of code are summed every {:.0} s", beat.whole().as_secs_f64());
            Some(beat)
        }
        Err(error) => {
            tracing::warn!("the program's code is not watched: {error}");
            None
        }
    }
}

fn walk(service: &Weak<Service>, round: Duration, receivers: &Handle) {
    let mut code = code(round);
    let mut look = Instant::now();
    loop {
        let Some(service) = service.upgrade() else { return };
        let now = Instant::now();
        let models = service.registry.loaded();
        let mut next = now + TICK;
        for served in &models {
            next = next.min(served.watched.step(now));
        }
        if let Some(beat) = &mut code {
            match beat.step(now) {
                Ok(due) => next = next.min(due),
                Err(why) => {
                    models.iter().for_each(|served| served.watched.faults(why.clone()));
                    code = None;
                }
            }
        }
        if now >= look {
            look = now + LOOK;
            // Values of histograms are kept one by one until somebody asks for them, and nobody may.
            service.counted.run_upkeep();
            for served in &models {
                for news in served.watched.look(now) {
                    tracing::warn!("{} {}: {news}", served.name, served.version);
                    service.faults.note("alarm", &served.name, &news);
                }
            }
        }
        for served in &models {
            judge(&service, served);
        }
        wake(&service, &models, receivers);
        drop((models, service));
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// Takes a model out of service if a fault was found in it.
fn judge(service: &Service, served: &Arc<Served>) {
    if let Some(why) = served.watched.fault() {
        service.faults.latch(&served.name, &served.version, why);
        service.registry.refuse(served, served.why_down());
    }
}
