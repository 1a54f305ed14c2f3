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
                isa.store(&swapped::<I>(state), out, 0);
            }
        }
        wipe(states.as_mut(), start(isa));
        wipe(blocks.as_mut(), [isa.splat(0); 16]);
    }
}

/// A chaining value of each row of a group, in numeric order.
pub(super) type State<I> = [<I as Words>::U32; 8];
/// 32 bytes of each row of a group, in either order.
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

/// Word `t` of a block.
const fn word(bytes: &[u8; 64], t: usize) -> u32 {
    u32::from_be_bytes([bytes[4 * t], bytes[4 * t + 1], bytes[4 * t + 2], bytes[4 * t + 3]])
}

/// `σ_0` (FIPS 180-4 §4.1.2).
const fn near(word: u32) -> u32 {
    word.rotate_right(7) ^ word.rotate_right(18) ^ (word >> 3)
}

/// `σ_1`.
const fn far(word: u32) -> u32 {
    word.rotate_right(17) ^ word.rotate_right(19) ^ (word >> 10)
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
                word(&bytes, t)
            } else {
                let sum = words[t - 16].wrapping_add(words[t - 7]);
                sum.wrapping_add(near(words[t - 15])).wrapping_add(far(words[t - 2]))
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

/// The compression function for blocks of 32 bytes of each row's own, as [`head`] gives them, and 32 that are known
/// beforehand: what follows from those alone is not computed in every row. `blocks` is room for the whole of them.
#[inline(always)]
pub(super) fn compress_behind<I: Words>(
    isa: I,
    states: &mut [State<I>],
    heads: &[Half<I>],
    tail: &Tail,
    blocks: &mut [Block<I>],
) {
    if isa.compresses() {
        for ((state, head), block) in states.iter_mut().zip(heads).zip(blocks) {
            *block = known(isa, &tail.bytes);
            block[..8].copy_from_slice(head);
            isa.compress(state, block);
        }
        return;
    }
    if I::PAIRS
        && let ([states], [heads]) = (states.as_chunks_mut().0, heads.as_chunks().0)
    {
        return isa.call(CompressBehind::<I, 2> { states, heads, tail });
    }
    for (states, heads) in states.as_chunks_mut().0.iter_mut().zip(heads.as_chunks().0) {
        isa.call(CompressBehind::<I, 1> { states, heads, tail });
    }
}

/// From memory order to the one in which [`compress_behind`] takes heads, or back: words are computed with in numeric order,
/// and instructions for the whole take them from memory.
#[inline(always)]
pub(super) fn head<I: Words>(isa: I, half: &Half<I>) -> Half<I> {
    if isa.compresses() { *half } else { swapped::<I>(half) }
}

/// The same of a chaining value.
#[inline(always)]
pub(super) fn head_of<I: Words>(isa: I, state: &State<I>) -> Half<I> {
    if isa.compresses() { swapped::<I>(state) } else { *state }
}

/// The second half of a block that is the same in every row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tail {
    bytes: [u8; 64],
    /// Its words, their rounds' constants added.
    rounds: [u32; 8],
    /// What it gives to the sixteen words after it (§6.2.2 step 1).
    terms: [u32; 16],
}

impl Tail {
    /// Of this block, whose first half is of no account.
    pub(super) const fn new(bytes: [u8; 64]) -> Self {
        let (mut rounds, mut terms) = ([0u32; 8], [0u32; 16]);
        let mut t = 8;
        while t < 16 {
            let word = word(&bytes, t);
            rounds[t - 8] = word.wrapping_add(ROUND_CONSTANTS[t]);
            terms[t] = terms[t].wrapping_add(word);
            terms[t - 1] = terms[t - 1].wrapping_add(near(word));
            if t >= 9 {
                terms[t - 9] = terms[t - 9].wrapping_add(word);
            }
            if t >= 14 {
                terms[t - 14] = terms[t - 14].wrapping_add(far(word));
            }
            t += 1;
        }
        Self { bytes, rounds, terms }
    }
}

struct CompressBehind<'a, I: Words, const SIDE: usize> {
    states: &'a mut [State<I>; SIDE],
    heads: &'a [Half<I>; SIDE],
    tail: &'a Tail,
}

impl<I: Words, const SIDE: usize> Part<I> for CompressBehind<'_, I, SIDE> {
    type Out = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let mut states = *self.states;
        let mut words = [[isa.splat(0); 16]; SIDE];
        for (words, head) in words.iter_mut().zip(self.heads) {
            words[..8].copy_from_slice(head);
        }
        let constants: &[u32; 8] = ROUND_CONSTANTS.first_chunk().expect("8 of 64");
        unrolled!(T in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15] {
            let constant = isa.splat(if T < 8 { constants[T % 8] } else { self.tail.rounds[T % 8] });
            let term = isa.splat(self.tail.terms[T]);
            for side in 0..SIDE {
                let words = &mut words[side];
                round::<I, T>(&mut states[side], if T < 8 { words[T].wrapping_add(constant) } else { constant });
                words[T] = after::<_, T>(words, term);
            }
        });
        for first in [16, 32] {
            sixteen_rounds::<I, SIDE, true>(isa, &mut states, &mut words, first);
        }
        sixteen_rounds::<I, SIDE, false>(isa, &mut states, &mut words, 48);
        add::<I, SIDE>(self.states, &states);
    }
}

/// Word `T + 16` behind a tail: of the four words that it is made of, those of the tail are in `term`.
#[inline(always)]
fn after<U: Lanes, const T: usize>(words: &[U; 16], term: U) -> U {
    let mut sum = term;
    if T < 8 {
        sum = sum.wrapping_add(words[T]);
    }
    if T >= 7 {
        sum = sum.wrapping_add(words[(T + 9) % 16]);
    }
    if T < 7 || T == 15 {
        sum = sum.wrapping_add(near_of(words[(T + 1) % 16]));
    }
    if T >= 2 {
        sum = sum.wrapping_add(far_of(words[(T + 14) % 16]));
    }
    sum
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
                let sum = words[T].wrapping_add(words[(T + 9) % 16]);
                words[T] = sum.wrapping_add(near_of(words[(T + 1) % 16])).wrapping_add(far_of(words[(T + 14) % 16]));
            }
        }
    });
}

#[inline(always)]
fn near_of<U: Lanes>(word: U) -> U {
    word.rotr::<7>().xor3(word.rotr::<18>(), word.shr::<3>())
}

#[inline(always)]
fn far_of<U: Lanes>(word: U) -> U {
    word.rotr::<17>().xor3(word.rotr::<19>(), word.shr::<10>())
}

/// Round `T`. The working variables stay where they are; their names move.
#[inline(always)]
fn round<I: Words, const T: usize>(s: &mut State<I>, word: I::U32) {
    let [a, b, c, d, e, f, g, h] = const {
        let t = 64 - T;
        [t % 8, (t + 1) % 8, (t + 2) % 8, (t + 3) % 8, (t + 4) % 8, (t + 5) % 8, (t + 6) % 8, (t + 7) % 8]
    };
    let sum1 = s[e].rotr::<6>().xor3(s[e].rotr::<11>(), s[e].rotr::<25>());
    let first = s[h].wrapping_add(word).wrapping_add(s[e].choose(s[f], s[g])).wrapping_add(sum1);
    let sum0 = s[a].rotr::<2>().xor3(s[a].rotr::<13>(), s[a].rotr::<22>());
    s[d] = s[d].wrapping_add(first);
    s[h] = first.wrapping_add(s[a].majority(s[b], s[c]).wrapping_add(sum0));
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

/// From numeric order to memory order, or back.
#[inline(always)]
fn swapped<I: Words>(state: &State<I>) -> Half<I> {
    let mut half = *state;
    for word in &mut half {
        *word = word.to_be();
    }
    half
}

/// A block that is the same in every row.
#[inline(always)]
fn known<I: Words>(isa: I, bytes: &[u8; 64]) -> [I::U32; 16] {
    let mut block = [isa.splat(0); 16];
    for (word, bytes) in block.iter_mut().zip(bytes.as_chunks().0) {
        *word = isa.splat(u32::from_ne_bytes(*bytes));
    }
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
        let (head, tail) = (self.heads.map_or(&[][..], |heads| heads[row]), self.tails[row]);
        let lead = head.len().div_ceil(64);
        let body = tail.get(64 * lead - head.len()..).unwrap_or(&[]).as_chunks().0;
        // With its padding, which is a byte and a 64-bit length at the least.
        let blocks = (head.len() + tail.len() + 9).div_ceil(64);
        Message { head, tail, lead, body, blocks, before: self.before }
    }
}

#[derive(Clone, Copy)]
struct Message<'a> {
    head: &'a [u8],
    tail: &'a [u8],
    /// How many blocks there are before those that lie inside the tail.
    lead: usize,
    /// Those.
    body: &'a [[u8; 64]],
    blocks: usize,
    before: usize,
}

impl<'a> Message<'a> {
    const NONE: Self = Self { head: &[], tail: &[], lead: 0, body: &[], blocks: 0, before: 0 };

    /// One of its blocks: where it stands, or in `spare`.
    #[inline(always)]
    fn block<'b>(&self, index: usize, spare: &'b mut Spare) -> &'b [u8; 64]
    where
        'a: 'b,
    {
        // Most blocks of a long message lie inside its tail.
        let inside = match index.checked_sub(self.lead) {
            Some(index) => self.body.get(index),
            None => self.head.as_chunks().0.get(index),
        };
        match inside {
            Some(block) => block,
            None => self.edge(index, spare),
        }
    }

    /// A block where the parts meet or with padding in it. What it is made of is moved 64 bytes at a time, which takes
    /// no time at all; as many bytes as there are take longer than the block's rounds.
    #[inline(always)]
    fn edge<'b>(&self, index: usize, spare: &'b mut Spare) -> &'b [u8; 64] {
        let (from, len) = (64 * index, self.head.len() + self.tail.len());
        let halves: &mut [[u8; 64]; 2] = spare.as_chunks_mut().0.try_into().expect("two halves");
        let begin =
            match (len.checked_sub(from), self.tail.first_chunk(), self.tail.last_chunk(), self.head.last_chunk()) {
                (Some(64..), Some(tail), _, Some(head)) => {
                    *halves = [*head, *tail];
                    64 - self.head.len() % 64
                }
                (Some(rest @ 0..64), _, Some(tail), _) => {
                    *halves = [*tail, END];
                    64 - rest
                }
                (None, ..) => {
                    *halves = [[0; 64]; 2];
                    0
                }
                _ => {
                    self.write_short(index, &mut halves[0]);
                    0
                }
            };
        let block: &mut [u8; 64] = spare[begin..].first_chunk_mut().expect("it ends where the halves do, or before");
        if index + 1 == self.blocks {
            *block.last_chunk_mut().expect("8 of 64") = (8 * (self.before + len) as u64).to_be_bytes();
        }
        block
    }

    /// The same where a part is too short for that, but for the length.
    #[inline(never)]
    fn write_short(&self, index: usize, block: &mut [u8; 64]) {
        *block = [0; 64];
        let (from, len) = (64 * index, self.head.len() + self.tail.len());
        for (part, at) in [(self.head, 0), (self.tail, self.head.len()), (&END[..1], len)] {
            let (first, end) = (at.max(from), (at + part.len()).min(from + 64));
            if first < end {
                block[first - from..end - from].copy_from_slice(&part[first - at..end - at]);
            }
        }
    }
}

/// Room for a block that is to be made, wherever it begins.
type Spare = [u8; 128];

/// What follows a message: a bit, and zeros.
const END: [u8; 64] = {
    let mut end = [0; 64];
    end[0] = 0x80;
    end
};

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
    let mut laid_out = [Message::NONE; TILE];
    let mut most = 0;
    for row in 0..count {
        laid_out[row] = messages.row(row);
        most = most.max(laid_out[row].blocks);
    }
    let mut before = isa.groups(start(isa));
    let mut spares = [[0; 128]; WIDEST];
    for index in 0..most {
        let mut living = [0; TILE];
        for group in 0..groups {
            let rows = group * I::WIDTH..(group + 1) * I::WIDTH;
            // Lanes without a block take zeros: no question is asked for each of their pieces.
            let (mut places, mut alive) = ([&[0; 64]; WIDEST], 0);
            for ((message, place), spare) in laid_out[rows].iter().zip(&mut places).zip(&mut spares) {
                if index < message.blocks {
                    *place = message.block(index, spare);
                    alive += 1;
                }
            }
            if alive > 0 {
                blocks[group] = isa.load_blocks(&places[..I::WIDTH]);
            }
            living[group] = alive;
        }
        let in_part = |group: usize| (1..I::WIDTH.min(count - group * I::WIDTH)).contains(&living[group]);
        if (0..groups).any(in_part) {
            before = *states;
        }
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
            if in_part(group) {
                let mut alive = [false; WIDEST];
                for row in rows.clone() {
                    alive[row - rows.start] = index < laid_out[row].blocks;
                }
                states[group] = isa.choose(&alive[..rows.len()], &states[group], &before[group]);
            }
        }
    }
    wipe(before.as_mut(), start(isa));
    wipe(&mut spares, [0; 128]);
}
