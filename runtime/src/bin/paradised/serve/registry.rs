//! The models that are served, by their names: loaded and unloaded while others answer.

use super::lock::locked;
use super::served::Served;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// How a model stands, as the repository's index says it.
#[derive(Clone)]
pub enum State {
    /// It answers.
    Ready(Arc<Served>),
    /// It is being loaded and tested.
    Loading,
    /// It was taken out of service.
    Unloaded,
    /// It was refused, and why.
    Refused(String),
}

impl State {
    /// As the protocol names it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ready(served) if served.is_up() => "READY",
            Self::Loading => "LOADING",
            _ => "UNAVAILABLE",
        }
    }

    /// Why it does not answer; empty if it does.
    pub fn reason(&self) -> Cow<'_, str> {
        match self {
            Self::Ready(served) if served.is_up() => "".into(),
            Self::Ready(served) => served.why_down().into(),
            Self::Loading => "loading".into(),
            Self::Unloaded => "unloaded".into(),
            Self::Refused(why) => why.into(),
        }
    }
}

/// Loads a model, its bundle, its self-test, its worker, in the place of the version that serves; `None` if that shall go on.
pub type Load = Arc<dyn Fn(Option<&str>) -> anyhow::Result<Option<Served>> + Send + Sync>;

/// Why there is no model to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// There is none of that name or version.
    Unknown(String),
    /// It is there, and does not answer.
    Unavailable(String),
    /// There are several, and none was named.
    Ambiguous(String),
}

impl Missing {
    /// In words.
    pub fn why(&self) -> &str {
        let (Self::Unknown(why) | Self::Unavailable(why) | Self::Ambiguous(why)) = self;
        why
    }
}

/// Why a model was not loaded.
#[derive(Debug)]
pub enum Failed {
    /// There is none, or it is being loaded.
    Missing(Missing),
    /// It was refused.
    Refused(anyhow::Error),
}

struct Entry {
    version: String,
    load: Load,
    state: State,
    /// Whether another is being loaded in its place.
    loading: bool,
}

/// All models.
#[derive(Default)]
pub struct Registry(Mutex<BTreeMap<String, Entry>>);

impl Registry {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        // Entries are replaced whole.
        locked(&self.0)
    }

    /// Adds a model that is not loaded yet; whether there was none of that name.
    pub fn add(&self, name: &str, load: Load) -> bool {
        let mut entries = self.entries();
        let is_new = !entries.contains_key(name);
        if is_new {
            let (version, state) = (String::new(), State::Refused("not loaded yet".into()));
            entries.insert(name.to_string(), Entry { version, load, state, loading: false });
        }
        is_new
    }

    /// Name, version and state of each model, by name.
    pub fn index(&self) -> Vec<(String, String, State)> {
        let entries = self.entries();
        entries.iter().map(|(name, entry)| (name.clone(), entry.version.clone(), entry.state.clone())).collect()
    }

    /// The models that are loaded.
    pub fn loaded(&self) -> Vec<Arc<Served>> {
        let ready = |(_, _, state)| if let State::Ready(served) = state { Some(served) } else { None };
        self.index().into_iter().filter_map(ready).collect()
    }

    /// Whether every model that was not taken out of service answers.
    pub fn is_ready(&self) -> bool {
        let index = self.index();
        index.iter().all(|(_, _, state)| matches!(state, State::Unloaded) || state.name() == "READY")
            && index.iter().any(|(_, _, state)| state.name() == "READY")
    }

    /// The model of a name, of a version if one is named.
    ///
    /// # Errors
    /// If there is none, or it does not answer.
    pub fn get(&self, name: &str, version: Option<&str>) -> Result<Arc<Served>, Missing> {
        let entries = self.entries();
        let Some(entry) = entries.get(name) else {
            let known: Vec<&str> = entries.keys().map(String::as_str).collect();
            return Err(Missing::Unknown(format!("no model {name:?}; there are {}", known.join(", "))));
        };
        if version.is_some_and(|version| version != entry.version) {
            let version = version.unwrap_or_default();
            return Err(Missing::Unknown(format!(
                "model {name:?} has no version {version:?}, but {:?}",
                entry.version
            )));
        }
        match &entry.state {
            State::Ready(served) if served.is_up() => Ok(served.clone()),
            state => Err(Missing::Unavailable(format!("model {name:?}: {}", state.reason()))),
        }
    }

    /// The only model, where none is named.
    ///
    /// # Errors
    /// If there are several, or it does not answer.
    pub fn only(&self) -> Result<Arc<Served>, Missing> {
        let names: Vec<String> = self.entries().keys().cloned().collect();
        match &names[..] {
            [one] => self.get(one, None),
            several => Err(Missing::Ambiguous(format!("which model? ?model= one of {}", several.join(", ")))),
        }
    }

    /// The model of a name, or the only one where none is named.
    ///
    /// # Errors
    /// As of the two.
    pub fn named(&self, name: Option<&str>) -> Result<Arc<Served>, Missing> {
        name.map_or_else(|| self.only(), |name| self.get(name, None))
    }

    /// [`Registry::load`] of a model that nobody took out of service.
    ///
    /// # Errors
    /// As there.
    pub fn refresh(&self, name: &str) -> Result<(), Failed> {
        if matches!(self.entries().get(name), Some(Entry { state: State::Unloaded, .. })) {
            return Ok(());
        }
        self.load(name)
    }

    /// Loads another version than the one that serves, which is no longer fit to.
    ///
    /// # Errors
    /// As [`Registry::load`]; the one before goes on then.
    pub fn replace(&self, name: &str) -> Result<(), Failed> {
        self.take(name, false)
    }

    /// Loads a model anew and takes it into service; until then the one before answers, and goes on doing so if the new one is
    /// refused. Blocks while it loads.
    ///
    /// # Errors
    /// If there is no such model, it is being loaded, or it is refused.
    pub fn load(&self, name: &str) -> Result<(), Failed> {
        self.take(name, true)
    }

    /// [`Registry::load`]; `fit`: what serves may go on if nothing is newer.
    fn take(&self, name: &str, fit: bool) -> Result<(), Failed> {
        let (load, running) = {
            let mut entries = self.entries();
            let entry = idle(&mut entries, name).map_err(Failed::Missing)?;
            entry.loading = true;
            let running = match &entry.state {
                State::Ready(served) if fit && served.is_up() => Some(entry.version.clone()),
                _ => None,
            };
            if !matches!(entry.state, State::Ready(_)) {
                entry.state = State::Loading;
            }
            (entry.load.clone(), running)
        };
        // A panic in loading must not leave the model being loaded for ever.
        let loaded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| load(running.as_deref())));
        let loaded = loaded.unwrap_or_else(|_| Err(anyhow::anyhow!("loading panicked; the log says where")));
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(name) else {
            return Err(Failed::Missing(Missing::Unknown(format!("no model {name:?}"))));
        };
        entry.loading = false;
        match loaded {
            Ok(None) => Ok(()),
            Ok(Some(served)) => {
                tracing::info!("{name}: version {} serves", served.version);
                entry.version = served.version.clone();
                entry.state = State::Ready(Arc::new(served));
                Ok(())
            }
            Err(error) => {
                tracing::error!("{name}: {error:#}");
                if !matches!(entry.state, State::Ready(_)) {
                    entry.state = State::Refused(format!("{error:#}"));
                }
                Err(Failed::Refused(error))
            }
        }
    }

    /// Takes a version out of service because something is wrong with it here, if it still serves; what waits is answered.
    pub fn refuse(&self, served: &Arc<Served>, why: String) {
        if let Some(entry) = self.entries().get_mut(&served.name)
            && matches!(&entry.state, State::Ready(now) if Arc::ptr_eq(now, served))
        {
            tracing::error!("{} {}: out of service: {why}", served.name, served.version);
            entry.state = State::Refused(why);
        }
    }

    /// Takes a model out of service; what waits is answered.
    ///
    /// # Errors
    /// If there is no such model, or it is being loaded.
    pub fn unload(&self, name: &str) -> Result<(), Missing> {
        let mut entries = self.entries();
        idle(&mut entries, name)?.state = State::Unloaded;
        tracing::info!("{name}: unloaded");
        Ok(())
    }
}

/// A model that is not being loaded.
fn idle<'e>(entries: &'e mut BTreeMap<String, Entry>, name: &str) -> Result<&'e mut Entry, Missing> {
    match entries.get_mut(name) {
        None => Err(Missing::Unknown(format!("no model {name:?}"))),
        Some(entry) if entry.loading => Err(Missing::Unavailable(format!("model {name:?} is being loaded"))),
        Some(entry) => Ok(entry),
    }
}
