//! A cheap look at each frame before the network sees it: has anything moved in the region since the last one that was classified?

use std::time::{Duration, Instant};

/// Rows and columns of the cells that are compared, each the mean luma of its part of the region.
pub const SIDE: usize = 16;
/// Cells of a frame, as [`paradise_picture::Picture::means`] gives them.
pub type Cells = [u8; SIDE * SIDE];

/// When frames pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// A cell has changed if it differs by so much, of 255, once the change of the whole region's light is taken off...
    pub levels: f32,
    /// ... or by so many times what cells differ by when nothing happens, if that is more.
    pub noises: f32,
    /// So many changed cells are a change.
    pub cells: usize,
    /// After a change, so many frames are classified besides the first, until a decision is steady.
    pub follow: u32,
    /// A frame passes at least this often, so that answers do not expire.
    pub refresh: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { levels: 8.0, noises: 6.0, cells: 2, follow: 5, refresh: Duration::from_secs(5) }
    }
}

/// Frames that were looked at, and how many of them were classified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Looked at.
    pub frames: u64,
    /// Classified.
    pub passed: u64,
    /// In which something had changed.
    pub changes: u64,
}

/// The gate.
///
/// ```
/// use paradise_runtime::camera::gate::{Gate, SIDE, Settings};
/// use std::time::Instant;
/// let (mut gate, now) = (Gate::new(Settings::default()), Instant::now());
/// let empty = [90; SIDE * SIDE];
/// // The first frames pass, then nothing does until something comes.
/// let mut passed = 0;
/// while gate.passes(&empty, now) {
///     gate.took(now);
///     passed += 1;
/// }
/// assert_eq!(passed, 6);
/// let mut there = empty;
/// there[100..104].fill(200);
/// assert!(gate.passes(&there, now));
/// ```
#[derive(Debug)]
pub struct Gate {
    settings: Settings,
    /// What the region looks like; it follows slow changes.
    usual: Option<[f32; SIDE * SIDE]>,
    /// What cells differ by when nothing happens, on average.
    noise: f32,
    left: u32,
    last: Option<Instant>,
    counts: Counts,
}

/// What a frame adds to what is usual.
const FOLLOWS: f32 = 1.0 / 16.0;

impl Gate {
    /// A gate that has seen nothing.
    pub fn new(settings: Settings) -> Self {
        Self { settings, usual: None, noise: 0.0, left: 0, last: None, counts: Counts::default() }
    }

    /// Looks at a frame: whether it is to be classified. If it is, [`Gate::took`] follows.
    pub fn passes(&mut self, cells: &Cells, now: Instant) -> bool {
        self.counts.frames += 1;
        let is_change = self.changes(cells);
        if is_change {
            self.counts.changes += 1;
            self.begin();
        }
        let is_due = self.last.is_none_or(|last| now.saturating_duration_since(last) >= self.settings.refresh);
        is_due || self.left > 0
    }

    /// A frame was classified, because it passed or for another reason.
    pub fn took(&mut self, now: Instant) {
        self.left = self.left.saturating_sub(1);
        self.last = Some(now);
        self.counts.passed += 1;
    }

    /// Lets frames pass as after a change: what was known is forgotten.
    pub fn begin(&mut self) {
        self.left = self.settings.follow + 1;
    }

    /// Whether frames pass because something has changed.
    pub fn is_following(&self) -> bool {
        self.left > 0
    }

    /// What passed.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether a frame shows something else than what is usual; what it shows becomes that, at once or little by little.
    fn changes(&mut self, cells: &Cells) -> bool {
        let Some(usual) = &mut self.usual else {
            self.usual = Some(cells.map(f32::from));
            return true;
        };
        let mut differences: [f32; SIDE * SIDE] = std::array::from_fn(|i| f32::from(cells[i]) - usual[i]);
        let mut sorted = differences;
        sorted.sort_by(f32::total_cmp);
        // A lamp that flickers, an exposure that follows: all cells alike.
        let light = sorted[sorted.len() / 2];
        differences.iter_mut().for_each(|d| *d = (*d - light).abs());
        let limit = self.settings.levels.max(self.settings.noises * self.noise);
        let changed = differences.iter().filter(|d| **d > limit).count();
        if changed >= self.settings.cells {
            *usual = cells.map(f32::from);
            return true;
        }
        let mean = differences.iter().sum::<f32>() / differences.len() as f32;
        self.noise += (mean - self.noise) * FOLLOWS;
        usual.iter_mut().zip(cells).for_each(|(usual, cell)| *usual += (f32::from(*cell) - *usual) * FOLLOWS);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A scene of a camera with noise and flicker, and an object that comes and goes.
    struct Scene {
        rng: fastrand::Rng,
        still: Vec<f32>,
    }

    impl Scene {
        fn new(seed: u64) -> Self {
            let mut rng = fastrand::Rng::with_seed(seed);
            let still = (0..SIDE * SIDE).map(|_| 40.0 + 150.0 * rng.f32()).collect();
            Self { rng, still }
        }

        /// A frame; the object covers so many rows and columns of cells from a corner.
        fn frame(&mut self, object: Option<(usize, usize)>) -> Cells {
            let flicker = 1.0 + 0.06 * (self.rng.f32() - 0.5);
            std::array::from_fn(|i| {
                let (row, column) = (i / SIDE, i % SIDE);
                let covered = object.is_some_and(|(side, at)| row < side && (at..at + side).contains(&column));
                let light = if covered { 255.0 - self.still[i] } else { self.still[i] };
                // The mean of hundreds of pixels has little noise left.
                let noise = 1.2 * (self.rng.f32() + self.rng.f32() - 1.0);
                (light * flicker + noise).clamp(0.0, 255.0) as u8
            })
        }
    }

    /// Every frame that passes is classified.
    fn pass(gate: &mut Gate, cells: &Cells, now: Instant) -> bool {
        let passes = gate.passes(cells, now);
        if passes {
            gate.took(now);
        }
        passes
    }

    #[test]
    fn a_still_scene_is_skipped_and_no_change_is_missed() {
        let start = Instant::now();
        let at = |frame: u32| start + Duration::from_millis(200) * frame;
        for seed in 0..5 {
            let (mut scene, mut gate) = (Scene::new(seed), Gate::new(Settings::default()));
            // Five minutes at five frames a second.
            for frame in 0..1500 {
                pass(&mut gate, &scene.frame(None), at(frame));
            }
            let Counts { frames, passed, .. } = gate.counts();
            assert!(passed * 20 <= frames, "{passed} of {frames} passed");
            // Something comes and goes, of a few cells, here and there.
            for change in 0..100u32 {
                let there = (change % 2 == 0).then_some((3, (change as usize * 5) % (SIDE - 3)));
                let before = gate.counts().changes;
                for frame in 0..20 {
                    let passes = pass(&mut gate, &scene.frame(there), at(1500 + 20 * change + frame));
                    assert!(frame > 0 || passes, "change {change} was missed");
                }
                assert!(gate.counts().changes > before, "change {change} was missed");
            }
        }
    }

    #[test]
    fn slow_light_is_followed_and_a_frame_passes_now_and_then() {
        let start = Instant::now();
        let mut gate = Gate::new(Settings::default());
        let mut passed = Vec::new();
        for frame in 0..600u32 {
            let light = 60 + (frame / 10) as u8;
            let now = start + Duration::from_millis(200) * frame;
            let cells = std::array::from_fn(|i| light + (i % 7) as u8 * (1 + (frame / 300) as u8));
            if pass(&mut gate, &cells, now) {
                passed.push(frame);
            }
        }
        // Every five seconds, but for the first and the one step.
        let gaps: Vec<u32> = passed.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| *gap <= 25) && passed.len() < 60, "{gaps:?}");
    }
}
