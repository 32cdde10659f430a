//! `train evaluate` and `train merge`: a run's float network, or the int8 engine of a bundle made from that run, handed to
//! [`paradise_evaluate::evaluation`].

use crate::confidence::fit_float;
use crate::confident::{FloatConfidence, Int8Confidence};
use crate::encoder::Stochastic;
use crate::trained::Trained;
use anyhow::{Context, Result, ensure};
use candle_core::Device;
use paradise_attack::int8::{Int8, StraightThrough};
use paradise_attack::suite::{self, Surrogate};
use paradise_attack::threat;
use paradise_attack::{Classifier, Norm, Victim};
use paradise_data::foreign;
use paradise_engine::Model;
use paradise_evaluate::confidence::FALSE_ABSTAIN;
use paradise_evaluate::evaluation::{self, ConfidentModel, Settings, Subject};
use paradise_evaluate::plan::{Identity, Request};
use paradise_evaluate::work::inspect;
use paradise_nn::Precision;
use paradise_nn::device::Choice;
use paradise_runtime::bundle::{Bundle, MODEL};
use paradise_support::hex;
use paradise_support::team::Team;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub use paradise_evaluate::evaluation::Ended;

/// Test images of an evaluation unless told otherwise.
pub const USUAL: usize = 2000;

/// What is evaluated, and where its report goes.
#[derive(Debug, Clone)]
pub struct Options {
    /// Run folder.
    pub run: PathBuf,
    /// Bundle made from that run, whose int8 engine is attacked in its place.
    pub bundle: Option<PathBuf>,
    /// Whether the classifier is fed a sample of the posterior instead of its mean.
    pub sampled: bool,
    /// Run of an undefended model.
    pub surrogate: Option<PathBuf>,
    /// Folders of other models' evaluations of the same images, whose points are tried too.
    pub points: Vec<PathBuf>,
    /// Where it computes; the int8 engine of a bundle is the CPU's.
    pub device: Choice,
    /// Norm, radii, attacks, seed, batch.
    pub request: Request,
    /// Folder of the images, where they do not lie where the run found them.
    pub data: Option<PathBuf>,
    /// Test images, stratified; [`USUAL`] or all where no number is given.
    pub n: Option<usize>,
    /// Folder of the evaluation; in the run's folder where none is given.
    pub out: Option<PathBuf>,
    /// Those who share out the batches.
    pub team: Arc<dyn Team>,
    /// Folders of shards that are merged first.
    pub merge: Vec<PathBuf>,
    /// Whether the masking checks are run.
    pub checks: bool,
    /// Whether confidence is measured.
    pub confidence: bool,
    /// Other data sets: name and folder.
    pub foreign: Vec<(String, PathBuf)>,
}

/// Runs or goes on with an evaluation.
///
/// # Errors
/// With the path or setting that is wrong.
pub fn evaluate(options: &Options, stop: &AtomicBool) -> Result<Ended> {
    // A wrong name is found before any image is read.
    suite::read(&options.request.attacks)?;
    let trained = Trained::open(&options.run, options.data.as_deref())?;
    let set = trained.splits.test.head(trained.count(options.n, USUAL)?);
    let device =
        if options.bundle.is_some() { Device::Cpu } else { options.device.open_for(options.team.local())? };
    let float = trained.logit_model(&device)?;
    inspect(&float, &set)?;
    // Read now, so that a wrong path is not found after hours.
    let foreign = foreign::named(&options.foreign, trained.splits.seen())?;
    let mut notes = Vec::new();
    let (mut identity, mut request) = (trained.identity(&float), options.request.clone());
    let bytes = options.bundle.as_ref().map(|b| bundle_model(b, &trained)).transpose()?;
    let model = bytes.as_ref().map(|b| Model::parse(b)).transpose().context(MODEL)?;
    if let Some(model) = &model {
        identity = Identity { name: format!("int8 {}", model.header().name), sha256: hex(&model.hash()) };
        notes.push(
            "The int8 engine is attacked itself; gradients pass its rounding from the run's float network.".into(),
        );
        if request.norm == Norm::Linf && round_down(&mut request.eps) {
            notes.push("Radii are rounded down to whole 8-bit steps: the engine takes nothing between.".into());
        }
    }
    if options.sampled {
        identity.name.push_str(", sampled inference");
        notes.push("The classifier is fed one sample of the posterior, the same for the same image.".into());
    }
    let seed = request.seed;
    let settings = Settings {
        request,
        points: options.points.clone(),
        team: options.team.clone(),
        merge: options.merge.clone(),
        checks: options.checks,
        foreign,
    };

    let engine = model.as_ref().map(Int8::new);
    let through = engine.as_ref().map(|engine| StraightThrough { answers: engine, gradients: &float });
    let folded = trained.network.folded()?.on(&device, Precision::F32)?;
    let encoder = folded.frozen();
    let stochastic = Stochastic { encoder: &encoder, seed, draw: 0 };
    let victim = match &through {
        Some(through) => Victim::White(through),
        None if options.sampled => Victim::White(&stochastic),
        None => Victim::White(&float),
    };
    let subject = Subject {
        identity,
        victim,
        surrogate: open_surrogate(options, &float, &device)?,
        set: &set,
        source: &trained.splits.source,
        labels: &trained.splits.labels,
        notes,
    };
    let out = |plan: &evaluation::Plan| match &options.out {
        Some(out) => Ok(out.clone()),
        None => Ok(options.run.join("evaluations").join(plan.short_name()?)),
    };
    let (network, splits, device) = (&trained.network, &trained.splits, &device);
    // The float network is judged by confidence that is fitted to it once its attacks are done.
    let mut fitted = None;
    let (fitted, folded_network, bytes_of_bundle) = (&mut fitted, &folded, &bytes);
    evaluation::evaluate(
        subject,
        &settings,
        out,
        move |notes: &mut Vec<String>| -> Result<Option<Box<dyn ConfidentModel + '_>>> {
            if !options.confidence {
                return Ok(None);
            }
            if let Some(bytes) = bytes_of_bundle {
                return Ok(Some(Box::new(Int8Confidence {
                    network,
                    model: Model::parse(bytes)?,
                    calibration: &splits.calibration,
                })));
            }
            match fit_float(folded_network, splits, FALSE_ABSTAIN) {
                Ok(bytes) => {
                    let model = Model::parse(fitted.insert(bytes))?;
                    Ok(Some(Box::new(FloatConfidence {
                        network,
                        folded: folded_network,
                        model,
                        device,
                        calibration: &splits.calibration,
                    })))
                }
                Err(error) => {
                    notes.push(format!("Confidence was not measured: {error:#}."));
                    Ok(None)
                }
            }
        },
        stop,
    )
}

/// Rounds radii down to whole 8-bit steps; whether that changed one.
fn round_down(eps: &mut [f32]) -> bool {
    let mut changed = false;
    for e in eps {
        let whole = threat::whole_steps(*e) / 255.0;
        changed |= (whole - *e).abs() > 1e-5;
        *e = whole;
    }
    changed
}

/// Bytes of a bundle's model, fit for the run.
fn bundle_model(folder: &Path, trained: &Trained) -> Result<Vec<u8>> {
    let bundle = Bundle::open(folder)?;
    let bytes = bundle.file(MODEL)?.to_vec();
    let model = Model::parse(&bytes).with_context(|| bundle.path(MODEL).display().to_string())?;
    let (header, test) = (model.header(), &trained.splits.test);
    let at = folder.display();
    ensure!(header.input == test.shape, "{at}: takes images of {:?}, the run's are {:?}", header.input, test.shape);
    let classes = trained.splits.labels.len();
    ensure!(header.classes as usize == classes, "{at}: has {} classes, the run {classes}", header.classes);
    Ok(bytes)
}

fn open_surrogate(
    options: &Options,
    victim: &dyn Classifier,
    device: &Device,
) -> Result<Option<(Surrogate, Identity)>> {
    let Some(run) = &options.surrogate else { return Ok(None) };
    let trained = Trained::open(run, options.data.as_deref())?;
    let model = trained.logit_model(device)?;
    fits(&model, victim).with_context(|| run.display().to_string())?;
    let identity = trained.identity(&model);
    Ok(Some((Arc::new(model), identity)))
}

/// A surrogate's shape and classes must be the model's.
///
/// # Errors
/// If they are not.
pub fn fits(surrogate: &dyn Classifier, victim: &dyn Classifier) -> Result<()> {
    ensure!(
        surrogate.shape() == victim.shape() && surrogate.classes() == victim.classes(),
        "the surrogate takes {:?} and {} classes, the model {:?} and {}",
        surrogate.shape(),
        surrogate.classes(),
        victim.shape(),
        victim.classes()
    );
    Ok(())
}
