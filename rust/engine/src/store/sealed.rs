//! What is on disk is sealed: XChaCha20-Poly1305 (RFC 8439 with the 192-bit nonces of draft-irtf-cfrg-xchacha) with
//! random nonces, which are wide enough never to repeat. The associated data is the place that a sealed thing belongs
//! to, so that it opens nowhere else.
//!
//! The operator's key wraps a data key for each account; an account's data key seals its rows and its sections of the
//! journal's blocks. Without the wrapped data key an account cannot be read, whatever is left of it on a disk.

use std::mem::take;

use chacha20::{R20, hchacha};
use chacha20poly1305::{AeadInOut, KeyInit, Tag, XChaCha20Poly1305, XNonce};
use interlane_lanes::Backend;
use interlane_lanes::kernels::chacha20poly1305::{Open, Seal};
use zeroize::{Zeroize, Zeroizing};

use super::Key;
use crate::error::Error;
pub(super) use crate::machine::random;
use crate::secret::{Secret, SecretColumn};

/// Bytes of a nonce.
pub(super) const NONCE: usize = 24;

/// Bytes of an authentication tag.
pub(super) const TAG: usize = 16;

/// The random name of a store: nothing sealed in one store opens in another.
pub(super) type StoreId = [u8; 16];

/// What cannot be opened: changed, of another place, or of another key. One word for all, by design.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused;

/// A place that a sealed thing is bound to.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    /// The row of a key.
    Row(Key),
    /// The row that all parts of a peer are in.
    Peer { account: u32, tag: [u8; 16] },
    /// The section of an account in a block of the journal.
    Section { sequence: u64, account: u32 },
    /// The data key of an account.
    DataKey { account: u32, name: &'a str },
    /// The proof that the operator's key is the right one.
    Proof,
}

impl Place<'_> {
    /// Associated data: a number for the sort of place, the store, then the place itself; injective, because each
    /// sort has one length, or ends with what is variable.
    fn with_bytes<T>(self, store: &StoreId, then: impl FnOnce(&[u8]) -> T) -> T {
        match self {
            Self::Row(key) => {
                let mut bytes = [1; 1 + 16 + 21];
                bytes[1..17].copy_from_slice(store);
                bytes[17..].copy_from_slice(&key.to_bytes());
                then(&bytes)
            }
            Self::Peer { account, tag } => {
                let mut bytes = [5; 1 + 16 + 4 + 16];
                bytes[1..17].copy_from_slice(store);
                bytes[17..21].copy_from_slice(&account.to_be_bytes());
                bytes[21..].copy_from_slice(&tag);
                then(&bytes)
            }
            Self::Section { sequence, account } => {
                let mut bytes = [2; 1 + 16 + 8 + 4];
                bytes[1..17].copy_from_slice(store);
                bytes[17..25].copy_from_slice(&sequence.to_be_bytes());
                bytes[25..].copy_from_slice(&account.to_be_bytes());
                then(&bytes)
            }
            Self::DataKey { account, name } => {
                then(&[&[3][..], store, &account.to_be_bytes(), name.as_bytes()].concat())
            }
            Self::Proof => then(&[&[4][..], store].concat()),
        }
    }
}

/// Nonces for one call, drawn together: a call into the operating system costs more than sealing a row. They do not
/// outlive the call, so that no fork can come between drawing and use.
pub(super) struct Nonces {
    drawn: Vec<u8>,
    used: usize,
}

impl Nonces {
    /// Nonces for about so many seals.
    pub(super) fn draw(seals: usize) -> Result<Self, Error> {
        let mut drawn = vec![0; seals.clamp(1, 4_096) * NONCE];
        random(&mut drawn)?;
        Ok(Self { drawn, used: 0 })
    }

    /// One that was not given out before.
    pub(super) fn next(&mut self) -> Result<[u8; NONCE], Error> {
        if self.used == self.drawn.len() {
            random(&mut self.drawn)?;
            self.used = 0;
        }
        let nonce = self.drawn[self.used..].first_chunk().expect("the length is a multiple of a nonce's");
        self.used += NONCE;
        Ok(*nonce)
    }
}

/// Seals `body` where it lies.
fn seal_in_place(
    key: &Secret<32>,
    nonce: &[u8; NONCE],
    store: &StoreId,
    place: Place<'_>,
    body: &mut [u8],
) -> [u8; TAG] {
    let cipher = XChaCha20Poly1305::new(key.expose().into());
    let tag = place.with_bytes(store, |data| cipher.encrypt_inout_detached(&XNonce::from(*nonce), data, body.into()));
    tag.expect("a body is shorter than the cipher's limit of 256 GiB").into()
}

/// Cuts a buffer of things that lie one after another, by where each of them ends.
pub(super) fn cut(
    mut rest: &mut [u8],
    ends: impl ExactSizeIterator<Item = usize>,
) -> impl ExactSizeIterator<Item = &mut [u8]> {
    let mut begin = 0;
    ends.map(move |end| {
        let (part, behind) = take(&mut rest).split_at_mut(end - begin);
        (rest, begin) = (behind, end);
        part
    })
}

/// What [`seal_many`] seals.
pub(super) struct Unsealed<'a> {
    pub(super) key: &'a Secret<32>,
    pub(super) nonce: [u8; NONCE],
    pub(super) place: Place<'a>,
    /// The plaintext, and room for a tag.
    pub(super) body: &'a mut [u8],
}

/// Rows as the lanes take them: the cipher of one with a nonce of 192 bits is that of RFC 8439 under a key made of the
/// first 128 of them, with the others as its nonce.
struct InLanes {
    keys: SecretColumn<32>,
    nonces: Vec<[u8; 12]>,
    places: Vec<u8>,
    ends: Vec<usize>,
}

impl InLanes {
    fn of(rows: usize) -> Self {
        let (nonces, ends) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
        Self { keys: SecretColumn::zeroes(rows), nonces, places: Vec::new(), ends }
    }

    /// The next row.
    fn add(&mut self, key: &Secret<32>, nonce: &[u8; NONCE], store: &StoreId, place: Place<'_>) {
        let (first, last) = nonce.split_first_chunk::<16>().expect("16 of 24");
        let mut made = hchacha::<R20>(key.expose().into(), first.into());
        self.keys[self.nonces.len()].copy_from_slice(&made);
        made.as_mut_slice().zeroize();
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(last);
        self.nonces.push(nonce);
        place.with_bytes(store, |data| self.places.extend_from_slice(data));
        self.ends.push(self.places.len());
    }

    /// What each row is bound to.
    fn associated(&self) -> Vec<&[u8]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, &end)| &self.places[begin..end]).collect()
    }
}

/// Seals many things where they lie, in lanes.
pub(super) fn seal_many<'a>(backend: Backend, store: &StoreId, unsealed: impl ExactSizeIterator<Item = Unsealed<'a>>) {
    let mut rows = InLanes::of(unsealed.len());
    let mut bodies = Vec::with_capacity(unsealed.len());
    for Unsealed { key, nonce, place, body } in unsealed {
        rows.add(key, &nonce, store, place);
        bodies.push(body);
    }
    let InLanes { keys, nonces, .. } = &rows;
    backend.run(Seal { keys, nonces, associated: &rows.associated(), rows: &mut bodies });
}

/// nonce ‖ ciphertext ‖ tag of `plain`, into `sealed`, which is emptied first.
pub(super) fn seal(
    key: &Secret<32>,
    nonce: &[u8; NONCE],
    store: &StoreId,
    place: Place<'_>,
    plain: &[u8],
    sealed: &mut Vec<u8>,
) {
    seal_with(key, nonce, store, place, plain.len(), |body| body.extend_from_slice(plain), sealed);
}

/// The same of `length` bytes that `write` appends.
pub(super) fn seal_with(
    key: &Secret<32>,
    nonce: &[u8; NONCE],
    store: &StoreId,
    place: Place<'_>,
    length: usize,
    write: impl FnOnce(&mut Vec<u8>),
    sealed: &mut Vec<u8>,
) {
    sealed.clear();
    // Before any plaintext is in it: a buffer that grew would leave some in freed memory.
    sealed.reserve(NONCE + length + TAG);
    sealed.extend_from_slice(nonce);
    write(sealed);
    debug_assert_eq!(sealed.len(), NONCE + length, "what is written is as long as was said");
    let tag = seal_in_place(key, nonce, store, place, &mut sealed[NONCE..]);
    sealed.extend_from_slice(&tag);
}

/// Opens nonce ‖ ciphertext ‖ tag into `plain`, whose old content is zeroed.
pub(super) fn open(
    key: &Secret<32>,
    store: &StoreId,
    place: Place<'_>,
    sealed: &[u8],
    plain: &mut Zeroizing<Vec<u8>>,
) -> Result<(), Refused> {
    let (nonce, rest) = sealed.split_first_chunk::<NONCE>().ok_or(Refused)?;
    let (body, tag) = rest.split_last_chunk::<TAG>().ok_or(Refused)?;
    if plain.capacity() < body.len() {
        *plain = Zeroizing::new(Vec::with_capacity(body.len().next_power_of_two()));
    } else {
        plain.as_mut_slice().zeroize();
        plain.clear();
    }
    plain.extend_from_slice(body);
    let cipher = XChaCha20Poly1305::new(key.expose().into());
    let opened = place.with_bytes(store, |data| {
        let buffer = plain.as_mut_slice().into();
        cipher.decrypt_inout_detached(&XNonce::from(*nonce), data, buffer, &Tag::from(*tag))
    });
    opened.map_err(|_| Refused)
}

/// What [`open_many`] opens.
pub(super) struct Sealed<'a> {
    pub(super) key: &'a Secret<32>,
    pub(super) place: Place<'a>,
    /// nonce ‖ ciphertext ‖ tag; then [`plain`] is in it.
    pub(super) body: &'a mut [u8],
}

/// Opens many sealed things where they lie, in lanes: a row of 300 bytes takes a sixth of what the crate takes for it alone.
/// Where one is refused all are, and what is in their places is of no use.
pub(super) fn open_many<'a>(
    backend: Backend,
    store: &StoreId,
    sealed: impl ExactSizeIterator<Item = Sealed<'a>>,
) -> Result<(), Refused> {
    let mut rows = InLanes::of(sealed.len());
    let mut texts = Vec::with_capacity(sealed.len());
    for Sealed { key, place, body } in sealed {
        let (nonce, text) = body.split_first_chunk_mut::<NONCE>().ok_or(Refused)?;
        rows.add(key, nonce, store, place);
        texts.push(text);
    }
    let mut ok = vec![false; texts.len()];
    let InLanes { keys, nonces, .. } = &rows;
    backend.run(Open { keys, nonces, associated: &rows.associated(), rows: &mut texts, ok: &mut ok });
    if ok.iter().all(|&ok| ok) { Ok(()) } else { Err(Refused) }
}

/// Where the plaintext lies in what [`open_many`] opened.
pub(super) fn plain(body: &[u8]) -> &[u8] {
    &body[NONCE..body.len() - TAG]
}

/// Wraps an account's data key under the operator's.
pub(super) fn wrap(
    operator_key: &Secret<32>,
    store: &StoreId,
    account: u32,
    name: &str,
    data_key: &Secret<32>,
) -> Result<Vec<u8>, Error> {
    let nonce = Nonces::draw(1)?.next()?;
    let mut wrapped = Vec::new();
    seal(operator_key, &nonce, store, Place::DataKey { account, name }, data_key.expose(), &mut wrapped);
    Ok(wrapped)
}

/// Unwraps an account's data key.
pub(super) fn unwrap(
    operator_key: &Secret<32>,
    store: &StoreId,
    account: u32,
    name: &str,
    wrapped: &[u8],
) -> Result<Secret<32>, Refused> {
    let mut plain = Zeroizing::new(Vec::new());
    open(operator_key, store, Place::DataKey { account, name }, wrapped, &mut plain)?;
    plain.as_slice().try_into().map(Secret::copy_of).map_err(|_| Refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Kind;

    const STORE: StoreId = [5; 16];

    fn key() -> Secret<32> {
        Secret::copy_of(&[9; 32])
    }

    fn row(account: u32, kind: Kind, first: u8) -> Place<'static> {
        Place::Row(Key { account, kind, tag: [first; 16] })
    }

    fn sealed(plain: &[u8], place: Place<'_>) -> Vec<u8> {
        let mut sealed = vec![1; 3];
        seal(&key(), &Nonces::draw(1).unwrap().next().unwrap(), &STORE, place, plain, &mut sealed);
        sealed
    }

    fn opened(sealed: &[u8], key: &Secret<32>, store: &StoreId, place: Place<'_>) -> Result<Vec<u8>, Refused> {
        let mut plain = Zeroizing::new(vec![1; 70]);
        open(key, store, place, sealed, &mut plain).map(|()| plain.to_vec())
    }

    // draft-irtf-cfrg-xchacha-03, A.3.1: its associated data is not a place of ours, so the cipher alone is checked.
    #[test]
    fn the_cipher_is_the_drafts() {
        let plain = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.";
        let data = [0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7];
        let key: [u8; 32] = std::array::from_fn(|i| 0x80 + i as u8);
        let nonce: [u8; 24] = std::array::from_fn(|i| 0x40 + i as u8);
        let mut body = plain.to_vec();
        let tag = XChaCha20Poly1305::new((&key).into())
            .encrypt_inout_detached(&XNonce::from(nonce), &data, body.as_mut_slice().into())
            .unwrap();
        assert_eq!(body[..8], [0xbd, 0x6d, 0x17, 0x9d, 0x3e, 0x83, 0xd4, 0x3b]);
        let expected = [0xc0, 0x87, 0x59, 0x24, 0xc1, 0xc7, 0x98, 0x79, 0x47, 0xde, 0xaf, 0xd8, 0x78, 0x0a, 0xcf, 0x49];
        assert_eq!(<[u8; 16]>::from(tag), expected);
    }

    #[test]
    fn what_is_sealed_opens_at_its_place_alone() {
        let places = [
            row(1, Kind::Session, 0),
            row(2, Kind::Session, 0),
            row(1, Kind::Archive, 0),
            row(1, Kind::Session, 1),
            row(1, Kind::Peer, 0),
            Place::Peer { account: 1, tag: [0; 16] },
            Place::Peer { account: 2, tag: [0; 16] },
            Place::Peer { account: 1, tag: [1; 16] },
            Place::Section { sequence: 1, account: 1 },
            Place::Section { sequence: 2, account: 1 },
            Place::Section { sequence: 1, account: 2 },
            Place::DataKey { account: 1, name: "a" },
            Place::DataKey { account: 2, name: "a" },
            Place::DataKey { account: 1, name: "" },
            Place::Proof,
        ];
        for (i, &at) in places.iter().enumerate() {
            for plain in [&b""[..], b"x", &[7; 63], &[7; 64], &[7; 330]] {
                let sealed = sealed(plain, at);
                assert_eq!(sealed.len(), NONCE + plain.len() + TAG);
                for (j, &elsewhere) in places.iter().enumerate() {
                    let expected = if i == j { Ok(plain.to_vec()) } else { Err(Refused) };
                    assert_eq!(opened(&sealed, &key(), &STORE, elsewhere), expected);
                }
                assert_eq!(opened(&sealed, &key(), &[6; 16], at), Err(Refused));
                assert_eq!(opened(&sealed, &Secret::copy_of(&[8; 32]), &STORE, at), Err(Refused));
            }
        }
    }

    #[test]
    fn no_bit_and_no_byte_can_be_changed() {
        let whole = sealed(b"chain key", Place::Proof);
        for bit in 0..whole.len() * 8 {
            let mut changed = whole.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(opened(&changed, &key(), &STORE, Place::Proof), Err(Refused));
        }
        for length in 0..whole.len() {
            assert_eq!(opened(&whole[..length], &key(), &STORE, Place::Proof), Err(Refused));
        }
    }

    /// As one by one, on every backend: rows of several keys and of every sort of place, as many as fill lanes and more.
    #[test]
    fn many_open_as_one_does() {
        let keys = [Secret::copy_of(&[9; 32]), Secret::copy_of(&[3; 32])];
        let place = |i: usize| match i % 3 {
            0 => row(i as u32, Kind::Session, 1),
            1 => Place::Peer { account: i as u32, tag: [1; 16] },
            _ => Place::Section { sequence: i as u64, account: 1 },
        };
        let plain_of = |i: usize| vec![i as u8; i * 37 % 900];
        let whole = |rows: usize| -> Vec<Vec<u8>> {
            let mut nonces = Nonces::draw(rows).unwrap();
            (0..rows)
                .map(|i| {
                    let mut sealed = Vec::new();
                    seal(&keys[i % 2], &nonces.next().unwrap(), &STORE, place(i), &plain_of(i), &mut sealed);
                    sealed
                })
                .collect()
        };
        for backend in Backend::available() {
            let opened = |bodies: &mut [Vec<u8>], store: &StoreId, place_of: &dyn Fn(usize) -> Place<'static>| {
                let sealed = bodies.iter_mut().enumerate();
                open_many(
                    backend,
                    store,
                    sealed.map(|(i, body)| Sealed { key: &keys[i % 2], place: place_of(i), body }),
                )
            };
            for rows in [0, 1, 2, 3, 15, 16, 17, 40, 64, 65] {
                let sealed = whole(rows);
                let mut bodies = sealed.clone();
                assert_eq!(opened(&mut bodies, &STORE, &place), Ok(()));
                for (i, body) in bodies.iter().enumerate() {
                    assert_eq!(plain(body), plain_of(i), "row {i} of {rows}, {}", backend.name());
                }
                for wrong in 0..rows {
                    let refused = |bodies: &mut [Vec<u8>]| assert_eq!(opened(bodies, &STORE, &place), Err(Refused));
                    let mut bodies = sealed.clone();
                    let at = (wrong * 7919) % bodies[wrong].len();
                    bodies[wrong][at] ^= 1;
                    refused(&mut bodies);
                    let mut bodies = sealed.clone();
                    let longest = bodies[wrong].len() - 1;
                    bodies[wrong].truncate((wrong * 31) % (NONCE + TAG + 3).min(longest));
                    refused(&mut bodies);
                    let moved = |i: usize| if i == wrong { place(i + 3) } else { place(i) };
                    assert_eq!(opened(&mut sealed.clone(), &STORE, &moved), Err(Refused));
                }
                if rows > 0 {
                    assert_eq!(opened(&mut sealed.clone(), &[6; 16], &place), Err(Refused));
                }
            }
        }
    }

    /// As one by one, on every backend: of several keys and of every sort of place, as many as fill lanes and more.
    #[test]
    fn many_are_sealed_as_one_is() {
        let keys = [Secret::copy_of(&[9; 32]), Secret::copy_of(&[3; 32])];
        let place = |i: usize| match i % 3 {
            0 => row(i as u32, Kind::Session, 1),
            1 => Place::Peer { account: i as u32, tag: [1; 16] },
            _ => Place::Section { sequence: i as u64, account: 1 },
        };
        for backend in Backend::available() {
            for rows in [0, 1, 2, 3, 15, 16, 17, 40] {
                let mut drawn = Nonces::draw(rows).unwrap();
                let nonces: Vec<_> = (0..rows).map(|_| drawn.next().unwrap()).collect();
                let plain = |i: usize| vec![i as u8; i * 337 % 2_900];
                let mut bodies: Vec<_> = (0..rows).map(|i| [plain(i), vec![7; TAG]].concat()).collect();
                let unsealed = bodies.iter_mut().enumerate().map(|(i, body)| Unsealed {
                    key: &keys[i % 2],
                    nonce: nonces[i],
                    place: place(i),
                    body,
                });
                seal_many(backend, &STORE, unsealed);
                for (i, body) in bodies.iter().enumerate() {
                    let mut alone = Vec::new();
                    seal(&keys[i % 2], &nonces[i], &STORE, place(i), &plain(i), &mut alone);
                    assert_eq!([&nonces[i][..], body].concat(), alone, "row {i} of {rows}, {}", backend.name());
                }
            }
        }
    }

    #[test]
    fn nonces_differ_also_past_those_drawn() {
        let mut nonces = Nonces::draw(3).unwrap();
        let given: std::collections::HashSet<_> = (0..1_000).map(|_| nonces.next().unwrap()).collect();
        assert_eq!(given.len(), 1_000);
    }

    #[test]
    fn a_data_key_is_unwrapped_for_its_account_alone() {
        let wrapped = wrap(&key(), &STORE, 7, "desk", &Secret::copy_of(&[3; 32])).unwrap();
        assert!(unwrap(&key(), &STORE, 7, "desk", &wrapped).is_ok_and(|key| *key.expose() == [3; 32]));
        assert!(unwrap(&key(), &STORE, 8, "desk", &wrapped).is_err());
        assert!(unwrap(&key(), &STORE, 7, "other", &wrapped).is_err());
        let short = sealed(&[3; 31], Place::DataKey { account: 7, name: "desk" });
        assert!(unwrap(&key(), &STORE, 7, "desk", &short).is_err());
    }
}
