//! The scripts for a Slurm cluster, on a cluster of this machine alone: `make test-all`.

use paradise_data::settings::Source;
use paradise_tests::{program, root, skipped, text, tiny};
use paradise_train::config::encoder::{Encoder, Kind as Network};
use paradise_train::objective::Kind;
use std::fs;
use std::process::Command;

#[test]
fn a_job_and_an_array_end_in_the_bytes_of_one_process() {
    const NAME: &str = "a_job_and_an_array_end_in_the_bytes_of_one_process";
    if skipped("mpi", NAME) || skipped("slurm", NAME) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let place = |name: &str| home.path().join(name).to_str().unwrap().to_string();
    let mut config = tiny(Kind::ParadisePm, 2);
    config.encoder = Encoder { kind: Network::ResNet8, latent: Some(8), ..Encoder::default() };
    config.data.source = Source::FashionMnistSubset;
    config.data.train_images = 240;
    config.data.validation = 40;
    fs::write(place("run.toml"), config.to_toml().unwrap()).unwrap();
    let evaluate = |out: &str| {
        let lean = "--attacks fgsm,pgd:3x1 --n 70 --batch 8 --no-checks --no-confidence";
        format!("evaluate --run {} {lean} --out {}", place("alone"), place(out))
    };
    let train = program("train");
    for command in [format!("fit --config {} --out {}", place("run.toml"), place("alone")), evaluate("whole")] {
        let output = program("train").args(command.split(' ')).output().unwrap();
        assert!(output.status.success(), "{:?}", text(&output));
    }
    let jobs = format!(
        "set -e\nsbatch --wait --ntasks=2 --output={0} train/cluster/fit.sbatch --config {1} --out {2}\n\
         sbatch --wait --array=0-3 --output={3} train/cluster/array.sbatch {4}\n",
        place("fit.txt"),
        place("run.toml"),
        place("shared"),
        place("array-%a.txt"),
        evaluate("parts"),
    );
    fs::write(place("jobs.sh"), jobs).unwrap();
    let output = Command::new("train/cluster/one-machine.sh")
        .args(["bash", &place("jobs.sh")])
        .current_dir(root())
        .env("TRAIN", train.get_program())
        .output()
        .unwrap();
    let told = fs::read_to_string(place("fit.txt")).unwrap_or_default();
    assert!(output.status.success(), "{:?} {told}", text(&output));
    let same = |a: &str, b: &str| fs::read(place(a)).unwrap() == fs::read(place(b)).unwrap();
    for file in ["last.safetensors", "best.safetensors"] {
        assert!(same(&format!("alone/{file}"), &format!("shared/{file}")), "{file}: {told}");
    }
    for file in ["report.json", "report.md", "report.html"] {
        assert!(same(&format!("whole/{file}"), &format!("parts/{file}")), "{file}");
    }
}
