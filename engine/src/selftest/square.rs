//! A black-box attack within a budget of queries, on a device's own answers: Square Attack (Andriushchenko et al. 2020), l_inf.
//!
//! It starts from vertical stripes at the ball's surface and tries squares, keeping one where the label's logit loses margin.
//! Memory holds the clean image and the squares that were kept, no second image: the perturbed one is painted anew for every
//! query. The draws are the seed's, so devices of equal bits end alike.

use super::Painter;
use crate::inference::Answer;
use crate::tensor::Shape;

/// Most squares that are kept, and so the largest budget.
pub const MAX_QUERIES: u16 = 64;

/// A hash of what was drawn before: SplitMix64's finaliser, upper half.
pub(super) fn mixed(seed: u32, at: u32) -> u32 {
    let mut z = (u64::from(seed) << 32 | u64::from(at)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 32) as u32
}

/// The attack on one image.
#[derive(Debug, Clone)]
pub struct Square<'a> {
    image: &'a [u8],
    shape: Shape,
    label: usize,
    eps: u8,
    seed: u32,
    budget: u16,
    queries: u16,
    best: f32,
    kept: [u16; MAX_QUERIES as usize],
    len: usize,
}

/// A square: its first row and column, and its side.
struct Patch {
    top: usize,
    left: usize,
    side: usize,
}

impl<'a> Square<'a> {
    /// An attack on a u8 image `[h][w][c]` of this label, at most `eps` away in every value, with so many queries, at most
    /// [`MAX_QUERIES`].
    pub fn new((image, shape): (&'a [u8], Shape), label: usize, eps: u8, budget: u16, seed: u32) -> Self {
        let budget = budget.min(MAX_QUERIES);
        let kept = [0; MAX_QUERIES as usize];
        Self { image, shape, label, eps, seed, budget, queries: 0, best: f32::INFINITY, kept, len: 0 }
    }

    /// The square of a query: large at first, halved in area at an eighth, a quarter and a half of the budget.
    fn patch(&self, query: u16) -> Patch {
        let halvings = [8, 4, 2].iter().filter(|part| query >= self.budget / **part).count();
        let (h, w) = (usize::from(self.shape.h), usize::from(self.shape.w));
        let share = [0.55f32, 0.39, 0.27, 0.19][halvings];
        let side = ((share * h.min(w) as f32) as usize).clamp(1, h.min(w));
        let draw = |k: u32, below: usize| mixed(self.seed, u32::from(query) * 8 + k) as usize % below;
        Patch { top: draw(0, h - side + 1), left: draw(1, w - side + 1), side }
    }

    /// One value, moved up or down as a bit says.
    fn moved(&self, at: usize, up: bool) -> u8 {
        if up { self.image[at].saturating_add(self.eps) } else { self.image[at].saturating_sub(self.eps) }
    }

    /// Paints the stripes, the squares that were kept, and one that is tried.
    pub(super) fn paint(&self, tried: Option<u16>, to: &mut [u8]) {
        let (w, c) = (usize::from(self.shape.w), usize::from(self.shape.c));
        for (at, value) in to.iter_mut().enumerate().take(self.image.len()) {
            let stripe = (at / c % w * c + at % c) as u32;
            *value = self.moved(at, mixed(self.seed ^ 0x5354_5249, stripe) & 1 == 1);
        }
        for query in self.kept[..self.len].iter().copied().chain(tried) {
            let Patch { top, left, side } = self.patch(query);
            let signs = mixed(self.seed, u32::from(query) * 8 + 2);
            for y in top..top + side {
                for x in left..left + side {
                    for channel in 0..c {
                        let at = (y * w + x) * c + channel;
                        to[at] = self.moved(at, signs >> (channel % 32) & 1 == 1);
                    }
                }
            }
        }
    }

    /// One query. `Some(true)` once the answer is another class, `Some(false)` when the budget is spent.
    ///
    /// # Errors
    /// If the device gives no answer.
    pub fn step<E>(&mut self, device: &mut dyn Painter<Error = E>) -> Result<Option<bool>, E> {
        if self.queries >= self.budget {
            return Ok(Some(false));
        }
        let tried = (self.queries > 0).then_some(self.queries);
        let (mut margin, mut class) = (f32::INFINITY, self.label);
        device.answer_painted(&mut |to| self.paint(tried, to), &mut |answer: &Answer| {
            let others = answer.logits.iter().enumerate().filter(|(i, _)| *i != self.label);
            let highest = others.fold(f32::NEG_INFINITY, |most, (_, logit)| most.max(*logit));
            margin = answer.logits.get(self.label).map_or(0.0, |own| own - highest);
            class = answer.class;
        })?;
        if margin < self.best {
            self.best = margin;
            if let Some(query) = tried {
                self.kept[self.len] = query;
                self.len += 1;
            }
        }
        self.queries += 1;
        Ok(if class != self.label { Some(true) } else { (self.queries == self.budget).then_some(false) })
    }
}
