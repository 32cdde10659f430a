//! What pictures become, one line a file: name and CRC-32 of the input tensor under each policy, or why there is none. Run
//! on two machines over the same folder, it shows whether they see the same.
//!
//! `tensors DIR`

use paradise_engine::Shape;
use paradise_engine::golden::crc32_bytes;
use paradise_engine::image::{Geometry, ImagePolicy, Polarity};
use paradise_picture::{Picture, read};

fn main() -> std::io::Result<()> {
    let folder = std::env::args_os().nth(1).unwrap_or_else(|| ".".into());
    let mut files: Vec<_> = std::fs::read_dir(folder)?.map(|e| Ok(e?.path())).collect::<std::io::Result<_>>()?;
    files.sort();
    let geometries = [Geometry::Stretch, Geometry::Crop { parts: 8750 }, Geometry::Letterbox];
    let shapes = [Shape::new(32, 32, 3), Shape::new(28, 28, 1), Shape::new(20, 48, 3)];
    for path in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match read(&path).and_then(|bytes| Picture::decode(&bytes)) {
            Err(error) => println!("{name} refused: {error}"),
            Ok(picture) => {
                let mut line = format!("{name} {} x {}", picture.width(), picture.height());
                for (i, shape) in shapes.iter().enumerate() {
                    for (k, geometry) in geometries.into_iter().enumerate() {
                        let polarity = if (i + k) % 2 == 0 { Polarity::AsTaken } else { Polarity::Inverted };
                        match picture.input(&ImagePolicy { geometry, polarity }, *shape) {
                            Ok(input) => line += &format!(" {:08x}", crc32_bytes(&input)),
                            Err(error) => line += &format!(" {error}"),
                        }
                    }
                }
                println!("{line}");
            }
        }
    }
    Ok(())
}
