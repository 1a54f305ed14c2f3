//! AES-256-GCM (NIST SP 800-38D §7), nonces of 12 bytes, tags of 16.
//!
//! ```text
//! H = E(K, 0)     J = nonce ‖ 00000001     C = P ⊕ E(K, J + 1) ‖ E(K, J + 2) ‖ …
//! tag = E(K, J) ⊕ GHASH(H, associated ‖ zeros ‖ C ‖ zeros ‖ bits of associated ‖ bits of C)
//! ```

use super::aes256::{self, RoundKeys};
use super::covered::{Covered, Runs};
use super::{rows, wipe};
use crate::isa::pieces::{load_pieces, store_pieces};
use crate::isa::{Isa, Kernel, Lanes, Part, Pieces, Portable, Step, WIDEST};
use crate::public;
use aes::Aes256Enc;
use aes::cipher::{Block, BlockCipherEncrypt};
use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{AeadInOut, KeyInit};
use ghash::GHash;
use ghash::universal_hash::UniversalHash;
use subtle::ConstantTimeEq;

/// Encrypts each row and appends its tag.
pub struct Seal<'a, 'r> {
    /// The keys.
    pub keys: &'a [[u8; 32]],
    /// The nonces; the same one twice under a key breaks both messages.
    pub nonces: &'a [[u8; 12]],
    /// What the tag covers besides the row.
    pub associated: &'a [&'a [u8]],
    /// Plaintext and 16 bytes of room; then ciphertext and tag.
    pub rows: &'a mut [&'r mut [u8]],
}

/// Checks each row's tag and decrypts it.
pub struct Open<'a, 'r> {
    /// The keys.
    pub keys: &'a [[u8; 32]],
    /// The nonces.
    pub nonces: &'a [[u8; 12]],
    /// What the tag covers besides the row.
    pub associated: &'a [&'a [u8]],
    /// Ciphertext and tag; then plaintext, the tag left behind it. A row that fails is all zero.
    pub rows: &'a mut [&'r mut [u8]],
    /// Whether the tag was right.
    pub ok: &'a mut [bool],
}

impl Kernel for Seal<'_, '_> {
    type Out = ();
    const STEP: Step = Step::Gcm;

    #[inline(always)]
    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn by_row(self, _: Portable) {
        rows([self.keys.len(), self.nonces.len(), self.associated.len(), self.rows.len()]);
        for (((key, nonce), associated), row) in self.keys.iter().zip(self.nonces).zip(self.associated).zip(self.rows) {
            let (text, tag) = row.split_last_chunk_mut().expect("a row has room for its tag");
            *tag = seal(key, nonce, associated, text);
        }
    }

    #[inline(always)]
    fn in_lanes<I: Isa>(self, isa: I) {
        rows([self.keys.len(), self.nonces.len(), self.associated.len(), self.rows.len()]);
        let (keys, nonces) = (self.keys.chunks(I::WIDTH), self.nonces.chunks(I::WIDTH));
        let (associated, rows) = (self.associated.chunks(I::WIDTH), self.rows.chunks_mut(I::WIDTH));
        for (((keys, nonces), associated), rows) in keys.zip(nonces).zip(associated).zip(rows) {
            seal_group(isa, keys, nonces, associated, rows);
        }
    }
}

impl Kernel for Open<'_, '_> {
    type Out = ();
    const STEP: Step = Step::Gcm;

    #[inline(always)]
    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn by_row(self, _: Portable) {
        rows([self.keys.len(), self.nonces.len(), self.associated.len(), self.rows.len(), self.ok.len()]);
        let inputs = self.keys.iter().zip(self.nonces).zip(self.associated);
        for (((key, nonce), associated), (row, ok)) in inputs.zip(self.rows.iter_mut().zip(self.ok)) {
            *ok = match row.split_last_chunk_mut() {
                Some((text, tag)) => open(key, nonce, associated, text, tag),
                None => false,
            };
            if !*ok {
                row.fill(0);
            }
        }
    }

    #[inline(always)]
    fn in_lanes<I: Isa>(self, isa: I) {
        rows([self.keys.len(), self.nonces.len(), self.associated.len(), self.rows.len(), self.ok.len()]);
        let (keys, nonces) = (self.keys.chunks(I::WIDTH), self.nonces.chunks(I::WIDTH));
        let (associated, rows) = (self.associated.chunks(I::WIDTH), self.rows.chunks_mut(I::WIDTH));
        for ((((keys, nonces), associated), rows), ok) in
            keys.zip(nonces).zip(associated).zip(rows).zip(self.ok.chunks_mut(I::WIDTH))
        {
            open_group(isa, keys, nonces, associated, rows, ok);
        }
    }
}

/// What a group's rows are sealed and opened with.
struct Group<V: Copy> {
    round_keys: RoundKeys<V>,
    /// `H`, of rows `i, i + 4, …` each.
    hash_keys: [V; 4],
    /// `E(K, J)`, likewise.
    masks: [V; 4],
    zero: V,
}

impl<V: Copy> Group<V> {
    #[inline(always)]
    fn new<I: Isa<U32 = V>>(isa: I, keys: &[[u8; 32]], nonces: &[[u8; 12]]) -> Self {
        let mut counters = [[0; 16]; WIDEST];
        for (counter, nonce) in counters.iter_mut().zip(nonces) {
            counter[..12].copy_from_slice(nonce);
            counter[15] = 1;
        }
        let zero = isa.splat(0);
        let mut first = [zero; 4];
        for i in 0..4 {
            first[i] = load_pieces(isa, &counters[..nonces.len()], i, 0);
        }
        let round_keys = aes256::expand_keys(isa, keys);
        let hash_keys = aes256::encrypt(isa, &round_keys, [zero; 4]);
        let masks = aes256::encrypt(isa, &round_keys, first);
        Self { round_keys, hash_keys, masks, zero }
    }

    /// Adds its key stream to the text of row `row`, a vector of blocks at a time.
    #[inline(always)]
    fn apply<I: Isa<U32 = V>>(&self, isa: I, row: usize, nonce: &[u8; 12], text: &mut [u8]) {
        // As many vectors as it takes to fill the time that a round takes.
        const SIDE: usize = 4;
        let mut keys = [self.zero; 15];
        for round in 0..15 {
            keys[round] = self.round_keys[round][row % 4].everywhere(row / 4);
        }
        // The counter is a number until it is needed.
        let mut start = [0; 16];
        start[..12].copy_from_slice(nonce);
        let mut numbers = [0; 16];
        for (block, words) in numbers.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            words[3] = 2 + block as u32;
        }
        let mut step = [0; 16];
        for words in step.as_chunks_mut::<4>().0 {
            words[3] = I::WIDTH as u32 / 4;
        }
        let step = V::from_words(isa, &step);
        let mut counter = V::splat_piece(isa, &start).wrapping_add(V::from_words(isa, &numbers));
        let bytes = 4 * I::WIDTH;
        let mut chunks = text.chunks_exact_mut(SIDE * bytes);
        for chunk in &mut chunks {
            let mut stream = [counter; SIDE];
            for side in 0..SIDE {
                stream[side] = counter;
                counter = counter.wrapping_add(step);
            }
            let stream = encrypt::<I, SIDE>(&keys, stream);
            for side in 0..SIDE {
                let text = &mut chunk[side * bytes..];
                (V::from_bytes(isa, text) ^ stream[side]).to_bytes(text);
            }
        }
        let mut chunks = chunks.into_remainder().chunks_exact_mut(bytes);
        for text in &mut chunks {
            let [stream] = encrypt::<I, 1>(&keys, [counter]);
            counter = counter.wrapping_add(step);
            (V::from_bytes(isa, text) ^ stream).to_bytes(text);
        }
        let text = chunks.into_remainder();
        if !text.is_empty() {
            let [stream] = encrypt::<I, 1>(&keys, [counter]);
            let mut end = [0; 64];
            end[..text.len()].copy_from_slice(text);
            (V::from_bytes(isa, &end) ^ stream).to_bytes(&mut end);
            text.copy_from_slice(&end[..text.len()]);
            wipe(&mut end, 0);
        }
    }

    /// The tag of each row.
    #[inline(always)]
    fn tags<I: Isa<U32 = V>>(&self, isa: I, covered: &[Covered<'_>]) -> [[u8; 16]; WIDEST] {
        let mut tags = [[0; 16]; WIDEST];
        isa.call(Tags { hash_keys: self.hash_keys, masks: self.masks, covered, tags: &mut tags });
        tags
    }
}

impl<V: Copy> Drop for Group<V> {
    #[inline(always)]
    fn drop(&mut self) {
        self.round_keys = [[self.zero; 4]; 15];
        (self.hash_keys, self.masks) = ([self.zero; 4], [self.zero; 4]);
        zeroize::optimization_barrier(self);
    }
}

/// Encrypts counters, in vectors side by side, under the same key.
#[inline(always)]
fn encrypt<I: Isa, const SIDE: usize>(keys: &[I::U32; 15], mut blocks: [I::U32; SIDE]) -> [I::U32; SIDE] {
    for block in &mut blocks {
        // The last four bytes to big-endian.
        *block = block.shuffle([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 15, 14, 13, 12]) ^ keys[0];
    }
    for round in 1..14 {
        for block in &mut blocks {
            *block = block.aes_round(keys[round]);
        }
    }
    for block in &mut blocks {
        *block = block.aes_last(keys[14]);
    }
    blocks
}

/// GHASH (SP 800-38D §6.4) of each row of a group, a block of each at a time, plus the masks.
///
/// Read backwards, a block is a polynomial over GF(2) modulo `P = x^128 + x^127 + x^126 + x^121 + 1`, highest bit first, and
/// GHASH's product is `a · b · x^−127`. A factor `x` in the hash key leaves `a · b · x^−128`, which needs no shifts:
///
/// ```text
/// a · b = low + middle · x^64 + high · x^128        P = 1 + q · x^64 + x^128
/// + (lower half of low) · P, over x^64:             middle ← middle + swap(low) + (lower half of low) · q
/// + (lower half of middle) · P, over x^64:          high + swap(middle) + (lower half of middle) · q
/// ```
struct Tags<'a, V> {
    hash_keys: [V; 4],
    masks: [V; 4],
    covered: &'a [Covered<'a>],
    tags: &'a mut [[u8; 16]; WIDEST],
}

/// `x^57 + x^62 + x^63`.
const Q: u64 = 0xc2 << 56;
/// `x^129` modulo `P`: times this, over `x^128`, is times `x`.
const X: u128 = 1 << 126 | 1 << 122 | 1 << 121 | 0b11;
const BACKWARDS: [u8; 16] = [15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0];
const SWAP: [u8; 16] = [8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7];

impl<I: Isa> Part<I> for Tags<'_, I::U32> {
    type Out = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let q = I::U32::splat_piece(isa, &u128::from(Q).to_le_bytes());
        let x = I::U32::splat_piece(isa, &X.to_le_bytes());
        let mut keys = self.hash_keys;
        for i in 0..4 {
            keys[i] = times::<I>(keys[i].shuffle(BACKWARDS), x, q);
        }
        let mut sums = [isa.splat(0); 4];
        for run in 0..Covered::RUNS {
            let mut run = Runs::<WIDEST>::of(self.covered, 0, run);
            if run.most >= FEW {
                sums = isa.call(LongRows { keys, sums, run: &mut run, rows: self.covered.len() });
            }
            for index in 0..run.least {
                let blocks = run.at(index);
                for i in 0..4 {
                    let block = load_pieces(isa, &blocks[..I::WIDTH], i, 0).shuffle(BACKWARDS);
                    sums[i] = times::<I>(sums[i] ^ block, keys[i], q);
                }
            }
            for index in run.least..run.most {
                let (blocks, alive) = (run.at(index), run.alive(index));
                for i in 0..4 {
                    let block = load_pieces(isa, &blocks[..I::WIDTH], i, 0).shuffle(BACKWARDS);
                    let alive = load_pieces(isa, &alive[..I::WIDTH], i, 0);
                    sums[i] = alive.choose(times::<I>(sums[i] ^ block, keys[i], q), sums[i]);
                }
            }
        }
        for i in 0..4 {
            store_pieces(isa, sums[i].shuffle(BACKWARDS) ^ self.masks[i], &mut self.tags[..I::WIDTH], i, 0);
        }
    }
}

/// From how many blocks on a row is hashed alone, [`Alone`], if more than half a group are as long; below, its
/// powers of `H` cost more than they gain.
const MANY: usize = 256;
/// If fewer are, whose blocks would take as long as a whole group's.
const FEW: usize = 32;

/// Takes the long rows' blocks from a run, but for an end of less than `WIDTH`, into their sums.
struct LongRows<'r, 'a, V> {
    keys: [V; 4],
    sums: [V; 4],
    run: &'r mut Runs<'a, WIDEST>,
    rows: usize,
}

impl<I: Isa> Part<I> for LongRows<'_, '_, I::U32> {
    type Out = [I::U32; 4];

    #[inline(always)]
    fn run(mut self, isa: I) -> [I::U32; 4] {
        let blocks = self.run.blocks();
        let mut long = 0;
        for blocks in &blocks[..self.rows] {
            long += usize::from(blocks.len() >= FEW);
        }
        let least = if 2 * long > I::WIDTH { MANY } else { FEW };
        let mut sums = [[0; 16]; WIDEST];
        for i in 0..4 {
            store_pieces(isa, self.sums[i], &mut sums[..I::WIDTH], i, 0);
        }
        for lane in 0..WIDEST {
            if blocks[lane].len() >= least {
                let (whole, end) = blocks[lane].split_at(blocks[lane].len() / I::WIDTH * I::WIDTH);
                blocks[lane] = end;
                if lane < self.rows {
                    let key = self.keys[lane % 4].everywhere(lane / 4);
                    isa.call(Alone { key, sum: &mut sums[lane], blocks: whole });
                }
            }
        }
        self.run.count();
        for i in 0..4 {
            self.sums[i] = load_pieces(isa, &sums[..I::WIDTH], i, 0);
        }
        wipe(&mut sums, [0; 16]);
        self.sums
    }
}

/// Blocks of one row, four vectors at a time, whose number divides that of the blocks. With `n` blocks `m` in a vector, each
/// place in it is summed up by itself, four products for one reduction:
///
/// ```text
/// sum_i ← sum_i · H^4n + m_i · H^3n + m_(n+i) · H^2n + m_(2n+i) · H^n + m_(3n+i)
/// sum = sum_1 · H^n + sum_2 · H^(n−1) + … + sum_n · H
/// ```
struct Alone<'a, V> {
    key: V,
    sum: &'a mut [u8; 16],
    blocks: &'a [[u8; 16]],
}

impl<I: Isa> Part<I> for Alone<'_, I::U32> {
    type Out = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let q = I::U32::splat_piece(isa, &u128::from(Q).to_le_bytes());
        let (n, bytes) = (I::WIDTH / 4, 4 * I::WIDTH);
        // H^n … H, and H^n everywhere.
        let mut last = [[0; 16]; 4];
        let mut power = self.key;
        store_pieces(isa, power, &mut last[n - 1..n], 0, 0);
        for place in (0..n - 1).rev() {
            power = times::<I>(power, self.key, q);
            store_pieces(isa, power, &mut last[place..=place], 0, 0);
        }
        let mut powers = [power; 4];
        for i in 1..4 {
            powers[i] = times::<I>(powers[i - 1], power, q);
        }
        let mut sum = load_pieces(isa, &[*self.sum], 0, 0);
        for (index, blocks) in self.blocks.chunks_exact(I::WIDTH).enumerate() {
            let blocks = blocks.as_flattened();
            let mut m = [sum; 4];
            for i in 0..4 {
                m[i] = I::U32::from_bytes(isa, &blocks[i * bytes..]).shuffle(BACKWARDS);
            }
            if index == 0 {
                // What was there counts as much as the first block.
                m[0] = m[0] ^ sum;
                sum = isa.splat(0);
            }
            let product = Product::<I::U32>::new::<I>(sum, powers[3])
                .plus(Product::new::<I>(m[0], powers[2]))
                .plus(Product::new::<I>(m[1], powers[1]))
                .plus(Product::new::<I>(m[2], powers[0]));
            sum = product.reduced::<I>(q) ^ m[3];
        }
        let all = times::<I>(sum, I::U32::from_bytes(isa, last.as_flattened()), q);
        let mut sum = all;
        for piece in 1..n {
            sum = sum ^ all.everywhere(piece);
        }
        store_pieces(isa, sum, core::slice::from_mut(self.sum), 0, 0);
        wipe(&mut last, [0; 16]);
    }
}

/// `low + middle · x^64 + high · x^128`.
struct Product<V> {
    low: V,
    middle: V,
    high: V,
}

impl<V> Product<V> {
    #[inline(always)]
    fn new<I: Isa<U32 = V>>(a: V, b: V) -> Self
    where
        V: Pieces<I>,
    {
        Self { low: a.clmul_low(b), middle: a.clmul_low_high(b) ^ b.clmul_low_high(a), high: a.clmul_high(b) }
    }
    #[inline(always)]
    fn plus(self, other: Self) -> Self
    where
        V: Lanes,
    {
        Self { low: self.low ^ other.low, middle: self.middle ^ other.middle, high: self.high ^ other.high }
    }
    #[inline(always)]
    fn reduced<I: Isa<U32 = V>>(self, q: V) -> V
    where
        V: Pieces<I>,
    {
        let middle = self.middle.xor3(self.low.shuffle(SWAP), self.low.clmul_low(q));
        self.high.xor3(middle.shuffle(SWAP), middle.clmul_low(q))
    }
}

#[inline(always)]
fn times<I: Isa>(a: I::U32, b: I::U32, q: I::U32) -> I::U32 {
    Product::new::<I>(a, b).reduced::<I>(q)
}

/// The last block that a tag covers.
#[inline(always)]
fn lengths(associated: usize, ciphertext: usize) -> [u8; 16] {
    (u128::from(8 * associated as u64) << 64 | u128::from(8 * ciphertext as u64)).to_be_bytes()
}

#[inline(always)]
fn seal_group<I: Isa>(isa: I, keys: &[[u8; 32]], nonces: &[[u8; 12]], associated: &[&[u8]], rows: &mut [&mut [u8]]) {
    let group = Group::new(isa, keys, nonces);
    for (lane, row) in rows.iter_mut().enumerate() {
        let (text, _) = row.split_last_chunk_mut::<TAG>().expect("a row has room for its tag");
        group.apply(isa, lane, &nonces[lane], text);
    }
    let mut all = [Covered::NONE; WIDEST];
    for (lane, row) in rows.iter().enumerate() {
        let (text, _) = row.split_last_chunk::<TAG>().expect("a row has room for its tag");
        all[lane].set(associated[lane], text, lengths(associated[lane].len(), text.len()));
    }
    let tags = group.tags(isa, &all[..rows.len()]);
    for (row, tag) in rows.iter_mut().zip(&tags) {
        *row.last_chunk_mut().expect("a row has room for its tag") = *tag;
    }
}

#[inline(always)]
fn open_group<I: Isa>(
    isa: I,
    keys: &[[u8; 32]],
    nonces: &[[u8; 12]],
    associated: &[&[u8]],
    rows: &mut [&mut [u8]],
    ok: &mut [bool],
) {
    let group = Group::new(isa, keys, nonces);
    let mut all = [Covered::NONE; WIDEST];
    for (lane, row) in rows.iter().enumerate() {
        let (text, _) = row.split_last_chunk::<TAG>().unwrap_or((&[], &[0; TAG]));
        all[lane].set(associated[lane], text, lengths(associated[lane].len(), text.len()));
    }
    let tags = group.tags(isa, &all[..rows.len()]);
    for (lane, row) in rows.iter_mut().enumerate() {
        ok[lane] = row.last_chunk::<TAG>().is_some_and(|tag| public(tags[lane].ct_eq(tag).into()));
        if ok[lane] {
            let (text, _) = row.split_last_chunk_mut::<TAG>().expect("its tag was right");
            group.apply(isa, lane, &nonces[lane], text);
        } else {
            row.fill(0);
        }
    }
}

/// Bytes of a tag.
const TAG: usize = 16;

#[inline]
fn seal(key: &[u8; 32], nonce: &[u8; 12], associated: &[u8], text: &mut [u8]) -> [u8; 16] {
    if text.len() <= OnePass::MOST {
        let pass = OnePass::new(key, nonce, text.len());
        pass.apply(text);
        return pass.tag(associated, text);
    }
    let tag = Aes256Gcm::new(key.into()).encrypt_inout_detached(nonce.into(), associated, text.into());
    tag.expect("rows are far below the cipher's limit of 64 GiB").into()
}

#[inline]
fn open(key: &[u8; 32], nonce: &[u8; 12], associated: &[u8], text: &mut [u8], tag: &[u8; 16]) -> bool {
    if text.len() <= OnePass::MOST {
        let pass = OnePass::new(key, nonce, text.len());
        let ok = public(pass.tag(associated, text).ct_eq(tag).into());
        if ok {
            pass.apply(text);
        }
        return ok;
    }
    let cipher = Aes256Gcm::new(key.into());
    public(cipher.decrypt_inout_detached(nonce.into(), associated, text.into(), tag.into()).is_ok())
}

/// AES-256-GCM (SP 800-38D §7) of a short row: the hash key, the tag's mask and the key stream in one run of AES, whose
/// code takes several blocks at a time. 350 ns for 256 bytes, against 450 by the crate that does them apart.
struct OnePass {
    /// `E(0)`, then `E` of the counter blocks 1 (the mask), 2, 3 …
    blocks: [Block<Aes256Enc>; Self::MOST / 16 + 2],
    used: usize,
}

impl OnePass {
    /// Longer rows go where long blocks are fast.
    const MOST: usize = 448;

    #[inline]
    fn new(key: &[u8; 32], nonce: &[u8; 12], length: usize) -> Self {
        let mut pass =
            Self { blocks: [Block::<Aes256Enc>::default(); Self::MOST / 16 + 2], used: 2 + length.div_ceil(16) };
        let mut counter = [0; 16];
        counter[..12].copy_from_slice(nonce);
        for (block, number) in pass.blocks[1..pass.used].iter_mut().zip(1_u32..) {
            counter[12..].copy_from_slice(&number.to_be_bytes());
            *block = counter.into();
        }
        Aes256Enc::new(key.into()).encrypt_blocks(&mut pass.blocks[..pass.used]);
        pass
    }

    /// Encrypts or decrypts.
    #[inline]
    fn apply(&self, text: &mut [u8]) {
        for (text, stream) in text.chunks_mut(16).zip(&self.blocks[2..]) {
            for (byte, stream) in text.iter_mut().zip(stream) {
                *byte ^= stream;
            }
        }
    }

    /// The tag of a ciphertext.
    #[inline]
    fn tag(&self, associated: &[u8], ciphertext: &[u8]) -> [u8; 16] {
        let mut hash = GHash::new(&self.blocks[0]);
        hash.update_padded(associated);
        hash.update_padded(ciphertext);
        let mut lengths = [0; 16];
        lengths[..8].copy_from_slice(&(8 * associated.len() as u64).to_be_bytes());
        lengths[8..].copy_from_slice(&(8 * ciphertext.len() as u64).to_be_bytes());
        hash.update_padded(&lengths);
        let mut tag: [u8; 16] = hash.finalize().into();
        for (byte, mask) in tag.iter_mut().zip(&self.blocks[1]) {
            *byte ^= mask;
        }
        tag
    }
}

impl Drop for OnePass {
    fn drop(&mut self) {
        self.blocks[..self.used].fill(Block::<Aes256Enc>::default());
        zeroize::optimization_barrier(&self.blocks);
    }
}
