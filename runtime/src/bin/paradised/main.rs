//! `paradised`: classifies pictures, serves over HTTP, tests itself.
#![deny(missing_docs)]

mod arguments;
mod bench;
mod calibrate;
mod classify;
mod gpio;
mod inspect;
#[cfg(feature = "mcu")]
mod mcu;
#[cfg(feature = "oci")]
mod pull;
mod remembered;
mod serve;
mod settings;
mod threads;

use anyhow::Context;
use arguments::{Arguments, Command};
use paradise_runtime::int8::Int8;
use paradise_runtime::output::write_whole;
use paradise_runtime::say;
use paradise_runtime::{Bundle, load, selftest};
use std::process::ExitCode;

/// A bad command line or input.
const BAD_INPUT: u8 = 2;

fn main() -> ExitCode {
    let outcome = settings::read().and_then(|asked| run(asked.arguments, &asked.settings));
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("paradised: {error:#}");
            ExitCode::from(BAD_INPUT)
        }
    }
}

fn run(arguments: Arguments, settings: &[[String; 3]]) -> anyhow::Result<u8> {
    match arguments.command {
        Command::Classify(arguments) => classify::run(&arguments),
        Command::Serve(arguments) => serve::run(arguments),
        Command::CheckConfig(arguments) => serve::check(arguments, settings),
        Command::Selftest(arguments) => self_test(&arguments),
        Command::Faults(arguments) => remembered::faults(&arguments),
        Command::Journal(arguments) => remembered::journal(&arguments),
        #[cfg(feature = "oci")]
        Command::Pull(arguments) => pull::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Calibrate(arguments) => calibrate::run(&arguments),
        #[cfg(feature = "mcu")]
        Command::Mcu(arguments) => mcu::run(&arguments),
    }
}

/// `paradised selftest --campaign`.
fn campaign(arguments: &arguments::Selftest, faults: u32) -> anyhow::Result<u8> {
    anyhow::ensure!(
        arguments.model.backend == paradise_runtime::BackendKind::Int8,
        "--campaign: the int8 back end only"
    );
    let bundle = Bundle::open(&arguments.model.model)?;
    let began = std::time::Instant::now();
    let mut said = began;
    let found = selftest::campaign(&bundle, faults, arguments.noise_seed.unwrap_or(1).into(), &mut |done| {
        if said.elapsed().as_secs() >= 2 {
            said = std::time::Instant::now();
            eprintln!("{done} of {faults} faults, {} s", began.elapsed().as_secs());
        }
    });
    let found = found.map_err(|e| anyhow::anyhow!("{e}"))?;
    if arguments.json {
        say!("{}", serde_json::to_string_pretty(&found)?);
    } else {
        say!("{found}");
    }
    Ok(u8::from(!found.holds()))
}

fn self_test(arguments: &arguments::Selftest) -> anyhow::Result<u8> {
    if let Some(faults) = arguments.campaign {
        return campaign(arguments, faults);
    }
    let known: Vec<&str> = selftest::optional_names().collect();
    for name in &arguments.skip {
        let needed = selftest::check_names().any(|n| n == name && !known.contains(&n));
        anyhow::ensure!(!needed, "--skip {name}: the other checks need it; it cannot be left out");
        anyhow::ensure!(known.contains(&name.as_str()), "--skip {name:?}: there are {}", known.join(", "));
    }
    if let Some(limit) = arguments.max_latency_ms {
        anyhow::ensure!(limit > 0.0 && limit.is_finite(), "--max-latency-ms {limit}: not a time above 0");
    }
    let engine = arguments.model.backend == paradise_runtime::BackendKind::Int8;
    anyhow::ensure!(engine || arguments.flip_weight_bit.is_none(), "--flip-weight-bit: the int8 back end only");
    if let Some(bit) = arguments.flip_weight_bit {
        let bits = Int8::load(&Bundle::open(&arguments.model.model)?)?.weight_bits();
        anyhow::ensure!(bit < bits, "--flip-weight-bit {bit}: the weights have bits 0 to {}", bits - 1);
    }
    let options = selftest::Options {
        max_latency_ms: arguments.max_latency_ms,
        skip: arguments.skip.clone(),
        flip_weight_bit: arguments.flip_weight_bit,
        site: arguments.site.site.clone(),
        keys: arguments::keys(&arguments.key)?,
        noise_seed: arguments.noise_seed,
        brief: false,
    };
    let report = selftest::run(&arguments.model.model, arguments.model.backend, &options)?;
    if let Some(path) = &arguments.html {
        let bundle = Bundle::open(&arguments.model.model).ok();
        let backend = bundle.as_ref().and_then(|bundle| load(bundle, arguments.model.backend).ok());
        let page = selftest::page(&report, bundle.as_ref(), backend)?;
        write_whole(path, page.as_bytes()).with_context(|| path.display().to_string())?;
    }
    if arguments.json {
        say!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        say!("{report}");
    }
    Ok(report.exit_code())
}
