//! A minute of random mutations of pictures of every format, on a stable toolchain without instrumentation.

use paradise_engine_fuzz::Sequence;
use paradise_picture::{MAX_DECODED, MAX_REFUSED, PictureError};
use paradise_picture_fuzz::{Verdict, judge, seeds};
use std::time::{Duration, Instant};

/// How long the mutations go on; `PARADISE_FUZZ_SECONDS=1800` for a longer hunt, `make test-all` for two minutes.
fn duration() -> Duration {
    let seconds = std::env::var("PARADISE_FUZZ_SECONDS").ok().and_then(|n| n.parse().ok());
    Duration::from_secs(seconds.unwrap_or(10))
}

fn mutate(data: &mut Vec<u8>, others: &[Vec<u8>], dice: &mut Sequence) {
    for _ in 0..1 + dice.below(5) {
        if data.is_empty() {
            return;
        }
        // Half of the changes are in headers.
        let end = if dice.below(2) == 0 { data.len() } else { data.len().min(160) };
        let at = dice.below(end);
        match dice.below(12) {
            0 => data[at] = [0, 1, 0x7f, 0x80, 0xff, 0xd8, 0xd9, 0xda, 0xc2, 0xc4][dice.below(10)],
            1..=3 => data[at] ^= 1 << dice.below(8),
            4 => data[at] = data[at].wrapping_add([1, 255][dice.below(2)]),
            5 => data.truncate(at),
            6 => data.insert(at, dice.next_u64() as u8),
            7 => drop(data.remove(at)),
            8 => {
                let piece = data[at..(at + 1 + dice.below(40)).min(data.len())].to_vec();
                let to = dice.below(data.len());
                data.splice(to..to, piece);
            }
            9 => {
                let other = &others[dice.below(others.len())];
                let from = dice.below(other.len());
                data.truncate(at);
                data.extend_from_slice(&other[from..]);
            }
            _ => data[at] = dice.next_u64() as u8,
        }
    }
}

#[test]
fn the_seeds_are_pictures() {
    for (i, seed) in seeds().iter().enumerate() {
        assert!(matches!(judge(seed), Verdict::Seen), "seed {i}: {:?}", judge(seed));
    }
}

#[test]
fn a_minute_of_mutations_is_refused_or_seen() {
    let (seeds, until) = (seeds(), Instant::now() + duration());
    let (mut refused, mut seen, mut gave_up, mut most) = (0u64, 0u64, 0u64, 0u64);
    let mut dice = Sequence(5);
    while Instant::now() < until {
        let state = dice.0;
        let mut data = seeds[dice.below(seeds.len())].clone();
        mutate(&mut data, &seeds, &mut dice);
        let mut verdict = None;
        let used = allocation_counter::measure(|| verdict = Some(judge(&data)));
        let limit = match verdict.expect("a verdict") {
            Verdict::Refused(error) => {
                refused += 1;
                let contained = matches!(&error, PictureError::Decode(why) if why.contains("gave up"));
                gave_up += u64::from(contained);
                most = most.max(used.bytes_max);
                MAX_REFUSED
            }
            // Deeper pixels are rounded to 8 bits, a picture on its side is turned: it is held twice.
            Verdict::Seen => {
                seen += 1;
                2 * MAX_DECODED + MAX_REFUSED
            }
        };
        assert!(used.bytes_max <= limit, "mutation {state:#x}: {} bytes", used.bytes_max);
    }
    println!("{refused} refused ({gave_up} by a panic of their decoder, contained), {seen} seen");
    println!("at most {} KiB for what was refused", most / 1024);
    assert!(refused > 100 && seen > 100, "{refused} refused, {seen} seen");
}
