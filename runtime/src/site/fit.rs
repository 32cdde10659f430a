//! From what a model says of local pictures to thresholds that keep the promise for them.

use super::looks::Looks;
use super::made::{self, Made};
use super::observations::{Observations, Seen};
use super::report::{Count, Report, Shares};
use super::{FORMAT, File, Site, SiteError, strays};
use crate::levels::{Judged, tune};
use crate::pipeline::Backend;
use crate::tables::Values;
use paradise_engine::appearance::Appearance;
use paradise_engine::calibration::Tables;
use paradise_engine::inference::Evidence;
use paradise_engine::{PValues, Thresholds};
use statrs::distribution::{Beta, ContinuousCDF};

/// Fewest pictures.
pub const MIN_PICTURES: usize = 200;

/// Times the promised share that the maker's thresholds may abstain from before that is worth a warning.
const UNUSUAL: f64 = 4.0;
/// Points of accuracy of what is accepted that a site may cost before that is worth a warning.
const COSTLY: f64 = 0.05;
/// Share of the promise that is kept for strays, some of which may be the site's own after all.
const RESERVE: f64 = 0.25;
/// How much likelier a picture must be among foreign pictures than among the site's to be one of them.
const ODDS: f32 = 100.0;
/// Share of each kind of foreign pictures that must still be abstained from, where the maker's thresholds do.
const FOREIGN: f64 = 0.9;

/// What is promised, and what is refused.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Share of ordinary local pictures that may be abstained from, above 0 and at most 0.5.
    pub promise: f64,
    /// Largest share of the pictures that the maker's thresholds may abstain from.
    pub max_abstained: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { promise: 0.05, max_abstained: 0.9 }
    }
}

pub(super) fn fit(
    all: &Observations,
    backend: &mut dyn Backend,
    options: &Options,
) -> Result<(Site, Report), SiteError> {
    let Options { promise, max_abstained } = *options;
    if !(promise > 0.0 && promise <= 0.5) {
        return Err(SiteError::Promise(promise));
    }
    // Below ten pictures beyond a threshold, chance decides where it lies.
    let need = MIN_PICTURES.max((10.0 / promise).ceil() as usize);
    if all.len() < need {
        return Err(SiteError::TooFew { need, got: all.len() });
    }
    let abstained = all.abstained();
    if abstained.share() > max_abstained {
        return Err(SiteError::Unlike { abstained, limit: max_abstained });
    }
    let foreign = made::seen(backend, &all.sources).map_err(SiteError::Backend)?;
    let (kept, strays) = split(all, &foreign, backend);
    if kept.len() < need {
        return Err(SiteError::TooFew { need, got: kept.len() });
    }
    let mut rate_and_entropy = false;
    backend.with_model(&mut |model| {
        let t = model.header().thresholds;
        rate_and_entropy = t.rate_p_min > 0.0 || t.entropy_p_min > 0.0;
    });
    let local = Local::of(&kept);
    // Strays are abstained from: as many as may be the site's own count as such.
    let (own, reserve) = (kept.len() as f64, RESERVE * promise * kept.len() as f64);
    let reserved = strays.len().min(reserve as usize);
    let thresholds = local.thresholds(promise - reserved as f64 / own, rate_and_entropy);
    let out = local.judged.iter().filter(|image| image.abstains(&thresholds)).count();
    let expected_percent = interval(out + reserved, kept.len() + reserved).map(|share| (1e4 * share).round() / 100.0);
    let site = Site::new(File {
        format: FORMAT,
        model: all.model.clone(),
        model_sha256: all.model_sha256.clone(),
        pictures: kept.len() as u32,
        promised_percent: 100.0 * promise,
        expected_percent,
        thresholds,
        looks: Looks::of(kept.iter().map(|seen| &seen.evidence.appearance)),
        tables: local.values(),
    })?;
    let accepts = |seen: &Seen| {
        let p = site.p_values(seen.evidence, seen.predictive_entropy_nats);
        !Judged { p, predictive_entropy_nats: seen.predictive_entropy_nats }.abstains(&thresholds)
    };
    let before = shares(&kept, &foreign, &|seen| seen.accepted);
    let after = shares(&kept, &foreign, &accepts);
    for ((kind, by_maker), (_, abstained)) in before.foreign_abstained.iter().zip(&after.foreign_abstained) {
        if by_maker.share() >= FOREIGN && abstained.share() < FOREIGN {
            return Err(SiteError::Loose { kind, abstained: *abstained });
        }
    }
    let warnings = warnings(&before, &after, strays.len(), promise);
    let report = Report {
        model: all.model.clone(),
        pictures: kept.len(),
        repeated: all.repeated,
        set_aside: strays.iter().map(|seen| seen.name.clone()).collect(),
        promised_percent: 100.0 * promise,
        expected_percent,
        before,
        after,
        warnings,
    };
    Ok((site, report))
}

/// The site's own pictures, and those that are foreign to it: not accepted by the maker's thresholds, and unlike the others or more
/// like what is made foreign than like them.
fn split<'a>(all: &'a Observations, foreign: &Made, backend: &dyn Backend) -> (Vec<&'a Seen>, Vec<&'a Seen>) {
    let of = |statistic: fn(&Evidence) -> f32| -> Vec<f32> {
        all.seen.iter().map(|seen| statistic(&seen.evidence)).collect()
    };
    let looks: Vec<_> = all.seen.iter().map(|seen| seen.evidence.appearance).collect();
    let looks = Looks::robust(&looks);
    let picture: Vec<f32> = all.seen.iter().map(|seen| looks.distance(&seen.evidence.appearance)).collect();
    let mut cuts = [f32::MAX; 3];
    backend.with_model(&mut |model| {
        let maker = Tables::of(model);
        cuts = [
            strays::cut(&picture, &maker.picture),
            strays::cut(&of(|e| e.distances.posterior), &maker.posterior),
            strays::cut(&of(|e| e.distances.spread), &maker.spread),
        ];
    });
    let mut nearest: Vec<usize> = (0..all.len()).collect();
    nearest.sort_by(|a, b| picture[*a].total_cmp(&picture[*b]));
    let core: Vec<&Appearance> = nearest[..all.len() / 2].iter().map(|i| &all.seen[*i].evidence.appearance).collect();
    let like = |kind: &Looks, a: &Appearance| kind.log_density(a) > looks.log_density(a) + ODDS.ln();
    // Kinds that this site's own pictures are like tell nothing: an inverted landscape is a landscape.
    let foreign: Vec<Looks> = foreign
        .iter()
        .map(|(_, kind)| Looks::of(kind.iter().map(|seen| &seen.evidence.appearance)))
        .filter(|kind| !core.iter().any(|a| like(kind, a)))
        .collect();
    let like_foreign = |a: &Appearance| foreign.iter().any(|kind| like(kind, a));
    let own = |seen: &Seen, picture: f32| {
        let Evidence { distances: d, appearance, .. } = &seen.evidence;
        seen.accepted
            || [picture, d.posterior, d.spread].iter().zip(cuts).all(|(v, cut)| *v <= cut)
                && !like_foreign(appearance)
    };
    let (kept, strays): (Vec<_>, Vec<_>) =
        all.seen.iter().zip(picture).partition(|(seen, picture)| own(seen, *picture));
    let names = |part: Vec<(&'a Seen, f32)>| part.into_iter().map(|(seen, _)| seen).collect();
    (names(kept), names(strays))
}

/// Pictures that are compared with each other.
struct Local<'a> {
    kept: &'a [&'a Seen],
    picture: Vec<f32>,
    combined: Vec<f32>,
    judged: Vec<Judged>,
}

impl<'a> Local<'a> {
    /// Each picture is judged by the others, as a further one will be by all: counted with itself among them, it would look more
    /// usual than a further picture does.
    fn of(kept: &'a [&'a Seen]) -> Self {
        let looks: Vec<_> = kept.iter().map(|seen| seen.evidence.appearance).collect();
        let apart = Looks::left_out(&looks);
        let by = |statistic: fn(&Seen) -> f32, both| Ranked::of(kept.iter().map(|s| statistic(s)).collect(), both);
        let [picture, posterior, spread, rate, entropy, predictive] = [
            Ranked::of(apart, false),
            by(|s| s.evidence.distances.posterior, false),
            by(|s| s.evidence.distances.spread, false),
            by(|s| s.evidence.rate_nats, false),
            by(|s| s.evidence.posterior_entropy_nats, true),
            by(|s| s.predictive_entropy_nats, false),
        ];
        let apart: Vec<PValues> = (0..kept.len())
            .map(|i| PValues {
                picture: picture.p(i),
                posterior: posterior.p(i),
                spread: spread.p(i),
                rate: rate.p(i),
                entropy: entropy.p(i),
                predictive: predictive.p(i),
                combined: 1.0,
            })
            .collect();
        let combined = Ranked::of(apart.iter().map(PValues::surprise).collect(), false);
        let together = apart.into_iter().enumerate().map(|(i, p)| PValues { combined: combined.p(i), ..p });
        let judged = together
            .zip(kept)
            .map(|(p, seen)| Judged { p, predictive_entropy_nats: seen.predictive_entropy_nats })
            .collect();
        Self { kept, picture: picture.values, combined: combined.values, judged }
    }

    fn thresholds(&self, promise: f64, rate_and_entropy: bool) -> Thresholds {
        let tuned = tune(&self.judged, promise, rate_and_entropy);
        // Between the largest entropy that passes and the next one anything decides alike about these pictures; a further
        // picture is abstained from as rarely as promised if the limit is the next one.
        let above = self.judged.iter().map(|image| image.predictive_entropy_nats);
        let next = above.filter(|v| *v > tuned.predictive_entropy_max_nats).min_by(f32::total_cmp);
        Thresholds { predictive_entropy_max_nats: next.map_or(f32::MAX, f32::next_down), ..tuned }
    }

    fn values(&self) -> Values {
        let each = |statistic: fn(&Seen) -> f32| self.kept.iter().map(|s| statistic(s)).collect::<Vec<f32>>();
        Values::of([
            &each(|s| s.evidence.rate_nats),
            &each(|s| s.evidence.posterior_entropy_nats),
            &each(|s| s.evidence.distances.posterior),
            &each(|s| s.evidence.distances.spread),
            &self.picture,
            &each(|s| s.predictive_entropy_nats),
            &self.combined,
        ])
    }
}

/// Values, each compared with the others.
struct Ranked {
    values: Vec<f32>,
    sorted: Vec<f32>,
    both: bool,
}

impl Ranked {
    fn of(values: Vec<f32>, both: bool) -> Self {
        let mut sorted = values.clone();
        sorted.sort_by(f32::total_cmp);
        Self { values, sorted, both }
    }

    /// The engine's p-value of value `i` among the n - 1 others, on the scale of n: `(1 + #{others >= v}) / (n + 1)`.
    fn p(&self, i: usize) -> f32 {
        let (v, n) = (self.values[i], self.sorted.len());
        let at_least = n - self.sorted.partition_point(|s| s.total_cmp(&v).is_lt());
        let at_most = self.sorted.partition_point(|s| s.total_cmp(&v).is_le());
        let tail = if self.both { 2 * at_least.min(at_most) } else { at_least };
        (tail as u64 as f32 / (n as u64 + 1) as f32).min(1.0)
    }
}

/// Where the share that a threshold with `out` of `n` calibration pictures beyond it abstains from lies with 95 % probability:
/// quantiles of `Beta(out, n + 1 - out)`, the law of conformal thresholds (Vovk 2012).
fn interval(out: usize, n: usize) -> [f64; 2] {
    match Beta::new(out.max(1) as f64, (n + 1 - out.max(1)) as f64) {
        Ok(law) => [if out == 0 { 0.0 } else { law.inverse_cdf(0.025) }, law.inverse_cdf(0.975)],
        Err(_) => [0.0, 1.0],
    }
}

fn shares(kept: &[&Seen], foreign: &Made, accepts: &dyn Fn(&Seen) -> bool) -> Shares {
    let labelled = kept.iter().filter_map(|seen| Some((seen, seen.label?)));
    let right = Count::of(labelled.filter(|(seen, _)| accepts(seen)).map(|(seen, label)| seen.class == label));
    Shares {
        abstained: Count::of(kept.iter().map(|seen| !accepts(seen))),
        right_of_accepted: kept.iter().any(|seen| seen.label.is_some()).then_some(right),
        foreign_abstained: foreign
            .iter()
            .map(|(kind, all)| (*kind, Count::of(all.iter().map(|s| !accepts(s)))))
            .collect(),
    }
}

fn warnings(before: &Shares, after: &Shares, strays: usize, promise: f64) -> Vec<String> {
    let mut warnings = vec![];
    if before.abstained.share() > UNUSUAL * promise {
        warnings.push(format!(
            "the maker's thresholds abstain from {}: these pictures differ much from those that the model was made for. \
             Unless labelled pictures show that it is right about them, do not use it here",
            before.abstained
        ));
    }
    if let (Some(b), Some(a)) = (before.right_of_accepted, after.right_of_accepted)
        && a.share() < b.share() - COSTLY
    {
        warnings.push(format!("of what is accepted, {a} is right here, and was {b} with the maker's thresholds"));
    }
    if strays > 0 {
        warnings.push(format!("{strays} pictures are unlike the others and were left out; look at them"));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_equal_scipys() {
        // scipy 1.17: beta.ppf([0.025, 0.975], 30, 571) and (10, 191).
        for (out, n, want) in [(30, 600, [0.033_985_55, 0.068_679_7]), (10, 200, [0.024_234_17, 0.083_702_69])] {
            let got = interval(out, n);
            assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-6), "{got:?} {want:?}");
        }
        assert_eq!(interval(0, 200)[0], 0.0);
    }

    #[test]
    fn a_value_is_compared_with_the_others() {
        let ranked = Ranked::of(vec![1.0, 2.0, 2.0, 5.0], false);
        assert_eq!([0, 1, 2, 3].map(|i| ranked.p(i)), [0.8, 0.6, 0.6, 0.2]);
        let both = Ranked::of(vec![1.0, 2.0, 3.0, 5.0], true);
        assert_eq!([0, 1, 2, 3].map(|i| both.p(i)), [0.4, 0.8, 0.8, 0.4]);
    }
}
