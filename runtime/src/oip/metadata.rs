//! What server and models say of themselves.

use super::{EXTENSIONS, INPUT, outputs};
use paradise_engine::Shape;
use serde_json::{Value, json};

/// `GET /v2`.
pub fn server() -> Value {
    json!({ "name": "paradised", "version": env!("CARGO_PKG_VERSION"), "extensions": EXTENSIONS })
}

/// `GET /v2/models/NAME`: versions that are there, extents of an input, number of classes.
pub fn model(name: &str, versions: &[String], Shape { h, w, c }: Shape, classes: usize) -> Value {
    let outputs: Vec<Value> = outputs::names()
        .filter_map(|name| {
            let (values, wide) = outputs::values(name, &[])?;
            let shape = if wide { json!([-1, classes]) } else { json!([-1]) };
            Some(json!({ "name": name, "datatype": values.datatype(), "shape": shape }))
        })
        .collect();
    json!({
        "name": name,
        "versions": versions,
        "platform": "paradise",
        "inputs": [{ "name": INPUT, "datatype": "UINT8", "shape": [-1, h, w, c] }],
        "outputs": outputs,
    })
}
