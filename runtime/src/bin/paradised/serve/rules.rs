//! What decides about a model's answers, and how that is changed while it serves: by thresholds that were sent, or by pictures of this
//! place. It is remembered where anything is.

use super::lock::locked;
use crate::arguments::{Serve, SiteArguments, ThresholdArguments};
use anyhow::Context;
use paradise_engine::Model;
use paradise_runtime::output::write_whole;
use paradise_runtime::site::Site;
use paradise_runtime::{Backend, Rule};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Largest file of thresholds, bytes.
const MAX_FILE: u64 = 1 << 16;

/// What was changed of one model.
#[derive(Debug, Clone, Default)]
struct Changed {
    site: Option<Arc<Site>>,
    thresholds: ThresholdArguments,
}

/// What decides, model by model.
pub struct Rules {
    /// Where it is remembered.
    folder: Option<PathBuf>,
    site: SiteArguments,
    thresholds: ThresholdArguments,
    changed: Mutex<BTreeMap<String, Changed>>,
}

impl Rules {
    /// As the settings say.
    pub fn new(arguments: &Serve) -> Self {
        Self {
            folder: arguments.model.remembered(),
            site: arguments.site.clone(),
            thresholds: arguments.thresholds.clone(),
            changed: Mutex::default(),
        }
    }

    /// The file in which this place's pictures of a model are remembered.
    fn site_file(&self, model: &str) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(format!("site-{model}.toml")))
    }

    fn thresholds_file(&self, model: &str) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(format!("thresholds-{model}.json")))
    }

    /// The site file that decides about a model, where one does.
    pub fn site_path(&self, model: &str) -> Option<PathBuf> {
        self.site_file(model).filter(|path| path.exists()).or_else(|| self.site.site.clone())
    }

    /// What decides about a model that is taken into service.
    ///
    /// # Errors
    /// If a file that was named is none, or belongs to another model.
    pub fn begin(&self, backend: &dyn Backend) -> anyhow::Result<Rule> {
        let (mut name, mut kept) = (String::new(), None);
        backend.with_model(&mut |model| {
            name = model.header().name.to_string();
            kept = self.kept_site(model);
        });
        let mut changed = locked(&self.changed);
        let now = changed.entry(name.clone()).or_default();
        now.site = kept.map(Arc::new);
        if let Some(path) = self.thresholds_file(&name).filter(|path| path.exists()) {
            now.thresholds = read(&path).with_context(|| path.display().to_string())?;
        }
        self.over(self.base(now, backend)?, &now.thresholds)
    }

    /// The site that is remembered; one that was made with another version of the model is of no use to this one.
    fn kept_site(&self, model: &Model) -> Option<Site> {
        let path = self.site_file(model.header().name).filter(|path| path.exists())?;
        match Site::read(&path, model) {
            Ok(site) => Some(site),
            Err(error) => {
                tracing::warn!("{error}; the maker's thresholds decide");
                None
            }
        }
    }

    /// Whose pictures decide: this place's, or those that the settings or the maker name.
    fn base(&self, changed: &Changed, backend: &dyn Backend) -> anyhow::Result<Rule> {
        changed.site.as_ref().map_or_else(|| self.site.rule(backend), |site| Ok(Rule::from(site.clone())))
    }

    /// With the thresholds of the settings, and those that were sent.
    fn over(&self, base: Rule, sent: &ThresholdArguments) -> anyhow::Result<Rule> {
        sent.over(self.thresholds.over(base)?)
    }

    /// The thresholds that were sent for a model.
    pub fn sent(&self, model: &str) -> ThresholdArguments {
        locked(&self.changed).get(model).map(|changed| changed.thresholds.clone()).unwrap_or_default()
    }

    /// Other thresholds from now on; those that are not said are as without them.
    ///
    /// # Errors
    /// If one is out of range, or they cannot be remembered.
    pub fn send(&self, backend: &dyn Backend, model: &str, thresholds: ThresholdArguments) -> anyhow::Result<Rule> {
        let mut all = locked(&self.changed);
        let next = Changed { site: all.get(model).and_then(|changed| changed.site.clone()), thresholds };
        let rule = self.over(self.base(&next, backend)?, &next.thresholds)?;
        if let Some(path) = self.thresholds_file(model) {
            let text = serde_json::to_vec_pretty(&next.thresholds)?;
            write_whole(&path, &text).with_context(|| path.display().to_string())?;
        }
        all.insert(model.into(), next);
        Ok(rule)
    }

    /// The pictures of this place decide from now on.
    ///
    /// # Errors
    /// If a threshold that was sent does not go with them, or they cannot be remembered.
    pub fn settle(&self, model: &str, site: Site) -> anyhow::Result<Rule> {
        let mut all = locked(&self.changed);
        if let Some(path) = self.site_file(model) {
            site.write(&path)?;
        }
        let thresholds = all.get(model).map(|changed| changed.thresholds.clone()).unwrap_or_default();
        let site = Arc::new(site);
        let rule = self.over(Rule::from(site.clone()), &thresholds)?;
        all.insert(model.into(), Changed { site: Some(site), thresholds });
        Ok(rule)
    }
}

fn read(path: &Path) -> anyhow::Result<ThresholdArguments> {
    anyhow::ensure!(std::fs::metadata(path)?.len() <= MAX_FILE, "more than {MAX_FILE} bytes");
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}
