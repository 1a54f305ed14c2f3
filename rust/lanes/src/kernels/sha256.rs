//! SHA-256 (FIPS 180-4 §5.1.1, §6.2).
//!
//! A message `M` of `l` bits is followed by a bit 1, by as few zeros as fill a block but for its last 64 bits, and by `l`
//! in those. With the blocks `B_1 … B_N` of that, `H_0` the initial value and `f` the compression function, the digest is `H_N`, where
//!
//! ```text
//! H_i = f(H_{i−1}, B_i)
//! ```

use super::{over_words, rows, unrolled, wipe};
use crate::isa::words::ROUND_CONSTANTS;
use crate::isa::{Lanes, Part, TILE, Words};

/// The digest of each message.
#[derive(Debug)]
pub struct Digest<'a> {
    /// What is hashed.
    pub messages: &'a [&'a [u8]],
    /// The digests.
    pub out: &'a mut [[u8; 32]],
}

over_words!([] Digest<'_>, out);

impl Digest<'_> {
    #[inline(always)]
    fn run<I: Words>(self, isa: I) {
        rows([self.messages.len(), self.out.len()]);
        let mut states = isa.groups(start(isa));
        let mut blocks = [[0; 64]; TILE];
        for (messages, out) in self.messages.chunks(TILE).zip(self.out.chunks_mut(TILE)) {
            let mut padded = [Message::EMPTY; TILE];
            for (padded, message) in padded.iter_mut().zip(messages) {
                *padded = Message { head: &[], tail: message, before: 0 };
            }
            states = isa.groups(start(isa));
            absorb(isa, &mut states, &padded[..messages.len()], &mut blocks);
            for (state, out) in states.as_ref().iter().zip(out.chunks_mut(I::WIDTH)) {
                isa.store(&to_memory::<I>(state), out, 0);
            }
        }
        wipe(states.as_mut(), start(isa));
        wipe(&mut blocks, [0; 64]);
    }
}

/// A chaining value of each row of a group, in numeric order.
pub(super) type State<I> = [<I as Words>::U32; 8];
/// 32 bytes of each row of a group, in memory order.
pub(super) type Half<I> = [<I as Words>::U32; 8];

/// The compression function: `state` in numeric order, `block` in memory order.
#[inline(always)]
pub(super) fn compress<I: Words>(isa: I, state: &mut State<I>, block: &[I::U32; 16]) {
    if isa.compresses() {
        isa.compress(state, block);
    } else {
        isa.call(Compress { state, block });
    }
}

struct Compress<'a, I: Words> {
    state: &'a mut State<I>,
    block: &'a [I::U32; 16],
}

impl<I: Words> Part<I> for Compress<'_, I> {
    type Out = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let mut state = *self.state;
        let mut words = *self.block;
        for word in &mut words {
            *word = word.to_be();
        }
        for first in [0, 16, 32] {
            sixteen_rounds::<I, true>(isa, &mut state, &mut words, first);
        }
        sixteen_rounds::<I, false>(isa, &mut state, &mut words, 48);
        for i in 0..8 {
            self.state[i] = self.state[i].wrapping_add(state[i]);
        }
    }
}

/// The compression function for a block that is known beforehand: without the third of the work that its words are.
#[inline(always)]
pub(super) fn compress_known<I: Words>(isa: I, state: &mut State<I>, block: &Known) {
    if isa.compresses() {
        isa.compress_known(state, &block.bytes, &block.rounds);
    } else {
        isa.call(CompressKnown { state, rounds: &block.rounds });
    }
}

/// A block that is the same in every row, with its words for the 64 rounds (§6.2.2 step 1) and their constants added.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    bytes: [u8; 64],
    rounds: [u32; 64],
}

impl Known {
    pub(super) const fn new(bytes: [u8; 64]) -> Self {
        let mut words = [0u32; 64];
        let mut t = 0;
        while t < 64 {
            words[t] = if t < 16 {
                u32::from_be_bytes([bytes[4 * t], bytes[4 * t + 1], bytes[4 * t + 2], bytes[4 * t + 3]])
            } else {
                let (near, far) = (words[t - 15], words[t - 2]);
                let near = near.rotate_right(7) ^ near.rotate_right(18) ^ (near >> 3);
                let far = far.rotate_right(17) ^ far.rotate_right(19) ^ (far >> 10);
                words[t - 16].wrapping_add(near).wrapping_add(words[t - 7]).wrapping_add(far)
            };
            t += 1;
        }
        t = 0;
        while t < 64 {
            words[t] = words[t].wrapping_add(ROUND_CONSTANTS[t]);
            t += 1;
        }
        Self { bytes, rounds: words }
    }
}

struct CompressKnown<'a, I: Words> {
    state: &'a mut State<I>,
    rounds: &'a [u32; 64],
}

impl<I: Words> Part<I> for CompressKnown<'_, I> {
    type Out = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let mut state = *self.state;
        for first in (0..64).step_by(8) {
            let rounds: &[u32; 8] = self.rounds[first..].first_chunk().expect("8 of 64");
            unrolled!(T in [0 1 2 3 4 5 6 7] {
                round::<I, T>(&mut state, isa.splat(rounds[T]));
            });
        }
        for i in 0..8 {
            self.state[i] = self.state[i].wrapping_add(state[i]);
        }
    }
}

#[inline(always)]
fn sixteen_rounds<I: Words, const EXTEND: bool>(isa: I, state: &mut State<I>, words: &mut [I::U32; 16], first: usize) {
    let constants: &[u32; 16] = ROUND_CONSTANTS[first..].first_chunk().expect("16 of 64");
    unrolled!(T in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15] {
        round::<I, T>(state, words[T].wrapping_add(isa.splat(constants[T])));
        if EXTEND {
            let near = words[(T + 1) % 16];
            let far = words[(T + 14) % 16];
            let near = near.rotr::<7>().xor3(near.rotr::<18>(), near.shr::<3>());
            let far = far.rotr::<17>().xor3(far.rotr::<19>(), far.shr::<10>());
            words[T] = words[T].wrapping_add(words[(T + 9) % 16]).wrapping_add(near).wrapping_add(far);
        }
    });
}

/// Round `T`. The working variables stay where they are; their names move.
#[inline(always)]
fn round<I: Words, const T: usize>(s: &mut State<I>, word: I::U32) {
    let [a, b, c, d, e, f, g, h] = const {
        let t = 64 - T;
        [t % 8, (t + 1) % 8, (t + 2) % 8, (t + 3) % 8, (t + 4) % 8, (t + 5) % 8, (t + 6) % 8, (t + 7) % 8]
    };
    let sum1 = s[e].rotr::<6>().xor3(s[e].rotr::<11>(), s[e].rotr::<25>());
    // Used twice, so that the compiler cannot put `sum1`, which comes last, first.
    let early = s[h].wrapping_add(word).wrapping_add(s[e].choose(s[f], s[g]));
    let sum0 = s[a].rotr::<2>().xor3(s[a].rotr::<13>(), s[a].rotr::<22>());
    s[d] = s[d].wrapping_add(early).wrapping_add(sum1);
    s[h] = early.wrapping_add(s[a].majority(s[b], s[c])).wrapping_add(sum0.wrapping_add(sum1));
}

/// `H_0` (FIPS 180-4 §5.3.3).
const START: [u32; 8] =
    [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];

#[inline(always)]
pub(super) fn start<I: Words>(isa: I) -> State<I> {
    splat(isa, &START)
}

#[inline(always)]
pub(super) fn splat<I: Words, const WORDS: usize>(isa: I, words: &[u32; WORDS]) -> [I::U32; WORDS] {
    let mut out = [isa.splat(0); WORDS];
    for i in 0..WORDS {
        out[i] = isa.splat(words[i]);
    }
    out
}

#[inline(always)]
pub(super) fn to_memory<I: Words>(state: &State<I>) -> Half<I> {
    let mut half = *state;
    for word in &mut half {
        *word = word.to_be();
    }
    half
}

/// A block that is the same in every row.
#[inline(always)]
pub(super) fn known<I: Words>(isa: I, bytes: &[u8; 64]) -> [I::U32; 16] {
    let mut block = [isa.splat(0); 16];
    for (word, bytes) in block.iter_mut().zip(bytes.as_chunks().0) {
        *word = isa.splat(u32::from_ne_bytes(*bytes));
    }
    block
}

/// 32 bytes of each row, then the second half of `bytes`, which is the same in every row.
#[inline(always)]
pub(super) fn behind<I: Words>(isa: I, head: &Half<I>, bytes: &[u8; 64]) -> [I::U32; 16] {
    let mut block = known(isa, bytes);
    block[..8].copy_from_slice(head);
    block
}

/// The last block of a message: `bytes`, then the padding for `before + bytes.len()` bytes in all.
pub(super) const fn last_block(bytes: &[u8], before: usize) -> [u8; 64] {
    assert!(bytes.len() <= 55 && before.is_multiple_of(64));
    let mut block = [0; 64];
    let mut i = 0;
    while i < bytes.len() {
        block[i] = bytes[i];
        i += 1;
    }
    block[i] = 0x80;
    let bits = (8 * (before + bytes.len()) as u64).to_be_bytes();
    i = 0;
    while i < 8 {
        block[56 + i] = bits[i];
        i += 1;
    }
    block
}

/// A message in two parts, behind `before` bytes (whole blocks) that are already in the state.
#[derive(Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) head: &'a [u8],
    pub(super) tail: &'a [u8],
    pub(super) before: usize,
}

impl Message<'_> {
    pub(super) const EMPTY: Self = Self { head: &[], tail: &[], before: 0 };

    #[inline(always)]
    fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// How many blocks it is with its padding, which is a byte and a 64-bit length at the least.
    #[inline(always)]
    pub(super) fn blocks(&self) -> usize {
        (self.len() + 9).div_ceil(64)
    }

    /// One of its blocks.
    #[inline(always)]
    pub(super) fn write(&self, index: usize, block: &mut [u8; 64]) {
        let from = 64 * index;
        // Most blocks of a long message lie inside its tail.
        if let Some(from) = from.checked_sub(self.head.len())
            && let Some(bytes) = self.tail.get(from..).and_then(|rest| rest.first_chunk())
        {
            *block = *bytes;
        } else {
            self.write_edge(index, block);
        }
    }

    /// A block where the parts meet or with padding in it.
    fn write_edge(&self, index: usize, block: &mut [u8; 64]) {
        *block = [0; 64];
        let from = 64 * index;
        for (part, at) in [(self.head, 0), (self.tail, self.head.len()), (&[0x80], self.len())] {
            let (first, end) = (at.max(from), (at + part.len()).min(from + 64));
            if first < end {
                block[first - from..end - from].copy_from_slice(&part[first - at..end - at]);
            }
        }
        if index + 1 == self.blocks() {
            block[56..].copy_from_slice(&(8 * (self.before + self.len()) as u64).to_be_bytes());
        }
    }
}

/// Takes the messages of a tile into its states. A row's state stands still when its blocks are done.
#[inline(always)]
pub(super) fn absorb<I: Words>(
    isa: I,
    states: &mut I::Groups<State<I>>,
    messages: &[Message<'_>],
    blocks: &mut [[u8; 64]; TILE],
) {
    let mut counts = [0; TILE];
    let mut most = 0;
    for (count, message) in counts.iter_mut().zip(messages) {
        *count = message.blocks();
        most = most.max(*count);
    }
    for index in 0..most {
        let groups = messages.chunks(I::WIDTH).zip(counts.chunks(I::WIDTH));
        for (state, (messages, counts)) in states.as_mut().iter_mut().zip(groups) {
            let mut alive = [false; TILE];
            let mut living = 0;
            for lane in 0..messages.len() {
                if index < counts[lane] {
                    messages[lane].write(index, &mut blocks[lane]);
                    alive[lane] = true;
                    living += 1;
                }
            }
            if living == 0 {
                continue;
            }
            let before = *state;
            compress(isa, state, &isa.load_blocks(&blocks[..messages.len()]));
            if living < messages.len() {
                *state = isa.choose(&alive[..messages.len()], state, &before);
            }
        }
    }
}
