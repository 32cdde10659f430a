//! One way from a file to an input: trainer and device agree to the byte, here and on aarch64, and with Pillow's route within
//! rounding; what is not a whole picture is refused, cheaply.

use paradise_data::picture::Policy;
use paradise_engine::Shape;
use paradise_engine::image::{Geometry, ImagePolicy, Polarity};
use paradise_picture::{Picture, PictureError, read};
use paradise_tests::{program, python, root, skipped, text};
use serde::Deserialize;
use std::fs;
use std::path::Path;
use std::process::Command;

#[derive(Deserialize)]
struct Listed {
    name: String,
    tolerance: f32,
    opaque: bool,
}

/// Those of `pictures.py`.
fn policies() -> [(ImagePolicy, Shape); 3] {
    let of = |geometry, polarity| ImagePolicy { geometry, polarity };
    [
        (of(Geometry::Stretch, Polarity::AsTaken), Shape::new(32, 32, 3)),
        (of(Geometry::Crop { parts: 8750 }, Polarity::LightOnDark), Shape::new(28, 28, 1)),
        (of(Geometry::Letterbox, Polarity::Inverted), Shape::new(20, 48, 3)),
    ]
}

#[test]
fn five_hundred_pictures_are_the_same_everywhere() {
    if skipped("python", "five_hundred_pictures_are_the_same_everywhere") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    python("pictures.py", &[&folder.path().to_string_lossy()]);
    let all = folder.path().join("all");
    equal_pillows(folder.path(), &all);
    whole_or_refused(&folder.path().join("cut"));
    if !skipped("aarch64", "pictures on aarch64") {
        equal_on_aarch64(&all);
    }
}

fn equal_pillows(folder: &Path, all: &Path) {
    let listed: Vec<Listed> =
        serde_json::from_slice(&fs::read(folder.join("truth.json")).expect("written")).expect("a list");
    assert_eq!(listed.len(), 500);
    let truth = fs::read(folder.join("truth.f32")).expect("written");
    let mut truth = truth.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
    for Listed { name, tolerance, opaque } in listed {
        let path = all.join(&name);
        let bytes = read(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
        for (k, (image, shape)) in policies().into_iter().enumerate() {
            // The device's way, and the trainer's.
            let ours = paradise_picture::input(&bytes, &image, shape).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(ours, Policy { shape, image }.seen(&path).expect("a picture"), "{name}");
            let theirs: Vec<f32> = truth.by_ref().take(ours.len()).collect();
            // Inverted pictures are over black, too: where the picture is transparent Pillow's route knows white.
            if image.polarity == Polarity::Inverted && !opaque {
                continue;
            }
            let gaps = ours.iter().zip(&theirs).map(|(a, b)| (f32::from(*a) - b).abs());
            let (sum, widest) = gaps.fold((0.0, 0.0f32), |(s, m), g| (s + g, m.max(g)));
            let mean = sum / ours.len() as f32;
            // Lossy decoders upsample chroma in different ways: single pixels may differ, the picture may not.
            // Luma is rounded once more, before the resize.
            let most = if tolerance > 1.0 {
                40.0
            } else if shape.c == 1 {
                1.75
            } else {
                1.01
            };
            assert!(mean <= tolerance && widest <= most, "{name}, policy {k}: mean {mean}, widest {widest}");
        }
    }
    assert!(truth.next().is_none());
}

/// Files by what their names say of them.
fn whole_or_refused(cut: &Path) {
    let mut counts = [0, 0];
    for entry in fs::read_dir(cut).expect("written") {
        let path = entry.expect("an entry").path();
        let whole = path.to_string_lossy().contains("-whole.");
        let decoded = Picture::decode(&read(&path).expect("readable"));
        assert_eq!(decoded.is_ok(), whole, "{}: {:?}", path.display(), decoded.err());
        counts[usize::from(whole)] += 1;
    }
    assert!(counts[0] > 100 && counts[1] > 50, "{counts:?}");
}

fn equal_on_aarch64(all: &Path) {
    let theirs = root().join("target/aarch64/aarch64-unknown-linux-gnu/release/examples/tensors");
    assert!(theirs.exists(), "{} is missing: run `make aarch64`, or set PARADISE_SKIP=aarch64", theirs.display());
    let said = |command: &mut Command| {
        let output = command.output().expect("it starts");
        assert!(output.status.success(), "{}", text(&output).1);
        text(&output).0
    };
    let here = said(program("examples/tensors").arg(all));
    let there = said(Command::new("qemu-aarch64").args(["-L", "/usr/aarch64-linux-gnu"]).arg(theirs).arg(all));
    assert_eq!(here.lines().count(), 500);
    for (a, b) in here.lines().zip(there.lines()) {
        assert_eq!(a, b);
    }
    assert_eq!(here, there);
}

/// A file that other decoders open and that zune-jpeg alone panics at: an Adobe segment of a grey progressive JPEG.
const ADOBE: &[u8] = include_bytes!("../golden/progressive-app14.jpg");

#[test]
fn a_grey_jpeg_with_an_adobe_segment_is_a_picture() {
    let picture = Picture::decode(ADOBE).expect("whole");
    assert_eq!((picture.width(), picture.height()), (56, 56));
}

fn png(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    bytes.extend([width.to_be_bytes(), height.to_be_bytes()].concat());
    bytes.extend([16, 6, 0, 0, 0]);
    let crc = crc32fast::hash(&bytes[12..]).to_be_bytes();
    bytes.extend(crc);
    bytes.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
    bytes
}

/// Headers that promise more than there is, and formats that hold little in many pixels.
fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    let jpeg = |frame: u8| {
        let mut bytes = vec![0xff, 0xd8, 0xff, frame, 0, 17, 8, 0x20, 0, 0x20, 0, 3];
        bytes.extend([1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0]);
        bytes.extend([0xff, 0xda, 0, 12, 3, 1, 0, 2, 0, 3, 0, 0, if frame == 0xc2 { 0 } else { 63 }, 0]);
        bytes.extend([0x55; 300]);
        bytes
    };
    let mut gif = b"GIF89a\x00\x20\x00\x20\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\x00\x20\x00\x20\0\x02\x02\x44".to_vec();
    gif.extend([1; 40]);
    let mut bmp = vec![0u8; 54];
    bmp[..2].copy_from_slice(b"BM");
    (bmp[10], bmp[14], bmp[26], bmp[28]) = (54, 40, 1, 32);
    bmp[18..26].copy_from_slice(&[[0, 0x20, 0, 0], [0, 0x20, 0, 0]].concat());
    let mut qoi = b"qoif\0\0\x20\0\0\0\x20\0\x04\0".to_vec();
    qoi.extend([0xfd; 60]);
    vec![
        ("png", png(8192, 8192)),
        ("png, larger", png(60_000, 60_000)),
        ("jpeg", jpeg(0xc0)),
        ("jpeg, progressive", jpeg(0xc2)),
        ("gif", gif),
        ("bmp", bmp),
        ("qoi", qoi),
        ("pnm", b"P6 8192 8192 255\nxyz".to_vec()),
        ("pnm, larger", b"P6 4000000000 4000000000 255\nxyz".to_vec()),
    ]
}

#[test]
fn what_is_refused_takes_a_bounded_memory() {
    for (name, bytes) in hostile() {
        let mut outcome = Ok(());
        let used = allocation_counter::measure(|| outcome = Picture::decode(&bytes).map(drop));
        let why = outcome.expect_err(name);
        println!("{name}: {} bytes refused with {} KiB at most: {why}", bytes.len(), used.bytes_max / 1024);
        assert!(used.bytes_max <= paradise_picture::MAX_REFUSED, "{name}: {} bytes", used.bytes_max);
        assert!(!matches!(why, PictureError::Unknown(_)), "{name} is not known as what it is");
    }
}

/// Pictures of every format that the image crate writes, of several kinds of pixels.
fn written() -> Vec<(String, Vec<u8>)> {
    use image::{DynamicImage, ImageFormat};
    let colour = image::RgbImage::from_fn(700, 501, |x, y| image::Rgb([x as u8, y as u8, (x * y) as u8]));
    let colour = DynamicImage::ImageRgb8(colour);
    let kinds = [
        ("rgb", colour.clone()),
        ("grey", DynamicImage::ImageLuma8(colour.to_luma8())),
        ("rgba", DynamicImage::ImageRgba8(colour.to_rgba8())),
        ("rgb 16", DynamicImage::ImageRgb16(colour.to_rgb16())),
        ("rgba 16", DynamicImage::ImageRgba16(colour.to_rgba16())),
    ];
    let formats = [
        ImageFormat::Png,
        ImageFormat::Jpeg,
        ImageFormat::WebP,
        ImageFormat::Tiff,
        ImageFormat::Bmp,
        ImageFormat::Gif,
        ImageFormat::Pnm,
        ImageFormat::Qoi,
        ImageFormat::Tga,
    ];
    let mut all = Vec::new();
    for (kind, picture) in &kinds {
        for format in formats {
            let mut bytes = std::io::Cursor::new(Vec::new());
            // Not every format has every kind.
            if picture.write_to(&mut bytes, format).is_ok() {
                all.push((format!("{format:?} {kind}"), bytes.into_inner()));
            }
        }
    }
    assert!(all.len() > 20, "{}", all.len());
    // Turned on its side by EXIF.
    let jpeg = all.iter().find(|(name, _)| name == "Jpeg rgb").map(|(_, bytes)| bytes.clone()).unwrap();
    let exif = b"\xff\xe1\0\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    all.push(("Jpeg turned".into(), [&jpeg[..2], &exif[..], &jpeg[2..]].concat()));
    let progressive = std::fs::read(paradise_tests::root().join("tests/golden/progressive-app14.jpg")).unwrap();
    all.push(("Jpeg progressive".into(), progressive));
    all
}

#[test]
fn no_picture_takes_more_memory_than_its_headers_say() {
    for (name, bytes) in written() {
        let most = Picture::memory(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut outcome = Ok(());
        let used = allocation_counter::measure(|| outcome = Picture::decode(&bytes).map(drop));
        outcome.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(used.bytes_max <= most, "{name}: {} bytes, {most} were said", used.bytes_max);
    }
    let [height, width] =
        Picture::size(&written().iter().find(|(name, _)| name == "Jpeg turned").unwrap().1).unwrap();
    assert_eq!((height, width), (700, 501), "it is turned");
}

#[test]
fn a_cut_jpeg_is_refused_before_its_pixels_have_room() {
    let side = 4096;
    let picture = image::GrayImage::from_fn(side, side, |x, y| image::Luma([(x ^ y) as u8]));
    let mut bytes = Vec::new();
    image::codecs::jpeg::JpegEncoder::new(&mut bytes).encode_image(&picture).expect("encodes");
    let mut outcome = Ok(());
    let cut = &bytes[..bytes.len() * 9 / 10];
    let used = allocation_counter::measure(|| outcome = Picture::decode(cut).map(drop));
    assert!(matches!(outcome, Err(PictureError::EndsEarly)), "{outcome:?}");
    assert!(used.bytes_max < 3 * bytes.len() as u64 + 65_536, "{} bytes", used.bytes_max);
    assert!(Picture::decode(&bytes).is_ok());
}

/// A camera's frame brings no Huffman tables.
#[test]
fn the_usual_tables_are_filled_in() {
    let picture = image::RgbImage::from_fn(40, 24, |x, y| image::Rgb([(x * 6) as u8, (y * 9) as u8, 90]));
    let mut whole = Vec::new();
    image::codecs::jpeg::JpegEncoder::new(&mut whole).encode_image(&picture).expect("encodes");
    let mut bare = Vec::new();
    let mut rest = &whole[..];
    // The encoder writes the usual tables, so a file without them is the same picture.
    while rest.len() > 4 {
        if rest[..2] == [0xff, 0xc4] {
            let length = 2 + usize::from(u16::from_be_bytes([rest[2], rest[3]]));
            rest = &rest[length..];
        } else if rest[..2] == [0xff, 0xda] {
            bare.extend_from_slice(rest);
            break;
        } else {
            bare.push(rest[0]);
            rest = &rest[1..];
        }
    }
    assert!(bare.len() + 400 < whole.len());
    assert_eq!(Picture::decode(&bare).expect("whole"), Picture::decode(&whole).expect("whole"));
}
