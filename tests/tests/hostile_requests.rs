//! Random mutations of requests of the Open Inference Protocol and of settings files: each is understood or refused with a reason, none
//! ends a program. `PARADISE_FUZZ_SECONDS=1800` for a longer hunt.

use paradise_engine::Shape;
use paradise_engine_fuzz::Sequence;
use paradise_runtime::oip::{Pictures, Request};
use paradise_tests::{program, shipped, text};
use std::fs;
use std::time::{Duration, Instant};

/// How long the mutations go on.
fn duration() -> Duration {
    let seconds = std::env::var("PARADISE_FUZZ_SECONDS").ok().and_then(|n| n.parse().ok());
    Duration::from_secs(seconds.unwrap_or(5))
}

/// What means something to a parser of either kind.
const WORDS: [&str; 40] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "null",
    "true",
    "-1",
    "1e309",
    "18446744073709551616",
    "0.5",
    "\\u0000",
    "\\ud800",
    "BYTES",
    "UINT8",
    "FP32",
    "FP16",
    "BOOL",
    "binary_data_size",
    "binary_data",
    "classification",
    "parameters",
    "shape",
    "datatype",
    "data",
    "inputs",
    "outputs",
    "id",
    "content_type",
    "=",
    "\n",
    "listen",
    "queue",
    "key",
    "''",
    "[a]",
    "# ",
    "2026-11-30T00:00:00Z",
];

fn mutate(data: &mut Vec<u8>, dice: &mut Sequence) {
    for _ in 0..1 + dice.below(6) {
        let at = dice.below(data.len() + 1);
        let end = (at + dice.below(24)).min(data.len());
        match dice.below(8) {
            0 if at < data.len() => data[at] ^= 1 << dice.below(8),
            1 if at < data.len() => data[at] = dice.next_u64() as u8,
            2 => drop(data.drain(at..end)),
            3 => {
                let piece = data[at..end].to_vec();
                let to = dice.below(data.len() + 1);
                data.splice(to..to, piece);
            }
            4 => data.truncate(at.max(1)),
            _ => drop(
                data.splice(at..if dice.below(2) == 0 { at } else { end }, WORDS[dice.below(WORDS.len())].bytes()),
            ),
        }
    }
}

#[test]
fn requests_are_understood_or_refused() {
    let shape = Shape::new(4, 4, 1);
    let numbers = (0..16).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let json = format!(
        r#"{{"id":"a","inputs":[{{"name":"image","shape":[1,4,4,1],"datatype":"UINT8","data":[{numbers}]}}],"outputs":[{{"name":"probabilities","parameters":{{"classification":2}}}}]}}"#
    );
    let floats = json.replace("UINT8", "FP32").replace("15]", "0.5]");
    let bytes = r#"{"inputs":[{"name":"image","shape":[2],"datatype":"BYTES","data":["UDUgMSAxIDI1NQoA","UDUgMSAxIDI1NQoB"]}]}"#;
    let head = r#"{"inputs":[{"name":"image","shape":[1,4,4,1],"datatype":"UINT8","parameters":{"binary_data_size":16}}],"parameters":{"binary_data_output":true}}"#;
    let file = [&9u32.to_le_bytes()[..], b"P5 1 1 255\n\0"].concat();
    let head_bytes = format!(
        r#"{{"inputs":[{{"name":"image","shape":[1],"datatype":"BYTES","parameters":{{"binary_data_size":{}}}}}]}}"#,
        file.len()
    );
    let seeds: Vec<(Vec<u8>, Option<usize>)> = vec![
        (json.into_bytes(), None),
        (floats.into_bytes(), None),
        (bytes.as_bytes().to_vec(), None),
        ([head.as_bytes(), &[7; 16]].concat(), Some(head.len())),
        ([head_bytes.as_bytes(), &file].concat(), Some(head_bytes.len())),
    ];
    let (mut dice, until) = (Sequence(11), Instant::now() + duration());
    let (mut understood, mut refused) = (0u64, 0u64);
    while Instant::now() < until {
        for _ in 0..500 {
            let (mut body, header) = seeds[dice.below(seeds.len())].clone();
            mutate(&mut body, &mut dice);
            let header = header.map(|n| match dice.below(4) {
                0 => (n + dice.below(9)).saturating_sub(4).to_string(),
                1 => WORDS[dice.below(WORDS.len())].to_string(),
                _ => n.to_string(),
            });
            match Request::parse(&body, header.as_deref(), shape) {
                Ok(request) => {
                    understood += 1;
                    // What is understood is as long as it says.
                    match &request.pictures {
                        Pictures::Ready(input) => assert_eq!(input.len(), 16 * request.count),
                        Pictures::Encoded(files) => assert_eq!(files.len(), request.count),
                    }
                }
                Err(why) => {
                    refused += 1;
                    assert!(!why.to_string().is_empty());
                }
            }
        }
    }
    println!("{understood} understood, {refused} refused");
    assert!(refused > 1000 && understood > 10, "{understood} understood, {refused} refused");
}

#[test]
fn settings_are_understood_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("paradised.toml");
    let good = format!(
        "model = {:?}\nlisten = \"127.0.0.1:8080\"\nqueue = 5\nopen = true\nmin-picture-p = 0.25\nkey = []\nlog = \"warn\"\nselftest-hours = 24\n",
        shipped().to_string_lossy()
    );
    let (mut dice, until) = (Sequence(12), Instant::now() + duration());
    let (mut understood, mut refused) = (0u64, 0u64);
    while Instant::now() < until {
        let mut settings = good.clone().into_bytes();
        mutate(&mut settings, &mut dice);
        fs::write(&file, &settings).unwrap();
        let output = program("paradised").args(["check-config", "--config"]).arg(&file).output().unwrap();
        let said = text(&output).1;
        let shown = String::from_utf8_lossy(&settings);
        match output.status.code() {
            Some(0) => understood += 1,
            Some(2) => {
                refused += 1;
                assert!(!said.trim().is_empty(), "{shown}");
            }
            code => panic!("{code:?}: {said}\n{shown}"),
        }
        assert!(!said.contains("panicked"), "{said}\n{shown}");
    }
    println!("{understood} understood, {refused} refused");
    assert!(refused > 20 && understood > 2, "{understood} understood, {refused} refused");
}
