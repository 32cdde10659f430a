//! A request to infer: its pictures, and what is wanted of the answers.

use super::data::Data;
use super::{INPUT, Invalid, MAX_PICTURES, cut, invalid, outputs};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use paradise_engine::Shape;
use serde::Deserialize;
use std::collections::BTreeMap;

/// A value that a client may hang on anything.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
enum Parameter {
    Flag(bool),
    Number(u64),
    Text(String),
    // Of meaning to others; serde_json reads it whole.
    Other(serde::de::IgnoredAny),
}

type Parameters = BTreeMap<String, Parameter>;

#[derive(Deserialize)]
struct Body {
    id: Option<String>,
    #[serde(default)]
    parameters: Parameters,
    inputs: Vec<Input>,
    #[serde(default)]
    outputs: Vec<Output>,
}

#[derive(Deserialize)]
struct Input {
    name: String,
    shape: Vec<u64>,
    datatype: String,
    #[serde(default)]
    parameters: Parameters,
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    #[serde(default)]
    parameters: Parameters,
}

/// Pictures of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pictures {
    /// Ready for the model, u8 `[N][height][width][channels]`, in one piece.
    Ready(Vec<u8>),
    /// Bytes of picture files.
    Encoded(Vec<Vec<u8>>),
}

/// An output that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// Behind the JSON, not in it.
    pub binary: bool,
    /// The classification extension: so many of the largest values with their labels, in place of all.
    pub classification: Option<usize>,
}

/// A request to infer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Is given back.
    pub id: Option<String>,
    /// How many pictures there are.
    pub count: usize,
    /// The pictures.
    pub pictures: Pictures,
    /// What is wanted; empty for every output.
    pub wanted: Vec<Wanted>,
    /// Whether outputs that say nothing of it go behind the JSON.
    pub binary: bool,
}

fn flag(parameters: &Parameters, name: &str) -> Result<Option<bool>, Invalid> {
    match parameters.get(name) {
        None => Ok(None),
        Some(Parameter::Flag(flag)) => Ok(Some(*flag)),
        Some(_) => invalid(format!("parameter {name:?} is true or false")),
    }
}

fn number(parameters: &Parameters, name: &str) -> Result<Option<usize>, Invalid> {
    match parameters.get(name) {
        None => Ok(None),
        Some(Parameter::Number(n)) if usize::try_from(*n).is_ok() => Ok(Some(*n as usize)),
        Some(_) => invalid(format!("parameter {name:?} is a whole number")),
    }
}

impl Request {
    /// Of a body for a model that takes inputs of `shape`; `header` is the value of [`HEADER_LENGTH`](super::HEADER_LENGTH).
    ///
    /// # Errors
    /// In words, with the input or output that is wrong.
    pub fn parse(body: &[u8], header: Option<&str>, shape: Shape) -> Result<Self, Invalid> {
        let (json, raw) = cut(body, header)?;
        let Body { id, parameters, inputs, outputs } =
            serde_json::from_slice(json).map_err(|e| Invalid(format!("request body: {e}")))?;
        let binary = flag(&parameters, "binary_data_output")?.unwrap_or(false);
        let [input] = <[Input; 1]>::try_from(inputs)
            .map_err(|all| Invalid(format!("{} inputs: the model has one, {INPUT:?}", all.len())))?;
        let (count, pictures) = pictures(input, raw, shape)?;
        let wanted = outputs.into_iter().map(|output| wanted(output, binary)).collect::<Result<_, _>>()?;
        Ok(Self { id, count, pictures, wanted, binary })
    }
}

impl Request {
    /// The pictures, which are gone from here then.
    pub fn take_pictures(&mut self) -> Pictures {
        std::mem::replace(&mut self.pictures, Pictures::Encoded(Vec::new()))
    }
}

fn wanted(Output { name, parameters }: Output, binary: bool) -> Result<Wanted, Invalid> {
    let within = |Invalid(why)| Invalid(format!("output {name:?}: {why}"));
    let binary = flag(&parameters, "binary_data").map_err(within)?.unwrap_or(binary);
    if !outputs::names().any(|known| known == name) {
        let all: Vec<&str> = outputs::names().collect();
        return invalid(format!("output {name:?}: there are {}", all.join(", ")));
    }
    let classification = match number(&parameters, "classification").map_err(within)? {
        Some(0) => return invalid(format!("output {name:?}: classification is at least 1")),
        Some(_) if name != outputs::PROBABILITIES => {
            return invalid(format!("output {name:?}: classification is only of {}", outputs::PROBABILITIES));
        }
        n => n,
    };
    Ok(Wanted { name, binary, classification })
}

fn pictures(input: Input, raw: &[u8], shape: Shape) -> Result<(usize, Pictures), Invalid> {
    let name = input.name.clone();
    if name != INPUT {
        return invalid(format!("input {name:?}: the model has one input, {INPUT:?}"));
    }
    let read = match input.datatype.as_str() {
        "UINT8" => ready(input, raw, shape),
        "BYTES" => encoded(input, raw),
        other => invalid(format!(
            "datatype {other:?}: UINT8 [N,{},{},{}] for inputs that are ready, BYTES [N] for picture files",
            shape.h, shape.w, shape.c
        )),
    };
    read.map_err(|Invalid(why)| Invalid(format!("input {name:?}: {why}")))
}

/// The number of pictures, if it is one that is allowed.
fn count(n: u64) -> Result<usize, Invalid> {
    match usize::try_from(n) {
        Ok(n @ 1..=MAX_PICTURES) => Ok(n),
        _ => invalid(format!("{n} pictures: 1 to {MAX_PICTURES} in a request")),
    }
}

/// The raw bytes that belong to an input, if its sender put them there.
fn binary<'r>(input: &Input, raw: &'r [u8]) -> Result<Option<&'r [u8]>, Invalid> {
    let size = number(&input.parameters, "binary_data_size")?;
    match (size, &input.data) {
        (Some(_), Some(_)) => invalid("has both data and binary_data_size"),
        (Some(size), None) if size == raw.len() => Ok(Some(raw)),
        (Some(size), None) => {
            invalid(format!("binary_data_size is {size}, and {} bytes lie behind the JSON", raw.len()))
        }
        (None, Some(_)) if raw.is_empty() => Ok(None),
        (None, Some(_)) => invalid(format!("{} bytes lie behind the JSON, and none are its own", raw.len())),
        (None, None) => invalid("has neither data nor binary_data_size"),
    }
}

fn ready(input: Input, raw: &[u8], shape: Shape) -> Result<(usize, Pictures), Invalid> {
    let extents = [u64::from(shape.h), u64::from(shape.w), u64::from(shape.c)];
    let n = match input.shape[..] {
        [h, w, c] if [h, w, c] == extents => 1,
        [n, h, w, c] if [h, w, c] == extents => count(n)?,
        _ => {
            let [h, w, c] = extents;
            return invalid(format!("shape {:?}: the model takes [N,{h},{w},{c}]", input.shape));
        }
    };
    let bytes = match (binary(&input, raw)?, input.data) {
        (Some(raw), _) => raw.to_vec(),
        (None, Some(Data::Numbers(numbers))) => numbers,
        (None, Some(Data::Texts(_))) => return invalid("UINT8 data are numbers"),
        (None, _) => Vec::new(),
    };
    let need = n as u64 * shape.len();
    if bytes.len() as u64 != need {
        return invalid(format!("{} values, and its shape has {need}", bytes.len()));
    }
    Ok((n, Pictures::Ready(bytes)))
}

fn encoded(input: Input, raw: &[u8]) -> Result<(usize, Pictures), Invalid> {
    let n = match input.shape[..] {
        [n] | [n, 1] => count(n)?,
        _ => return invalid(format!("shape {:?}: picture files are BYTES [N]", input.shape)),
    };
    let is_base64 = matches!(input.parameters.get("content_type"), Some(Parameter::Text(kind)) if kind == "base64");
    let files = match (binary(&input, raw)?, input.data) {
        (Some(raw), _) => elements(raw)?,
        (None, Some(Data::Texts(texts))) if is_base64 => texts
            .iter()
            .map(|text| BASE64_STANDARD.decode(text).map_err(|e| Invalid(format!("base64: {e}"))))
            .collect::<Result<_, _>>()?,
        (None, Some(Data::Texts(texts))) => texts.into_iter().map(String::into_bytes).collect(),
        (None, Some(Data::Numbers(_))) => return invalid("BYTES data are texts"),
        (None, _) => Vec::new(),
    };
    if files.len() != n {
        return invalid(format!("{} elements, and its shape has {n}", files.len()));
    }
    Ok((n, Pictures::Encoded(files)))
}

/// Elements of a BYTES tensor: a length as u32, little-endian, before each.
fn elements(mut raw: &[u8]) -> Result<Vec<Vec<u8>>, Invalid> {
    let mut all = Vec::new();
    while !raw.is_empty() {
        let element = raw
            .split_first_chunk()
            .and_then(|(length, rest)| rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?));
        let Some((element, rest)) = element else {
            return invalid(format!("element {} of its bytes ends behind them", all.len()));
        };
        if all.len() == MAX_PICTURES {
            return invalid(format!("more than {MAX_PICTURES} elements"));
        }
        all.push(element.to_vec());
        raw = rest;
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
