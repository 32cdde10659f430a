//! `paradised`: classifies pictures, serves over HTTP, tests itself.
#![deny(missing_docs)]

mod arguments;
mod bench;
mod classify;
mod gpio;
mod http;
mod inspect;
mod worker;

use arguments::{Arguments, Command};
use clap::Parser;
use std::process::ExitCode;

/// A bad command line or input.
const BAD_INPUT: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        Command::Classify(arguments) => classify::run(&arguments),
        Command::Serve(arguments) => http::run(arguments),
        Command::Selftest(arguments) => selftest(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("paradised: {error:#}");
            ExitCode::from(BAD_INPUT)
        }
    }
}

fn selftest(arguments: &arguments::Selftest) -> anyhow::Result<u8> {
    let known: Vec<&str> = paradise_runtime::selftest::check_names().collect();
    for name in &arguments.skip {
        anyhow::ensure!(known.contains(&name.as_str()), "--skip {name:?}: there are {}", known.join(", "));
    }
    let engine = arguments.model.backend == paradise_runtime::BackendKind::Int8;
    anyhow::ensure!(engine || arguments.flip_weight_bit.is_none(), "--flip-weight-bit: the int8 back end only");
    let options = paradise_runtime::selftest::Options {
        max_latency_ms: arguments.max_latency_ms,
        skip: arguments.skip.clone(),
        flip_weight_bit: arguments.flip_weight_bit,
    };
    let report = paradise_runtime::selftest::run(&arguments.model.model, arguments.model.backend, &options);
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{report}");
    }
    Ok(report.exit_code())
}
