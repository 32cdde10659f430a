//! Where the linker finds the board's memory, on the bare-metal target only. What the image carries was written by `prepare` into
//! the folder that `build.sh` names.

use std::env;
use std::error::Error;

/// Folder of what is carried.
const CARRIED: &str = "PARADISE_CARRIED";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-env-changed={CARRIED}");
    println!("cargo:rustc-check-cfg=cfg(armv8m)");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return Ok(());
    }
    if env::var("TARGET")?.starts_with("thumbv8m") {
        println!("cargo:rustc-cfg=armv8m");
    }
    let carried = env::var(CARRIED).map_err(|_| format!("{CARRIED} is not set: build by build.sh"))?;
    for file in ["memory.x", "device.x", "kept.x"] {
        println!("cargo:rerun-if-changed={carried}/{file}");
    }
    println!("cargo:rustc-link-search={carried}");
    println!("cargo:rustc-link-arg-bins=-Tlink.x");
    println!("cargo:rustc-link-arg-bins=-Tdefmt.x");
    Ok(())
}
