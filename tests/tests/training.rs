//! Every objective and network learns; runs stop where they should, lose nothing and go on to the same bits.

use paradise_data::settings::Source;
use paradise_nn::optimiser;
use paradise_tests::{fitted, metrics, program, referee, skipped, splits, text, tiny, until};
use paradise_train::checkpoint;
use paradise_train::config::Config;
use paradise_train::config::encoder::{Encoder, Kind as Network};
use paradise_train::fit::RunFolder;
use paradise_train::objective::Kind;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

fn train(folder: &Path, config: &Config, arguments: &[&str]) -> Command {
    let path = folder.join("run.toml");
    fs::write(&path, config.to_toml().unwrap()).unwrap();
    let mut command = program("train");
    command.args(arguments).arg("--config").arg(path).arg("--out").arg(folder.join("run"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn adversarial_objectives_learn() {
    let splits = splits(3000);
    for kind in [Kind::ParadiseAm, Kind::PgdAt, Kind::Trades] {
        let folder = tempfile::tempdir().unwrap();
        let mut config = tiny(kind, 3);
        config.objective.adversary.steps = 2;
        let run = fitted(&config, &splits, &folder.path().join("run"));
        assert!(run.progress.best > 50.0, "{kind:?} learned nothing: {:?}", run.progress);
    }
}

/// A batch-normalised network under SGD with averaged weights, small enough for a test.
fn residual(epochs: u32) -> Config {
    let mut config = tiny(Kind::Standard, epochs);
    config.encoder = Encoder { kind: Network::ResNet8, latent: Some(8), ..Encoder::default() };
    config.data.train_images = 1600;
    config.fit.optimiser = optimiser::Kind::Sgd;
    config.fit.peak_rate = 0.05;
    config.fit.weight_decay = 5e-4;
    config.fit.clip = 2.0;
    config.fit.ema = 0.9;
    config
}

#[test]
fn an_interrupted_epoch_goes_on_to_the_same_bits_whatever_the_threads() {
    let (straight, stopped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = residual(6);
    let run = train(straight.path(), &config, &["fit"]).env("RAYON_NUM_THREADS", "1").output().unwrap();
    assert!(run.status.success(), "{}", text(&run).1);

    let child = train(stopped.path(), &config, &["fit"]).spawn().unwrap();
    until("a checkpoint", || stopped.path().join("run/last.safetensors").exists());
    let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupt.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(text(&output).1.contains("add --resume"), "{}", text(&output).1);

    let run = train(stopped.path(), &config, &["fit", "--resume"]).output().unwrap();
    assert!(run.status.success(), "{}", text(&run).1);
    for file in ["last.safetensors", "best.safetensors"] {
        let read = |folder: &Path| fs::read(folder.join("run").join(file)).unwrap();
        assert!(read(straight.path()) == read(stopped.path()), "{file} differs");
    }
    // Metrics too, but for the seconds.
    let lines = |folder: &Path| metrics(&folder.join("run"));
    assert_eq!(lines(straight.path()), lines(stopped.path()));
}

#[test]
fn tensorboard_reads_the_events() {
    if skipped("python", "tensorboard_reads_the_events") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let config = tiny(Kind::ParadisePm, 2);
    fitted(&config, &splits(1400), folder.path());
    println!("{}", referee(&["events", &folder.path().to_string_lossy()]));
}

#[test]
fn a_loss_that_is_not_finite_is_named_and_the_checkpoint_stays() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = residual(4);
    config.data.train_images = 1200;
    config.encoder = Encoder { channels: Some([4, 4]), hidden: Some(8), latent: Some(4), ..Encoder::default() };
    config.fit.epochs = 2;
    let at = folder.path().join("run");
    let splits = config.data.load().unwrap();
    fitted(&config, &splits, &at);
    // The last checkpoint of one epoch, its weights blown up: finite, but not what follows from them.
    let last = at.join("last.safetensors");
    let architecture = config.architecture(splits.train.shape(), splits.labels.len()).unwrap();
    let mut state = checkpoint::load(&last, architecture, config.fit.settings()).unwrap();
    state.progress.epoch = 1;
    state.optimiser.step /= 2;
    for variable in &state.network.variables {
        variable.set(&(variable.as_detached_tensor() * 1e30).unwrap()).unwrap();
    }
    checkpoint::save(&last, &state).unwrap();
    let before = fs::read(&last).unwrap();
    let stop = Default::default();
    let error = paradise_train::fit::fit(&config, &splits, &RunFolder::new(&at), true, &stop).unwrap_err();
    let error = format!("{error:#}");
    assert!(error.contains("distortion is") && error.contains("fit.peak_rate"), "{error}");
    assert!(fs::read(&last).unwrap() == before);
}

#[test]
fn bad_configurations_stop_before_training_and_name_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |set: &[&str]| -> String {
        let mut command = train(folder.path(), &tiny(Kind::ParadisePm, 1), &["fit"]);
        for change in set {
            command.args(["--set", change]);
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{set:?}");
        assert!(!folder.path().join("run").exists(), "{set:?} began a run");
        text(&output).1
    };
    for (set, words) in [
        (&["objective.alhpa=1"][..], "alhpa"),
        (&["objective.alpha=-1"], "objective.alpha = -1"),
        (&["objective.adversary.eps_pixels=300"], "objective.adversary.eps_pixels = 300"),
        (&["encoder.kind=resnet-21"], "resnet-21"),
        (&["encoder.kind=resnet-8"], "encoder.channels"),
        (&["fit.optimiser=sdg"], "sdg"),
        (&["fit.ema=1"], "fit.ema = 1"),
        (&["data.train_images=999999"], "data.train_images = 999999"),
        (&["data.validation=20000"], "cannot hold out 20000"),
        (&["fit.batch=20000"], "fit.batch = 20000"),
        (&["data.source=cifar10", "data.folder=/no/such"], "/no/such"),
        (&["data.source=image-folder", "data.folder=/no/such"], "/no/such/train"),
        (&["data.random_parts=true"], "data.random_parts"),
        (&["objective.kind=paradise-unsupervised"], "has no decoder"),
    ] {
        let error = refused(set);
        assert!(error.contains(words), "{set:?}: {error}");
    }
    // A network that the images are too small for.
    let mut config = tiny(Kind::Standard, 1);
    config.encoder = Encoder { kind: Network::ConvCeleba, ..Encoder::default() };
    let output = train(folder.path(), &config, &["fit"]).output().unwrap();
    assert!(text(&output).1.contains("conv-celeba needs 64 x 64"), "{}", text(&output).1);
    assert!(!folder.path().join("run").exists());
}

#[test]
fn a_dry_run_shows_the_network_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let output = train(folder.path(), &residual(1), &["fit", "--dry-run"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output).1);
    // Counted by hand: 3x3 convolutions, 1x1 shortcuts, two numbers a channel of each norm, heads and classifier.
    let convolutions = 9 * (16 + 4 * 16 * 16 / 2 + 16 * 32 + 32 * 32 + 32 * 64 + 64 * 64);
    let parameters = convolutions + 16 * 32 + 32 * 64 + 2 * (3 * 16 + 2 * 32 + 2 * 64) + 2 * (64 * 8 + 8) + 90;
    let table = text(&output).0;
    assert!(table.contains(&parameters.to_string()), "{parameters}:\n{table}");
    assert!(!folder.path().join("run").exists());
}

#[test]
fn images_are_reconstructed_and_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = tiny(Kind::ParadiseUnsupervised, 2);
    config.encoder = Encoder { kind: Network::Mlp1000, latent: Some(2), ..Encoder::default() };
    config.data.train_images = 1500;
    config.fit.peak_rate = 1e-3;
    let output = train(folder.path(), &config, &["fit"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output).1);
    let metrics = fs::read_to_string(folder.path().join("run/metrics.jsonl")).unwrap();
    let losses: Vec<f64> = metrics
        .lines()
        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["validation"]["loss"].as_f64().unwrap())
        .collect();
    assert!(losses[1] < losses[0] && losses[1] < 60.0, "{losses:?}");
    let run = folder.path().join("run");
    let drawn = program("train").arg("latent").arg("--run").arg(&run).args(["--n", "200"]).output().unwrap();
    assert!(drawn.status.success(), "{}", text(&drawn).1);
    assert!(fs::read(run.join("latent.png")).unwrap().starts_with(b"\x89PNG"));
    let refused = program("train").arg("export").arg("--run").arg(&run).args(["--out", "x", "--n", "10"]).output();
    assert_eq!(refused.unwrap().status.code(), Some(2));
}

#[test]
fn a_search_goes_on_where_it_stopped_and_ends_in_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = tiny(Kind::ParadisePm, 1);
    config.data.train_images = 1400;
    config.data.validation = 400;
    let search = ["sweep", "--epochs", "1", "--gammas", "0.5,2", "--tolerance", "10"];
    let output = train(folder.path(), &config, &search).output().unwrap();
    assert!(output.status.success(), "{}", text(&output).1);
    let first = text(&output).0;
    assert!(first.contains("| gamma-2 | 1e-3 | 2 |") && first.contains("best: alpha 1e-3"), "{first}");
    for file in ["search.json", "search.md", "search.png", "alpha-1e-3/best.safetensors"] {
        assert!(folder.path().join("run").join(file).exists(), "{file}");
    }
    let again = train(folder.path(), &config, &search).output().unwrap();
    assert_eq!(text(&again).0, first);
    // A tolerance that nothing meets walks down to the smallest alpha.
    let rows = fs::read_to_string(folder.path().join("run/search.json")).unwrap();
    assert_eq!(serde_json::from_str::<Vec<serde_json::Value>>(&rows).unwrap().len(), 3);
    let mut plain = tiny(Kind::Standard, 1);
    plain.data.source = Source::FashionMnistSubset;
    let refused = train(folder.path(), &plain, &["sweep"]).output().unwrap();
    assert!(text(&refused).1.contains("has no rate"), "{}", text(&refused).1);
}
