//! What libraries ask the environment as they start.

use super::ranks;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Bytes that Open MPI sends between processes of one machine without waiting for the receiver: a message of sums and its head.
/// With its own limit of 4 KiB a rank that takes a larger message stands still until the sender looks up from its work.
const EAGER: &str = "65536";

/// Bytes of memory that each process shares for such messages; where its own 4 MiB are full, each takes half a millisecond.
const SEGMENT: &str = "16777216";

/// Starts this program again, in the same process, with what is not set yet of the environment that libraries ask:
///
/// - candle, how many threads its own pool has. Without it candle reads `/proc/cpuinfo` before each product, and for sums of a few
///   thousand numbers its own threads wait for each other beside ours: a tenth of a step.
/// - its matrix products, and rayon, by which our kernels share out their work, how many they have.
/// - Open MPI (4, 5), how it sends between processes of one machine.
pub fn settle() {
    let wanted = [
        ("CANDLE_NUM_THREADS", "1".to_string()),
        ("RAYON_NUM_THREADS", threads().to_string()),
        ("OMPI_MCA_btl_vader_eager_limit", EAGER.to_string()),
        ("OMPI_MCA_btl_vader_segment_size", SEGMENT.to_string()),
        ("OMPI_MCA_btl_sm_eager_limit", EAGER.to_string()),
        ("OMPI_MCA_btl_sm_segment_size", SEGMENT.to_string()),
    ];
    let missing: Vec<_> = wanted.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()).collect();
    if missing.is_empty() {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut arguments = std::env::args_os();
    let mut again = Command::new(program);
    again.envs(missing);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    // It returns only if it failed: then libraries take what they find.
    drop(again.args(arguments).exec());
}

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
