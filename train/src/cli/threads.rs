//! How many threads candle takes.

use super::ranks;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// What candle's own pool is told.
const POOL: &str = "CANDLE_NUM_THREADS";

/// What its matrix products are told, and rayon, by which our kernels share out their work.
const PRODUCTS: &str = "RAYON_NUM_THREADS";

/// As many threads as this process may have cores: those that its launcher bound it to, or its part of the machine's where several
/// processes were started here and not bound.
fn threads() -> usize {
    let available = std::thread::available_parallelism().map_or(1, |n| n.get());
    let all = std::fs::read_dir("/sys/devices/system/cpu").map_or(available, |entries| {
        let is_core = |name: &str| name.strip_prefix("cpu").is_some_and(|n| n.parse::<u32>().is_ok());
        entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(is_core)).count()
    });
    available.min(all / ranks::beside_here()).max(1)
}

/// Starts this program again, in the same process, with the environment that candle asks how many threads there are, unless it
/// says so already.
///
/// Without it candle reads `/proc/cpuinfo` before each product, and for sums of a few thousand numbers its own threads wait for
/// each other beside ours: a tenth of a step.
pub fn settle() {
    if std::env::var_os(POOL).is_some() {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut arguments = std::env::args_os();
    let mut again = Command::new(program);
    again.env(POOL, "1");
    if std::env::var_os(PRODUCTS).is_none() {
        again.env(PRODUCTS, threads().to_string());
    }
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    // It returns only if it failed: then candle takes what it finds.
    drop(again.args(arguments).exec());
}
