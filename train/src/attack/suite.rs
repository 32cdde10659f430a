//! Attacks by name, alone or in AutoAttack's order. Adding one is a file beside this one and a line in [`SINGLE`].

use super::Attack;
use super::apgd::Apgd;
use super::expectation::Averaged;
use super::fab::Fab;
use super::gradient::Pgd;
use super::hop_skip_jump::HopSkipJump;
use super::loss::Loss;
use super::model::Differentiable;
use super::noise::{Kind, Noise};
use super::square::Square;
use super::transfer::Transfer;
use anyhow::{Context, Result, bail, ensure};
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
        let surrogate =
            self.surrogate.context("transfer attacks need a surrogate model, give one with --surrogate")?.clone();
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
    ensure!(!wanted.is_empty(), "no attack is named; there are\n{}", names());
    Ok(wanted)
}

fn one(item: &str) -> Result<Wanted> {
    let (name, settings) = item.split_once(':').map_or((item, None), |(n, s)| (n, Some(s)));
    let Some(single) = SINGLE.iter().find(|s| s.name == name) else {
        bail!("attack {name:?} is not known; there are\n{}", names());
    };
    let mut numbers = single.defaults;
    if let Some(settings) = settings {
        let parts: Vec<Option<usize>> = settings.split('x').map(|n| n.parse().ok()).collect();
        let wanted = if single.form.is_empty() { 0 } else { single.form.split('x').count() };
        numbers = match parts[..] {
            [Some(a @ 1..=100_000)] if wanted == 1 => [a, 0],
            [Some(a @ 1..=100_000), Some(b @ 1..=1000)] if wanted == 2 => [a, b],
            _ if wanted == 0 => bail!("attack {item:?}: {name} has no settings"),
            _ => bail!(
                "attack {item:?}: settings are {}, for example {name}:{}",
                single.form,
                example(single.defaults)
            ),
        };
    }
    Ok(Wanted { single, numbers, draws: 0, survivors: false })
}

/// The attacks that were named, on a model of so many classes.
///
/// # Errors
/// If there are fewer than 2 classes, or a transfer attack has no surrogate.
pub fn make(wanted: &[Wanted], classes: usize, surrogate: Option<&Surrogate>) -> Result<Vec<Entry>> {
    ensure!(classes >= 2, "a model of {classes} classes cannot be fooled");
    let entry = |w: &Wanted| {
        let attack = (w.single.make)(Order { numbers: w.numbers, classes, surrogate })?;
        let attack = if w.draws > 0 { Box::new(Averaged { attack, draws: w.draws }) } else { attack };
        Ok(Entry { attack, survivors: w.survivors })
    };
    wanted.iter().map(entry).collect()
}

/// [`read`] and [`make`] in one.
///
/// # Errors
/// As those.
pub fn parse(list: &str, classes: usize, surrogate: Option<&Surrogate>) -> Result<Vec<Entry>> {
    make(&read(list)?, classes, surrogate)
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
