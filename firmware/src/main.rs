//! The firmware: answers the golden images of its bundle and logs each answer by defmt.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod board;

#[cfg(target_os = "none")]
mod device {
    use crate::board::mps2_an386 as board;
    use paradise_engine::golden::Golden;
    use paradise_engine::{Model, Workspace};
    use paradise_firmware::app::{App, Fault, State};

    const MODEL: &[u8] = include_bytes!("../../models/fashion-mnist-small/model.pmq");
    const GOLDEN: &[u8] = include_bytes!("../../models/fashion-mnist-small/selftest.bin");
    /// Bytes kept for the arena; the model states its need, and more than this is a fault.
    const ARENA: usize = 32 * 1024;
    /// f32 values kept for heads and probabilities.
    const FLOATS: usize = 1024;

    #[cortex_m_rt::entry]
    fn main() -> ! {
        let (Ok(model), Ok(golden)) = (Model::parse(MODEL), Golden::parse(GOLDEN)) else {
            defmt::error!("the bundle in flash is damaged");
            board::stop(false)
        };
        defmt::info!(
            "model {=str}, arena {=u32} of {=usize} bytes",
            model.header().name.as_str(),
            model.header().arena_bytes,
            ARENA
        );
        let (mut arena, mut floats) = ([0i8; ARENA], [0f32; FLOATS]);
        let mut memory = Workspace { arena: &mut arena, floats: &mut floats };
        let mut app = App::new(model, golden);
        loop {
            if let Some(o) = app.step(&mut memory) {
                defmt::info!(
                    "golden {=usize} class {=str} rate {=f32} bits {=u32:08x} H {=u32:08x} outputs {=u32:08x} {=str}",
                    o.case,
                    app.model().label(o.class),
                    o.rate_nats,
                    o.rate_nats.to_bits(),
                    o.posterior_entropy_nats.to_bits(),
                    o.outputs_crc,
                    if o.accept { "accept" } else { "abstain" }
                );
            }
            match app.state() {
                State::Done => {
                    defmt::info!("done: {=usize} golden images equal bit for bit", app.outcomes().len());
                    board::stop(true)
                }
                State::Fault(fault) => {
                    report(fault);
                    board::stop(false)
                }
                State::Verify | State::Run(_) => {}
            }
        }
    }

    fn report(fault: Fault) {
        match fault {
            Fault::Model => defmt::error!("fault: model and golden file do not belong together"),
            Fault::Run(_) => defmt::error!("fault: the workspace is too small"),
            Fault::Layer { case, layer } => {
                defmt::error!("fault: golden {=usize}, layer {=usize} differs", case, layer)
            }
            Fault::Answer { case } => defmt::error!("fault: golden {=usize}, the answer differs", case),
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("paradise-firmware runs on a Cortex-M; build it with firmware/build.sh");
}
