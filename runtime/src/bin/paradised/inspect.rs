//! `paradised inspect`: what is in a bundle.

use crate::arguments::Inspect;
use anyhow::Context;
use paradise_engine::Model;
use paradise_engine::image::{ALL_PARTS, Geometry, ImagePolicy, Polarity};
use paradise_runtime::bundle::{Bundle, MODEL};
use paradise_runtime::{Site, say};
use serde_json::json;

/// The image policy: the record's fields, and the sentence that people read.
fn pictures(policy: &ImagePolicy) -> serde_json::Value {
    let (geometry, share) = match policy.geometry {
        Geometry::Stretch => ("stretch", None),
        Geometry::Crop { parts } => ("crop", Some(f64::from(parts) / f64::from(ALL_PARTS))),
        Geometry::Letterbox => ("letterbox", None),
    };
    let polarity = match policy.polarity {
        Polarity::AsTaken => "as-taken",
        Polarity::LightOnDark => "light-on-dark",
        Polarity::Inverted => "inverted",
    };
    json!({ "geometry": geometry, "crop_share": share, "polarity": polarity, "in_words": policy.to_string() })
}

pub fn run(arguments: &Inspect) -> anyhow::Result<u8> {
    let bundle = Bundle::open(&arguments.model)?;
    let path = bundle.path(MODEL);
    let model = Model::parse(bundle.file(MODEL)?).with_context(|| path.display().to_string())?;
    let header = model.header();
    let site = arguments.site.read(&model)?;
    let t = site.as_ref().map_or(&header.thresholds, |site| site.thresholds());
    let calibrated = site.as_ref().map_or_else(
        || format!("{} calibration images of the maker", header.calibrations.rate.n),
        ToString::to_string,
    );
    let layers = header.layers.iter().zip(header.activations.iter().skip(1)).enumerate().map(|(i, (layer, y))| {
        json!({
            "layer": i, "op": layer.op.name(), "reads": layer.reads(),
            "output": [y.shape.h, y.shape.w, y.shape.c], "scale": y.scale, "zero_point": y.zero_point,
            "arena_offset": y.offset,
        })
    });
    let labels: Vec<&str> = (0..header.classes as usize).map(|i| model.label(i)).collect();
    let files: serde_json::Map<String, serde_json::Value> =
        bundle.files().map(|(name, size)| (name.to_string(), json!(size))).collect();
    let report = json!({
        "name": bundle.name(),
        "input": [header.input.h, header.input.w, header.input.c],
        "pictures": pictures(&header.policy),
        "latent": header.latent,
        "labels": labels,
        "arena_bytes": header.arena_bytes,
        "model_bytes": model.size(),
        "layers": layers.collect::<Vec<_>>(),
        "mixture_components": header.mixture.components,
        "mixture_covariance": header.mixture.covariance.name(),
        "calibration_images": header.calibrations.rate.n,
        "thresholds": t,
        "thresholds_from": if site.is_some() { "site" } else { "maker" },
        "site_pictures": site.as_ref().map(Site::pictures),
        "signed": bundle.signature().is_some(),
        "files": files,
    });
    if arguments.json {
        say!("{report:#}");
        return Ok(0);
    }
    say!(
        "{}: {} classes, latent {}, {} byte model, {} byte arena",
        bundle.name(),
        header.classes,
        header.latent,
        model.size(),
        header.arena_bytes
    );
    say!(
        "  input      {} x {} x {} ({})",
        header.input.h,
        header.input.w,
        header.input.c,
        if header.input.c == 1 { "luma" } else { "RGB" }
    );
    say!("  pictures   {}", header.policy);
    say!("  labels     {}", labels.join(", "));
    for (i, (layer, y)) in header.layers.iter().zip(header.activations.iter().skip(1)).enumerate() {
        let s = y.shape;
        say!(
            "  layer {i:<4} {:<9} reads {:?} -> {} x {} x {}  scale {:.3e} zero {} at {}",
            layer.op.name(),
            layer.reads(),
            s.h,
            s.w,
            s.c,
            y.scale,
            y.zero_point,
            y.offset
        );
    }
    say!(
        "  rate       against a mixture of {} Gaussians, covariance {}",
        header.mixture.components,
        header.mixture.covariance.name()
    );
    say!(
        "  abstains   p of picture < {:.4}, posterior < {:.4}, spread < {:.4}, rate < {:.4}, entropy < {:.4}, combined < {:.4}; \
         predictive entropy > {:.3} nats ({calibrated})",
        t.picture_p_min,
        t.posterior_p_min,
        t.spread_p_min,
        t.rate_p_min,
        t.entropy_p_min,
        t.combined_p_min,
        t.predictive_entropy_max_nats,
    );
    for (name, size) in bundle.files() {
        say!("  file       {name:<20} {size} bytes");
    }
    say!(
        "  signature  {}",
        if bundle.signature().is_some() { "present; `selftest --key` verifies it" } else { "none" }
    );
    Ok(0)
}
