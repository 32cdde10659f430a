//! The part of a camera's picture that is looked at, in pixels of the picture as it comes.

use paradise_picture::Picture;
use serde::{Deserialize, Serialize};

/// A rectangle: its left upper corner is at column `x`, row `y`. Written as `[x, y, width, height]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "[u32; 4]", into = "[u32; 4]")]
pub struct Region {
    x: u32,
    y: u32,
    width: u32,
    height: u32,
}

/// Smallest side of a region, pixels.
pub const MIN_SIDE: u32 = 8;

impl TryFrom<[u32; 4]> for Region {
    type Error = String;

    fn try_from([x, y, width, height]: [u32; 4]) -> Result<Self, String> {
        if width < MIN_SIDE || height < MIN_SIDE {
            return Err(format!("a region is [x, y, width, height] with sides of at least {MIN_SIDE} pixels"));
        }
        if x.checked_add(width).is_none() || y.checked_add(height).is_none() {
            return Err("a region reaches beyond any picture".into());
        }
        Ok(Self { x, y, width, height })
    }
}

impl From<Region> for [u32; 4] {
    fn from(Region { x, y, width, height }: Region) -> Self {
        [x, y, width, height]
    }
}

impl Region {
    /// The part of a picture; nothing if the region is not inside of it.
    ///
    /// ```
    /// use paradise_picture::Picture;
    /// use paradise_runtime::camera::region::Region;
    /// let grey = [b"P5 20 10 255\n".to_vec(), vec![7; 200]].concat();
    /// let picture = Picture::decode(&grey)?;
    /// let region: Region = [10, 1, 9, 8].try_into()?;
    /// assert_eq!(region.of(&picture).unwrap().width(), 9);
    /// let outside: Region = [15, 0, 9, 8].try_into()?;
    /// assert!(outside.of(&picture).is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn of(&self, picture: &Picture) -> Option<Picture> {
        let inside = self.x + self.width <= picture.width() && self.y + self.height <= picture.height();
        inside.then(|| picture.part(self.x, self.y, self.width, self.height))
    }
}

impl std::fmt::Display for Region {
    /// `320 x 240 at (10, 20)`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} x {} at ({}, {})", self.width, self.height, self.x, self.y)
    }
}
