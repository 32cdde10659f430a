//! What each set of kernels of this CPU answers: checksums to compare between machines, or inferences to count.
//!
//! `kernels MODEL IMAGES` prints a line for each set, the fastest first and the scalar one last: its name, a CRC-32 of
//! every layer's outputs over all images (u8 HWC, one after the other), and one of all float outputs, once with each layer
//! on its own and once run in one go. `kernels MODEL IMAGES SET N` runs N inferences by one set and prints nothing.

use paradise_engine::golden::crc32;
use paradise_engine::{Model, Prepared, Watch, Workspace};
use std::error::Error;

/// A running CRC-32 over values.
fn add(crc: &mut u32, bytes: impl Iterator<Item = u8>) {
    let all: Vec<i8> = crc.to_le_bytes().into_iter().chain(bytes).map(|b| b as i8).collect();
    *crc = crc32(&all);
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (model, images, run) = match &arguments[..] {
        [model, images] => (model, images, None),
        [model, images, set, n] => (model, images, Some((set, n.parse::<usize>()?))),
        _ => return Err("usage: kernels MODEL IMAGES [SET N]".into()),
    };
    let (bytes, images) = (std::fs::read(model)?, std::fs::read(images)?);
    let model = Model::parse(&bytes)?;
    let images: Vec<&[u8]> = images.chunks_exact(model.header().input.len() as usize).collect();
    let (mut arena, mut floats) = (vec![0; model.header().arena_bytes as usize], vec![0.0; model.float_len()]);
    for prepared in Prepared::every(&model) {
        let mut scratch = vec![0; prepared.scratch_len()];
        if let Some((set, inferences)) = run {
            if prepared.kernels() == set {
                for i in 0..inferences {
                    let mut memory = Workspace { arena: &mut arena, floats: &mut floats };
                    prepared.classify(images[i % images.len()], &mut memory, &mut scratch, Watch::Nobody)?;
                }
                return Ok(());
            }
        } else {
            let mut layers = vec![0u32; model.header().layers.len()];
            let mut outputs = [0u32; 2];
            for image in &images {
                for (in_one_go, outputs) in outputs.iter_mut().enumerate() {
                    let mut look = |layer: usize, y: &[i8]| add(&mut layers[layer], y.iter().map(|v| *v as u8));
                    let watch = if in_one_go == 1 { Watch::Nobody } else { Watch::Layers(&mut look) };
                    let mut memory = Workspace { arena: &mut arena, floats: &mut floats };
                    let a = prepared.classify(image, &mut memory, &mut scratch, watch)?;
                    add(outputs, a.numbers().flat_map(f32::to_le_bytes));
                }
            }
            let layers: Vec<String> = layers.iter().map(|crc| format!("{crc:08x}")).collect();
            println!("{} {} {:08x} {:08x}", prepared.kernels(), layers.join(" "), outputs[0], outputs[1]);
        }
    }
    match run {
        Some((set, _)) => Err(format!("this CPU has no kernels named {set}").into()),
        None => Ok(()),
    }
}
