//! The daemon for a Raspberry Pi (64 bit), in QEMU on a CPU with dot products and on one without: it tests itself, serves, and answers
//! with this machine's bits. `make test-all` tries it as it is shipped, too.

use paradise_tests::daemon::Daemon;
use paradise_tests::{deep, program, root, shipped, skipped, text};
use std::process::{Command, Stdio};

/// The program of a profile on this CPU.
fn emulated(profile: &str, cpu: &str) -> Command {
    let mut command = Command::new("qemu-aarch64");
    command.args(["-L", "/usr/aarch64-linux-gnu", "-cpu", cpu]);
    command.arg(root().join("target/aarch64/aarch64-unknown-linux-gnu").join(profile).join("paradised"));
    command
}

#[test]
fn it_tests_itself_and_answers_as_this_machine_does() {
    if skipped("aarch64", "it_tests_itself_and_answers_as_this_machine_does") {
        return;
    }
    let picture = [&b"P5 28 28 255\n"[..], &(0..784u32).map(|i| (i * 31 % 251) as u8).collect::<Vec<u8>>()].concat();
    let here = Daemon::start(&[&shipped()], &[]);
    let (_, mut expected) = here.request("POST", "/v1/classify", &picture);
    expected["latency_us"] = 0.into();
    let report = |command: &mut Command| {
        let output =
            command.args(["selftest", "--json", "--noise-seed", "7", "--model"]).arg(shipped()).output().unwrap();
        let report: serde_json::Value =
            serde_json::from_str(&text(&output).0).unwrap_or_else(|_| panic!("{}", text(&output).1));
        (output.status.code(), report)
    };
    let figure = |report: &serde_json::Value, check: &str, name: &str| {
        let checks = report["checks"].as_array().unwrap();
        checks.iter().find(|c| c["name"] == check).map(|c| c["figures"][name].clone()).unwrap()
    };
    let (_, own) = report(&mut program("paradised"));
    let profiles = if deep() { &["release", "device"][..] } else { &["release"] };
    let cpus = [("cortex-a76", "neon-dotprod"), ("cortex-a57", "neon")];
    for (profile, (cpu, kernel)) in profiles.iter().flat_map(|profile| cpus.map(|cpu| (profile, cpu))) {
        let (code, there) = report(&mut emulated(profile, cpu));
        assert_eq!(
            (code, &there["kernel"], &there["architecture"]),
            (Some(0), &kernel.into(), &"aarch64".into()),
            "{there}"
        );
        for (check, name) in
            [("black-box attack", "broken"), ("fresh noise", "mean_distance"), ("noisy probes", "correct")]
        {
            assert_eq!(figure(&there, check, name), figure(&own, check, name), "{check} on {cpu}");
        }
        let mut serve = emulated(profile, cpu);
        serve.args(["serve", "--listen", "127.0.0.1:0", "--lockstep", "1", "--model"]).arg(shipped());
        let daemon = Daemon::of(serve.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
        for _ in 0..3 {
            let (status, mut answer) = daemon.request("POST", "/v1/classify", &picture);
            answer["latency_us"] = 0.into();
            assert_eq!((status, answer), (200, expected.clone()), "{cpu}");
        }
        let watched = daemon.request("GET", "/v1/models", b"").1["models"][0]["watch"].clone();
        assert_eq!(watched["answers_checked"], 3, "{watched}");
        assert_eq!(daemon.stop(), Some(0));
    }
}
