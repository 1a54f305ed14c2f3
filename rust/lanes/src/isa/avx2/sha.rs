//! SHA-256 by the SHA instructions. One of them waits four cycles for the one before it in its row, and another can start
//! every second cycle: so four rows go side by side, the low halves of the vectors first, then the high ones.
//!
//! The rounds are functions of their own that know nothing of AVX. The SHA instructions have no form of AVX, and while the upper
//! half of any vector register is in use, each takes 70 to 100 ns on Zen 3 (2 otherwise; Zen 5 does not mind). Before a call the
//! compiler clears those halves, and where it may not use AVX none comes into use.

use super::align_stack;
use super::words::{U32x8, transpose};
use crate::isa::words::ROUND_CONSTANTS;
use core::arch::x86_64::*;

/// The state of four rows: F, E, B, A and H, G, D, C, as `sha256rnds2` takes them.
type Rows = [[__m128i; 2]; 4];

/// The 16 words of a block of each of four rows.
type Blocks = [[__m128i; 4]; 4];

/// [`crate::isa::Words::compress`].
#[target_feature(enable = "avx2,sha")]
#[inline(never)]
pub(super) fn compress(state: &mut [U32x8; 8], block: &[U32x8; 16]) {
    align_stack();
    let swap = _mm256_broadcastsi128_si256(_mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3));
    let mut blocks: [Blocks; 2] = [[[_mm_setzero_si128(); 4]; 4]; 2];
    for i in 0..4 {
        let quads = transpose([block[4 * i].0, block[4 * i + 1].0, block[4 * i + 2].0, block[4 * i + 3].0]);
        for row in 0..4 {
            let words = _mm256_shuffle_epi8(quads[row], swap);
            blocks[0][row][i] = _mm256_castsi256_si128(words);
            blocks[1][row][i] = _mm256_extracti128_si256::<1>(words);
        }
    }
    let mut halves = to_rows(state);
    for (rows, blocks) in halves.iter_mut().zip(&blocks) {
        rounds(rows, blocks);
    }
    add_rows(state, &halves[0], &halves[1]);
}

/// [`crate::isa::Words::compress_known`].
#[target_feature(enable = "avx2,sha")]
#[inline(never)]
pub(super) fn compress_known(state: &mut [U32x8; 8], words: &[u32; 64]) {
    align_stack();
    let mut halves = to_rows(state);
    for rows in &mut halves {
        rounds_known(rows, words);
    }
    add_rows(state, &halves[0], &halves[1]);
}

/// The 64 rounds of four rows.
#[target_feature(enable = "sse4.1,sha")]
#[inline(never)]
fn rounds(rows: &mut Rows, blocks: &Blocks) {
    let (mut rows_now, mut words) = (*rows, *blocks);
    let constants = ROUND_CONSTANTS.as_chunks().0;
    macro_rules! four {
        ($($group:literal)*) => { $(
            let constant = load(&constants[$group]);
            for row in 0..4 {
                let words = &mut words[row];
                four_rounds(&mut rows_now[row], _mm_add_epi32(words[$group % 4], constant));
                if $group < 12 {
                    let near = _mm_sha256msg1_epu32(words[$group % 4], words[($group + 1) % 4]);
                    let middle = _mm_alignr_epi8::<4>(words[($group + 3) % 4], words[($group + 2) % 4]);
                    words[$group % 4] = _mm_sha256msg2_epu32(_mm_add_epi32(near, middle), words[($group + 3) % 4]);
                }
            }
        )* };
    }
    four!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    *rows = rows_now;
}

/// The same, of a block whose words are known, with the constants added.
#[target_feature(enable = "sse4.1,sha")]
#[inline(never)]
fn rounds_known(rows: &mut Rows, words: &[u32; 64]) {
    let mut rows_now = *rows;
    for words in words.as_chunks().0 {
        let words = load(words);
        for row in 0..4 {
            four_rounds(&mut rows_now[row], words);
        }
    }
    *rows = rows_now;
}

#[target_feature(enable = "sse4.1,sha")]
#[inline]
fn four_rounds(row: &mut [__m128i; 2], words: __m128i) {
    row[1] = _mm_sha256rnds2_epu32(row[1], row[0], words);
    row[0] = _mm_sha256rnds2_epu32(row[0], row[1], _mm_shuffle_epi32::<0x0e>(words));
}

#[target_feature(enable = "sse2")]
#[inline]
fn load(words: &[u32; 4]) -> __m128i {
    // SAFETY: `words` has 16 readable bytes.
    unsafe { _mm_loadu_si128(words.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
#[inline]
fn to_rows(state: &[U32x8; 8]) -> [Rows; 2] {
    let [a, b, c, d, e, f, g, h] = state;
    let (feba, hgdc) = (transpose([f.0, e.0, b.0, a.0]), transpose([h.0, g.0, d.0, c.0]));
    let mut halves = [[[_mm_setzero_si128(); 2]; 4]; 2];
    for row in 0..4 {
        halves[0][row] = [_mm256_castsi256_si128(feba[row]), _mm256_castsi256_si128(hgdc[row])];
        halves[1][row] = [_mm256_extracti128_si256::<1>(feba[row]), _mm256_extracti128_si256::<1>(hgdc[row])];
    }
    halves
}

/// Back, and added to the state as it was before the rounds.
#[target_feature(enable = "avx2")]
#[inline]
fn add_rows(state: &mut [U32x8; 8], low: &Rows, high: &Rows) {
    let mut quads = [[_mm256_setzero_si256(); 4]; 2];
    for row in 0..4 {
        for i in 0..2 {
            quads[i][row] = _mm256_set_m128i(high[row][i], low[row][i]);
        }
    }
    let ([f, e, b, a], [h, g, d, c]) = (transpose(quads[0]), transpose(quads[1]));
    for (word, after) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        word.0 = _mm256_add_epi32(word.0, after);
    }
}
