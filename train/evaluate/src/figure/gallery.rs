//! Rows of small pictures with captions.

use super::{Area, failed};
use anyhow::{Result, ensure};
use paradise_engine::Shape;
use plotters::prelude::*;

/// A picture and what is written under it.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// u8 `[h][w][c]`.
    pub pixels: Vec<u8>,
    /// Its extents; one channel is grey, three are colours.
    pub shape: Shape,
    /// One line; empty for none.
    pub caption: String,
}

/// A row of pictures under a common name.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// To the left, in lines.
    pub name: String,
    /// From left to right.
    pub cells: Vec<Cell>,
}

const GAP: u32 = 14;
const CAPTION: u32 = 24;
const LEFT: u32 = 210;

/// The rows as a PNG, each picture `side` pixels high and wide.
///
/// # Errors
/// If there is no picture, one has the wrong number of pixels, or drawing fails.
pub fn draw(rows: &[Row], title: &str, side: u32) -> Result<Vec<u8>> {
    let columns = rows.iter().map(|r| r.cells.len()).max().unwrap_or(0) as u32;
    ensure!(columns > 0, "no picture to draw");
    for cell in rows.iter().flat_map(|r| &r.cells) {
        ensure!(cell.pixels.len() == cell.shape.len() as usize, "{} pixels for {:?}", cell.pixels.len(), cell.shape);
    }
    let (width, height) = (LEFT + columns * (side + GAP) + GAP, 80 + rows.len() as u32 * (side + CAPTION + GAP));
    super::page(width.max(620), height, title, |page| {
        for (r, row) in rows.iter().enumerate() {
            let y = 8 + r as i32 * (side + CAPTION + GAP) as i32;
            let lines = row.name.lines().count() as i32;
            for (k, line) in row.name.lines().enumerate() {
                let at = (14, y + side as i32 / 2 - 11 * lines + 22 * k as i32);
                page.draw(&Text::new(line.to_string(), at, ("sans-serif", 19).into_font())).map_err(failed)?;
            }
            for (k, cell) in row.cells.iter().enumerate() {
                let x = (LEFT + k as u32 * (side + GAP)) as i32;
                picture(page, x, y, side as usize, cell)?;
                let caption = Text::new(cell.caption.clone(), (x, y + side as i32 + 4), ("sans-serif", 16));
                page.draw(&caption).map_err(failed)?;
            }
        }
        Ok(())
    })
}

/// One picture, `side` pixels high and wide, its upper left corner at (x, y).
pub(super) fn picture(area: &Area, x: i32, y: i32, side: usize, cell: &Cell) -> Result<()> {
    let [h, w, c] = [cell.shape.h, cell.shape.w, cell.shape.c].map(|v| v as usize);
    for py in 0..side {
        for px in 0..side {
            let at = (py * h / side * w + px * w / side) * c;
            let [r, g, b] = if c == 3 { [0, 1, 2] } else { [0, 0, 0] }.map(|k| cell.pixels[at + k]);
            area.draw_pixel((x + px as i32, y + py as i32), &RGBColor(r, g, b)).map_err(failed)?;
        }
    }
    Ok(())
}

/// A change as a picture: mid-grey is none, full contrast `reach` in 1/255.
pub fn difference(from: &[u8], to: &[u8], reach: f32) -> Vec<u8> {
    let one = |(a, b): (&u8, &u8)| {
        let change = (f32::from(*b) - f32::from(*a)) * 127.0 / reach.max(1.0);
        (128.0 + change).clamp(0.0, 255.0) as u8
    };
    from.iter().zip(to).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_a_picture() {
        let shape = Shape::new(2, 2, 3);
        let cell = Cell { pixels: vec![200, 0, 0, 0, 200, 0, 0, 0, 200, 9, 9, 9], shape, caption: "four".into() };
        let rows = [Row { name: "colours".into(), cells: vec![cell.clone(), cell.clone()] }];
        let picture = image::load_from_memory(&draw(&rows, "t", 112).unwrap()).unwrap().to_rgb8();
        for colour in [[200, 0, 0], [0, 200, 0], [0, 0, 200]] {
            assert_eq!(picture.pixels().filter(|p| p.0 == colour).count(), 2 * 56 * 56);
        }
        let short = Cell { pixels: vec![1], ..cell };
        assert!(draw(&[Row { name: String::new(), cells: vec![short] }], "", 112).is_err());
        assert!(draw(&[], "", 112).is_err());
        assert_eq!(difference(&[10, 10, 10], &[10, 18, 2], 8.0), [128, 255, 1]);
    }
}
