//! The command line, the environment and a file of settings, in this order of force: flags, environment, file, defaults.
//!
//! The file is TOML, and its keys are the long names of `serve`'s flags: `listen = "0.0.0.0:8080"`, `key = ["a.pub", "b.pub"]`. Its tables,
//! `[[camera]]` and the like, say what no flag could.

use crate::arguments::tables::Tables;
use crate::arguments::{Arguments, Command};
use anyhow::{Context, bail};
use clap::builder::OsStr;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, CommandFactory, FromArgMatches};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Commands that read a file of settings.
const READERS: [&str; 2] = ["serve", "check-config"];
/// The flag that names it, and the variable.
const FLAG: &str = "--config";
const VARIABLE: &str = "PARADISE_CONFIG";
/// Largest file of settings, bytes.
const MAX_FILE: u64 = 1 << 20;

/// What was asked, and where each setting of [`READERS`] came from.
pub struct Asked {
    /// What was asked.
    pub arguments: Arguments,
    /// Name, value and source of each setting.
    pub settings: Vec<[String; 3]>,
}

/// Reads the command line of this process.
///
/// # Errors
/// If the file of settings is none. A bad command line ends the process, as its help does.
pub fn read() -> anyhow::Result<Asked> {
    let line: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let mut command = Arguments::command();
    let (mut given, mut tables) = (None, Tables::default());
    if line.get(1).and_then(|word| word.to_str()).is_some_and(|word| READERS.contains(&word))
        && let Some(path) = named(&line)
    {
        let mut table = table(&path).with_context(|| path.display().to_string())?;
        tables = taken(&mut table).with_context(|| path.display().to_string())?;
        for reader in READERS {
            for (key, value) in &table {
                command = with(command, reader, key, value).with_context(|| path.display().to_string())?;
            }
        }
        given = Some(table);
    }
    let matches = command.clone().get_matches_from(&line);
    let settings = sources(&command, &matches, given.as_ref());
    let mut arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if let Command::Serve(serve) | Command::CheckConfig(serve) = &mut arguments.command {
        serve.tables = tables;
    }
    Ok(Asked { arguments, settings })
}

/// The file that the command line or the environment names.
fn named(line: &[std::ffi::OsString]) -> Option<PathBuf> {
    let mut words = line.iter();
    while let Some(word) = words.next() {
        if word == FLAG {
            return words.next().map(PathBuf::from);
        }
        if let Some(path) = word.to_str().and_then(|word| word.strip_prefix(FLAG)?.strip_prefix('=')) {
            return Some(path.into());
        }
    }
    std::env::var_os(VARIABLE).map(PathBuf::from)
}

fn table(path: &Path) -> anyhow::Result<Table> {
    let size = std::fs::metadata(path)?.len();
    anyhow::ensure!(size <= MAX_FILE, "{size} bytes exceed the limit of {MAX_FILE} bytes");
    Ok(std::fs::read_to_string(path)?.parse::<Table>()?)
}

/// Takes the tables out of a file's settings.
fn taken(settings: &mut Table) -> anyhow::Result<Tables> {
    let mut tables = Table::new();
    for name in Tables::NAMES {
        tables.extend(settings.remove(name).map(|value| (name.to_string(), value)));
    }
    let tables: Tables =
        tables.try_into().map_err(|error: toml::de::Error| anyhow::anyhow!("{}", error.to_string().trim_end()))?;
    tables.check().map(|()| tables)
}

/// The command with a setting of the file as its default.
fn with(command: clap::Command, reader: &str, key: &str, value: &Value) -> anyhow::Result<clap::Command> {
    let known = command.find_subcommand(reader).into_iter().flat_map(clap::Command::get_arguments);
    let arg = known.filter(|arg| arg.get_long().is_some()).find(|arg| arg.get_long() == Some(key));
    let Some(arg) = arg.filter(|arg| !["config", "help"].contains(&arg.get_id().as_str())) else {
        bail!("no setting {key:?}; the settings are serve's flags: `paradised serve --help`");
    };
    let (id, values) = (arg.get_id().clone(), texts(arg, value).with_context(|| key.to_string())?);
    Ok(command.mut_subcommand(reader, |sub| sub.mut_arg(id, |arg| arg.default_values(values))))
}

/// A setting as its flag would be written.
fn texts(arg: &Arg, value: &Value) -> anyhow::Result<Vec<OsStr>> {
    let many = matches!(arg.get_action(), ArgAction::Append) || arg.get_value_delimiter().is_some();
    let text = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        Value::Boolean(flag) if matches!(arg.get_action(), ArgAction::SetTrue) => Ok(flag.to_string()),
        other => Err(anyhow::anyhow!("{other} is not a value of it")),
    };
    let texts = match value {
        Value::Array(values) if many => values.iter().map(text).collect::<anyhow::Result<Vec<_>>>()?,
        Value::Array(_) => bail!("takes one value"),
        one => vec![text(one)?],
    };
    Ok(texts.into_iter().map(OsStr::from).collect())
}

/// Where each setting came from.
fn sources(command: &clap::Command, matches: &ArgMatches, file: Option<&Table>) -> Vec<[String; 3]> {
    let Some((name, matches)) = matches.subcommand().filter(|(name, _)| READERS.contains(name)) else {
        return Vec::new();
    };
    let mut settings = Vec::new();
    for arg in command.find_subcommand(name).into_iter().flat_map(clap::Command::get_arguments) {
        let (id, Some(long)) = (arg.get_id().as_str(), arg.get_long()) else { continue };
        let Ok(Some(values)) = matches.try_get_raw(id) else { continue };
        let values: Vec<String> = values.map(|value| value.to_string_lossy().into_owned()).collect();
        let source = match matches.value_source(id) {
            Some(ValueSource::CommandLine) => "command line",
            Some(ValueSource::EnvVariable) => "environment",
            _ if file.is_some_and(|file| file.contains_key(long)) => "file",
            _ => "default",
        };
        settings.push([long.to_string(), values.join(", "), source.to_string()]);
    }
    settings
}
