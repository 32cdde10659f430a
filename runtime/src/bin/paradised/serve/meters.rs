//! What is counted, as Prometheus reads it: Triton's names where it has one, ours for what no other server knows.

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use paradise_engine::decision::Reason;
use paradise_runtime::Verdict;
use paradise_runtime::watch::{Shift, Sight};
use std::time::Duration;

/// Bounds of rates and entropies, nats.
const NATS: [f64; 10] = [-100.0, -50.0, -20.0, 0.0, 5.0, 10.0, 20.0, 50.0, 100.0, 500.0];
/// Bounds of p-values.
const P: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0];

/// Begins to count, once in a process.
///
/// # Errors
/// If it has begun already.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_nats".into()), &NATS)?
        .set_buckets_for_metric(Matcher::Suffix("_p".into()), &P)?
        .install_recorder()?;
    describe_counter!("nv_inference_request_success", "Requests that were answered");
    describe_counter!("nv_inference_request_failure", "Requests that were not");
    describe_counter!("nv_inference_count", "Pictures that were classified");
    describe_counter!("nv_inference_request_duration_us", Unit::Microseconds, "From a request to its answer, in sum");
    describe_counter!("nv_inference_queue_duration_us", Unit::Microseconds, "Of it in the queue, in sum");
    describe_counter!(
        "nv_inference_compute_infer_duration_us",
        Unit::Microseconds,
        "Of it decoding and computing, in sum"
    );
    describe_gauge!("paradise_queue", "Requests that wait or are computed");
    describe_counter!("paradise_accepted", "Pictures that were accepted");
    describe_counter!("paradise_abstained", "Pictures that were abstained from, by reason");
    describe_counter!("paradise_back_ends_replaced", "Back ends that were lost and replaced");
    describe_counter!("paradise_selftests", "Self-tests while the service ran, by verdict");
    describe_gauge!("paradise_sight", "What pictures look like: 1 for what they do");
    describe_gauge!(
        "paradise_drift",
        "Population stability index of p-values against calibration; share of abstentions"
    );
    describe_gauge!("paradise_drift_alarm", "1 where a distribution is another than over calibration images");
    describe_counter!("paradise_lockstep_checked", "Answers that were computed twice, by the scalar kernels too");
    describe_counter!("paradise_memory_rounds", "Rounds through the model's memory that found nothing");
    describe_gauge!("paradise_memory_round_seconds", Unit::Seconds, "Time of such a round");
    describe_gauge!("paradise_memory_slice_longest_us", Unit::Microseconds, "Longest look at a slice of it");
    describe_histogram!("paradise_rate_nats", "Rate against the aggregate posterior");
    describe_histogram!("paradise_posterior_entropy_nats", "Posterior entropy");
    describe_histogram!("paradise_picture_p", "p-value of the picture's looks");
    describe_histogram!("paradise_posterior_p", "p-value of the whole posterior");
    Ok(handle)
}

/// The reasons to abstain, as labels.
const REASONS: [(Reason, &str); 3] = [
    (Reason::UnfamiliarPicture, "unfamiliar_picture"),
    (Reason::AtypicalPosterior, "atypical_posterior"),
    (Reason::UncertainClass, "uncertain_class"),
];

/// Counters of a version of a model.
#[derive(Clone)]
pub struct Meters {
    success: Counter,
    failure: Counter,
    pictures: Counter,
    request_us: Counter,
    queue_us: Counter,
    compute_us: Counter,
    accepted: Counter,
    abstained: [Counter; 3],
    replaced: Counter,
    queue: Gauge,
    rate: Histogram,
    entropy: Histogram,
    picture: Histogram,
    posterior: Histogram,
}

pub fn micros(time: Duration) -> u64 {
    time.as_micros() as u64
}

impl Meters {
    /// Of this version of this model.
    pub fn new(model: &str, version: &str) -> Self {
        let labels = [("model", model.to_string()), ("version", version.to_string())];
        let abstained = REASONS.map(|(_, reason)| {
            let (model, version) = (model.to_string(), version.to_string());
            counter!("paradise_abstained", "model" => model, "version" => version, "reason" => reason)
        });
        Self {
            success: counter!("nv_inference_request_success", &labels),
            failure: counter!("nv_inference_request_failure", &labels),
            pictures: counter!("nv_inference_count", &labels),
            request_us: counter!("nv_inference_request_duration_us", &labels),
            queue_us: counter!("nv_inference_queue_duration_us", &labels),
            compute_us: counter!("nv_inference_compute_infer_duration_us", &labels),
            accepted: counter!("paradise_accepted", &labels),
            abstained,
            replaced: counter!("paradise_back_ends_replaced", &labels),
            queue: gauge!("paradise_queue", &labels),
            rate: histogram!("paradise_rate_nats", &labels),
            entropy: histogram!("paradise_posterior_entropy_nats", &labels),
            picture: histogram!("paradise_picture_p", &labels),
            posterior: histogram!("paradise_posterior_p", &labels),
        }
    }

    /// A request waits.
    pub fn waits(&self) {
        self.queue.increment(1.0);
    }

    /// A request was refused instead.
    pub fn waits_not(&self) {
        self.queue.decrement(1.0);
    }

    /// A request was computed, after it had waited.
    pub fn computed(&self, waited: Duration, computed: Duration) {
        self.queue.decrement(1.0);
        self.queue_us.increment(micros(waited));
        self.compute_us.increment(micros(computed));
    }

    /// A back end was lost.
    pub fn lost(&self) {
        self.replaced.increment(1);
    }

    /// A request ended after this time, with verdicts or without.
    pub fn ended(&self, verdicts: Option<&[Verdict]>, took: Duration) {
        self.request_us.increment(micros(took));
        let Some(verdicts) = verdicts else { return self.failure.increment(1) };
        self.success.increment(1);
        self.pictures.increment(verdicts.len() as u64);
        for verdict in verdicts {
            match verdict.decision.reason() {
                None => self.accepted.increment(1),
                Some(reason) => {
                    for ((own, _), counter) in REASONS.iter().zip(&self.abstained) {
                        counter.increment(u64::from(*own == reason));
                    }
                }
            }
            self.rate.record(verdict.rate_nats);
            self.entropy.record(verdict.posterior_entropy_nats);
            self.picture.record(verdict.p.picture);
            self.posterior.record(verdict.p.posterior);
        }
    }
}

/// A model's self-test ended with this verdict.
pub fn tested(model: &str, verdict: &'static str) {
    counter!("paradise_selftests", "model" => model.to_string(), "verdict" => verdict).increment(1);
}

/// What the sentry shows of a version of a model.
pub struct Signs {
    model: String,
    version: String,
}

impl Signs {
    /// Of this version of this model.
    pub fn new(model: &str, version: &str) -> Self {
        Self { model: model.into(), version: version.into() }
    }

    fn labels(&self) -> [(&'static str, String); 2] {
        [("model", self.model.clone()), ("version", self.version.clone())]
    }

    fn labelled(&self, name: &'static str, value: &'static str) -> [(&'static str, String); 3] {
        let [model, version] = self.labels();
        [model, version, (name, value.into())]
    }

    /// The time of a round through memory.
    pub fn round(&self, time: Duration) {
        gauge!("paradise_memory_round_seconds", &self.labels()).set(time.as_secs_f64());
    }

    /// Answers that were checked.
    pub fn checked(&self, answers: u64) {
        counter!("paradise_lockstep_checked", &self.labels()).absolute(answers);
    }

    /// What was seen of late.
    pub fn shows(&self, sight: Sight, shifts: &[Shift], rounds: u64, longest_us: u64) {
        for each in Sight::ALL {
            gauge!("paradise_sight", &self.labelled("sight", each.name())).set(f64::from(u8::from(each == sight)));
        }
        for shift in shifts {
            gauge!("paradise_drift", &self.labelled("of", shift.of)).set(shift.index);
            let alarm = f64::from(u8::from(shift.alarm));
            gauge!("paradise_drift_alarm", &self.labelled("of", shift.of)).set(alarm);
        }
        counter!("paradise_memory_rounds", &self.labels()).absolute(rounds);
        gauge!("paradise_memory_slice_longest_us", &self.labels()).set(longest_us as f64);
    }
}
