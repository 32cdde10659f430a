//! Attacks by name, alone or in AutoAttack's order. Adding one is a file beside this one and a line in `SINGLE`.

use crate::apgd::Apgd;
use crate::attack::{Attack, Attempt, Sample, Victim};
use crate::error::{Error, Result};
use crate::expectation::Averaged;
use crate::fab::Fab;
use crate::gradient::Pgd;
use crate::hop_skip_jump::HopSkipJump;
use crate::launch::launch;
use crate::loss::Loss;
use crate::model::Differentiable;
use crate::noise::{Kind, Noise};
use crate::square::Square;
use crate::threat::Ball;
use crate::transfer::Transfer;
use std::sync::Arc;

/// An attack of an evaluation.
pub struct Entry {
    /// The attack.
    pub attack: Box<dyn Attack>,
    /// Whether it sees only images that all such entries before it left standing, as AutoAttack has it.
    pub survivors: bool,
}

/// A model on which transfer attacks craft their points.
pub type Surrogate = Arc<dyn Differentiable + Send>;

/// What an attack is made from: its two numbers, and the victim's classes.
#[derive(Clone, Copy)]
struct Order<'a> {
    numbers: [usize; 2],
    classes: usize,
    surrogate: Option<&'a Surrogate>,
}

impl Order<'_> {
    /// Wrong classes that a targeted attack of AutoAttack aims at.
    fn targets(&self) -> usize {
        self.classes.saturating_sub(1).clamp(1, 9)
    }

    /// The difference of logits ratio where there are classes enough, the margin otherwise.
    fn dlr(&self, targeted: bool) -> Loss {
        if self.classes >= Loss::Dlr.classes(targeted) { Loss::Dlr } else { Loss::Margin }
    }

    fn transfer(&self, attack: Pgd) -> Result<Box<dyn Attack>> {
        let surrogate = self.surrogate.ok_or(Error::NoSurrogate)?.clone();
        Ok(Box::new(Transfer { surrogate, attack }))
    }
}

/// An attack's name, its numbers with their defaults, and how it is made.
struct Single {
    name: &'static str,
    /// `STEPSxRESTARTS`, one word for one number, empty for none.
    form: &'static str,
    defaults: [usize; 2],
    make: fn(Order) -> Result<Box<dyn Attack>>,
}

macro_rules! single {
    ($name:literal, $form:literal, $defaults:expr, $make:expr) => {
        Single { name: $name, form: $form, defaults: $defaults, make: $make }
    };
}

/// Every attack.
static SINGLE: [Single; 18] = [
    single!("fgsm", "", [0, 0], |_| Ok(Box::new(Pgd::fgsm()))),
    single!("r-fgsm", "", [0, 0], |_| Ok(Box::new(Pgd::random_fgsm()))),
    single!("pgd", "STEPSxRESTARTS", [40, 2], |o| Ok(Box::new(Pgd::sign(o.numbers[0], o.numbers[1])))),
    single!("adam-pgd", "STEPSxRESTARTS", [40, 2], |o| Ok(Box::new(Pgd::adam(o.numbers[0], o.numbers[1])))),
    single!("random-targeted", "STEPSxRESTARTS", [200, 1], |o| {
        Ok(Box::new(Pgd::random_targeted(o.numbers[0], o.numbers[1])))
    }),
    single!("multi-targeted", "STEPS", [200, 0], |o| Ok(Box::new(Pgd::multi_targeted(o.numbers[0])))),
    single!("apgd-ce", "STEPSxRESTARTS", [100, 1], |o| {
        Ok(Box::new(Apgd::cross_entropy(o.numbers[0], o.numbers[1])))
    }),
    single!("apgd-dlr", "STEPSxRESTARTS", [100, 1], |o| {
        Ok(Box::new(Apgd { loss: o.dlr(false), ..Apgd::dlr(o.numbers[0], o.numbers[1]) }))
    }),
    single!("apgd-t", "STEPS", [100, 0], |o| {
        Ok(Box::new(Apgd { loss: o.dlr(true), ..Apgd::targeted(o.numbers[0], o.targets()) }))
    }),
    single!("fab", "STEPSxRESTARTS", [100, 1], |o| {
        Ok(Box::new(Fab { iterations: o.numbers[0], restarts: o.numbers[1], targets: 0 }))
    }),
    single!("fab-t", "STEPS", [100, 0], |o| {
        Ok(Box::new(Fab { iterations: o.numbers[0], restarts: 1, targets: o.targets() }))
    }),
    single!("square", "QUERIES", [5000, 0], |o| {
        Ok(Box::new(Square { queries: o.numbers[0], ..Square::default() }))
    }),
    single!("hop-skip-jump", "QUERIES", [5000, 0], |o| Ok(Box::new(HopSkipJump { queries: o.numbers[0] }))),
    single!("noise", "DRAWS", [100, 0], |o| Ok(Box::new(Noise { kind: Kind::Uniform, draws: o.numbers[0] }))),
    single!("gaussian-noise", "DRAWS", [100, 0], |o| {
        Ok(Box::new(Noise { kind: Kind::Gaussian, draws: o.numbers[0] }))
    }),
    single!("transfer-fgsm", "", [0, 0], |o| o.transfer(Pgd::fgsm())),
    single!("transfer-r-fgsm", "", [0, 0], |o| o.transfer(Pgd::random_fgsm())),
    single!("transfer-pgd", "STEPSxRESTARTS", [40, 1], |o| o.transfer(Pgd::sign(o.numbers[0], o.numbers[1]))),
];

/// A name for several attacks.
struct Group {
    name: &'static str,
    /// Whether each sees only what those before it left standing.
    survivors: bool,
    /// Random draws over which gradients are averaged (expectation over transformation); 0 for none.
    draws: usize,
    attacks: &'static str,
}

/// Every group. AutoAttack's are those of its authors' code.
static GROUPS: [Group; 5] = [
    Group { name: "autoattack", survivors: true, draws: 0, attacks: "apgd-ce,apgd-t,fab-t,square" },
    Group {
        name: "autoattack-plus",
        survivors: true,
        draws: 0,
        attacks: "apgd-ce:100x5,apgd-dlr:100x5,fab:100x5,square,apgd-t,fab-t",
    },
    Group { name: "autoattack-rand", survivors: true, draws: 20, attacks: "apgd-ce,apgd-dlr" },
    Group {
        name: "supplement",
        survivors: false,
        draws: 0,
        attacks: "fgsm,r-fgsm,adam-pgd:200x20,multi-targeted,random-targeted",
    },
    Group { name: "light", survivors: false, draws: 0, attacks: "pgd:40x2,adam-pgd:40x1,apgd-ce,apgd-t,square" },
];

/// All names with the form of their numbers, and what the groups hold.
pub fn names() -> String {
    let single = SINGLE.iter().map(|s| match s.form {
        "" => s.name.to_string(),
        form => format!("{}[:{form}]", s.name),
    });
    let groups = GROUPS.iter().map(|g| format!("{} = {}", g.name, g.attacks));
    single.chain(groups).collect::<Vec<_>>().join("\n")
}

/// An attack that was named, before the model is known.
pub struct Wanted {
    single: &'static Single,
    numbers: [usize; 2],
    draws: usize,
    survivors: bool,
}

/// A comma-separated list of names and groups, each name with its numbers after a colon.
///
/// # Errors
/// With the name that is not known, or numbers that do not fit it.
pub fn read(list: &str) -> Result<Vec<Wanted>> {
    let mut wanted = Vec::new();
    for item in list.split(',').map(str::trim).filter(|n| !n.is_empty()) {
        match GROUPS.iter().find(|g| g.name == item) {
            None => wanted.push(one(item)?),
            Some(Group { attacks, draws, survivors, .. }) => {
                for item in attacks.split(',') {
                    wanted.push(Wanted { draws: *draws, survivors: *survivors, ..one(item)? });
                }
            }
        }
    }
    if wanted.is_empty() {
        return Err(Error::Name(format!("no attack is named; there are\n{}", names())));
    }
    Ok(wanted)
}

fn one(item: &str) -> Result<Wanted> {
    let (name, settings) = item.split_once(':').map_or((item, None), |(n, s)| (n, Some(s)));
    let Some(single) = SINGLE.iter().find(|s| s.name == name) else {
        return Err(Error::Name(format!("attack {name:?} is not known; there are\n{}", names())));
    };
    let mut numbers = single.defaults;
    if let Some(settings) = settings {
        let parts: Vec<Option<usize>> = settings.split('x').map(|n| n.parse().ok()).collect();
        let wanted = if single.form.is_empty() { 0 } else { single.form.split('x').count() };
        numbers = match parts[..] {
            [Some(a @ 1..=100_000)] if wanted == 1 => [a, 0],
            [Some(a @ 1..=100_000), Some(b @ 1..=1000)] if wanted == 2 => [a, b],
            _ if wanted == 0 => return Err(Error::Name(format!("attack {item:?}: {name} has no settings"))),
            _ => {
                return Err(Error::Name(format!(
                    "attack {item:?}: settings are {}, for example {name}:{}",
                    single.form,
                    example(single.defaults)
                )));
            }
        };
    }
    Ok(Wanted { single, numbers, draws: 0, survivors: false })
}

/// The attacks that were named, on a model of so many classes.
///
/// # Errors
/// If there are fewer than 2 classes, or a transfer attack has no surrogate.
pub fn make(wanted: &[Wanted], classes: usize, surrogate: Option<&Surrogate>) -> Result<Vec<Entry>> {
    if classes < 2 {
        return Err(Error::Classes { what: "an attack".into(), need: 2, got: classes });
    }
    let entry = |w: &Wanted| {
        let attack = (w.single.make)(Order { numbers: w.numbers, classes, surrogate })?;
        let attack = if w.draws > 0 { Box::new(Averaged { attack, draws: w.draws }) } else { attack };
        Ok(Entry { attack, survivors: w.survivors })
    };
    wanted.iter().map(entry).collect()
}

/// [`read`] and [`make`] in one.
///
/// ```
/// let names = paradise_attack::suite::parse("autoattack", 10, None)?;
/// assert_eq!(names[0].attack.describe(), "APGD-CE-100");
/// assert!(paradise_attack::suite::parse("magic", 10, None).is_err());
/// # Ok::<(), paradise_attack::Error>(())
/// ```
///
/// # Errors
/// As those.
pub fn parse(list: &str, classes: usize, surrogate: Option<&Surrogate>) -> Result<Vec<Entry>> {
    make(&read(list)?, classes, surrogate)
}

/// Runs attacks by name and takes the per-image worst case; an attack of a group such as AutoAttack sees only what those before
/// it left standing.
///
/// ```
/// use paradise_attack::{Ball, Function, Sample, Victim, suite};
/// # fn main() -> paradise_attack::Result<()> {
/// let logits = |x: &[f32]| Ok(x.iter().flat_map(|x| [x - 0.5, 0.5 - x]).collect());
/// let model = Function { shape: paradise_engine::Shape::new(1, 1, 1), classes: 2, logits };
/// let samples = [Sample { clean: &[0.52], label: 0, key: 0 }, Sample { clean: &[0.9], label: 0, key: 1 }];
/// let attempts = suite::run("noise,square:100", Victim::Black(&model), Ball::linf(8.0 / 255.0), &samples, 0, None)?;
/// assert_eq!(attempts.iter().map(|a| a.broken).collect::<Vec<_>>(), [true, false]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`parse`] and [`launch`].
pub fn run(
    list: &str,
    victim: Victim,
    ball: Ball,
    samples: &[Sample],
    seed: u64,
    surrogate: Option<&Surrogate>,
) -> Result<Vec<Attempt>> {
    let mut worst: Vec<Attempt> = samples.iter().map(Attempt::none).collect();
    // What each group of survivors has left.
    let mut standing: Vec<usize> = (0..samples.len()).collect();
    for Entry { attack, survivors } in parse(list, victim.classifier().classes(), surrogate)? {
        let seen: Vec<usize> = if survivors { standing.clone() } else { (0..samples.len()).collect() };
        let shown: Vec<Sample> = seen.iter().map(|i| samples[*i]).collect();
        let attempts = launch(&*attack, victim, ball, &shown, seed, &|_| ())?;
        for (i, attempt) in seen.into_iter().zip(attempts) {
            if !worst[i].broken {
                worst[i] = attempt;
            }
        }
        standing.retain(|i| !worst[*i].broken);
    }
    Ok(worst)
}

/// AutoAttack, the published one, in one call: Auto-PGD on cross-entropy and on targets, FAB on targets, Square Attack, each on
/// what those before it left standing.
///
/// ```
/// use paradise_attack::{Ball, Classifier, Differentiable, Result, Sample, Victim, autoattack};
/// use paradise_engine::Shape;
///
/// /// Four classes by the brightness of four pixels.
/// struct Brightest;
///
/// impl Classifier for Brightest {
///     fn shape(&self) -> Shape {
///         Shape::new(2, 2, 1)
///     }
///
///     fn classes(&self) -> usize {
///         4
///     }
///
///     fn logits(&self, images: &[f32]) -> Result<Vec<f32>> {
///         Ok(images.to_vec())
///     }
/// }
///
/// impl Differentiable for Brightest {
///     // The gradient of sum w_i logits_i with respect to the pixels: here the weights themselves.
///     fn pull(
///         &self,
///         images: &[f32],
///         weigh: &mut dyn FnMut(&[f32]) -> Result<Vec<f32>>,
///     ) -> Result<(Vec<f32>, Vec<f32>)> {
///         Ok((images.to_vec(), weigh(images)?))
///     }
/// }
///
/// let samples = [
///     Sample { clean: &[0.52, 0.5, 0.2, 0.1], label: 0, key: 0 },
///     Sample { clean: &[0.9, 0.5, 0.2, 0.1], label: 0, key: 1 },
/// ];
/// let attempts = autoattack(Victim::White(&Brightest), Ball::linf(8.0 / 255.0), &samples, 0)?;
/// assert_eq!(attempts.iter().map(|a| a.broken).collect::<Vec<_>>(), [true, false]);
/// # Ok::<(), paradise_attack::Error>(())
/// ```
///
/// # Errors
/// As [`run`]; a model without gradients is refused, and [`run`] with `"square"` is for it.
pub fn autoattack(victim: Victim, ball: Ball, samples: &[Sample], seed: u64) -> Result<Vec<Attempt>> {
    run("autoattack", victim, ball, samples, seed, None)
}

/// One attack by name.
///
/// # Errors
/// As [`parse`].
pub fn single(item: &str, classes: usize, surrogate: Option<&Surrogate>) -> Result<Box<dyn Attack>> {
    let mut entries = make(&[one(item)?], classes, surrogate)?;
    Ok(entries.swap_remove(0).attack)
}

fn example([a, b]: [usize; 2]) -> String {
    if b == 0 { a.to_string() } else { format!("{a}x{b}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::{D, Linear, images, samples};

    fn described(list: &str, classes: usize) -> Vec<String> {
        parse(list, classes, None).unwrap().iter().map(|e| e.attack.describe()).collect()
    }

    #[test]
    fn autoattack_is_the_published_one_and_fits_few_classes() {
        assert_eq!(
            described("autoattack", 10),
            ["APGD-CE-100", "APGD-T-DLR-100, 9 targets", "FAB-T-100, 9 targets", "Square-5000"]
        );
        assert!(parse("autoattack", 10, None).unwrap().iter().all(|e| e.survivors));
        assert_eq!(described("apgd-t,fab-t", 3), ["APGD-T-margin-100, 2 targets", "FAB-T-100, 2 targets"]);
        assert_eq!(described("apgd-dlr,apgd-t", 2), ["APGD-margin-100", "APGD-T-margin-100, 1 targets"]);
        assert_eq!(described("apgd-dlr", 3), ["APGD-DLR-100"]);
    }

    #[test]
    fn autoattack_is_one_call_and_leaves_what_no_attack_breaks() {
        let model = Linear::new(3, D);
        let pixels = images(12);
        let all = samples(&model, &pixels);
        let ball = Ball::linf(0.05);
        let attempts = autoattack(Victim::White(&model), ball, &all, 1).unwrap();
        let each = ["apgd-ce", "apgd-t", "fab-t", "square"].map(|name| {
            let attack = single(name, 3, None).unwrap();
            launch(&*attack, Victim::White(&model), ball, &all, 1, &|_| ()).unwrap()
        });
        for (i, attempt) in attempts.iter().enumerate() {
            assert_eq!(attempt.broken, each.iter().any(|a| a[i].broken), "image {i}");
            assert!(ball.holds(&attempt.point, all[i].clean));
        }
        assert!(attempts.iter().any(|a| a.broken) && attempts.iter().any(|a| !a.broken));
        let black = autoattack(Victim::Black(&model), ball, &all, 1).unwrap_err();
        assert!(black.to_string().contains("gradients"), "{black}");
    }

    #[test]
    fn numbers_are_read_and_mistakes_named() {
        assert_eq!(described("pgd:7x3, square:20", 10), ["PGD-7 x 3", "Square-20"]);
        for (bad, word) in [
            ("magic", "magic"),
            ("", "no attack"),
            ("pgd:0x1", "STEPSxRESTARTS"),
            ("pgd:40", "STEPSxRESTARTS"),
            ("square:2x2", "QUERIES"),
            ("fgsm:3", "no settings"),
            ("transfer-fgsm", "surrogate"),
        ] {
            let error = parse(bad, 10, None).err().unwrap().to_string();
            assert!(error.contains(word), "{bad}: {error}");
        }
    }
}
