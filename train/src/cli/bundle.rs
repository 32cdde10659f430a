//! `train export`, `import-onnx` and `verify-card`: bundles and their cards.

use super::named_folder;
use super::values::named;
use anyhow::{Context, Result};
use clap::Args;
use paradise_data::settings::{Data, Geometry, Polarity};
use paradise_engine::golden::Origin;
use paradise_evaluate::confidence::SCORES;
use paradise_runtime::say;
use paradise_support::files;
use paradise_train::config::parse_eps;
use paradise_train::export::card::Card;
use paradise_train::export::{self, CardSettings};
use paradise_train::import::{self, Normalisation, Range};
use paradise_train::probes::{self, Replacement};
use paradise_train::recalibrate::{self, Recalibration};
use paradise_train::trained::Trained;
use paradise_train::verify;
use std::path::{Path, PathBuf};

/// How a bundle is quantised, and what its card measures.
#[derive(Args)]
pub struct CardArguments {
    /// Test images behind the card's robustness figure [default: 2000, or all].
    #[arg(long)]
    n: Option<usize>,
    /// Radius of that figure, in l_inf: 8/255, or a decimal in [0, 1].
    #[arg(long, default_value = "8/255")]
    eps: String,
    /// Another data set on which confidence is measured, by any name: MNIST's or CIFAR's files, or a folder of pictures.
    #[arg(long, value_name = "NAME=DIR")]
    foreign: Vec<String>,
    /// Share of calibration images that may be abstained for any reason.
    #[arg(long, default_value_t = 0.05)]
    false_abstain: f64,
    /// Images of the self-test: the data set's test images, or pictures that are synthesised from the network's own aggregate posterior,
    /// for a data set whose images may not be passed on.
    #[arg(long, default_value = "data-set", value_name = "data-set|synthesised", value_parser = ["data-set", "synthesised"])]
    probes: String,
    /// How the network is quantised: `best` compares a dozen methods (ranges by min-max, percentile or squared error, bias
    /// correction, error feedback in rounding, equalisation, dithered features) with the float network and reports what
    /// they do; `min-max` is the plain one.
    #[arg(long, default_value = "best", value_name = "best|min-max", value_parser = ["best", "min-max"])]
    quantise: String,
}

impl CardArguments {
    fn settings(&self) -> Result<CardSettings> {
        Ok(CardSettings {
            n: self.n.unwrap_or(CardSettings::default().n),
            eps: parse_eps(&self.eps)?,
            false_abstain: self.false_abstain,
            choose: self.quantise == "best",
            origin: origin(&self.probes),
            foreign: self.foreign.iter().map(named_folder).collect::<Result<_>>()?,
            ..CardSettings::default()
        })
    }
}

/// Where the images of a self-test come from.
fn origin(name: &str) -> Origin {
    if name == "synthesised" { Origin::Synthesised } else { Origin::DataSet }
}

/// What is imported, and by which pictures it is quantised.
#[derive(Args)]
pub struct ImportOnnx {
    /// Float ONNX classifier of one image, `[n, c, h, w]` or `[n, h, w, c]`: Conv, BatchNormalization, Relu, Add, pools, Gemm,
    /// MatMul, Flatten and what exporters put around them; all that is not understood is listed at once.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Folder with train/CLASS and test/CLASS pictures: ranges, confidence and the card come from them.
    #[arg(long, value_name = "DIR")]
    calibrate: PathBuf,
    /// Bundle folder; its last part is the model's name.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Which pixels the network takes: `auto` sees 0..=255 by u8 inputs, a division by a large number or a mean far above 1.
    #[arg(long, value_enum, default_value = "auto")]
    range: Range,
    /// Import a network that the original, run by tract on the calibration pictures, does not confirm.
    #[arg(long)]
    force: bool,
    /// Mean a channel that was taken from pixels in [0, 1] before the network. It becomes a layer of its own, so that a border
    /// of 0 behind it is one here, too.
    #[arg(long, value_name = "M,..", value_delimiter = ',', num_args = 1)]
    mean: Vec<f32>,
    /// Standard deviation a channel by which they were divided.
    #[arg(long, value_name = "S,..", value_delimiter = ',', num_args = 1)]
    std: Vec<f32>,
    /// Names of the folders of pictures in the order of the network's outputs, one a line [default: by number where all are
    /// numbers, else by name].
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// How pictures of other sizes become the network's input, here and on devices.
    #[arg(long, value_name = "stretch|crop|letterbox", default_value = "crop", value_parser = named::<Geometry>)]
    geometry: Geometry,
    /// Share of a picture's largest centred part that `crop` keeps: 0.875 for a network that was measured on 224 of 256 pixels.
    #[arg(long, value_name = "SHARE")]
    crop_share: Option<f64>,
    /// What is light and what is dark.
    #[arg(long, value_name = "as-taken|light-on-dark|inverted", default_value = "as-taken", value_parser = named::<Polarity>)]
    polarity: Polarity,
    #[command(flatten)]
    card: CardArguments,
}

impl ImportOnnx {
    /// Which pictures, and how they become inputs.
    fn data(&self) -> Result<Data> {
        let labels = match &self.labels {
            Some(path) => {
                let text =
                    std::fs::read_to_string(path).with_context(|| format!("{}: cannot read", path.display()))?;
                text.lines().map(str::trim).filter(|l| !l.is_empty()).map(String::from).collect()
            }
            None => Vec::new(),
        };
        Ok(Data {
            folder: self.calibrate.clone(),
            labels,
            geometry: Some(self.geometry),
            crop_share: self.crop_share,
            polarity: Some(self.polarity),
            ..Data::default()
        })
    }
}

/// What is exported, and what its card takes over.
#[derive(Args)]
pub struct Export {
    /// Run folder.
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// Bundle folder; its last part is the model's name.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Folder of the images, where they do not lie where the run found them.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Folder of a finished `train evaluate` of this run, whose figures the card takes over beside the int8 model's; may be
    /// given several times.
    #[arg(long, value_name = "DIR")]
    evaluation: Vec<PathBuf>,
    /// Leave out encoder.onnx, which is four times the size of model.pmq: devices that run the int8 engine never read it.
    #[arg(long)]
    no_float: bool,
    /// Leave out the masking checks and the adaptive attack on abstention, as where those of an evaluation say enough: they take the
    /// longest of a large network.
    #[arg(long)]
    no_checks: bool,
    #[command(flatten)]
    card: CardArguments,
}

/// Which bundle's self-test is made again, and on what.
#[derive(Args)]
pub struct Probes {
    /// Bundle folder; a signature of its manifest is dropped.
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// Pictures that are synthesised from the network's aggregate posterior, or the test images that the card names.
    #[arg(long, default_value = "synthesised", value_name = "synthesised|data-set", value_parser = ["synthesised", "data-set"])]
    probes: String,
    /// Folder of the data set that the card names; none for the embedded images and Debian's Fashion-MNIST.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The run that the bundle was exported from, for a bundle without encoder.onnx.
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
}

/// Which bundle's probes are tried.
#[derive(Args)]
pub struct Trials {
    /// Bundle folder; a signature of its manifest is dropped.
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
}

/// Which bundle's confidence is fitted anew, and on what.
#[derive(Args)]
pub struct Recalibrate {
    /// Bundle folder; a signature of its manifest is dropped.
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// Folder of the data set that the card names; none for the embedded images and Debian's Fashion-MNIST.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Another folder for the result; its last part is the model's name [default: the bundle itself].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Another data set on which confidence is measured, by any name: MNIST's or CIFAR's files, or a folder of pictures.
    #[arg(long, value_name = "NAME=DIR")]
    foreign: Vec<String>,
    /// Share of calibration images that may be abstained for any reason [default: the card's].
    #[arg(long)]
    false_abstain: Option<f64>,
}

/// What is computed again.
#[derive(Args)]
pub struct VerifyCard {
    /// Bundle folder.
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// Folder of the data set that the card names; none for the embedded images and Debian's Fashion-MNIST.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Another data set of the card, by its name there.
    #[arg(long, value_name = "NAME=DIR")]
    foreign: Vec<String>,
    /// Test images under attack [default: as many as behind the card's figures, which can be compared exactly].
    #[arg(long)]
    n: Option<usize>,
    /// Leave out the masking checks and the adaptive attack on abstention, which take the longest.
    #[arg(long)]
    no_checks: bool,
    /// Repeat the whole evaluations that the card holds, too, in this folder: hours, and resumable.
    #[arg(long, value_name = "DIR")]
    evaluations: Option<PathBuf>,
    /// Write the rows as JSON, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// `train verify-card`.
pub fn verify_card(arguments: &VerifyCard) -> Result<u8> {
    let VerifyCard { bundle, data, foreign, n, no_checks, evaluations, json } = arguments;
    let options = verify::Options {
        bundle: bundle.clone(),
        data: data.clone(),
        foreign: foreign.iter().map(named_folder).collect::<Result<_>>()?,
        n: *n,
        checks: !no_checks,
        evaluations: evaluations.clone(),
    };
    let mut rows = Vec::new();
    let holds = verify::verify(&options, |row| {
        if rows.is_empty() {
            say!("{:40} {:>42}  {:>42}", "figure", "card", "here");
            say!("(scores: {})", SCORES.join(" / "));
        }
        say!("{row}");
        rows.push(row.clone());
    })?;
    if let Some(path) = json {
        files::write(path, serde_json::to_string_pretty(&rows)?.as_bytes())?;
    }
    say!("{}", verify::verdict(&rows));
    say!("of the card nothing else was checked: {}", verify::UNCHECKED);
    Ok(u8::from(!holds))
}

/// `train probes`.
pub fn probes(arguments: &Probes) -> Result<u8> {
    let Probes { bundle, probes, data, run } = arguments;
    let replacement =
        Replacement { bundle: bundle.clone(), origin: origin(probes), data: data.clone(), run: run.clone() };
    probes::replace(&replacement)?;
    say!("next: paradised selftest --model {}", bundle.display());
    Ok(0)
}

/// `train trials`.
pub fn trials(arguments: &Trials) -> Result<u8> {
    probes::try_anew(&arguments.bundle)?;
    say!("next: paradised selftest --model {}", arguments.bundle.display());
    Ok(0)
}

/// `train recalibrate`.
pub fn recalibrate(arguments: &Recalibrate) -> Result<u8> {
    let Recalibrate { bundle, data, out, foreign, false_abstain } = arguments;
    let what = Recalibration {
        bundle: bundle.clone(),
        data: data.clone(),
        out: out.clone(),
        foreign: foreign.iter().map(named_folder).collect::<Result<_>>()?,
        false_abstain: *false_abstain,
    };
    finished(&recalibrate::recalibrate(&what)?, out.as_deref().unwrap_or(bundle));
    Ok(0)
}

/// `train export`.
pub fn export(arguments: &Export) -> Result<u8> {
    let mut settings = arguments.card.settings()?;
    settings.evaluations.clone_from(&arguments.evaluation);
    settings.float = !arguments.no_float;
    if arguments.no_checks {
        settings.checked = 0;
    }
    let trained = Trained::open(&arguments.run, arguments.data.as_deref())?;
    settings.n = trained.count(arguments.card.n, settings.n)?;
    let Trained { config, splits, network } = trained;
    let card = export::export(&network, &config, &splits, &arguments.out, &settings)?;
    finished(&card, &arguments.out);
    Ok(0)
}

/// `train import-onnx`.
pub fn import_onnx(arguments: &ImportOnnx) -> Result<u8> {
    let (mean, std) = (arguments.mean.clone(), arguments.std.clone());
    let normalisation = Normalisation { range: arguments.range, mean, std };
    let settings = arguments.card.settings()?;
    let card = import::import(
        &arguments.file,
        &normalisation,
        &arguments.data()?,
        &arguments.out,
        &settings,
        arguments.force,
    )?;
    finished(&card, &arguments.out);
    Ok(0)
}

/// Says what was made.
fn finished(card: &Card, out: &Path) {
    say!("{card}");
    if let Some(quantisation) = &card.quantisation {
        say!("{quantisation}");
    }
    say!("next: paradised selftest --model {}", out.display());
}
