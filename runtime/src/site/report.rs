//! What calibration at a site found, for whoever decides whether the site may be used.

use serde::Serialize;

/// So many of so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Count {
    /// How many are meant.
    pub count: usize,
    /// Of how many.
    pub of: usize,
}

impl Count {
    /// Counts the true values.
    pub fn of(flags: impl IntoIterator<Item = bool>) -> Self {
        let (mut count, mut of) = (0, 0);
        for flag in flags {
            count += usize::from(flag);
            of += 1;
        }
        Self { count, of }
    }

    /// The share, in 0..=1; 0 of none.
    pub fn share(&self) -> f64 {
        self.count as f64 / self.of.max(1) as f64
    }
}

impl std::fmt::Display for Count {
    /// `5.0 % (30 of 600)`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{:.1} % ({} of {})", 100.0 * self.share(), self.count, self.of))
    }
}

/// What thresholds do to the pictures of a site.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shares {
    /// Pictures abstained from.
    pub abstained: Count,
    /// Accepted pictures whose class is right; none where no picture has a label.
    pub right_of_accepted: Option<Count>,
    /// Foreign pictures of each kind, made of these, that were abstained from.
    pub foreign_abstained: Vec<(&'static str, Count)>,
}

/// What calibration found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Name of the model.
    pub model: String,
    /// Pictures that were calibrated on.
    pub pictures: usize,
    /// Pictures that were there before, left out.
    pub repeated: usize,
    /// Names of pictures that are unlike the others and that the maker's thresholds abstain from, left out.
    pub set_aside: Vec<String>,
    /// Share of ordinary local pictures that may be abstained from, per cent.
    pub promised_percent: f64,
    /// Where that share lies for further pictures of this site, with 95 % probability, per cent.
    pub expected_percent: [f64; 2],
    /// By the maker's thresholds.
    pub before: Shares,
    /// By the site's.
    pub after: Shares,
    /// What should be thought about before the site is used.
    pub warnings: Vec<String>,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { before, after, .. } = self;
        writeln!(
            f,
            "{}: calibrated on {} pictures ({} repeated ones and {} strays left out)",
            self.model,
            self.pictures,
            self.repeated,
            self.set_aside.len()
        )?;
        writeln!(f, "  {:<34} {:<22} this site's", "", "maker's thresholds")?;
        writeln!(f, "  {:<34} {:<22} {}", "abstained from, of these pictures", before.abstained, after.abstained)?;
        if let (Some(b), Some(a)) = (before.right_of_accepted, after.right_of_accepted) {
            writeln!(f, "  {:<34} {b:<22} {a}", "right, of what is accepted")?;
        }
        for ((kind, b), (_, a)) in before.foreign_abstained.iter().zip(&after.foreign_abstained) {
            writeln!(f, "  {:<34} {b:<22} {a}", format!("abstained from, {kind}"))?;
        }
        let [low, high] = self.expected_percent;
        write!(
            f,
            "  of further pictures of this site {low:.1} to {high:.1} % will be abstained from (95 %; {} % promised)",
            self.promised_percent
        )?;
        for name in self.set_aside.iter().take(5) {
            write!(f, "\n  left out   {name}")?;
        }
        if self.set_aside.len() > 5 {
            write!(f, "\n  left out   ... and {} more (--json names all)", self.set_aside.len() - 5)?;
        }
        self.warnings.iter().try_for_each(|warning| write!(f, "\n  warning    {warning}"))
    }
}
