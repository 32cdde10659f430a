//! The last activation's gradient to the parameters' and the images', on the GPU.

use super::{Tape, frame, geometry, pool_numbers, ranks};
use crate::cuda::{Values, count, int, launch, spread};
use crate::exchange::Share;
use crate::graph::Op;
use crate::graph::mode::Mode;
use crate::graph::plan::Plan;
use candle_core::Result;
use candle_core::cuda::cudarc::driver::{CudaSlice, CudaView};

/// One backward pass.
pub(in crate::graph) struct Backward<'a> {
    pub plan: &'a Plan,
    pub tape: &'a Tape,
    /// Whether the parameters' gradient is asked for.
    pub wants_theta: bool,
    /// Whether the images' gradient is asked for.
    pub wants_images: bool,
    /// As in the forward pass.
    pub share: Option<&'a Share>,
}

/// The gradient of the images and of the parameters, f32, where asked for.
pub(in crate::graph) type Gradients = (Option<CudaSlice<f32>>, Option<CudaSlice<f32>>);

/// Gradients on their way.
struct State {
    /// Of each activation that still has one.
    gradients: Vec<Option<Values>>,
    theta: Option<CudaSlice<f32>>,
    images: Option<CudaSlice<f32>>,
}

impl Backward<'_> {
    /// Queues the way back from the last activation's gradient.
    pub fn run(&self, gradient: &CudaView<f32>) -> Result<Gradients> {
        let (plan, gpu) = (self.plan, &self.tape.gpu);
        let last = plan.shapes.len() - 1;
        let mut state = State {
            gradients: (0..=last).map(|_| None).collect(),
            theta: if self.wants_theta { Some(gpu.device.alloc_zeros::<f32>(plan.parameters)?) } else { None },
            images: None,
        };
        state.gradients[last] = Some(gpu.cast_in(gradient, self.tape.n * plan.len(last))?);
        let needs = plan.needs(self.wants_theta, self.wants_images);
        for i in (0..plan.graph.stages.len()).rev() {
            let Some(dy) = state.gradients[i + 1].take() else { continue };
            if needs[i + 1] {
                self.stage(i, dy, &needs, &mut state)?;
            }
        }
        if let Some(dx) = &state.gradients[0]
            && self.wants_images
        {
            let n = self.tape.n * plan.len(0);
            let accumulate = i32::from(state.images.is_some());
            let mut to = match state.images.take() {
                Some(there) => there,
                None => gpu.floats(n)?,
            };
            launch!(gpu, gpu.typed("cast_out"), spread(n); &mut to, dx; count(n)?, accumulate);
            state.images = Some(to);
        }
        if self.wants_images && state.images.is_none() {
            state.images = Some(gpu.device.alloc_zeros::<f32>(self.tape.n * plan.len(0))?);
        }
        let theta = state.theta.map(|own| ranks::weights(gpu, self.share, plan, own)).transpose()?;
        Ok((state.images, theta))
    }

    fn stage(&self, i: usize, mut dy: Values, needs: &[bool], state: &mut State) -> Result<()> {
        let (plan, tape, gpu) = (self.plan, self.tape, &self.tape.gpu);
        let stage = &plan.graph.stages[i];
        let total = tape.n * plan.len(i + 1);
        match &stage.op {
            Op::Normalise { .. } => return self.images(i, &dy, state),
            Op::BatchNorm { .. } | Op::Affine { .. } => return self.map(i, dy, needs[stage.x], state),
            op if op.relu() => {
                launch!(gpu, gpu.typed("mask"), spread(total); &mut dy, tape.value(i + 1)?; count(total)?);
            }
            _ => (),
        }
        let linear = matches!(stage.op, Op::Conv { .. } | Op::Transposed { .. } | Op::Dense { .. });
        if linear && self.wants_theta {
            self.parameters(i, &dy, state)?;
        }
        if needs[stage.x] {
            let (mut dx, accumulate) = match state.gradients[stage.x].take() {
                Some(there) => (there, true),
                None => (gpu.values(tape.value(stage.x)?.len() / gpu.width())?, false),
            };
            match &stage.op {
                Op::Transposed { .. } => {
                    gpu.convolve(&geometry(plan, i, tape.n)?, &dy, tape.weight(i)?, &mut dx, accumulate)?;
                }
                Op::Conv { .. } | Op::Dense { .. } => {
                    gpu.convolve_back(&geometry(plan, i, tape.n)?, &dy, tape.weight(i)?, &mut dx, accumulate)?;
                }
                Op::AvgPool { window } | Op::MaxPool { window } => {
                    let [h, w, c, out_h, out_w, kh, kw, sy, sx, top, left] = pool_numbers(plan, i, window)?;
                    let average = i32::from(matches!(stage.op, Op::AvgPool { .. }));
                    let (x, y) = (tape.value(stage.x)?, tape.value(i + 1)?);
                    let inputs = tape.n * plan.len(stage.x);
                    launch!(gpu, gpu.typed("pool_gradient"), spread(inputs); &mut dx, &dy, x, y;
                        count(inputs)?, h, w, c, out_h, out_w, kh, kw, sy, sx, top, left, average,
                        i32::from(accumulate));
                }
                _ if accumulate => gpu.add_to(&mut dx, &dy)?,
                _ => gpu.device.memcpy_dtod(&dy, &mut dx)?,
            }
            state.gradients[stage.x] = Some(dx);
        }
        if let Some(other) = stage.op.second().filter(|r| needs[*r]) {
            match &mut state.gradients[other] {
                Some(there) => gpu.add_to(there, &dy)?,
                // The sum's gradient is each summand's, unchanged.
                empty => *empty = Some(dy),
            }
        }
        Ok(())
    }

    /// Weight and bias gradients of a convolution, transposed convolution or dense layer.
    fn parameters(&self, i: usize, dy: &Values, state: &mut State) -> Result<()> {
        let (plan, tape, gpu) = (self.plan, self.tape, &self.tape.gpu);
        let stage = &plan.graph.stages[i];
        let (Some(theta), [weight, rest @ ..]) = (&mut state.theta, &plan.places[i].parameters[..]) else {
            return Ok(());
        };
        let g = geometry(plan, i, tape.n)?;
        let mut dw = gpu.values(weight.len())?;
        if matches!(stage.op, Op::Transposed { .. }) {
            gpu.convolve_weights(&g, dy, tape.value(stage.x)?, &mut dw)?;
        } else {
            gpu.convolve_weights(&g, tape.value(stage.x)?, dy, &mut dw)?;
        }
        let mut to = theta.slice_mut(weight.clone());
        launch!(gpu, gpu.typed("cast_out"), spread(weight.len()); &mut to, &dw; count(weight.len())?, 1i32);
        if let [bias] = rest {
            let c = plan.channels(i + 1);
            let sums = gpu.moments(dy, tape.n * plan.len(i + 1) / c, c)?;
            let sums = ranks::sums(gpu, self.share, sums)?;
            let mut to = theta.slice_mut(bias.clone());
            launch!(gpu, "add_sums", spread(c); &mut to, &sums; count(c)?);
        }
        Ok(())
    }

    /// A map's stage: the ReLU's mask, parameters from sums, and the gradient of what it reads.
    fn map(&self, i: usize, mut dz: Values, needs_x: bool, state: &mut State) -> Result<()> {
        let (plan, tape, gpu) = (self.plan, self.tape, &self.tape.gpu);
        let stage = &plan.graph.stages[i];
        let c = plan.channels(i + 1);
        let total = tape.n * plan.len(i + 1);
        let (x, z, numbers) = (tape.value(stage.x)?, tape.value(i + 1)?, tape.map(i + 1)?);
        let sums = gpu.channel_sums(total / c, c, |partial, config, each| {
            launch!(gpu, gpu.typed("map_sums"), config; partial, &mut dz, x, z, numbers;
                count(total / c)?, each, int(c)?, i32::from(stage.op.relu()));
            Ok(())
        })?;
        let sums = ranks::sums(gpu, self.share, sums)?;
        if let (Some(theta), [scale, shift]) = (&mut state.theta, &plan.places[i].parameters[..]) {
            for (place, half) in [(shift, 0..c), (scale, c..2 * c)] {
                let (mut to, from) = (theta.slice_mut(place.clone()), sums.slice(half));
                launch!(gpu, "add_sums", spread(c); &mut to, &from; count(c)?);
            }
        }
        if !needs_x {
            return Ok(());
        }
        let learned = tape.mode == Mode::Learn && matches!(stage.op, Op::BatchNorm { .. });
        let mut factors = gpu.floats(3 * c)?;
        launch!(gpu, "map_factors", spread(c); &mut factors, &sums, numbers;
            count(c)?, (tape.whole * plan.len(i + 1) / c) as f64, i32::from(learned));
        let (mut dx, accumulate) = match state.gradients[stage.x].take() {
            Some(there) => (there, true),
            None => (gpu.values(total)?, false),
        };
        launch!(gpu, gpu.typed("map_gradient"), spread(total); &mut dx, &dz, x, &factors;
            count(total)?, int(c)?, i32::from(accumulate));
        state.gradients[stage.x] = Some(dx);
        Ok(())
    }

    /// The images' gradient through the frame of the normalised ones.
    fn images(&self, i: usize, dy: &Values, state: &mut State) -> Result<()> {
        let (plan, tape, gpu) = (self.plan, self.tape, &self.tape.gpu);
        if !self.wants_images {
            return Ok(());
        }
        let [h, w, c] = [plan.shapes[0].h, plan.shapes[0].w, plan.shapes[0].c].map(usize::from);
        let [top, left] = frame(plan, i + 1)?;
        let total = tape.n * plan.len(0);
        let mut to = gpu.floats(total)?;
        launch!(gpu, gpu.typed("unframe"), spread(total); &mut to, dy, tape.map(i + 1)?;
            count(total)?, int(h)?, int(w)?, int(c)?, int(top)?, int(left)?, int(h + 2 * top)?, int(w + 2 * left)?);
        state.images = Some(to);
        Ok(())
    }
}
