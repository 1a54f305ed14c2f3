//! Crypto steps on rows gathered sixteen at a time: what encrypt, decrypt and groups have in common. Keys live in
//! the tile and are zeroed with it.

use std::ops::{Deref, DerefMut};

use interlane_lanes::kernels::{chain, hmac};
use interlane_lanes::{Backend, TILE};
use subtle::ConstantTimeEq;
use zeroize::optimization_barrier;

use crate::ratchet::{ChainKey, MESSAGE_KEY_BYTES, MESSAGE_KEY_INFO, MessageKeys};
use crate::wire::MAC_BYTES;

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
    let mut keys = TileKeys { cipher: column(), mac: column(), iv: column() };
    for lane in 0..seeds.len() {
        let split = MessageKeys::from(&bytes[lane]);
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
    carried.ct_eq(&computed[..MAC_BYTES]).into()
}
