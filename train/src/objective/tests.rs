use super::adversary::Aim;
use super::*;
use crate::encoder::{Encoding, Network, Place, small_conv::SmallConv};
use paradise_engine::Shape;
use paradise_nn::exchange::{Share, on_threads};
use paradise_support::random::{self, Purpose};

const M: usize = 6;

fn network() -> Network {
    let encoder = SmallConv { channels: [2, 3], hidden: 5, latent: 4 };
    Network::new(encoder.architecture(Shape::new(8, 8, 1), 3), 1).unwrap()
}

fn with_batch<T>(go: impl FnOnce(&Batch) -> T) -> T {
    let mut rng = random::stream(4, Purpose::Noise, 0, 0, 0);
    let pixels: Vec<f32> = (0..M * 64).map(|_| random::uniform(&mut rng)).collect();
    let images = Tensor::from_vec(pixels, (M, 8, 8, 1), &Device::Cpu).unwrap();
    let labels = Tensor::from_vec(vec![0u32, 1, 2, 0, 1, 2], M, &Device::Cpu).unwrap();
    let ids: Vec<usize> = (0..M).collect();
    go(&Batch { images: &images, labels: &labels, ids: &ids, own: 0..M, seed: 9, epoch: 2, share: 1.0 })
}

fn scalar(t: &Tensor) -> f64 {
    f64::from(t.to_scalar::<f32>().unwrap())
}

#[test]
fn objectives_keep_their_terms_and_add_them_up() {
    let network = network();
    use Kind::*;
    for kind in [Standard, Dvib, DvibPm, Paradise, ParadisePm, ParadiseAm, PgdAt, Trades] {
        let objective = Objective { kind, alpha: 0.3, gamma: 0.7, samples: 5, ..Objective::default() };
        let learning = network.learning().unwrap();
        let loss = with_batch(|b| objective.loss(&learning, b).unwrap());
        assert_eq!(loss.rate.is_some(), kind.has_rate(), "{kind:?}");
        assert_eq!(loss.matching.is_some(), [DvibPm, ParadisePm, ParadiseAm].contains(&kind), "{kind:?}");
        assert_eq!(loss.divergence.is_some(), kind == Trades, "{kind:?}");
        let term = |t: &Option<Tensor>| t.as_ref().map_or(0.0, scalar);
        let sum =
            scalar(&loss.distortion) + 0.3 * term(&loss.rate) + 0.7 * (term(&loss.matching) + term(&loss.divergence));
        assert!((scalar(&loss.total) - sum).abs() < 1e-5, "{kind:?}");
        // Every parameter that the objective uses gets a gradient; s is unused by `standard`.
        let grads = learning.gradients(&network.variables, &loss.total).unwrap();
        // The trunk, then weight and bias of mu, s and the classifier.
        for (i, g) in grads.iter().enumerate() {
            let expected = ![Standard, PgdAt, Trades].contains(&kind) || ![3, 4].contains(&i);
            assert_eq!(g.is_some(), expected, "{kind:?} {i}");
        }
    }
}

#[test]
fn an_adversary_stays_in_its_ball_and_raises_its_loss() {
    let network = network();
    let learning = network.learning().unwrap();
    for kind in [Kind::ParadiseAm, Kind::PgdAt, Kind::Trades] {
        let adversary = Adversary { eps_pixels: 20.0, steps: 6, ..Adversary::default() };
        let objective = Objective { kind, adversary, alpha: 0.0, gamma: 1.0, ..Objective::default() };
        let frozen = learning.frozen();
        with_batch(|batch| {
            let reference = frozen.encode(batch.images).unwrap();
            let discrepancy =
                |e: &Encoder, x: &Tensor| Ok(matching::discrepancy(&reference, &e.encode(x)?, false)?.sum_all()?);
            let start = Adversary { steps: 1, step_share: 0.0, ..adversary };
            let before = start.ascend(&frozen, batch, discrepancy).unwrap();
            let after = adversary.ascend(&frozen, batch, discrepancy).unwrap();
            let flat = |t: &Tensor| crate::encoder::values(t).unwrap();
            for (a, x) in flat(&after).iter().zip(flat(batch.images)) {
                assert!((a - x).abs() <= 20.0 / 255.0 + 1e-6 && (0.0..=1.0).contains(a), "{a} {x}");
            }
            let worth = |x: &Tensor| scalar(&discrepancy(&frozen, x).unwrap());
            assert!(worth(&after) > worth(&before), "{} {}", worth(&after), worth(&before));
            // Radius 0 leaves the clean loss.
            let none = Objective { adversary: Adversary { eps_pixels: 0.0, ..adversary }, ..objective.clone() };
            let clean = none.loss(&frozen, batch).unwrap();
            assert!(clean.matching.is_none_or(|m| scalar(&m) == 0.0));
            assert!(clean.divergence.is_none_or(|d| scalar(&d).abs() < 1e-6));
        });
    }
}

#[test]
fn distortion_is_shared_between_images_and_the_points_found() {
    let network = network();
    let learning = network.learning().unwrap();
    let frozen = learning.frozen();
    let weighed = |gamma, aim, eps_pixels, distortion_share| {
        let adversary = Adversary { eps_pixels, aim, distortion_share, ..Adversary::default() };
        let objective = Objective { kind: Kind::ParadiseAm, gamma, adversary, ..Objective::default() };
        with_batch(|batch| {
            let loss = objective.loss(&frozen, batch).unwrap();
            [scalar(&loss.distortion), scalar(&loss.matching.unwrap())]
        })
    };
    let losses = |aim, eps_pixels, share| weighed(1.0, aim, eps_pixels, share);
    // The distortion's share does not hang on the weight of the matching.
    assert_eq!(weighed(0.0, Aim::Class, 20.0, 0.5), losses(Aim::Class, 20.0, 0.5));
    for aim in [Aim::Posterior, Aim::Class] {
        let [clean, half, whole] = [0.0, 0.5, 1.0].map(|share| losses(aim, 20.0, share)[0]);
        assert!(whole != clean && (half - (clean + whole) / 2.0).abs() < 1e-5, "{aim:?} {clean} {half} {whole}");
        assert!(aim == Aim::Posterior || whole > clean, "{clean} {whole}");
        // Radius 0 finds the images themselves.
        assert!((losses(aim, 0.0, 1.0)[0] - clean).abs() < 1e-6);
    }
    // Each adversary is the better one at what it aims at.
    let [[posterior, matched], [class, other]] = [Aim::Posterior, Aim::Class].map(|aim| losses(aim, 20.0, 1.0));
    assert!(class > posterior && matched > other, "{class} {posterior} {matched} {other}");
}

#[test]
fn noise_is_the_images_own_whatever_the_batch() {
    let objective = Objective { samples: 3, ..Objective::default() };
    with_batch(|batch| {
        let whole = matching::perturb(&objective, batch).unwrap();
        let picked = [4usize, 1];
        let index = Tensor::new(&[4u32, 1], &Device::Cpu).unwrap();
        let images = batch.images.index_select(&index, 0).unwrap();
        let part = Batch { images: &images, ids: &picked, own: 0..picked.len(), ..*batch };
        let alone = matching::perturb(&objective, &part).unwrap();
        let flat = |t: Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(flat(whole.index_select(&index, 0).unwrap()), flat(alone));
        // And bounded in magnitude as section 1.5 says: s at most m, u rarely above 5.
        let change = flat((whole - batch.images).unwrap());
        assert!(change.iter().all(|c| c.abs() < 16.0 / 255.0 * 6.0) && change.iter().any(|c| *c != 0.0));
        let clipped = Objective { matching_clip: true, ..objective.clone() };
        assert!(flat(matching::perturb(&clipped, batch).unwrap()).iter().all(|v| (0.0..=1.0).contains(v)));
    });
}

#[test]
fn one_image_has_no_rate() {
    let network = network();
    with_batch(|batch| {
        let images = batch.images.narrow(0, 0, 1).unwrap();
        let labels = batch.labels.narrow(0, 0, 1).unwrap();
        let one = Batch { images: &images, labels: &labels, ids: &[0], own: 0..1, ..*batch };
        assert!(Objective::default().loss(&network.learning().unwrap(), &one).is_err());
    });
}

/// Rate and matching of a whole step against f64 from their definitions, on the step's own f32 posteriors and samples,
/// with sigma from 1 to 1e-4.
#[test]
fn a_steps_rate_and_matching_equal_f64() {
    let network = network();
    let objective = Objective { kind: Kind::ParadisePm, ..Objective::default() };
    for bias in [0.5f32, -2.0, -5.0, -9.2] {
        network[Place::SBias].set(&Tensor::full(bias, 4, &Device::Cpu).unwrap()).unwrap();
        with_batch(|batch| {
            let encoder = network.frozen();
            let loss = objective.loss(&encoder, batch).unwrap();
            let wide = |t: &Tensor| -> Vec<Vec<f64>> {
                let rows = t.to_vec2::<f32>().unwrap();
                rows.into_iter().map(|r| r.into_iter().map(f64::from).collect()).collect()
            };
            let numbers = |e: &Encoding| (wide(&e.mu), wide(&e.log_sigma));
            let own = encoder.encode(batch.images).unwrap();
            let (mu, logs) = numbers(&own);
            let (sigma32, mu32) = (own.sigma.to_vec2::<f32>().unwrap(), own.mu.to_vec2::<f32>().unwrap());
            assert!((logs[0][0] - f64::from(bias)).abs() < 1.0 || bias > 0.0, "{logs:?}");
            let d = mu[0].len();
            let log_density = |z: &[f64], j: usize| -> f64 {
                let one = |k: usize| {
                    let u = (z[k] - mu[j][k]) / logs[j][k].exp();
                    -0.5 * u * u - logs[j][k] - 0.5 * (2.0 * std::f64::consts::PI).ln()
                };
                (0..d).map(one).sum()
            };
            let mut rate = (M as f64 - 1.0).ln();
            for (i, id) in batch.ids.iter().enumerate() {
                let mut rng = random::stream(batch.seed, Purpose::Posterior, batch.epoch, *id as u64, 0);
                let z: Vec<f64> =
                    (0..d).map(|k| f64::from(random::normal(&mut rng) * sigma32[i][k] + mu32[i][k])).collect();
                let log: Vec<f64> = (0..M).filter(|j| *j != i).map(|j| log_density(&z, j)).collect();
                let top = log.iter().copied().fold(f64::MIN, f64::max);
                let mixture = top + log.iter().map(|l| (l - top).exp()).sum::<f64>().ln();
                let entropy: f64 =
                    logs[i].iter().map(|l| l + 0.5 * (2.0 * std::f64::consts::PI * std::f64::consts::E).ln()).sum();
                rate -= (entropy + mixture) / M as f64;
            }
            let got = scalar(&loss.rate.unwrap());
            assert!((got - rate).abs() <= 1e-5 * rate.abs(), "bias {bias}: rate {got} {rate}");

            let (mu_moved, logs_moved) =
                numbers(&encoder.encode(&matching::perturb(&objective, batch).unwrap()).unwrap());
            let mut matched = 0.0;
            for i in 0..M {
                let gaps: Vec<f64> = (0..d).map(|k| (mu[i][k] - mu_moved[i][k]).abs()).collect();
                let total: f64 = gaps.iter().sum();
                let spread: f64 = (0..d).map(|k| (logs[i][k] - logs_moved[i][k]).abs()).sum();
                matched += gaps.iter().map(|g| g * (g / total).max(1.0 / d as f64)).sum::<f64>() + spread / d as f64;
            }
            matched /= M as f64;
            let got = scalar(&loss.matching.unwrap());
            assert!((got - matched).abs() <= 1e-5 * matched, "bias {bias}: matching {got} {matched}");
        });
    }
}

/// Loss terms, gradients and running statistics of a step that so many ranks share, one text a rank.
fn steps(ranks: usize, kind: Kind) -> Vec<String> {
    const IMAGES: usize = 32;
    let mut rng = random::stream(4, Purpose::Noise, 0, 0, 0);
    let pixels: Vec<f32> = (0..IMAGES * 12 * 12 * 3).map(|_| random::uniform(&mut rng)).collect();
    let labels: Vec<u32> = (0..IMAGES as u32).map(|i| i % 3).collect();
    on_threads(ranks, |exchange| {
        let encoder =
            crate::config::encoder::Encoder { kind: crate::config::encoder::Kind::ResNet8, ..Default::default() };
        let network = Network::new(encoder.architecture(Shape::new(12, 12, 3), 3).unwrap(), 1).unwrap();
        let objective = Objective { kind, alpha: 0.3, gamma: 0.7, samples: 2, ..Objective::default() };
        let grain = paradise_nn::graph::Trunk::new(network.architecture.graph.clone())
            .unwrap()
            .grain(objective.copies() * IMAGES);
        let share = Share::new(exchange, IMAGES, grain).unwrap();
        let own = share.own();
        let mine = share.part(&pixels, 12 * 12 * 3);
        let images = Tensor::from_vec(mine, (own.len(), 12, 12, 3), &Device::Cpu).unwrap();
        let labels = Tensor::from_vec(labels.clone(), IMAGES, &Device::Cpu).unwrap();
        let ids: Vec<usize> = (0..IMAGES).collect();
        let batch = Batch { images: &images, labels: &labels, ids: &ids, own, seed: 9, epoch: 2, share: 1.0 };
        let learning = network.learning().unwrap().sharing(Some(share));
        let loss = objective.loss(&learning, &batch).unwrap();
        let gradients = learning.gradients(&network.variables, &loss.total).unwrap();
        let bits =
            |t: &Tensor| -> Vec<u32> { crate::encoder::values(t).unwrap().into_iter().map(f32::to_bits).collect() };
        let gradients: Vec<_> = gradients.iter().map(|g| g.as_ref().map(bits)).collect();
        let terms = [Some(&loss.distortion), loss.rate.as_ref(), loss.matching.as_ref(), Some(&loss.total)];
        format!("{:?} {gradients:?} {:?}", terms.map(|t| t.map(bits)), network.running().unwrap())
    })
}

#[test]
fn ranks_take_the_step_of_one_process() {
    for kind in [Kind::Standard, Kind::ParadisePm, Kind::ParadiseAm, Kind::PgdAt, Kind::Trades] {
        let one = steps(1, kind);
        for ranks in [2, 4] {
            assert!(steps(ranks, kind).iter().all(|step| *step == one[0]), "{kind:?} on {ranks} ranks");
        }
    }
}
