//! The answer to a request to infer.

use super::outputs::{self, PROBABILITIES, Values};
use super::{Request, Wanted};
use crate::Verdict;
use serde::Serialize;

/// An answer's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// JSON, and raw tensors behind it.
    pub body: Vec<u8>,
    /// Bytes of JSON, where there are raw tensors.
    pub header: Option<usize>,
}

#[derive(Serialize)]
struct Body<'a> {
    model_name: &'a str,
    model_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    outputs: Vec<Output<'a>>,
}

#[derive(Serialize)]
struct Output<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Size>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Values>,
}

#[derive(Serialize)]
struct Size {
    binary_data_size: usize,
}

impl Response {
    /// Of the verdicts on a request's pictures, by a model of this name and version with these class names.
    pub fn write((name, version): (&str, &str), labels: &[String], request: &Request, verdicts: &[Verdict]) -> Self {
        let every: Vec<Wanted> = outputs::names()
            .map(|name| Wanted { name: name.into(), binary: request.binary, classification: None })
            .collect();
        let wanted = if request.wanted.is_empty() { &every } else { &request.wanted };
        let mut raw = Vec::new();
        let outputs = wanted.iter().filter_map(|wanted| output(wanted, labels, verdicts, &mut raw)).collect();
        let body = Body { model_name: name, model_version: version, id: request.id.as_deref(), outputs };
        // Texts and numbers in vectors: nothing of it can fail.
        let mut body = serde_json::to_vec(&body).unwrap_or_default();
        let header = wanted.iter().any(|wanted| wanted.binary).then_some(body.len());
        body.extend_from_slice(&raw);
        Self { body, header }
    }
}

/// An output in JSON, its raw bytes behind `raw` if it is wanted so.
fn output<'a>(wanted: &'a Wanted, labels: &[String], verdicts: &[Verdict], raw: &mut Vec<u8>) -> Option<Output<'a>> {
    let (mut values, mut wide) = outputs::values(&wanted.name, verdicts)?;
    let mut columns = labels.len();
    if let (Some(k), PROBABILITIES) = (wanted.classification, wanted.name.as_str()) {
        columns = k.min(labels.len());
        (values, wide) = (outputs::classification(verdicts, labels, columns), true);
    }
    let shape = if wide { vec![verdicts.len(), columns] } else { vec![verdicts.len()] };
    let datatype = values.datatype();
    let (parameters, data) =
        if wanted.binary { (Some(Size { binary_data_size: values.write(raw) }), None) } else { (None, Some(values)) };
    Some(Output { name: &wanted.name, datatype, shape, parameters, data })
}
