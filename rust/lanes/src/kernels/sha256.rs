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
use crate::isa::{Lanes, Part, TILE, WIDEST, Words};

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
        let mut blocks = isa.groups([isa.splat(0); 16]);
        for (messages, out) in self.messages.chunks(I::AT_ONCE).zip(self.out.chunks_mut(I::AT_ONCE)) {
            states = isa.groups(start(isa));
            absorb(isa, &mut states, Messages { heads: None, tails: messages, before: 0 }, &mut blocks);
            for (state, out) in states.as_ref().iter().zip(out.chunks_mut(I::WIDTH)) {
                isa.store(&to_memory::<I>(state), out, 0);
            }
        }
        wipe(states.as_mut(), start(isa));
        wipe(blocks.as_mut(), [isa.splat(0); 16]);
    }
}

/// A chaining value of each row of a group, in numeric order.
pub(super) type State<I> = [<I as Words>::U32; 8];
/// 32 bytes of each row of a group, in memory order.
pub(super) type Half<I> = [<I as Words>::U32; 8];

/// A block of each row of a group, in memory order.
pub(super) type Block<I> = [<I as Words>::U32; 16];

/// The compression function, for some groups.
#[inline(always)]
pub(super) fn compress<I: Words>(isa: I, states: &mut [State<I>], blocks: &[Block<I>]) {
    if isa.compresses() {
        for (state, block) in states.iter_mut().zip(blocks) {
            isa.compress(state, block);
        }
        return;
    }
    if I::PAIRS
        && let ([states], [blocks]) = (states.as_chunks_mut().0, blocks.as_chunks().0)
    {
        return isa.call(Compress::<I, 2> { states, blocks });
    }
    for (states, blocks) in states.as_chunks_mut().0.iter_mut().zip(blocks.as_chunks().0) {
        isa.call(Compress::<I, 1> { states, blocks });
    }
}

/// Of groups side by side: the rounds of one wait for each other, and those of another fill the time.
struct Compress<'a, I: Words, const SIDE: usize> {
    states: &'a mut [State<I>; SIDE],
    blocks: &'a [Block<I>; SIDE],
}

impl<I: Words, const SIDE: usize> Part<I> for Compress<'_, I, SIDE> {
    type Out = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let mut states = *self.states;
        let mut words = *self.blocks;
        for words in &mut words {
            for word in words {
                *word = word.to_be();
            }
        }
        for first in [0, 16, 32] {
            sixteen_rounds::<I, SIDE, true>(isa, &mut states, &mut words, first);
        }
        sixteen_rounds::<I, SIDE, false>(isa, &mut states, &mut words, 48);
        add::<I, SIDE>(self.states, &states);
    }
}

/// The compression function for a block that is known beforehand: without the third of the work that its words are.
#[inline(always)]
pub(super) fn compress_known<I: Words>(isa: I, states: &mut [State<I>], block: &Known) {
    if isa.compresses() {
        for state in states {
            isa.compress_known(state, &block.bytes, &block.rounds);
        }
        return;
    }
    if I::PAIRS
        && let [states] = states.as_chunks_mut().0
    {
        return isa.call(CompressKnown::<I, 2> { states, rounds: &block.rounds });
    }
    for states in states.as_chunks_mut().0 {
        isa.call(CompressKnown::<I, 1> { states, rounds: &block.rounds });
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

struct CompressKnown<'a, I: Words, const SIDE: usize> {
    states: &'a mut [State<I>; SIDE],
    rounds: &'a [u32; 64],
}

impl<I: Words, const SIDE: usize> Part<I> for CompressKnown<'_, I, SIDE> {
    type Out = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let mut states = *self.states;
        for first in (0..64).step_by(8) {
            let rounds: &[u32; 8] = self.rounds[first..].first_chunk().expect("8 of 64");
            unrolled!(T in [0 1 2 3 4 5 6 7] {
                let word = isa.splat(rounds[T]);
                for state in &mut states {
                    round::<I, T>(state, word);
                }
            });
        }
        add::<I, SIDE>(self.states, &states);
    }
}

#[inline(always)]
fn add<I: Words, const SIDE: usize>(states: &mut [State<I>; SIDE], after: &[State<I>; SIDE]) {
    for side in 0..SIDE {
        for i in 0..8 {
            states[side][i] = states[side][i].wrapping_add(after[side][i]);
        }
    }
}

#[inline(always)]
fn sixteen_rounds<I: Words, const SIDE: usize, const EXTEND: bool>(
    isa: I,
    states: &mut [State<I>; SIDE],
    words: &mut [[I::U32; 16]; SIDE],
    first: usize,
) {
    let constants: &[u32; 16] = ROUND_CONSTANTS[first..].first_chunk().expect("16 of 64");
    unrolled!(T in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15] {
        let constant = isa.splat(constants[T]);
        for side in 0..SIDE {
            round::<I, T>(&mut states[side], words[side][T].wrapping_add(constant));
        }
        if EXTEND {
            for words in &mut *words {
                let near = words[(T + 1) % 16];
                let far = words[(T + 14) % 16];
                let near = near.rotr::<7>().xor3(near.rotr::<18>(), near.shr::<3>());
                let far = far.rotr::<17>().xor3(far.rotr::<19>(), far.shr::<10>());
                words[T] = words[T].wrapping_add(words[(T + 9) % 16]).wrapping_add(near).wrapping_add(far);
            }
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

/// Messages in two parts, behind `before` bytes (whole blocks) that are already in the states.
#[derive(Clone, Copy)]
pub(super) struct Messages<'a> {
    /// All empty where there are none.
    pub(super) heads: Option<&'a [&'a [u8]]>,
    pub(super) tails: &'a [&'a [u8]],
    pub(super) before: usize,
}

impl<'a> Messages<'a> {
    #[inline(always)]
    fn row(&self, row: usize) -> Message<'a> {
        Message { head: self.heads.map_or(&[], |heads| heads[row]), tail: self.tails[row], before: self.before }
    }
}

struct Message<'a> {
    head: &'a [u8],
    tail: &'a [u8],
    before: usize,
}

impl<'a> Message<'a> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// How many blocks it is with its padding, which is a byte and a 64-bit length at the least.
    #[inline(always)]
    fn blocks(&self) -> usize {
        (self.len() + 9).div_ceil(64)
    }

    /// One of its blocks: where it stands, or in `spare`.
    #[inline(always)]
    fn block<'b>(&self, index: usize, spare: &'b mut [u8; 64]) -> &'b [u8; 64]
    where
        'a: 'b,
    {
        let from = 64 * index;
        // Most blocks of a long message lie inside its tail.
        let inside = match from.checked_sub(self.head.len()) {
            Some(from) => self.tail.get(from..),
            None => Some(&self.head[from..]),
        };
        if let Some(bytes) = inside.and_then(|rest| rest.first_chunk()) {
            return bytes;
        }
        self.write_edge(index, spare);
        spare
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
    messages: Messages<'_>,
    blocks: &mut I::Groups<Block<I>>,
) {
    let count = messages.tails.len();
    let groups = count.div_ceil(I::WIDTH);
    let mut lengths = [0; TILE];
    let mut most = 0;
    for row in 0..count {
        lengths[row] = messages.row(row).blocks();
        most = most.max(lengths[row]);
    }
    let mut before = isa.groups(start(isa));
    let mut bytes = [[0; 64]; WIDEST];
    for index in 0..most {
        let mut living = [0; TILE];
        for group in 0..groups {
            let rows = group * I::WIDTH..count.min((group + 1) * I::WIDTH);
            let mut places = [&[0; 64]; WIDEST];
            for ((row, place), spare) in rows.clone().zip(&mut places).zip(&mut bytes) {
                if index < lengths[row] {
                    *place = messages.row(row).block(index, spare);
                    living[group] += 1;
                }
            }
            if living[group] > 0 {
                blocks[group] = isa.load_blocks(&places[..rows.len()]);
            }
        }
        before = *states;
        if living[..groups].contains(&0) {
            for group in 0..groups {
                if living[group] > 0 {
                    compress(isa, &mut states.as_mut()[group..=group], &blocks.as_ref()[group..=group]);
                }
            }
        } else {
            compress(isa, &mut states.as_mut()[..groups], &blocks.as_ref()[..groups]);
        }
        for group in 0..groups {
            let rows = group * I::WIDTH..count.min((group + 1) * I::WIDTH);
            if (1..rows.len()).contains(&living[group]) {
                let mut alive = [false; WIDEST];
                for row in rows.clone() {
                    alive[row - rows.start] = index < lengths[row];
                }
                states[group] = isa.choose(&alive[..rows.len()], &states[group], &before[group]);
            }
        }
    }
    wipe(before.as_mut(), start(isa));
    wipe(&mut bytes, [0; 64]);
}
