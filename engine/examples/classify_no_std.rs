//! What a microcontroller does: a model in flash, its memory in statics that the model itself sizes, no heap, no files.
//!
//!     cargo run --release --example classify_no_std
//!
//! On a chip the same lines stand under `#![no_std]`; `firmware/` is a whole application.

use paradise_engine::{Decision, Model, RunError, Sizes, Workspace, classify};

const MODEL: &[u8] = include_bytes!("../../models/fashion-mnist-small/model.pmq");
// Known while compiling: a model that needs more than there is does not link.
const SIZES: Sizes = Sizes::of(MODEL);

/// One answer in the caller's memory.
fn look(model: &Model, image: &[u8], memory: &mut Workspace) -> Result<Option<usize>, RunError> {
    let answer = classify(model, image, memory, &mut |_, _| {})?;
    Ok(match answer.decision {
        Decision::Accept => Some(answer.class),
        Decision::Abstain(_) => None,
    })
}

fn main() {
    let (mut arena, mut floats) = ([0i8; SIZES.arena], [0f32; SIZES.floats]);
    let mut memory = Workspace { arena: &mut arena, floats: &mut floats };
    let model = Model::parse(MODEL).expect("the bundle in flash is whole");
    // 28 x 28 luma, light on dark: a bar that stands upright, and nothing.
    let bar: [u8; 784] = core::array::from_fn(|i| if (9..19).contains(&(i % 28)) { 200 } else { 0 });
    for (name, image) in [("a bar", &bar), ("nothing", &[0; 784])] {
        match look(&model, image, &mut memory).expect("the memory has the model's sizes") {
            Some(class) => println!("{name}: {}", model.label(class)),
            None => println!("{name}: abstained"),
        }
    }
    println!("{} bytes of arena, {} floats", SIZES.arena, SIZES.floats);
}
