//! Which flag would have helped: libraries say what is missing, this program how it is given.

use paradise_train::remedy::Remedy;

/// An error in full, with the flag that would have helped where there is one.
pub fn with_hint(error: &anyhow::Error) -> String {
    match of(error) {
        Some(hint) => format!("{error:#}; {hint}"),
        None => format!("{error:#}"),
    }
}

fn of(error: &anyhow::Error) -> Option<&'static str> {
    if let Some(paradise_attack::Error::NoSurrogate) = error.downcast_ref() {
        return Some("--surrogate RUN gives one");
    }
    error.downcast_ref().map(|remedy| match remedy {
        Remedy::Images => "--data DIR names their folder",
        Remedy::Resume => "add --resume, or choose another --out",
        Remedy::Run => "--run RUN names it",
        Remedy::Force => "--force imports it all the same",
    })
}
