//! SHA-256 by the SHA instructions. One of them waits four cycles for the one before it in its row, and another can start
//! every second cycle: so four rows go side by side, the low halves of the vectors first, then the high ones.

use super::align_stack;
use super::words::{U32x8, transpose};
use crate::isa::words::ROUND_CONSTANTS;
use core::arch::x86_64::*;

/// The state of four rows: F, E, B, A and H, G, D, C, as `sha256rnds2` takes them.
type Rows = [[__m128i; 2]; 4];

/// 16 words of 8 rows, four to a vector: vector `i` those of rows `i` and `i + 4`.
type Quads = [[__m256i; 4]; 4];

/// [`crate::isa::Words::compress`].
#[target_feature(enable = "avx2,sha")]
#[inline(never)]
pub(super) fn compress(state: &mut [U32x8; 8], block: &[U32x8; 16]) {
    align_stack();
    let swap = _mm256_broadcastsi128_si256(_mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3));
    let mut quads: Quads = [[_mm256_setzero_si256(); 4]; 4];
    for i in 0..4 {
        quads[i] = transpose([block[4 * i].0, block[4 * i + 1].0, block[4 * i + 2].0, block[4 * i + 3].0]);
        for row in 0..4 {
            quads[i][row] = _mm256_shuffle_epi8(quads[i][row], swap);
        }
    }
    let [mut low, mut high] = to_rows(state);
    rounds::<0>(&mut low, &quads);
    rounds::<1>(&mut high, &quads);
    add_rows(state, &low, &high);
}

/// [`crate::isa::Words::compress_known`].
#[target_feature(enable = "avx2,sha")]
#[inline(never)]
pub(super) fn compress_known(state: &mut [U32x8; 8], words: &[u32; 64]) {
    align_stack();
    let mut halves = to_rows(state);
    for rows in &mut halves {
        for words in words.as_chunks().0 {
            let words = load(words);
            for row in 0..4 {
                four_rounds(&mut rows[row], words);
            }
        }
    }
    add_rows(state, &halves[0], &halves[1]);
}

/// The 64 rounds of the rows of one half.
#[target_feature(enable = "avx2,sha")]
#[inline]
fn rounds<const HALF: i32>(rows: &mut Rows, quads: &Quads) {
    let mut words = [[_mm_setzero_si128(); 4]; 4];
    for row in 0..4 {
        for i in 0..4 {
            words[row][i] = _mm256_extracti128_si256::<HALF>(quads[i][row]);
        }
    }
    let constants = ROUND_CONSTANTS.as_chunks().0;
    macro_rules! four {
        ($($group:literal)*) => { $(
            let constant = load(&constants[$group]);
            for row in 0..4 {
                let words = &mut words[row];
                four_rounds(&mut rows[row], _mm_add_epi32(words[$group % 4], constant));
                if $group < 12 {
                    let near = _mm_sha256msg1_epu32(words[$group % 4], words[($group + 1) % 4]);
                    let middle = _mm_alignr_epi8::<4>(words[($group + 3) % 4], words[($group + 2) % 4]);
                    words[$group % 4] = _mm_sha256msg2_epu32(_mm_add_epi32(near, middle), words[($group + 3) % 4]);
                }
            }
        )* };
    }
    four!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
}

#[target_feature(enable = "avx2,sha")]
#[inline]
fn four_rounds(row: &mut [__m128i; 2], words: __m128i) {
    row[1] = _mm_sha256rnds2_epu32(row[1], row[0], words);
    row[0] = _mm_sha256rnds2_epu32(row[0], row[1], _mm_shuffle_epi32::<0x0e>(words));
}

#[target_feature(enable = "avx2")]
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
