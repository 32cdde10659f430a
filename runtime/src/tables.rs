//! Calibration tables in memory of their own: of a site, or of the float network, beside those that a model holds.

use crate::order::{OrderStatistics, Tails};
use paradise_engine::FormatError;
use paradise_engine::calibration::{Calibration, Tables};
use paradise_engine::tensor::Le;
use self_cell::self_cell;
use serde::{Deserialize, Serialize};

/// What calibration pictures gave, a table each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Values {
    /// Rates, nats.
    pub rate: OrderStatistics,
    /// Posterior entropies, nats.
    pub entropy: OrderStatistics,
    /// Squared distances of posteriors.
    pub posterior: OrderStatistics,
    /// Of spreads.
    pub spread: OrderStatistics,
    /// Of pictures.
    pub picture: OrderStatistics,
    /// Predictive entropies, nats.
    pub predictive: OrderStatistics,
    /// Of picture, posterior and class together.
    pub combined: OrderStatistics,
}

impl Values {
    /// Of every picture's numbers, in the order of the fields.
    pub fn of([rate, entropy, posterior, spread, picture, predictive, combined]: [&[f32]; 7]) -> Self {
        let upper = |values| OrderStatistics::of(values, Tails::Upper);
        Self {
            rate: upper(rate),
            entropy: OrderStatistics::of(entropy, Tails::Both),
            posterior: upper(posterior),
            spread: upper(spread),
            picture: upper(picture),
            predictive: upper(predictive),
            combined: upper(combined),
        }
    }

    /// Names and tables.
    pub fn all(&self) -> [(&'static str, &OrderStatistics); 7] {
        [
            ("rate", &self.rate),
            ("entropy", &self.entropy),
            ("posterior", &self.posterior),
            ("spread", &self.spread),
            ("picture", &self.picture),
            ("predictive", &self.predictive),
            ("combined", &self.combined),
        ]
    }
}

/// A table's numbers as the engine reads them.
struct Laid {
    n: u32,
    values: Vec<u8>,
    ranks: Vec<u8>,
}

type AllLaid = [Laid; 7];

self_cell!(
    struct Resident {
        owner: AllLaid,
        #[covariant]
        dependent: Tables,
    }
);

/// [`Tables`] that own their numbers.
pub struct OwnTables(Resident);

impl std::fmt::Debug for OwnTables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("OwnTables").field(self.tables()).finish()
    }
}

/// A table is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableError {
    /// Which.
    pub table: &'static str,
    /// What is wrong with it.
    pub why: FormatError,
}

impl std::fmt::Display for TableError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "table {}: {}", self.table, self.why)
    }
}

impl std::error::Error for TableError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.why.source()
    }
}

impl OwnTables {
    /// The tables of these values.
    ///
    /// ```
    /// use paradise_runtime::tables::{OwnTables, Values};
    /// let mut values = Values::of([&[1.0, 2.0, 4.0]; 7]);
    /// let tables = OwnTables::new(&values)?;
    /// assert_eq!(tables.tables().posterior.upper_p(3.0), 0.5);
    /// values.rate.ranks[1] = 7;
    /// assert!(OwnTables::new(&values).unwrap_err().to_string().starts_with("table rate: "));
    /// # Ok::<(), paradise_runtime::tables::TableError>(())
    /// ```
    ///
    /// # Errors
    /// With the table that is none.
    pub fn new(values: &Values) -> Result<Self, TableError> {
        let numbers = values.all().map(|(_, kept)| Laid {
            n: kept.n,
            values: kept.values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            ranks: kept.ranks.iter().flat_map(|r| r.to_le_bytes()).collect(),
        });
        let resident = Resident::try_new(numbers, |laid| {
            let table = |i: usize| {
                Calibration::checked(laid[i].n, Le::new(&laid[i].values), Le::new(&laid[i].ranks))
                    .map_err(|why| TableError { table: values.all()[i].0, why })
            };
            Ok(Tables {
                rate: table(0)?,
                entropy: table(1)?,
                posterior: table(2)?,
                spread: table(3)?,
                picture: table(4)?,
                predictive: table(5)?,
                combined: table(6)?,
            })
        });
        resident.map(Self)
    }

    /// Adds the numbers in memory to a sum.
    pub(crate) fn add_to(&self, sum: &mut crc32fast::Hasher) {
        for Laid { n, values, ranks } in self.0.borrow_owner() {
            sum.update(&n.to_le_bytes());
            sum.update(values);
            sum.update(ranks);
        }
    }

    /// What is compared with.
    pub fn tables(&self) -> &Tables<'_> {
        self.0.borrow_dependent()
    }
}
