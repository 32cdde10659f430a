//! Work in parts: the tasks of a job array share one folder, and the last one puts all together.

use paradise_data::settings::Source;
use paradise_tests::{program, text, tiny};
use paradise_train::objective::Kind;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// What the shell of task `index` of an array of `of` would start.
fn task(index: usize, of: usize) -> Command {
    let mut command = program("train");
    for (name, value) in [("ID", index), ("MIN", 0), ("MAX", of - 1), ("STEP", 1), ("COUNT", of)] {
        command.env(format!("SLURM_ARRAY_TASK_{name}"), value.to_string());
    }
    command.env("RAYON_NUM_THREADS", "1").stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What tasks said that run at once.
fn together(tasks: Vec<Command>) -> Vec<String> {
    let children: Vec<Child> = tasks.into_iter().map(|mut task| task.spawn().unwrap()).collect();
    let outputs: Vec<_> = children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    outputs
        .into_iter()
        .map(|output| {
            assert!(output.status.success(), "{:?}", text(&output));
            text(&output).0
        })
        .collect()
}

fn alone(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{:?}", text(&output));
    text(&output).0
}

fn config(folder: &Path) -> String {
    let mut config = tiny(Kind::ParadisePm, 2);
    config.data.source = Source::FashionMnistSubset;
    config.data.train_images = 400;
    config.data.validation = 100;
    let path = folder.join("run.toml");
    fs::write(&path, config.to_toml().unwrap()).unwrap();
    path.to_str().unwrap().into()
}

#[test]
fn tasks_of_an_array_share_a_folder_and_the_last_one_puts_all_together() {
    let home = tempfile::tempdir().unwrap();
    let place = |name: &str| home.path().join(name).to_str().unwrap().to_string();
    let (config, run) = (config(home.path()), place("run"));
    alone(program("train").args(["fit", "--config", &config, "--out", &run]));
    let evaluate = ["evaluate", "--run", &run, "--attacks", "fgsm,pgd:3x1", "--n", "90", "--batch", "8"];
    let lean = ["--no-checks", "--no-confidence"];
    let certify = ["certify", "--run", &run, "--n", "7", "--draws", "200", "--choose", "50"];
    let sweep = ["sweep", "--config", &config, "--epochs", "1", "--gammas", "0.5,2,4", "--tolerance", "10"];
    for (arguments, made) in [
        ([&evaluate[..], &lean[..]].concat(), vec!["report.json", "report.md", "report.html"]),
        (certify.to_vec(), vec![""]),
        (sweep.to_vec(), vec!["search.json", "search.md", "search.png"]),
    ] {
        let [whole, shared] = ["whole", "shared"].map(|name| place(&format!("{name}-{}", arguments[0])));
        alone(program("train").args(&arguments).args(["--out", &whole]));
        let begin = |i: usize| {
            let mut task = task(i, 3);
            task.args(&arguments).args(["--shard", "auto", "--out", &shared]);
            task
        };
        let told = together((0..3).map(begin).collect());
        let file = |folder: &str, name: &str| {
            fs::read(Path::new(folder).join(name)).unwrap_or_else(|_| fs::read(folder).unwrap())
        };
        for name in made {
            assert!(file(&whole, name) == file(&shared, name), "{} {name}: {told:?}", arguments[0]);
        }
    }
}

#[test]
fn a_task_without_an_array_and_a_folder_at_work_are_named() {
    let home = tempfile::tempdir().unwrap();
    let (config, run) = (config(home.path()), home.path().join("run"));
    let sweep = ["sweep", "--config", &config, "--shard"];
    for (shard, word) in [("auto", "no task of a Slurm job array"), ("3/2", "1..=2"), ("x", "not like 2/4")] {
        let refused = program("train").args(sweep).arg(shard).output().unwrap();
        assert!(refused.status.code() == Some(2) && text(&refused).1.contains(word), "{:?}", text(&refused));
    }
    fs::create_dir(&run).unwrap();
    let _claim = paradise_support::claim::Claim::on(&run).unwrap().unwrap();
    let refused = program("train").args(["fit", "--config", &config, "--out"]).arg(&run).output().unwrap();
    assert!(text(&refused).1.contains("another process trains there now"), "{:?}", text(&refused));
}
