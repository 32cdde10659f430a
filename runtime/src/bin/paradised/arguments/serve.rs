//! What `serve` and `check-config` are told.

use super::tables::Tables;
use super::{PinArguments, SiteArguments, ThreadArguments, ThresholdArguments};
use clap::Args;
use paradise_runtime::BackendKind;
use std::path::PathBuf;

/// Which models, how.
#[derive(Debug, Args)]
pub struct ModelsArguments {
    /// Folder of a bundle; several times for several models. It is served as it is, signed or not, unless a key is given.
    #[arg(long, value_name = "DIR", env = "PARADISE_MODEL")]
    pub model: Vec<PathBuf>,
    /// Folder of models, DIR/NAME/VERSION/, each version a signed bundle: the newest that passes its checks serves, and one that
    /// arrives takes its place.
    #[arg(long, value_name = "DIR", env = "PARADISE_MODELS")]
    pub models: Option<PathBuf>,
    /// A public key of minisign, its file or its line of base64, one of which must have signed each bundle; may be given several times.
    #[arg(long, value_name = "KEY", env = "PARADISE_KEY")]
    pub key: Vec<String>,
    /// Take bundles from --models that nobody signed.
    #[arg(long)]
    pub unsigned: bool,
    /// Where it is remembered which versions served, which faults were found and, in a journal, what mattered [default: DIR/.paradised of
    /// --models; else nothing is remembered].
    #[arg(long, value_name = "DIR", env = "STATE_DIRECTORY")]
    pub state: Option<PathBuf>,
    /// int8 (the engine, the same bits everywhere) or tract (the float encoder).
    #[arg(long, default_value = "int8", value_name = "int8|tract")]
    pub backend: BackendKind,
}

impl ModelsArguments {
    /// The folder of what is remembered, where there is one.
    pub fn remembered(&self) -> Option<PathBuf> {
        self.state.clone().or_else(|| self.models.as_ref().map(|root| root.join(".paradised")))
    }
}

/// Where the log goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogTo {
    /// Standard error, which systemd takes, too.
    Stderr,
    /// journald's own socket, with fields.
    Journald,
}

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// A file of settings, TOML: keys are the long names of these flags, which come before it, as the environment does; tables are
    /// cameras and what is told of them.
    #[arg(long, value_name = "FILE", env = "PARADISE_CONFIG")]
    pub config: Option<PathBuf>,
    #[arg(skip)]
    pub tables: Tables,
    #[command(flatten)]
    pub model: ModelsArguments,
    #[command(flatten)]
    pub site: SiteArguments,
    #[command(flatten)]
    pub thresholds: ThresholdArguments,
    #[command(flatten)]
    pub pins: PinArguments,
    /// Address to listen on; port 0 takes a free one and prints it.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "HOST:PORT", env = "PARADISE_LISTEN")]
    pub listen: String,
    /// Pictures that are computed at the same time for each model, 1 to 64 [default: cores, at most 8, by --threads].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub workers: Option<u16>,
    #[command(flatten)]
    pub threads: ThreadArguments,
    /// A worker that computes longer for one request is given up for another, seconds.
    #[arg(long, default_value_t = 10, value_name = "S", value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub hang_seconds: u16,
    /// Most memory that a picture may take while it is decoded, MiB; one that takes more is refused by its headers.
    #[arg(long, default_value_t = 128, value_name = "MIB", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub max_decoded: u16,
    /// Test every model each so many hours while it serves, 0.001 to 8760; one that fails is taken out of service.
    #[arg(long, value_name = "HOURS", value_parser = hours)]
    pub selftest_hours: Option<f64>,
    /// Compute one in so many answers twice, by the scalar kernels too, and compare all bits before it is sent; 1 checks each.
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub lockstep: u32,
    /// Go once round the memory of models and program in so many seconds, in slices of at most a millisecond.
    #[arg(long, default_value_t = 60, value_name = "S", value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub round_seconds: u16,
    /// Say so when no picture came for so many seconds.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub stale_seconds: Option<u32>,
    /// A file whose first line is a token: requests but those for health must bring it (`Authorization: Bearer TOKEN`).
    #[arg(long, value_name = "FILE", env = "PARADISE_TOKEN_FILE")]
    pub token: Option<PathBuf>,
    /// Serve other machines without a token.
    #[arg(long)]
    pub open: bool,
    /// A certificate and those that vouch for it, PEM: connections are of TLS then. Read anew at SIGHUP.
    #[arg(long, value_name = "FILE", env = "PARADISE_TLS_CERTIFICATE")]
    pub tls_certificate: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, value_name = "FILE", env = "PARADISE_TLS_KEY")]
    pub tls_key: Option<PathBuf>,
    /// Pages of this origin, SCHEME://HOST or SCHEME://HOST:PORT, may ask from a browser; several times for several, * for all [default: none].
    #[arg(long, value_name = "ORIGIN")]
    pub cors: Vec<String>,
    /// What is logged: error, warn, info, debug, trace or off, for all or by module (warn,paradised::serve::store=debug).
    #[arg(long, default_value = "info", value_name = "LEVELS", env = "PARADISE_LOG")]
    pub log: String,
    /// Where the log goes.
    #[arg(long, default_value = "stderr", value_enum, value_name = "stderr|journald")]
    pub log_to: LogTo,
    /// Log a line a request: method, path, status, microseconds.
    #[arg(long)]
    pub log_requests: bool,
    /// Do not give up, by Landlock, what the service does not need: files other than models, keys, settings and what is remembered.
    #[arg(long)]
    pub no_landlock: bool,
    /// Requests that may wait for each model; one more gets 503.
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub queue: u16,
    /// Largest request body, bytes; a larger one gets 413.
    #[arg(long, default_value_t = 16 << 20, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=(64 << 20)))]
    pub max_body: u32,
}

/// A number of hours.
fn hours(text: &str) -> Result<f64, String> {
    let hours = text.parse().ok().filter(|hours| (0.001..=8760.0).contains(hours));
    hours.ok_or_else(|| "not a number of hours from 0.001 to 8760".into())
}
