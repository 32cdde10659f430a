//! The process gives up what it needs not, where the kernel has Landlock: it reads models, keys and its settings, writes what it remembers,
//! and runs no other program - unless a camera is one: a program has rules of its own, and may read and run what is installed.

use crate::arguments::Serve;
use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    path_beneath_rules,
};
use std::path::{Path, PathBuf};

/// The oldest whose rules are all used; an older kernel enforces what it knows.
const RULES: ABI = ABI::V3;

/// What is read besides what settings name: how many cores there are, memory, this program's own code.
const SYSTEM: [&str; 2] = ["/proc", "/sys"];

/// Confines this process, before it has another thread.
///
/// # Errors
/// If the kernel refuses rules that it should know.
pub fn confine(arguments: &Serve) -> anyhow::Result<()> {
    if arguments.no_landlock {
        return Ok(());
    }
    let parent =
        |path: &PathBuf| path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf();
    let (model, tls) = (&arguments.model, [&arguments.tls_certificate, &arguments.tls_key]);
    let mut reads: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
    reads.extend(std::env::current_exe());
    reads.extend(model.models.iter().cloned());
    // A key may be its own line of base64.
    reads.extend(model.key.iter().map(PathBuf::from).filter(|key| key.exists()));
    // What is replaced whole is another file of the same name: its folder is what stays.
    reads.extend(model.model.iter().chain(&arguments.site.site).chain(tls.into_iter().flatten()).map(parent));
    let mut writes: Vec<PathBuf> = model.remembered().into_iter().collect();
    let tables = &arguments.tables;
    writes.extend(tables.events.iter().map(|events| parent(&events.file)));
    writes.extend(tables.samples.iter().map(|samples| parent(&samples.folder)));
    writes.extend(tables.folder.iter().map(|folder| folder.path.clone()));
    writes.extend(tables.folder.iter().filter_map(|folder| folder.journal.as_ref()).map(parent));
    let trusted = tables.camera.iter().filter_map(|camera| camera.ca.as_ref());
    let hooks = tables.webhook.iter().flat_map(|hook| hook.ca.iter().chain(&hook.token));
    reads.extend(trusted.chain(hooks).map(parent));
    reads.extend(tables.mqtt.iter().flat_map(|mqtt| mqtt.ca.iter().chain(&mqtt.password_file)).map(parent));
    if !tables.is_empty() {
        // Names of other machines are looked up, and whom to trust.
        reads.extend(
            ["/etc", "/usr/share/ca-certificates"].map(PathBuf::from).into_iter().filter(|path| path.exists()),
        );
    }
    // Pins and cameras are devices.
    let runs = tables.runs_programs();
    let devices: &[&str] =
        if arguments.pins.gpio.is_some() || runs || tables.needs_devices() { &["/dev"] } else { &[] };
    let programs: &[&str] = if runs { &["/"] } else { &[] };
    let all = AccessFs::from_all(RULES);
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .create()?
        .add_rules(path_beneath_rules(&reads, AccessFs::ReadFile | AccessFs::ReadDir))?
        .add_rules(path_beneath_rules(&writes, all & !AccessFs::Execute))?
        .add_rules(path_beneath_rules(programs, AccessFs::Execute | AccessFs::ReadFile | AccessFs::ReadDir))?
        .add_rules(path_beneath_rules(devices, AccessFs::ReadFile | AccessFs::WriteFile))?
        .restrict_self()?;
    match status.ruleset {
        RulesetStatus::NotEnforced => {
            tracing::info!("this kernel has no Landlock: the process is not confined by it")
        }
        _ if runs => tracing::info!("confined by Landlock, but for what cameras' programs read and run"),
        _ => tracing::info!("confined by Landlock to models, keys, settings and what is remembered"),
    }
    Ok(())
}
