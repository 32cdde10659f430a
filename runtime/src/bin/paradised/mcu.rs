//! `paradised mcu`: a microcontroller over its serial port.

use crate::arguments::{Mcu as Arguments, McuCommand, McuModel};
use anyhow::{Context, bail, ensure};
use paradise_engine::golden::Golden;
use paradise_engine::{Decision, Model, PValues};
use paradise_link::Verdict;
use paradise_link::message::State;
use paradise_runtime::mcu::{Check, Info, Mcu, open};
use paradise_runtime::pipeline::{decision_and_reason, p_values};
use paradise_runtime::{Bundle, say};
use serde::Serialize;
use serde_json::json;
use std::time::Instant;

/// A line of `classify --json`, whose fields are named as the daemon's.
#[derive(Serialize)]
struct Answered<'a> {
    image: &'a str,
    label: &'a str,
    class: u16,
    steady: Option<u16>,
    rate_nats: f32,
    posterior_entropy_nats: f32,
    predictive_entropy_nats: f32,
    #[serde(flatten, serialize_with = "p_values")]
    p: PValues,
    #[serde(flatten, serialize_with = "decision_and_reason")]
    decision: Decision,
    ticks: u32,
}

/// A self-test failed.
const FAILED: u8 = 1;
/// A check did not run.
const NOT_RUN: u8 = 3;

pub fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let port = &arguments.port;
    let mut mcu = Mcu::greet(open(port)?).with_context(|| port.clone())?;
    let code = match &arguments.command {
        McuCommand::Info { json } => info(&mut mcu, *json),
        McuCommand::Classify(classify) => self::classify(&mut mcu, classify),
        McuCommand::Selftest { json } => self_test(&mut mcu, *json),
        McuCommand::Bench { model, n } => bench(&mut mcu, model, *n),
    };
    code.with_context(|| port.clone())
}

fn info(mcu: &mut Mcu, json: bool) -> anyhow::Result<u8> {
    let (info, counters) = (mcu.info()?, mcu.counters()?);
    if json {
        say!("{}", json!({ "chip": info, "counters": counters }));
        return Ok(0);
    }
    let Info { model, hash, board, kernels, version, input: [h, w, c], latent, classes, .. } = &info;
    say!("{board}, firmware {version}, kernels {kernels}; last start: {}", info.reset);
    say!("  model      {model}, {classes} classes, latent {latent}, pictures of {h} x {w} x {c}");
    say!("  model.pmq  {hash}");
    say!("  state      {}", state(info.state));
    say!(
        "  memory     arena {}, scratch {}, stack {} of {} used, bytes",
        info.arena,
        info.scratch,
        info.stack_used,
        info.stack
    );
    say!(
        "  counted    {} pictures, {} accepted, abstained {} (picture) {} (atypical) {} (uncertain); of the last {}: {}",
        counters.classified,
        counters.accepted,
        counters.abstained[0],
        counters.abstained[1],
        counters.abstained[2],
        counters.recent[0],
        counters.recent[1]
    );
    say!(
        "  link       {} damaged frames, {} bytes lost; {} restarts since power",
        counters.damaged,
        counters.overrun,
        counters.restarts
    );
    Ok(0)
}

fn state(state: State) -> &'static str {
    match state {
        State::Testing => "testing itself",
        State::Ready => "ready",
        State::Fault => "fault: it does not classify",
    }
}

/// The bundle's model, which must be the chip's.
fn same_model(mcu: &mut Mcu, arguments: &McuModel) -> anyhow::Result<Bundle> {
    let bundle = Bundle::open(&arguments.model)?;
    let model = Model::parse(bundle.file("model.pmq")?)?;
    let hash: String = model.hash().iter().map(|byte| format!("{byte:02x}")).collect();
    let chip = mcu.info()?;
    ensure!(
        chip.hash == hash,
        "{}: its model.pmq has the hash {hash}, and the chip runs {} with {}",
        arguments.model.display(),
        chip.model,
        chip.hash
    );
    ensure!(mcu.wait()? == State::Ready, "a fault is latched: `paradised mcu selftest` says which");
    Ok(bundle)
}

fn classify(mcu: &mut Mcu, arguments: &crate::arguments::McuClassify) -> anyhow::Result<u8> {
    let bundle = same_model(mcu, &arguments.model)?;
    let model = Model::parse(bundle.file("model.pmq")?)?;
    let mut code = 0;
    for path in &arguments.images {
        let input = paradise_picture::read(path)
            .and_then(|bytes| paradise_picture::input(&bytes, &model.header().policy, model.header().input));
        match input {
            Ok(input) => {
                let verdict = mcu.classify(&input)?;
                said(&path.display().to_string(), &model, &verdict, arguments.json)?;
            }
            Err(error) => {
                eprintln!("paradised: {}: {error:#}", path.display());
                code = crate::BAD_INPUT;
            }
        }
    }
    Ok(code)
}

fn said(image: &str, model: &Model, v: &Verdict, json: bool) -> anyhow::Result<()> {
    let label = model.label(v.class.into());
    if json {
        let line = Answered {
            image,
            label,
            class: v.class,
            steady: v.steady,
            rate_nats: v.rate_nats,
            posterior_entropy_nats: v.posterior_entropy_nats,
            predictive_entropy_nats: v.predictive_entropy_nats,
            p: v.p,
            decision: v.decision,
            ticks: v.ticks,
        };
        say!("{}", serde_json::to_string(&line)?);
        return Ok(());
    }
    let PValues { picture, posterior, spread, predictive, combined, .. } = v.p;
    say!(
        "{image}: {label}  {}  (p of picture {picture:.3}, posterior {posterior:.3}, spread {spread:.3}, class {predictive:.3}, \
         all {combined:.3}; rate {:.2}, H {:.2}, predictive entropy {:.3} nats)",
        v.decision,
        v.rate_nats,
        v.posterior_entropy_nats,
        v.predictive_entropy_nats
    );
    Ok(())
}

fn self_test(mcu: &mut Mcu, json: bool) -> anyhow::Result<u8> {
    let show = |check: &Check| {
        let verdict = match check.passed {
            Some(true) => "passed",
            Some(false) => "FAILED",
            None => "not run",
        };
        say!("{verdict:8} {:40} {} of {}", check.name, check.found, check.held_to);
    };
    let checks = if mcu.wait()? == State::Fault {
        // What failed is what there is to say.
        let count = mcu.info()?.checks;
        let checks: Vec<Check> = (0..count).map(|at| mcu.check(at)).collect::<Result<_, _>>()?;
        if !json {
            say!("a fault is latched; it is cleared when power is taken away");
            checks.iter().for_each(show);
        }
        checks
    } else {
        mcu.self_test(|check| {
            if !json {
                show(check);
            }
        })?
    };
    let failed = mcu.info()?.state == State::Fault;
    let code = match checks.iter().any(|check| check.passed.is_none()) {
        _ if failed => FAILED,
        true => NOT_RUN,
        false => 0,
    };
    if json {
        let verdict = if failed { "failed" } else { "passed" };
        say!("{}", json!({ "format": 1, "verdict": verdict, "exit_code": code, "checks": checks }));
    }
    Ok(code)
}

/// Sends the golden images again and again.
fn bench(mcu: &mut Mcu, arguments: &McuModel, n: u32) -> anyhow::Result<u8> {
    ensure!(n > 0, "-n 0: nothing to measure");
    let bundle = same_model(mcu, arguments)?;
    let golden = Golden::parse(bundle.file("selftest.bin")?)?;
    let Some(case) = golden.header().cases.get(0) else { bail!("selftest.bin has no golden image") };
    let picture = golden.bytes(case.image);
    let (mut ticks, begin) = (Vec::new(), Instant::now());
    for _ in 0..n {
        ticks.push(mcu.classify(picture)?.ticks);
    }
    let each = begin.elapsed() / n;
    ticks.sort_unstable();
    say!("inference: {} ticks of the board's counter (median of {n})", ticks[ticks.len() / 2]);
    say!("picture and verdict over the port: {:.1} ms", each.as_secs_f64() * 1000.0);
    Ok(0)
}
