//! The firmware: self-tests its bundle, golden images and probes, and logs every answer by defmt.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod board;

#[cfg(target_os = "none")]
mod device {
    use crate::board::mps2_an386 as board;
    use paradise_engine::golden::Golden;
    use paradise_engine::selftest::{Event, Fault, Scalar, State};
    use paradise_engine::{Model, RunError, Sizes, Workspace};
    use paradise_firmware::app::App;

    // MODEL and GOLDEN: the bundle's two files.
    include!(concat!(env!("OUT_DIR"), "/bundle.rs"));

    const SIZES: Sizes = Sizes::of(MODEL);

    #[cortex_m_rt::entry]
    fn main() -> ! {
        let (parsed, stack) = board::with_stack(|| (Model::parse(MODEL), Golden::parse(GOLDEN)));
        let (Ok(model), Ok(golden)) = parsed else {
            defmt::error!("the bundle in flash is damaged");
            board::stop(false)
        };
        defmt::info!(
            "model {=str}, {=usize} bytes, arena {=usize} bytes, parsed with {=usize} bytes of stack",
            model.header().name,
            MODEL.len(),
            SIZES.arena,
            stack
        );
        let (mut arena, mut floats) = ([0i8; SIZES.arena], [0f32; SIZES.floats]);
        let memory = Workspace { arena: &mut arena, floats: &mut floats };
        let mut app = App::new(Scalar { model: &model, memory }, &golden);
        let probes = golden.header().probes;
        loop {
            match app.step() {
                Some(Event::Golden(o)) => defmt::info!(
                    "golden {=usize} class {=str} rate {=f32} bits {=u32:08x} H {=u32:08x} outputs {=u32:08x} distances \
                     {=u32:08x} {=u32:08x} {=u32:08x} p of picture {=f32} posterior {=f32} spread {=f32} rate {=f32} \
                     entropy {=f32} class {=f32} all {=f32} {=str}",
                    o.case,
                    model.label(o.class),
                    o.rate_nats,
                    o.rate_nats.to_bits(),
                    o.posterior_entropy_nats.to_bits(),
                    o.outputs_crc,
                    o.distances.posterior.to_bits(),
                    o.distances.spread.to_bits(),
                    o.distances.picture.to_bits(),
                    o.p.picture,
                    o.p.posterior,
                    o.p.spread,
                    o.p.rate,
                    o.p.entropy,
                    o.p.predictive,
                    o.p.combined,
                    if o.accept { "accept" } else { "abstain" }
                ),
                Some(Event::Probes(t)) => {
                    let set = probes.at(t.set);
                    defmt::info!(
                        "{=str} probes, {=str}: {=u16} of {=u16} right (need {=u16}), {=u16} abstained",
                        set.kind.name(),
                        golden.header().origin.name(),
                        t.correct,
                        t.n,
                        set.min_correct,
                        t.abstained
                    )
                }
                None => {}
            }
            match app.state() {
                State::Done => {
                    defmt::info!(
                        "done: {=usize} golden images equal bit for bit, {=usize} sets of probes passed",
                        app.outcomes().len(),
                        probes.len()
                    );
                    board::stop(true)
                }
                State::Fault(fault) => {
                    report(fault);
                    board::stop(false)
                }
                State::Verify | State::Golden(_) | State::Probe(..) => {}
            }
        }
    }

    fn report(fault: Fault<RunError>) {
        match fault {
            Fault::Model => defmt::error!("fault: model and golden file do not belong together"),
            Fault::Run(_) => defmt::error!("fault: the workspace is too small"),
            Fault::Layer { case, layer } => {
                defmt::error!("fault: golden {=usize}, layer {=usize} differs", case, layer)
            }
            Fault::Probes { set } => defmt::error!("fault: probes {=usize}, fewer right than they ask for", set),
            Fault::Answer { case } | Fault::Gap { case, .. } => {
                defmt::error!("fault: golden {=usize}, the answer differs", case)
            }
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("paradise-firmware runs on a Cortex-M; build it with firmware/build.sh");
}
