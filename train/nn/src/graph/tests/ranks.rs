//! A mini-batch that ranks share, against one process.

use super::*;
use crate::exchange::{Share, on_threads};

/// Output, gradients and running statistics of a batch and a perturbed copy that so many ranks share.
fn shared(ranks: usize, graph: &Graph, [n, side]: [usize; 2]) -> Vec<[Vec<f32>; 4]> {
    let theta = values(&noise(&[Trunk::new(graph.clone()).unwrap().parameters()], 4)).unwrap();
    let c = usize::from(graph.input.c);
    let all = values(&noise(&[2 * n, side, side, c], 5)).unwrap();
    on_threads(ranks, |exchange| {
        let trunk = Trunk::on(graph.clone(), available()[0], Precision::F32).unwrap();
        let share = Share::new(exchange, n, trunk.grain(2 * n)).unwrap();
        let theta = Var::from_vec(theta.clone(), trunk.parameters(), &Device::Cpu).unwrap();
        let own = share.part(&all, side * side * c);
        let images = Var::from_vec(own, (2 * share.own().len(), side, side, c), &Device::Cpu).unwrap();
        let ledger = Ledger::new(&Device::Cpu).unwrap();
        let y = trunk.apply_shared(&share, &images, &theta, Mode::Learn, Some(&ledger)).unwrap();
        let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let dx = share.gather(&values(gradients.get(&images).unwrap()).unwrap(), side * side * c).unwrap();
        let [y, dtheta] = [&y, &ledger.take().unwrap()].map(|t| values(t).unwrap());
        [y, dtheta, dx, trunk.running().unwrap()]
    })
}

#[test]
fn ranks_come_to_the_bits_of_one_process() {
    let dense = chain(
        Shape::new(4, 4, 2),
        vec![
            conv(window(3, 1, 1), 5),
            Op::BatchNorm { relu: true },
            Op::Dense { out: 9, relu: true },
            Op::Dense { out: 3, relu: false },
        ],
    );
    let mut features = residual(3, 8, [5, 18]);
    features.stages.pop();
    // Tasks of eight images, and, with a dense layer, of 64.
    for (graph, [n, side], most) in
        [(features, [32, 8], 4), (residual(3, 8, [5, 18]), [128, 8], 2), (dense, [128, 4], 2)]
    {
        let bits = |all: &[Vec<f32>; 4]| all.clone().map(|v| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
        let trunk = Trunk::on(graph.clone(), available()[0], Precision::F32).unwrap();
        let theta = Var::from_tensor(&noise(&[trunk.parameters()], 4)).unwrap();
        let c = usize::from(graph.input.c);
        let images = Var::from_tensor(&noise(&[2 * n, side, side, c], 5)).unwrap();
        let ledger = Ledger::new(&Device::Cpu).unwrap();
        let y = trunk.apply(&images, &theta, Mode::Learn, Some(&ledger)).unwrap();
        let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let [y, dtheta, dx] =
            [&y, &ledger.take().unwrap(), gradients.get(&images).unwrap()].map(|t| values(t).unwrap());
        let one = bits(&[y, dtheta, dx, trunk.running().unwrap()]);
        for ranks in 1..=most {
            for (rank, found) in shared(ranks, &graph, [n, side]).iter().enumerate() {
                for (k, what) in ["output", "parameters", "images", "statistics"].into_iter().enumerate() {
                    let other = (0..one[k].len()).find(|&i| bits(found)[k].get(i) != one[k].get(i));
                    assert_eq!(other, None, "{what} of rank {rank} of {ranks}, {} stages", graph.stages.len());
                }
            }
        }
    }
}
