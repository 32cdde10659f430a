//! The bundle that the image carries; and, on the bare-metal target only, the linker
//! scripts where the linker finds them.

use paradise_engine::Model;
use paradise_engine::golden::Golden;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Folder of the bundle, set by `build.sh`; without it the one that the tests on the host use.
const BUNDLE: &str = "PARADISE_BUNDLE";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=memory.x");
    println!("cargo:rerun-if-env-changed={BUNDLE}");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let bundle = env::var(BUNDLE).unwrap_or_else(|_| "../models/fashion-mnist-small".into());
    let source = carried(Path::new(&bundle)).map_err(|e| format!("{bundle}: {e}"))?;
    fs::write(out.join("bundle.rs"), source)?;
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        fs::copy("memory.x", out.join("memory.x"))?;
        println!("cargo:rustc-link-search={}", out.display());
        println!("cargo:rustc-link-arg-bins=-Tlink.x");
        println!("cargo:rustc-link-arg-bins=-Tdefmt.x");
    }
    Ok(())
}

/// Rust that embeds a bundle's two files.
fn carried(bundle: &Path) -> Result<String, Box<dyn Error>> {
    let file = |name: &str| -> Result<PathBuf, Box<dyn Error>> {
        let path = bundle.join(name).canonicalize().map_err(|e| format!("{name}: {e}"))?;
        println!("cargo:rerun-if-changed={}", path.display());
        Ok(path)
    };
    let (model, golden) = (file("model.pmq")?, file("selftest.bin")?);
    // Now rather than on the device.
    Model::parse(&fs::read(&model)?).map_err(|e| format!("model.pmq: {e}"))?;
    Golden::parse(&fs::read(&golden)?).map_err(|e| format!("selftest.bin: {e}"))?;
    Ok(format!(
        "const MODEL: &[u8] = include_bytes!({model:?});\nconst GOLDEN: &[u8] = include_bytes!({golden:?});\n"
    ))
}
