//! The `train` command.
#![deny(missing_docs)]

use anyhow::Result;
use clap::{Parser, Subcommand};
use paradise_train::config::{Config, parse_eps};
use paradise_train::fit::{self, RunFolder};
use paradise_train::{evaluate, files};
use std::path::PathBuf;

#[derive(Parser)]
struct X { #[command(subcommand)] c: C }
#[derive(Subcommand)]
enum C {
    Fit { #[arg(long)] config: PathBuf, #[arg(long)] set: Vec<String>, #[arg(long)] out: PathBuf, #[arg(long)] resume: bool },
    Evaluate { #[arg(long)] run: PathBuf, #[arg(long, default_value="pgd")] attacks: String, #[arg(long, default_value="8/255")] eps: String, #[arg(long, default_value_t=2000)] n: usize },
}
fn main() -> Result<()> {
    match X::parse().c {
        C::Fit{config,set,out,resume} => {
            let config = Config::read(&config, &set)?;
            let splits = config.data.load()?;
            let f = fit::fit(&config, &splits, &RunFolder::new(&out), resume)?;
            println!("{:?} {}", f.progress, f.seconds);
        }
        C::Evaluate{run,attacks,eps,n} => {
            let folder = RunFolder::new(&run);
            let config = folder.read_config()?;
            let splits = config.data.load()?;
            let (net, _) = folder.best_network(&config, &splits)?;
            let t = std::time::Instant::now();
            let (r, _) = evaluate::robust(&net.frozen(), &splits.test.head(n), &evaluate::parse_attacks(&attacks)?, parse_eps(&eps)?, 0)?;
            println!("{r}\n{:?}", t.elapsed());
        }
    }
    if let Some(o) = std::env::var_os("XO") { let folder = RunFolder::new(std::path::Path::new(&std::env::var("XR").unwrap())); let config = folder.read_config()?; let splits = config.data.load()?; let (net, _) = folder.best_network(&config, &splits)?; let c = paradise_train::export::export(&net, &config, &splits, std::path::Path::new(&o), &Default::default())?; println!("{}", toml::to_string(&c)?); }
    let _ = files::write;
    Ok(())
}
