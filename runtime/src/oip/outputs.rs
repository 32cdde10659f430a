//! The outputs of a model: the numbers and words of verdicts, a row a picture.

use crate::Verdict;

/// An output's values, one or one a class for each picture.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// FP32.
    Numbers(Vec<f32>),
    /// INT32.
    Indices(Vec<i32>),
    /// BYTES.
    Texts(Vec<String>),
}

impl Values {
    /// As the protocol calls their kind.
    pub fn datatype(&self) -> &'static str {
        match self {
            Self::Numbers(_) => "FP32",
            Self::Indices(_) => "INT32",
            Self::Texts(_) => "BYTES",
        }
    }

    /// Appends their raw little-endian bytes, a length before each text, and says how many.
    pub fn write(&self, to: &mut Vec<u8>) -> usize {
        let before = to.len();
        match self {
            Self::Numbers(all) => all.iter().for_each(|v| to.extend_from_slice(&v.to_le_bytes())),
            Self::Indices(all) => all.iter().for_each(|v| to.extend_from_slice(&v.to_le_bytes())),
            Self::Texts(all) => all.iter().for_each(|text| {
                to.extend_from_slice(&(text.len() as u32).to_le_bytes());
                to.extend_from_slice(text.as_bytes());
            }),
        }
        to.len() - before
    }
}

impl serde::Serialize for Values {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Numbers(all) => all.serialize(serializer),
            Self::Indices(all) => all.serialize(serializer),
            Self::Texts(all) => all.serialize(serializer),
        }
    }
}

/// The one output with a value a class.
pub const PROBABILITIES: &str = "probabilities";

/// What an output takes from a verdict.
enum Column {
    Probabilities,
    Index(fn(&Verdict) -> i32),
    Number(fn(&Verdict) -> f32),
    Text(fn(&Verdict) -> &str),
}

/// Every output, in order. Names, units and ranges are those of `POST /v1/classify`.
const COLUMNS: [(&str, Column); 15] = [
    (PROBABILITIES, Column::Probabilities),
    ("class", Column::Index(|v| v.class as i32)),
    ("label", Column::Text(|v| &v.label)),
    ("decision", Column::Text(|v| v.decision.name())),
    ("reason", Column::Text(|v| v.decision.reason().map_or("", |reason| reason.name()))),
    ("rate_nats", Column::Number(|v| v.rate_nats)),
    ("posterior_entropy_nats", Column::Number(|v| v.posterior_entropy_nats)),
    ("predictive_entropy_nats", Column::Number(|v| v.predictive_entropy_nats)),
    ("picture_p", Column::Number(|v| v.p.picture)),
    ("posterior_p", Column::Number(|v| v.p.posterior)),
    ("spread_p", Column::Number(|v| v.p.spread)),
    ("rate_p", Column::Number(|v| v.p.rate)),
    ("entropy_p", Column::Number(|v| v.p.entropy)),
    ("predictive_p", Column::Number(|v| v.p.predictive)),
    ("combined_p", Column::Number(|v| v.p.combined)),
];

/// The outputs' names, in order.
pub fn names() -> impl Iterator<Item = &'static str> {
    COLUMNS.iter().map(|(name, _)| *name)
}

/// An output of these verdicts, and whether it has a value a class; `None` if there is no such output.
pub fn values(name: &str, verdicts: &[Verdict]) -> Option<(Values, bool)> {
    let (_, column) = COLUMNS.iter().find(|(known, _)| *known == name)?;
    let values = match column {
        Column::Probabilities => {
            let all = verdicts.iter().flat_map(|v| v.probabilities.iter().copied());
            return Some((Values::Numbers(all.collect()), true));
        }
        Column::Index(of) => Values::Indices(verdicts.iter().map(of).collect()),
        Column::Number(of) => Values::Numbers(verdicts.iter().map(of).collect()),
        Column::Text(of) => Values::Texts(verdicts.iter().map(|v| of(v).to_string()).collect()),
    };
    Some((values, false))
}

/// The `k` most probable classes of each picture, as the classification extension writes them: `value:index:label`.
pub fn classification(verdicts: &[Verdict], labels: &[String], k: usize) -> Values {
    let mut all = Vec::new();
    for verdict in verdicts {
        let mut order: Vec<usize> = (0..verdict.probabilities.len()).collect();
        // The first of equals first.
        order.sort_by(|a, b| verdict.probabilities[*b].total_cmp(&verdict.probabilities[*a]));
        for index in order.into_iter().take(k) {
            let label = labels.get(index).map_or("", String::as_str);
            all.push(format!("{:.6}:{index}:{label}", verdict.probabilities[index]));
        }
    }
    Values::Texts(all)
}
