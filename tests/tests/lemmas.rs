//! Lemmas 1 and 2 of the supplement on small alphabets: the alternation that the objective relaxes (Blahut-Arimoto)
//! descends to the rate-distortion function.

use proptest::prelude::*;

/// `p(z|x)`, one row a source symbol.
type Encoder = Vec<Vec<f64>>;

/// `I + beta E d` with the marginal replaced by any `q`: `sum p(x) p(z|x) (log p(z|x)/q(z) + beta d(x, z))`, nats.
fn functional(p: &[f64], encoder: &Encoder, q: &[f64], d: &[Vec<f64>], beta: f64) -> f64 {
    let mut total = 0.0;
    for (x, row) in encoder.iter().enumerate() {
        for (z, &share) in row.iter().enumerate() {
            // A symbol that dies out underflows on its way; such a term is worth nothing.
            if share > 1e-280 {
                total += p[x] * share * ((share / q[z]).ln() + beta * d[x][z]);
            }
        }
    }
    total
}

/// Lemma 1: for a fixed encoder the best `q` is its marginal.
fn marginal(p: &[f64], encoder: &Encoder) -> Vec<f64> {
    (0..encoder[0].len()).map(|z| p.iter().zip(encoder).map(|(p, row)| p * row[z]).sum()).collect()
}

/// Lemma 2: for a fixed `q` the best encoder is `q(z) exp(-beta d(x, z))`, normalised.
fn tilted(q: &[f64], d: &[Vec<f64>], beta: f64) -> Encoder {
    d.iter()
        .map(|costs| {
            let raw: Vec<f64> = q.iter().zip(costs).map(|(q, d)| q * (-beta * d).exp()).collect();
            let sum: f64 = raw.iter().sum();
            raw.into_iter().map(|v| v / sum).collect()
        })
        .collect()
}

fn normalised(raw: &[f64]) -> Vec<f64> {
    let sum: f64 = raw.iter().sum();
    raw.iter().map(|v| v / sum).collect()
}

/// Alternates until nothing moves; every half step may only lower the functional.
fn alternate(p: &[f64], d: &[Vec<f64>], beta: f64, start: &[f64]) -> (Encoder, Vec<f64>, f64) {
    let mut q = start.to_vec();
    let mut value = f64::INFINITY;
    loop {
        let encoder = tilted(&q, d, beta);
        let by_lemma_2 = functional(p, &encoder, &q, d, beta);
        assert!(by_lemma_2 <= value + 1e-12, "lemma 2 raised {value} to {by_lemma_2}");
        q = marginal(p, &encoder);
        let by_lemma_1 = functional(p, &encoder, &q, d, beta);
        assert!(by_lemma_1 <= by_lemma_2 + 1e-12, "lemma 1 raised {by_lemma_2} to {by_lemma_1}");
        if value - by_lemma_1 < 1e-15 {
            return (encoder, q, by_lemma_1);
        }
        value = by_lemma_1;
    }
}

#[test]
fn a_binary_source_reaches_its_rate_distortion_function() {
    // Shannon: R(D) = h(p) - h(D) nats for a Bernoulli(p) source under Hamming distortion, D < min(p, 1 - p).
    let h = |t: f64| -t * t.ln() - (1.0 - t) * (1.0 - t).ln();
    for share in [0.5, 0.4, 0.25] {
        for beta in [1.5f64, 2.0, 4.0] {
            let p = [share, 1.0 - share];
            let d = vec![vec![0.0, 1.0], vec![1.0, 0.0]];
            let (encoder, q, _) = alternate(&p, &d, beta, &[0.3, 0.7]);
            let distortion: f64 = (0..2).map(|x| p[x] * encoder[x][1 - x]).sum();
            if 1.0 / (1.0 + beta.exp()) >= share {
                continue;
            }
            assert!((distortion - 1.0 / (1.0 + beta.exp())).abs() < 1e-6, "D at slope {beta}");
            let rate = functional(&p, &encoder, &q, &d, 0.0);
            assert!((rate - (h(share) - h(distortion))).abs() < 1e-6, "R at slope {beta}: {rate}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_small_alphabet_descends_to_one_value_that_nothing_beats(
        raw_p in proptest::collection::vec(0.05f64..1.0, 3),
        costs in proptest::collection::vec(0.0f64..2.0, 12),
        starts in proptest::collection::vec(0.05f64..1.0, 8),
        rival_q in proptest::collection::vec(0.05f64..1.0, 4),
        rival_rows in proptest::collection::vec(0.05f64..1.0, 12),
        beta in 0.2f64..6.0,
    ) {
        let p = normalised(&raw_p);
        let d: Vec<Vec<f64>> = costs.chunks(4).map(<[f64]>::to_vec).collect();
        let (encoder, q, value) = alternate(&p, &d, beta, &normalised(&starts[..4]));
        let (_, _, again) = alternate(&p, &d, beta, &normalised(&starts[4..]));
        // Jointly convex, so both starts approach the same infimum; convergence may be slow where a symbol dies.
        prop_assert!((value - again).abs() < 1e-4, "{value} {again}");
        prop_assert!(functional(&p, &encoder, &normalised(&rival_q), &d, beta) >= value - 1e-9);
        let rival: Encoder = rival_rows.chunks(4).map(normalised).collect();
        prop_assert!(functional(&p, &rival, &q, &d, beta) >= value - 1e-9);
    }
}
