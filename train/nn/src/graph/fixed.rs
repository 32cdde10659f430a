//! A graph whose parameters no longer change, as attacks run it: plain slices in and out, on the CPU without candle.

use super::backward::Backward;
use super::mode::Mode;
use super::shared::Inner;
use super::trunk::Trunk;
use super::{Graph, values};
use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor, Var};
use paradise_engine::Shape;

/// A graph, its parameters, and where it runs.
#[derive(Debug, Clone)]
pub struct FixedGraph {
    trunk: Trunk,
    theta: Vec<f32>,
    /// The parameters on a GPU, if it runs there.
    there: Option<Tensor>,
}

impl FixedGraph {
    /// On the CPU.
    ///
    /// # Errors
    /// If the graph is not consistent or has another number of parameters.
    pub fn new(graph: Graph, theta: Vec<f32>) -> Result<Self> {
        let trunk = Trunk::new(graph)?;
        ensure!(theta.len() == trunk.parameters(), "{} parameters instead of {}", theta.len(), trunk.parameters());
        Ok(Self { trunk, theta, there: None })
    }

    /// The same where `device` is; a GPU's convolutions are f32, so that an attack sees the model that is served.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn on(self, device: &Device) -> Result<Self> {
        let there = match device {
            Device::Cpu => None,
            _ => Some(Tensor::new(&*self.theta, device)?),
        };
        Ok(Self { there, ..self })
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        self.trunk.graph()
    }

    /// The parameters.
    pub fn theta(&self) -> &[f32] {
        &self.theta
    }

    /// Extents of an image.
    pub fn shape(&self) -> Shape {
        self.graph().input
    }

    /// Images of one call that suit where it runs, and whether several calls may run at once.
    pub fn batch(&self) -> (usize, bool) {
        batch(self.there.is_none())
    }

    /// The last activation f32 `[n][..]` of images f32 `[n][h][w][c]`.
    ///
    /// # Errors
    /// If there is no whole number of images, or the device fails.
    pub fn forward(&self, images: &[f32]) -> Result<Vec<f32>> {
        let n = self.images(images)?;
        if let Some(theta) = &self.there {
            return values(&self.trunk.apply(&self.tensor(images, n, theta)?, theta, Mode::Fixed, None)?);
        }
        let mut tape = self.trunk.fixed(images, n, &self.theta, false)?;
        let last = tape.activations.pop().unwrap_or_default();
        self.trunk.inner().recycle(tape);
        Ok(last)
    }

    /// [`FixedGraph::forward`], and the images' gradient of a loss whose gradient with respect to that activation `outward`
    /// gives.
    ///
    /// # Errors
    /// As [`FixedGraph::forward`], or if `outward` fails or gives another number of values.
    pub fn pull(
        &self,
        images: &[f32],
        outward: &mut dyn FnMut(&[f32]) -> Result<Vec<f32>>,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let n = self.images(images)?;
        if let Some(theta) = &self.there {
            let x = Var::from_tensor(&self.tensor(images, n, theta)?)?;
            return pull(&x, &self.trunk.apply(&x, theta, Mode::Fixed, None)?, outward);
        }
        let Inner { plan, pool, .. } = self.trunk.inner();
        let tape = self.trunk.fixed(images, n, &self.theta, true)?;
        let last = tape.activations[plan.shapes.len() - 1].clone();
        let gradient = slopes(&last, outward)?;
        let theta = &self.theta;
        let (wants_theta, wants_images, share) = (false, true, None);
        let backward = Backward { plan, pool, theta, images, tape: &tape, wants_theta, wants_images, share };
        let (dx, _) = backward.run(&gradient)?;
        self.trunk.inner().recycle(tape);
        Ok((last, dx.unwrap_or_default()))
    }

    fn images(&self, images: &[f32]) -> Result<usize> {
        let each = self.shape().len() as usize;
        ensure!(images.len().is_multiple_of(each), "{} values are no whole number of images of {each}", images.len());
        Ok(images.len() / each)
    }

    fn tensor(&self, images: &[f32], n: usize, theta: &Tensor) -> Result<Tensor> {
        let Shape { h, w, c } = self.shape();
        Ok(Tensor::from_slice(images, (n, usize::from(h), usize::from(w), usize::from(c)), theta.device())?)
    }
}

/// [`FixedGraph::pull`] through candle: `last` is what it computed of the images `x`.
///
/// # Errors
/// If candle or `outward` fails, or the images have no gradient.
pub fn pull(
    x: &Var,
    last: &Tensor,
    outward: &mut dyn FnMut(&[f32]) -> Result<Vec<f32>>,
) -> Result<(Vec<f32>, Vec<f32>)> {
    let seen = values(last)?;
    let slopes = Tensor::from_vec(slopes(&seen, outward)?, last.shape(), last.device())?;
    let gradients = (last * slopes)?.sum_all()?.backward()?;
    Ok((seen, values(gradients.get(x).context("the images have no gradient")?)?))
}

/// What `outward` gives for `last`, one value each.
fn slopes(last: &[f32], outward: &mut dyn FnMut(&[f32]) -> Result<Vec<f32>>) -> Result<Vec<f32>> {
    let slopes = outward(last)?;
    ensure!(slopes.len() == last.len(), "{} gradients for {} values", slopes.len(), last.len());
    Ok(slopes)
}

/// Images of one call, and whether several calls may run at once: a CPU's threads take small batches each, a GPU wants
/// few and large ones.
pub fn batch(on_cpu: bool) -> (usize, bool) {
    if on_cpu { (32, true) } else { (1024, false) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Op;
    use crate::graph::Stage;
    use paradise_engine::layer::Window;
    use paradise_support::random::{self, Purpose};

    #[test]
    fn the_way_of_a_gpu_is_the_cpus() {
        let window = Window { kernel: [3, 3], stride: [1, 1], pad: [1; 4] };
        let conv = Op::Conv { window, groups: 1, out: 4, bias: true, relu: true, residual: None };
        let stages = [conv, Op::Affine { relu: true }, Op::Dense { out: 3, relu: false }];
        let stages = stages.into_iter().enumerate().map(|(x, op)| Stage { x, op }).collect();
        let graph = Graph { input: Shape::new(5, 6, 2), stages };
        let n = Trunk::new(graph.clone()).unwrap().parameters();
        let mut rng = random::stream(1, Purpose::Noise, 0, 0, 0);
        let mut noise = |n: usize| (0..n).map(|_| random::normal(&mut rng)).collect::<Vec<f32>>();
        let cpu = FixedGraph::new(graph, noise(n)).unwrap();
        // What `on` does for a GPU, with the parameters where this test has them.
        let there = Some(Tensor::new(cpu.theta(), &Device::Cpu).unwrap());
        let gpu = FixedGraph { there, ..cpu.clone() };
        let images = noise(7 * 60);
        let mut outward = |last: &[f32]| Ok(last.iter().map(|v| v.sin()).collect());
        assert_eq!(cpu.forward(&images).unwrap(), gpu.forward(&images).unwrap());
        assert_eq!(cpu.pull(&images, &mut outward).unwrap(), gpu.pull(&images, &mut outward).unwrap());
        assert!(cpu.pull(&images, &mut outward).unwrap().1.iter().any(|g| *g != 0.0));
        for model in [&cpu, &gpu] {
            assert!(model.forward(&images[1..]).unwrap_err().to_string().contains("no whole number of images"));
            assert!(
                model.pull(&images, &mut |_| Ok(vec![0.0])).unwrap_err().to_string().contains("1 gradients for 21")
            );
        }
        assert_eq!((cpu.batch(), gpu.batch()), ((32, true), (1024, false)));
    }
}
