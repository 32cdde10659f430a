//! Which pictures of a stream are worth an inference: JPEG pictures one after the other on standard input.
//!
//!     ffmpeg -i film.mp4 -f mjpeg - | cargo run --release --example watch_camera

use paradise_picture::Picture;
use paradise_runtime::camera::gate::{Gate, SIDE, Settings};
use paradise_runtime::camera::mjpeg::Splitter;
use std::error::Error;
use std::io::Read;
use std::time::{Duration, Instant};

/// Between two pictures of the stream.
const FRAME: Duration = Duration::from_millis(100);

fn main() -> Result<(), Box<dyn Error>> {
    let (mut splitter, mut gate) = (Splitter::default(), Gate::new(Settings::default()));
    let (mut buffer, mut now, mut number) = (vec![0; 64 << 10], Instant::now(), 0);
    let mut input = std::io::stdin().lock();
    loop {
        let read = input.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        splitter.push(&buffer[..read], &mut |file| {
            number += 1;
            now += FRAME;
            match Picture::decode(&file) {
                // A few hundred means are enough to see that something moves.
                Ok(picture) if gate.passes(&picture.means::<SIDE, { SIDE * SIDE }>(), now) => {
                    gate.took(now);
                    println!("picture {number}: look at this one");
                }
                Ok(_) => {}
                Err(error) => println!("picture {number}: {error}"),
            }
        });
    }
    println!("{number} pictures, {} worth a look", gate.counts().passed);
    Ok(())
}
