//! Crypto steps on rows gathered a tile at a time: what encrypt, decrypt and groups have in common. Keys live in
//! the tile and are zeroed with it.

use std::ops::{Deref, DerefMut};

use interlane_lanes::kernels::{cbc, chain, hmac};
use interlane_lanes::{Backend, TILE, public};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, optimization_barrier};

use crate::bytes::Bytes;
use crate::ratchet::{ChainKey, MESSAGE_KEY_BYTES, MESSAGE_KEY_INFO, MessageKeys};
use crate::secret::SecretColumn;
use crate::wire::{MAC_BYTES, strip_block_padding};

/// A column of a tile; zeroed when dropped.
pub(crate) struct Column<const N: usize>([[u8; N]; TILE]);

/// An empty column.
pub(crate) fn column<const N: usize>() -> Column<N> {
    Column([[0; N]; TILE])
}

impl<const N: usize> Deref for Column<N> {
    type Target = [[u8; N]; TILE];
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<const N: usize> DerefMut for Column<N> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl<const N: usize> Drop for Column<N> {
    fn drop(&mut self) {
        self.0 = [[0; N]; TILE];
        optimization_barrier(&self.0);
    }
}

/// Takes up to a tile of items off an iterator.
pub(crate) fn fill<T>(rows: &mut impl Iterator<Item = T>) -> ([Option<T>; TILE], usize) {
    let tile: [Option<T>; TILE] = std::array::from_fn(|_| rows.next());
    let n = tile.iter().take_while(|row| row.is_some()).count();
    (tile, n)
}

/// Moves every chain one message on, and gives the messages' seeds.
pub(crate) fn step<'a>(backend: Backend, rows: impl Iterator<Item = (&'a mut ChainKey, &'a mut [u8; 32])>) {
    let mut rows = rows.fuse();
    let (mut chains, mut seeds) = (column::<32>(), column::<32>());
    loop {
        let (mut tile, n) = fill(&mut rows);
        if n == 0 {
            return;
        }
        for (lane, row) in tile.iter().flatten().enumerate() {
            chains[lane] = *row.0.key.expose();
        }
        backend.run(chain::Step { chains: &mut chains[..n], seeds: &mut seeds[..n] });
        for (lane, (chain, seed)) in tile.iter_mut().flatten().enumerate() {
            *chain.key.expose_mut() = chains[lane];
            chain.index += 1;
            **seed = seeds[lane];
        }
    }
}

/// One chain step a row: the k-th rows of all chains together. `place` gives the place of a row's owner, which ascends
/// with the rows, and how many rows of that owner come before it. Gives the seeds in the rows' order.
pub(crate) fn step_waves<R, O>(
    backend: Backend,
    rows: &[R],
    place: impl Fn(&R) -> (usize, u32),
    owners: &mut [O],
    chain: impl Fn(&mut O) -> Option<&mut ChainKey>,
) -> SecretColumn<32> {
    let mut all_seeds = SecretColumn::zeroes(rows.len());
    let mut by_wave: Vec<u32> = (0..rows.len() as u32).collect();
    let wave_of = |at: u32| place(&rows[at as usize]).1;
    by_wave.sort_by_key(|&at| wave_of(at));
    for wave in by_wave.chunk_by(|&a, &b| wave_of(a) == wave_of(b)) {
        // Within a wave both owners and rows ascend: each iterator is walked once.
        let (mut owners, mut owner_at) = (owners.iter_mut(), 0);
        let (mut seeds, mut seed_at) = (all_seeds.iter_mut(), 0);
        let chains = wave.iter().filter_map(|&at| {
            let at = at as usize;
            let (owner, _) = place(&rows[at]);
            let found = owners.nth(owner - owner_at)?;
            let seed = seeds.nth(at - seed_at)?;
            (owner_at, seed_at) = (owner + 1, at + 1);
            Some((chain(found)?, seed))
        });
        step(backend, chains);
    }
    all_seeds
}

/// Writes a plaintext with its two paddings into the place of its ciphertext.
pub(crate) fn write_padded(text: &mut [u8], plaintext: &[u8], message_padding: usize) {
    let (body, padding) = text.split_at_mut(plaintext.len());
    body.copy_from_slice(plaintext);
    let (message_padding, block_padding) = padding.split_at_mut(message_padding);
    message_padding.fill(message_padding.len() as u8);
    block_padding.fill(block_padding.len() as u8);
}

/// Encrypts a tile's texts where they lie, each with its own key and IV.
pub(crate) fn seal(backend: Backend, keys: &[[u8; 32]], ivs: &[[u8; 16]], texts: &mut [&mut [u8]]) {
    backend.run(cbc::Encrypt { keys, ivs, rows: &mut *texts });
    #[cfg(test)]
    super::tap::note(keys, ivs, texts);
}

/// Decrypts a tile's ciphertexts at the end of `bytes` and takes the paddings off.
/// Gives where each plaintext is; `None` for a lane without a ciphertext, and for one whose length or padding is
/// wrong, of which nothing stays.
pub(crate) fn open(
    backend: Backend,
    keys: &Column<32>,
    ivs: &Column<16>,
    ciphertexts: &[Option<&[u8]>; TILE],
    bytes: &mut Bytes,
    strip_message_padding: impl Fn(&[u8]) -> Option<usize>,
) -> [Option<(usize, usize)>; TILE] {
    let begin = bytes.len();
    bytes.reserve(ciphertexts.iter().flatten().map(|text| text.len()).sum());
    let (mut whole_keys, mut whole_ivs) = (column::<32>(), column::<16>());
    let mut places: [Option<(usize, usize)>; TILE] = [None; TILE];
    let mut n = 0;
    for (lane, ciphertext) in ciphertexts.iter().enumerate() {
        if let Some(ciphertext) = ciphertext.filter(|text| !text.is_empty() && text.len().is_multiple_of(16)) {
            (whole_keys[n], whole_ivs[n]) = (keys[lane], ivs[lane]);
            places[lane] = Some((bytes.len(), ciphertext.len()));
            bytes.extend_from_slice(ciphertext);
            n += 1;
        }
    }
    let mut texts: [&mut [u8]; TILE] = std::array::from_fn(|_| &mut [][..]);
    let mut behind = &mut bytes[begin..];
    for (text, (_, len)) in texts.iter_mut().zip(places.iter().flatten()) {
        (*text, behind) = behind.split_at_mut(*len);
    }
    backend.run(cbc::Decrypt { keys: &whole_keys[..n], ivs: &whole_ivs[..n], rows: &mut texts[..n] });
    places.map(|place| {
        let (start, len) = place?;
        let text = &mut bytes[start..start + len];
        let plain = strip_block_padding(text).and_then(|len| strip_message_padding(&text[..len]));
        if plain.is_none() {
            text.zeroize();
        }
        Some((start, plain?))
    })
}

/// A tile's message keys, by field.
pub(crate) struct TileKeys {
    pub(crate) cipher: Column<32>,
    pub(crate) mac: Column<32>,
    pub(crate) iv: Column<16>,
}

/// Message keys of a tile of seeds.
pub(crate) fn message_keys(backend: Backend, seeds: &[[u8; 32]]) -> TileKeys {
    let mut bytes = column::<MESSAGE_KEY_BYTES>();
    backend.run(chain::MessageKeys { seeds, info: MESSAGE_KEY_INFO, out: &mut bytes[..seeds.len()] });
    split_keys(&bytes[..seeds.len()])
}

/// Moves a tile's chain keys one message on, and gives the messages' keys, and their seeds where there is room for them.
pub(crate) fn step_to_keys(backend: Backend, chains: &mut [[u8; 32]], seeds: &mut [[u8; 32]]) -> TileKeys {
    let (mut bytes, n) = (column::<MESSAGE_KEY_BYTES>(), chains.len());
    backend.run(chain::StepToKeys { chains, seeds, info: MESSAGE_KEY_INFO, out: &mut bytes[..n] });
    split_keys(&bytes[..n])
}

fn split_keys(bytes: &[[u8; MESSAGE_KEY_BYTES]]) -> TileKeys {
    let mut keys = TileKeys { cipher: column(), mac: column(), iv: column() };
    for (lane, bytes) in bytes.iter().enumerate() {
        let split = MessageKeys::from(bytes);
        keys.cipher[lane] = *split.cipher;
        keys.mac[lane] = *split.mac;
        keys.iv[lane] = *split.iv;
    }
    keys
}

/// The MACs of a tile: over both identities and the frame.
pub(crate) fn macs(backend: Backend, keys: &[[u8; 32]], identities: &[[u8; 66]], frames: &[&[u8]]) -> Column<32> {
    let mut out = column();
    let heads: [&[u8]; TILE] = std::array::from_fn(|lane| identities.get(lane).map_or(&[][..], |head| &head[..]));
    let n = frames.len();
    backend.run(hmac::Hmac { keys, heads: &heads[..n], tails: frames, out: &mut out[..n] });
    out
}

/// Whether a frame carries this MAC, in constant time.
pub(crate) fn mac_is(carried: &[u8; MAC_BYTES], computed: &[u8; 32]) -> bool {
    let computed = computed.first_chunk().expect("8 of 32");
    public(u64::from_ne_bytes(*carried).ct_eq(&u64::from_ne_bytes(*computed)).into())
}
