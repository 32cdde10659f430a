//! Two minutes of random mutations of the corpus, on a stable toolchain without instrumentation, and the finds of the past.

use paradise_engine_fuzz::{Sequence, Verdict, description, input, judge};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the mutations go on; `PARADISE_FUZZ_SECONDS=1800` for a longer hunt, `make test-all` for two minutes.
fn duration() -> Duration {
    let seconds = std::env::var("PARADISE_FUZZ_SECONDS").ok().and_then(|n| n.parse().ok());
    Duration::from_secs(seconds.unwrap_or(10))
}

fn corpus() -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("a corpus").map(|e| e.expect("an entry").path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), std::fs::read(&path).expect("readable"))).collect()
}

/// A few changes, most of them before the tensors, where the meaning is, and most of them in place: what moves everything
/// behind it is refused at once.
fn mutate(data: &mut Vec<u8>, dice: &mut Sequence) {
    for _ in 0..1 + dice.below(4) {
        let end = if dice.below(4) == 0 { data.len() } else { description(data) };
        let at = dice.below(end);
        match dice.below(32) {
            0 => data[at] = [0, 1, 127, 128, 255][dice.below(5)],
            1 => data[at] ^= 1 << dice.below(8),
            2 => data[at] = data[at].wrapping_add([1, 255][dice.below(2)]),
            3 => data.truncate(at.max(1)),
            4 => data.insert(at, dice.next_u64() as u8),
            5 if data.len() > 1 => drop(data.remove(at)),
            6..=13 => data[at] = data[dice.below(data.len())],
            14..=21 => data[at] ^= 1 << dice.below(8),
            22..=27 => data[at] = data[at].wrapping_add([1, 255][dice.below(2)]),
            _ => data[at] = dice.next_u64() as u8,
        }
    }
}

#[test]
fn the_corpus_is_harmless() {
    let mut harmless = 0;
    for (path, data) in corpus() {
        println!("{}", path.display());
        harmless += usize::from(judge(&data) == Verdict::Harmless);
    }
    assert!(harmless > 3, "{harmless} of the corpus are valid");
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/fashion-mnist-small/model.pmq");
    let model = std::fs::read(shipped).expect("the shipped model");
    assert_eq!(judge(&input(&model).expect("sealed")), Verdict::Harmless);
}

#[test]
fn two_minutes_of_mutations_are_refused_or_harmless() {
    let corpus = corpus();
    let until = Instant::now() + duration();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let counts: Vec<[u64; 3]> = std::thread::scope(|scope| {
        let one = |seed: u64| {
            let corpus = &corpus;
            scope.spawn(move || {
                let mut counts = [0; 3];
                let mut dice = Sequence(seed);
                while Instant::now() < until {
                    let mut data = corpus[dice.below(corpus.len())].1.clone();
                    let state = dice.0;
                    mutate(&mut data, &mut dice);
                    let verdict = std::panic::catch_unwind(|| judge(&data));
                    let verdict = verdict.unwrap_or_else(|_| panic!("mutation {state:#x} of the corpus: {data:?}"));
                    counts[match verdict {
                        Verdict::Refused(_) => 0,
                        Verdict::Large => 1,
                        Verdict::Harmless => 2,
                    }] += 1;
                }
                counts
            })
        };
        let all: Vec<_> = (0..threads as u64).map(one).collect();
        all.into_iter().map(|t| t.join().expect("no panic")).collect()
    });
    let total = |k: usize| counts.iter().map(|c| c[k]).sum::<u64>();
    println!("{} refused, {} too large to run, {} harmless", total(0), total(1), total(2));
    assert!(total(0) > 100 && total(2) > 100, "{counts:?}");
}
