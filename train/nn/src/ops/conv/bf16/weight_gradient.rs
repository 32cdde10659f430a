//! The gradient of a convolution's weights, one image at a time.
//!
//! `dw[tap][i][o] += sum_p x[tap offset + p][i] dy[p][o]`: pixels are the depth of the products, so the image is turned
//! over, channel by channel, and neighbouring pixels of the gradient are put side by side.

use super::planes::Planes;
use super::tiles::{SIDE, STEP};
use super::{Conv, bf16_mut};
use std::cell::RefCell;

thread_local! {
    /// The image and its gradient as products read them.
    static ROOM: RefCell<[Vec<f32>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// Pixels of a channel of a plane that was turned over.
fn turned_pitch(x: &Planes) -> usize {
    x.places().next_multiple_of(SIDE)
}

type Block = [[u16; SIDE]; SIDE];

/// `x[place][32]` of every block and plane as `[32][place]`.
#[inline(always)]
fn turn(x: &Planes, from: &[u16], to: &mut [u16], transpose: impl Fn(&mut Block)) {
    let (places, pitch) = (x.places(), turned_pitch(x));
    for (from, to) in from.chunks_exact(places * SIDE).zip(to.chunks_exact_mut(pitch * SIDE)) {
        for (k, from) in from.as_chunks::<SIDE>().0.chunks(SIDE).enumerate() {
            let mut block = [[0; SIDE]; SIDE];
            block[..from.len()].copy_from_slice(from);
            transpose(&mut block);
            for (c, row) in block.iter().enumerate() {
                to[c * pitch + k * SIDE..][..SIDE].copy_from_slice(row);
            }
        }
    }
}

fn transpose(block: &mut Block) {
    let from = *block;
    for (i, row) in block.iter_mut().enumerate() {
        *row = from.map(|column| column[i]);
    }
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use super::{Block, SIDE};
    use std::arch::x86_64::{
        __m512i, _mm512_mask_blend_epi16, _mm512_permutex2var_epi32, _mm512_slli_epi32, _mm512_srli_epi32,
    };

    /// For rows `i` and `i + 2 D`: the first with the squares of its off-diagonal from the second, and the reverse.
    const fn orders<const D: usize>() -> [[u32; 16]; 2] {
        let mut orders = [[0; 16]; 2];
        let mut j = 0;
        while j < 16 {
            let own = j & D == 0;
            orders[0][j] = (if own { j } else { 16 + (j ^ D) }) as u32;
            orders[1][j] = (if own { j ^ D } else { 16 + j }) as u32;
            j += 1;
        }
        orders
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn swap<const D: usize>(rows: &mut [__m512i; SIDE]) {
        // SAFETY: 64 bytes of integers, whatever they are.
        let [low, high] = const { orders::<D>() }.map(|o| unsafe { std::mem::transmute::<[u32; 16], __m512i>(o) });
        for i in 0..SIDE {
            if i & (2 * D) == 0 {
                let (a, b) = (rows[i], rows[i + 2 * D]);
                rows[i] = _mm512_permutex2var_epi32(a, low, b);
                rows[i + 2 * D] = _mm512_permutex2var_epi32(a, high, b);
            }
        }
    }

    /// Swaps ever larger off-diagonal squares: single values, then two of them at a time.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    pub fn transpose(block: &mut Block) {
        // SAFETY: both are 32 rows of 64 bytes of integers.
        let mut rows = unsafe { std::mem::transmute::<Block, [__m512i; SIDE]>(*block) };
        for i in (0..SIDE).step_by(2) {
            let (a, b) = (rows[i], rows[i + 1]);
            rows[i] = _mm512_mask_blend_epi16(0xaaaa_aaaa, a, _mm512_slli_epi32::<16>(b));
            rows[i + 1] = _mm512_mask_blend_epi16(0xaaaa_aaaa, _mm512_srli_epi32::<16>(a), b);
        }
        swap::<1>(&mut rows);
        swap::<2>(&mut rows);
        swap::<4>(&mut rows);
        swap::<8>(&mut rows);
        // SAFETY: as above.
        *block = unsafe { std::mem::transmute::<[__m512i; SIDE], Block>(rows) };
    }
}

/// `dy[place][32]` of every block, from the first output pixel on, as `[pair of places][32][2]`.
#[inline(always)]
fn pair(dy: &Planes, places: usize, from: &[u16], to: &mut [u16]) {
    let first = dy.at(dy.margin[0], dy.margin[1]).1;
    let each = places.next_multiple_of(SIDE) * SIDE;
    for (from, to) in from.chunks_exact(dy.block_len()).zip(to.chunks_exact_mut(each)) {
        // Between the rows and beyond the last output pixel there are zeros only.
        let from = from[first * SIDE..][..each].as_chunks::<{ 2 * SIDE }>().0;
        for (pair, to) in from.iter().zip(to.as_chunks_mut::<{ 2 * SIDE }>().0) {
            for i in 0..SIDE {
                to[2 * i] = pair[i];
                to[2 * i + 1] = pair[SIDE + i];
            }
        }
    }
}

/// Both operands, by the vectors that stand beside the tiles.
fn arrange(conv: &Conv, places: usize, [x, dy]: [&[u16]; 2], [turned, paired]: [&mut [u16]; 2]) {
    #[cfg(target_arch = "x86_64")]
    if conv.tiles.wide() {
        #[target_feature(enable = "avx512f,avx512bw")]
        fn compiled(conv: &Conv, places: usize, [x, dy]: [&[u16]; 2], [turned, paired]: [&mut [u16]; 2]) {
            turn(&conv.x, x, turned, |block| wide::transpose(block));
            pair(&conv.dy, places, dy, paired);
        }
        // SAFETY: tile registers are used only where these vectors are.
        return unsafe { compiled(conv, places, [x, dy], [turned, paired]) };
    }
    turn(&conv.x, x, turned, transpose);
    pair(&conv.dy, places, dy, paired);
}

/// `n` bf16 in room that grows to hold them.
fn grown(room: &mut Vec<f32>, n: usize) -> &mut [u16] {
    room.resize(room.len().max(super::room(n)), 0.0);
    &mut bf16_mut(room)[..n]
}

/// Adds an image's gradient to `sums`, blocks `[tap][block of inputs][block of outputs][32][32]`.
pub(super) fn add(conv: &Conv, x: &[u16], dy: &[u16], sums: &mut [f32]) {
    let (kw, outs) = (conv.kernel[1], conv.dy.blocks());
    let places = conv.forward.places(conv.x.pitch);
    let steps = &conv.steps[..];
    let pitch = turned_pitch(&conv.x);
    assert!(sums.len() >= conv.weight_gradient_len());
    ROOM.with_borrow_mut(|[turned, paired]| {
        let planes = conv.x.planes[0] * conv.x.planes[1];
        let turned = grown(turned, conv.x.blocks() * planes * pitch * SIDE);
        let paired = grown(paired, outs * steps.len() * STEP);
        arrange(conv, places, [&x[..conv.x.len()], &dy[..conv.dy.len()]], [turned, paired]);
        let session = conv.tiles.begin();
        let mut blocks = sums.as_chunks_mut::<STEP>().0.iter_mut();
        for tap in 0..conv.taps() {
            let (plane, place) = conv.x.at(tap / kw, tap % kw);
            assert!(place + steps.len() * SIDE <= conv.x.places());
            for block in 0..conv.x.blocks() {
                let left = &turned[(block * planes + plane) * pitch * SIDE + place..];
                for (right, sums) in paired.chunks_exact(steps.len() * STEP).zip(&mut blocks) {
                    // SAFETY: every step of every row ends before the plane's last place, and `right` has them all.
                    unsafe { session.product(left.as_ptr(), 2 * pitch, steps, right.as_ptr(), sums, true) }
                }
            }
        }
    });
}
