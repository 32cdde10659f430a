//! `train report`: the supplement's tables and figures.

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use paradise_attack::Ball;
use paradise_attack::suite::Surrogate;
use paradise_data::Dataset;
use paradise_runtime::say;
use paradise_support::files;
use paradise_train::config::parse_eps;
use paradise_train::paper::{self, Model, accuracy, black_box, generation, gradients, surface, targeted};
use paradise_train::trained::Trained;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Target {
    /// Test accuracy over seeds: a row an objective, a column an encoder.
    Table2,
    /// Top-1 and top-5 accuracy.
    Table3,
    /// White-box against black-box accuracy with its masking verdict; needs --surrogate.
    Table4,
    /// Images from noise and successive reconstructions (one unsupervised run).
    Figure1,
    /// Attribute arithmetic in the latent space (one unsupervised run).
    Figure2,
    /// Angles between the gradients of two runs.
    Figure3,
    /// Loss surface and decision boundary (the supplement's figures 4 and 5: they differ in data).
    Figure4,
    /// Successful targeted attacks.
    Figure6,
    /// Input gradients, in colour and summed.
    Figure7,
}

/// Makes a table or figure of the supplement from run folders.
#[derive(Args)]
pub struct Report {
    /// Which.
    #[arg(value_enum)]
    target: Target,
    /// Run folders, in the order in which figures show them.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Run of the naturally trained model from which table-4's black-box points come.
    #[arg(long, value_name = "RUN")]
    surrogate: Option<PathBuf>,
    /// Test images per class, drawn by the seed [default: all for tables, the first 2,000 for figure 3, 500 for figure 6, 8 for pictures].
    #[arg(long, value_name = "N")]
    per_class: Option<usize>,
    /// Radius in l_inf: of the attacks, and how far figure 4 reaches [default: 8/255; figures 4 and 6: 16/255].
    #[arg(long, value_name = "EPS")]
    eps: Option<String>,
    /// Figure 2: the two classes whose difference is added.
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    classes: Vec<String>,
    /// Seed of subsets, targets and directions.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// File: .png for a figure, .md for a table, with its numbers in .json beside it [default: runs/ and the target].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Pictures of a figure.
const SHOWN: usize = 8;

impl Report {
    fn out(&self, ending: &str) -> PathBuf {
        let name = self.target.to_possible_value().map_or_else(String::new, |v| v.get_name().to_string());
        self.out.clone().unwrap_or_else(|| PathBuf::from("runs").join(format!("{name}.{ending}")))
    }

    fn ball(&self, default: &str) -> Result<Ball> {
        Ok(Ball::linf(parse_eps(self.eps.as_deref().unwrap_or(default))?))
    }

    /// The images: drawn per class, or the first `otherwise` of the stratified order.
    fn images(&self, models: &[Model], otherwise: usize) -> Result<Dataset> {
        let test = &models[0].trained.splits.test;
        match self.per_class {
            Some(each) => paper::per_class(test, each, self.seed),
            None => Ok(test.head(otherwise)),
        }
    }

    /// The one unsupervised run.
    fn unsupervised(&self) -> Result<Trained> {
        let [run] = &self.runs[..] else { bail!("this figure is of one run, {} are given", self.runs.len()) };
        let trained = Trained::open(run, None)?;
        let kind = trained.config.objective.kind;
        ensure!(kind.is_unsupervised(), "{}: {} reconstructs no images", run.display(), kind.name());
        Ok(trained)
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
        files::create_folder(folder)?;
    }
    files::write(path, bytes)?;
    say!("{}", path.display());
    Ok(())
}

fn table(arguments: &Report, text: &str, numbers: &impl serde::Serialize) -> Result<()> {
    say!("{}", text.trim_end());
    let path = arguments.out("md");
    write(&path, text.as_bytes())?;
    write(&path.with_extension("json"), serde_json::to_string_pretty(numbers)?.as_bytes())
}

/// `train report`.
pub fn report(arguments: &Report) -> Result<u8> {
    match arguments.target {
        Target::Figure1 => {
            let trained = arguments.unsupervised()?;
            let png = generation::figure_1(&trained.network.frozen(), &trained.splits.test, 6, 10, arguments.seed)?;
            write(&arguments.out("png"), &png)?;
        }
        Target::Figure2 => write(&arguments.out("png"), &figure_2(arguments)?)?,
        _ => of_classifiers(arguments)?,
    }
    Ok(0)
}

fn figure_2(arguments: &Report) -> Result<Vec<u8>> {
    let trained = arguments.unsupervised()?;
    let labels = &trained.splits.labels;
    let find = |name: &str| {
        labels
            .iter()
            .position(|l| l == name)
            .with_context(|| format!("no class {name:?}; there are {}", labels.join(", ")))
    };
    let classes = match &arguments.classes[..] {
        [] => [0, 1],
        [a, b] => [find(a)?, find(b)?],
        more => bail!("--classes takes two names, not {}", more.len()),
    };
    let names = classes.map(|c| labels[c].as_str());
    generation::figure_2(&trained.network.frozen(), &trained.splits.test, classes, names, 4, 4)
}

fn of_classifiers(arguments: &Report) -> Result<()> {
    let models = paper::open(&arguments.runs)?;
    let seed = arguments.seed;
    let pair = || match &models[..] {
        [a, b] => Ok([a, b]),
        more => bail!("this figure compares two runs, {} are given", more.len()),
    };
    match arguments.target {
        Target::Table2 | Target::Table3 => {
            let set = arguments.images(&models, usize::MAX)?;
            let cells = accuracy::cells(&models, &set)?;
            let text = match arguments.target {
                Target::Table2 => accuracy::table_2(&cells, set.len()),
                _ => accuracy::table_3(&cells, set.len()),
            };
            table(arguments, &text, &cells)
        }
        Target::Table4 => {
            let surrogate =
                arguments.surrogate.as_ref().context("table-4 needs --surrogate, a naturally trained run")?;
            let natural = paper::open(&[surrogate])?.swap_remove(0);
            let served: Surrogate = Arc::new(natural.served);
            let (set, ball) = (arguments.images(&models, usize::MAX)?, arguments.ball("8/255")?);
            let rows = black_box::rows(&models, &served, ball, &set, seed)?;
            table(arguments, &black_box::table(&rows, ball, set.len()), &rows)
        }
        Target::Figure3 => {
            let set = arguments.images(&models, 2000)?;
            let (png, angles) = gradients::figure_3(pair()?, &set)?;
            let path = arguments.out("png");
            write(&path, &png)?;
            write(&path.with_extension("json"), serde_json::to_string(&angles)?.as_bytes())
        }
        Target::Figure4 => {
            let (set, ball) = (arguments.images(&models, SHOWN)?, arguments.ball("16/255")?);
            write(&arguments.out("png"), &surface::figure(&models, &set, ball.eps, seed)?)
        }
        Target::Figure6 => {
            let (set, ball) = (arguments.images(&models, 500)?, arguments.ball("16/255")?);
            write(&arguments.out("png"), &targeted::figure(&models, &set, ball, SHOWN, seed)?)
        }
        _ => write(&arguments.out("png"), &gradients::figure_7(&models, &arguments.images(&models, SHOWN)?)?),
    }
}
