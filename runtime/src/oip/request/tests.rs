use super::super::{Response, outputs};
use super::*;
use crate::Verdict;
use paradise_engine::{Decision, PValues};
use proptest::prelude::*;
use serde_json::{Value, json};

const SHAPE: Shape = Shape::new(1, 2, 3);

fn parse(json: &Value) -> Result<Request, String> {
    Request::parse(json.to_string().as_bytes(), None, SHAPE).map_err(|e| e.to_string())
}

fn tensor(shape: Value, datatype: &str, data: Value) -> Value {
    json!({ "inputs": [{ "name": "image", "shape": shape, "datatype": datatype, "data": data }] })
}

#[test]
fn pictures_are_read_in_every_form() {
    let twelve: Vec<u8> = (0..12).collect();
    let flat = parse(&tensor(json!([2, 1, 2, 3]), "UINT8", json!(twelve))).unwrap();
    assert_eq!((flat.count, &flat.pictures), (2, &Pictures::Ready(twelve.clone())));
    assert!(flat.wanted.is_empty() && !flat.binary && flat.id.is_none());
    let nested = json!([[[[0, 1, 2], [3, 4, 5]]], [[[6, 7, 8], [9, 10, 11]]]]);
    assert_eq!(parse(&tensor(json!([2, 1, 2, 3]), "UINT8", nested)).unwrap(), flat);
    let one = parse(&tensor(json!([1, 2, 3]), "UINT8", json!([1, 2, 3, 4, 5, 6]))).unwrap();
    assert_eq!(one.count, 1);
    let text = parse(&tensor(json!([1]), "BYTES", json!(["P2 1 1 9 5"]))).unwrap();
    assert_eq!(text.pictures, Pictures::Encoded(vec![b"P2 1 1 9 5".to_vec()]));
    let base64 = json!({ "inputs": [{ "name": "image", "shape": [1, 1], "datatype": "BYTES", "data": ["AAH/"],
        "parameters": { "content_type": "base64", "more": { "of": "others" } } }] });
    assert_eq!(parse(&base64).unwrap().pictures, Pictures::Encoded(vec![vec![0, 1, 255]]));
}

/// A body as tritonclient sends it.
fn binary(json: &Value, raw: &[u8]) -> (Vec<u8>, String) {
    let mut body = json.to_string().into_bytes();
    let header = body.len().to_string();
    body.extend_from_slice(raw);
    (body, header)
}

#[test]
fn raw_tensors_are_read() {
    let json = json!({ "id": "7", "parameters": { "binary_data_output": true }, "inputs": [{ "name": "image", "shape": [1, 1, 2, 3],
        "datatype": "UINT8", "parameters": { "binary_data_size": 6 } }] });
    let (body, header) = binary(&json, &[9, 8, 7, 6, 5, 4]);
    let request = Request::parse(&body, Some(&header), SHAPE).unwrap();
    assert_eq!(request.pictures, Pictures::Ready(vec![9, 8, 7, 6, 5, 4]));
    assert!(request.binary && request.id.as_deref() == Some("7"));
    let json = json!({ "inputs": [{ "name": "image", "shape": [2], "datatype": "BYTES", "parameters": { "binary_data_size": 11 } }] });
    let (body, header) = binary(&json, b"\x02\0\0\0ab\x01\0\0\0c");
    let request = Request::parse(&body, Some(&header), SHAPE).unwrap();
    assert_eq!(request.pictures, Pictures::Encoded(vec![b"ab".to_vec(), b"c".to_vec()]));
}

#[test]
fn what_is_wrong_is_said() {
    let six = json!([1, 2, 3, 4, 5, 6]);
    let good = || tensor(json!([1, 1, 2, 3]), "UINT8", six.clone());
    let with = |path: &str, value: Value| {
        let mut body = good();
        *body.pointer_mut(path).unwrap() = value;
        body
    };
    let also = |part: &str, value: Value| {
        let mut body = good();
        body[part] = value;
        body
    };
    for (body, why) in [
        (with("/inputs/0/name", json!("pixels")), r#"input "pixels": the model has one input, "image""#),
        (with("/inputs/0/datatype", json!("FP32")), r#"datatype "FP32": UINT8 [N,1,2,3]"#),
        (with("/inputs/0/shape", json!([1, 2, 2, 3])), "shape [1, 2, 2, 3]: the model takes [N,1,2,3]"),
        (with("/inputs/0/shape", json!([0, 1, 2, 3])), "0 pictures: 1 to 64"),
        (with("/inputs/0/shape", json!([65, 1, 2, 3])), "65 pictures: 1 to 64"),
        (with("/inputs/0/shape", json!([u64::MAX, 1, 2, 3])), "pictures: 1 to 64"),
        (with("/inputs/0/shape", json!([2, 1, 2, 3])), "6 values, and its shape has 12"),
        (with("/inputs/0/shape", json!([-1, 1, 2, 3])), "request body: "),
        (with("/inputs/0/data", json!([1, 2, 3, 4, 5, 256])), "256 is not a whole number from 0 to 255"),
        (with("/inputs/0/data", json!([])), "0 values"),
        (with("/inputs", json!([])), "0 inputs: the model has one"),
        (with("/inputs", json!({})), "request body: "),
        (also("outputs", json!([{ "name": "logits" }])), r#"output "logits": there are probabilities, class, "#),
        (
            also("outputs", json!([{ "name": "class", "parameters": { "binary_data": 1 } }])),
            r#"parameter "binary_data" is true or false"#,
        ),
        (also("outputs", json!([{ "name": "probabilities", "parameters": { "classification": 0 } }])), "at least 1"),
        (
            also("outputs", json!([{ "name": "class", "parameters": { "classification": 2 } }])),
            "only of probabilities",
        ),
        (also("parameters", json!({ "binary_data_output": "yes" })), "binary_data_output"),
        (tensor(json!([1]), "BYTES", json!(["a", "b"])), "2 elements, and its shape has 1"),
        (tensor(json!([1]), "BYTES", json!([1])), "BYTES data are texts"),
        (tensor(json!([1, 2]), "BYTES", json!(["a"])), "picture files are BYTES [N]"),
    ] {
        let said = parse(&body).unwrap_err();
        assert!(said.contains(why), "{body}: {said}");
    }
    for (size, raw, why) in
        [(6, &[0u8; 5][..], "5 bytes lie behind"), (5, &[0; 5], "5 values"), (6, &[], "0 bytes lie behind")]
    {
        let json = json!({ "inputs": [{ "name": "image", "shape": [1, 1, 2, 3], "datatype": "UINT8",
            "parameters": { "binary_data_size": size } }] });
        let (body, header) = binary(&json, raw);
        let said = Request::parse(&body, Some(&header), SHAPE).unwrap_err().to_string();
        assert!(said.contains(why), "{said}");
    }
    for (header, why) in
        [("x", "is not a length"), ("-1", "is not a length"), ("9999", "9999 bytes of JSON in a body")]
    {
        let body = good().to_string();
        assert!(Request::parse(body.as_bytes(), Some(header), SHAPE).unwrap_err().to_string().contains(why));
    }
}

fn verdict(probabilities: &[f32]) -> Verdict {
    Verdict {
        label: "b".into(),
        class: 1,
        score: probabilities[1],
        probabilities: probabilities.to_vec(),
        rate_nats: 1.5,
        posterior_entropy_nats: -2.0,
        predictive_entropy_nats: 0.25,
        p: PValues::TYPICAL,
        decision: Decision::Accept,
    }
}

#[test]
fn answers_are_written_in_json_and_behind_it() {
    let labels: Vec<String> = ["a", "b", "c"].map(String::from).to_vec();
    let verdicts = [verdict(&[0.25, 0.5, 0.25]), verdict(&[0.0, 1.0, 0.0])];
    let mut request = parse(&tensor(json!([1]), "BYTES", json!(["x"]))).unwrap();
    request.id = Some("q".into());
    let all = Response::write(("m", "1"), &labels, &request, &verdicts);
    assert_eq!(all.header, None);
    let body: Value = serde_json::from_slice(&all.body).unwrap();
    assert_eq!((&body["model_name"], &body["model_version"], &body["id"]), (&json!("m"), &json!("1"), &json!("q")));
    assert_eq!(body["outputs"].as_array().unwrap().len(), outputs::names().count());
    assert_eq!(
        body["outputs"][0],
        json!({ "name": "probabilities", "datatype": "FP32", "shape": [2, 3],
        "data": [0.25, 0.5, 0.25, 0.0, 1.0, 0.0] })
    );
    assert_eq!(body["outputs"][1], json!({ "name": "class", "datatype": "INT32", "shape": [2], "data": [1, 1] }));
    let wanted = |name: &str, binary, classification| Wanted { name: name.into(), binary, classification };
    request.wanted =
        vec![wanted("label", true, None), wanted("probabilities", false, Some(2)), wanted("rate_nats", true, None)];
    let some = Response::write(("m", "1"), &labels, &request, &verdicts);
    let (json, raw) = some.body.split_at(some.header.unwrap());
    let body: Value = serde_json::from_slice(json).unwrap();
    assert_eq!(
        body["outputs"][0],
        json!({ "name": "label", "datatype": "BYTES", "shape": [2], "parameters": { "binary_data_size": 10 } })
    );
    assert_eq!(
        body["outputs"][1],
        json!({ "name": "probabilities", "datatype": "BYTES", "shape": [2, 2],
        "data": ["0.500000:1:b", "0.250000:0:a", "1.000000:1:b", "0.000000:0:a"] })
    );
    assert_eq!(raw, [&b"\x01\0\0\0b\x01\0\0\0b"[..], &1.5f32.to_le_bytes(), &1.5f32.to_le_bytes()].concat());
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..300), header in ".{0,6}") {
        let _ = Request::parse(&body, Some(&header), SHAPE);
        let _ = Request::parse(&body, None, SHAPE);
    }

    #[test]
    fn damaged_requests_are_read_or_refused(at in 0usize..400, byte: u8, size in 0usize..40, raw in proptest::collection::vec(any::<u8>(), 0..40)) {
        let json = json!({ "id": "7", "parameters": { "binary_data_output": true }, "outputs": [{ "name": "class" }],
            "inputs": [{ "name": "image", "shape": [2], "datatype": "BYTES", "parameters": { "binary_data_size": size } }] });
        let (mut body, header) = binary(&json, &raw);
        if let Some(to) = body.get_mut(at) {
            *to = byte;
        }
        if let Ok(request) = Request::parse(&body, Some(&header), SHAPE) {
            prop_assert!((1..=MAX_PICTURES).contains(&request.count));
        }
    }
}
