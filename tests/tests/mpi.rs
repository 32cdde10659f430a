//! `train` under Open MPI's launcher: on any number of ranks its files are those of one process, and no death loses more than the
//! work since the last checkpoint.

use paradise_data::settings::Source;
use paradise_tests::{deep, metrics, program, root, skipped, text, tiny, until};
use paradise_train::config::Config;
use paradise_train::config::encoder::{Encoder, Kind as Network};
use paradise_train::objective::Kind;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// `train` on so many ranks; without a launcher for none.
fn train(ranks: usize) -> Command {
    let train = program("train");
    let mut command = match ranks {
        0 => train,
        _ => {
            let mut mpirun = Command::new("mpirun");
            // More ranks than cores, as root in a container, beside other tests.
            mpirun.args(["--oversubscribe", "-n", &ranks.to_string()]).arg(train.get_program());
            for (name, value) in
                [("ALLOW_RUN_AS_ROOT", "1"), ("ALLOW_RUN_AS_ROOT_CONFIRM", "1"), ("MCA_mpi_yield_when_idle", "1")]
            {
                mpirun.env(format!("OMPI_{name}"), value);
            }
            mpirun
        }
    };
    command.current_dir(root()).env("RAYON_NUM_THREADS", "1").stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a command printed; it must succeed.
fn done(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    let (stdout, stderr) = text(&output);
    assert!(output.status.success(), "{command:?}: {:?}\n{stdout}\n{stderr}", output.status);
    stdout
}

fn config(kind: Kind, folder: &Path) -> PathBuf {
    let mut config = tiny(kind, 2);
    config.encoder = Encoder { kind: Network::ResNet8, latent: Some(8), ..Encoder::default() };
    config.data.source = Source::FashionMnistSubset;
    config.data.train_images = 240;
    config.data.validation = 40;
    config.fit.batch = 32;
    config.fit.clip = 2.0;
    config.objective.adversary.steps = 2;
    write(&config, folder)
}

fn write(config: &Config, folder: &Path) -> PathBuf {
    let path = folder.join("run.toml");
    fs::write(&path, config.to_toml().unwrap()).unwrap();
    path
}

fn fit(ranks: usize, config: &Path, run: &Path) -> Command {
    let mut command = train(ranks);
    command.args(["fit", "--config"]).arg(config).arg("--out").arg(run);
    command
}

/// Checkpoints, and metrics but for the seconds.
fn run_files(run: &Path) -> (Vec<Vec<u8>>, Vec<serde_json::Value>) {
    let checkpoints = ["last.safetensors", "best.safetensors"].map(|file| fs::read(run.join(file)).unwrap());
    (checkpoints.into(), metrics(run))
}

/// Every file below a folder.
fn all_files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(all_files(&path).into_iter().map(|(name, bytes)| (path.join(name), bytes))),
            false => drop(all.insert(path.file_name().unwrap().into(), fs::read(&path).unwrap())),
        }
    }
    all.into_iter().map(|(name, bytes)| (name.strip_prefix(folder).unwrap_or(&name).into(), bytes)).collect()
}

#[test]
fn any_number_of_ranks_trains_and_evaluates_to_the_bytes_of_one_process() {
    if skipped("mpi", "any_number_of_ranks_trains_and_evaluates_to_the_bytes_of_one_process") {
        return;
    }
    for kind in [Kind::Standard, Kind::ParadisePm, Kind::ParadiseAm, Kind::Trades] {
        let home = tempfile::tempdir().unwrap();
        let (config, alone) = (config(kind, home.path()), home.path().join("alone"));
        done(&mut fit(0, &config, &alone));
        let evaluate = |ranks: usize, out: &Path| {
            let mut command = train(ranks);
            command
                .args(["evaluate", "--attacks", "fgsm,pgd:3x1", "--n", "70", "--batch", "16", "--run"])
                .arg(&alone);
            // What follows the attacks is one process's work.
            if kind != Kind::Standard || !deep() {
                command.args(["--no-checks", "--no-confidence"]);
            }
            done(command.arg("--out").arg(out))
        };
        let report = home.path().join("report");
        let told = evaluate(0, &report);
        for ranks in [1, 2, 4] {
            let shared = home.path().join(ranks.to_string());
            done(&mut fit(ranks, &config, &shared));
            assert!(run_files(&shared) == run_files(&alone), "{kind:?} on {ranks} ranks");
            let out = home.path().join(format!("report-{ranks}"));
            assert_eq!(
                evaluate(ranks, &out).replace(out.to_str().unwrap(), ""),
                told.replace(report.to_str().unwrap(), "")
            );
            assert!(all_files(&out) == all_files(&report), "the report of {kind:?} on {ranks} ranks");
        }
    }
}

#[test]
fn ranks_share_out_certificates_and_the_runs_of_a_search() {
    if skipped("mpi", "ranks_share_out_certificates_and_the_runs_of_a_search") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let config = config(Kind::ParadisePm, home.path());
    let run = home.path().join("run");
    done(&mut fit(0, &config, &run));
    let sweep = |ranks: usize, out: &Path| {
        let mut command = train(ranks);
        command.args(["sweep", "--epochs", "1", "--gammas", "0.5,2,4", "--tolerance", "10", "--config"]);
        done(command.arg(&config).arg("--out").arg(out)).replace(out.to_str().unwrap(), "")
    };
    let certify = |ranks: usize, out: &Path| {
        let mut command = train(ranks);
        command.args(["certify", "--n", "7", "--draws", "200", "--choose", "50", "--run"]).arg(&run);
        done(command.arg("--out").arg(out)).replace(out.to_str().unwrap(), "")
    };
    let place = |name: &str| home.path().join(name);
    assert_eq!(certify(3, &place("c3.json")), certify(0, &place("c0.json")));
    assert_eq!(fs::read(place("c3.json")).unwrap(), fs::read(place("c0.json")).unwrap());
    // Another rank's rows are not shown as they come, the table is.
    let table = |told: &str| told.split_once("\n\n").unwrap().1.to_string();
    assert_eq!(table(&sweep(2, &place("s2"))), table(&sweep(0, &place("s0"))));
    for file in ["search.json", "search.md", "search.png"] {
        assert_eq!(fs::read(place("s2").join(file)).unwrap(), fs::read(place("s0").join(file)).unwrap(), "{file}");
    }
    let refused = train(2).args(["latent", "--run"]).arg(&run).output().unwrap();
    assert!(text(&refused).1.contains("a launcher started 2 of these"), "{:?}", text(&refused));
}

/// The processes that `mpirun` started: its ranks.
fn ranks_of(mpirun: &Child) -> Vec<u32> {
    let numbers =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let is_rank = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.contains(&format!("\nPPid:\t{}\n", mpirun.id()))
    };
    numbers.filter(is_rank).collect()
}

fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

/// A run of some seconds.
fn long(home: &Path) -> PathBuf {
    let mut config: Config = toml::from_str(&fs::read_to_string(config(Kind::ParadisePm, home)).unwrap()).unwrap();
    config.data.train_images = 1000;
    config.fit.epochs = 4;
    write(&config, home)
}

/// Waits for the launcher's end; what it and its ranks said.
fn ended(child: Child) -> (Duration, Option<i32>, String) {
    let began = Instant::now();
    let output = child.wait_with_output().unwrap();
    (began.elapsed(), output.status.code(), text(&output).1)
}

#[test]
fn a_rank_that_is_killed_ends_all_and_the_run_goes_on_to_the_same_bytes() {
    if skipped("mpi", "a_rank_that_is_killed_ends_all_and_the_run_goes_on_to_the_same_bytes") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (config, whole) = (long(home.path()), home.path().join("whole"));
    let began = Instant::now();
    done(&mut fit(2, &config, &whole));
    let (took, points, mut ended_before) = (began.elapsed(), if deep() { 20 } else { 1 }, 0);
    for point in 0..points {
        let run = home.path().join(format!("killed-{point}"));
        let child = fit(2, &config, &run).spawn().unwrap();
        match points {
            1 => _ = until("a checkpoint", || run.join("last.safetensors").exists()),
            // Wherever a run may be.
            _ => std::thread::sleep(took * (2 * point + 1) / (2 * points)),
        }
        // No run takes as long as another.
        let Some(rank) = ranks_of(&child).into_iter().nth(point as usize % 2) else {
            ended_before += 1;
            continue;
        };
        signal("-KILL", rank);
        let (after, code, told) = ended(child);
        assert!(after < Duration::from_secs(10) && code != Some(0), "{after:?} {code:?} {told}");
        assert!(told.contains("signal 9") || told.contains("Killed"), "{told}");
        // Whatever was there: nothing, a folder without a checkpoint, or one with.
        done(fit(if point % 3 == 2 { 4 } else { 2 }, &config, &run).arg("--resume"));
        assert!(run_files(&run) == run_files(&whole), "killed at point {point} of {points}");
        fs::remove_dir_all(run).unwrap();
    }
    assert!(2 * ended_before < points, "{ended_before} of {points} runs ended before they were killed");
}

#[test]
fn a_launcher_that_is_told_to_stop_leaves_a_checkpoint() {
    if skipped("mpi", "a_launcher_that_is_told_to_stop_leaves_a_checkpoint") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (config, whole) = (long(home.path()), home.path().join("whole"));
    done(&mut fit(0, &config, &whole));
    for name in ["-TERM", "-USR1"] {
        let run = home.path().join(name);
        // By itself Open MPI kills a second after it has passed a SIGTERM on, which is too soon beside other work.
        let patience = if name == "-TERM" { "5" } else { "1" };
        let child = fit(2, &config, &run).env("OMPI_MCA_odls_base_sigkill_timeout", patience).spawn().unwrap();
        until("a checkpoint", || run.join("last.safetensors").exists());
        let asked = SystemTime::now();
        signal(name, child.id());
        let (_, code, told) = ended(child);
        // Told to end, Open MPI passes on nothing more that ranks say.
        assert!(
            code != Some(0) && (name == "-TERM" || told.contains("holds a checkpoint")),
            "{name}: {code:?} {told}"
        );
        assert!(fs::metadata(run.join("last.safetensors")).unwrap().modified().unwrap() > asked, "{name}: {told}");
        done(fit(2, &config, &run).arg("--resume"));
        assert!(run_files(&run) == run_files(&whole), "{name}");
    }
}
