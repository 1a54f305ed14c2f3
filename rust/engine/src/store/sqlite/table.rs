//! The table of rows. Most have a row of their own. What a peer is made of ([`Kind::OF_A_PEER`]) is in one, for it is
//! wanted together: one look-up, one opening, one nonce and tag.
//!
//! ```text
//! key   = account (4 bytes, big-endian) ‖ kind ‖ tag (16 bytes); of a peer's row the kind is Peer's
//! body  = sealed(the row), of a peer's row sealed(parts)
//! parts = which there are (bit i: the i-th of OF_A_PEER) ‖ (length, 7 bits a byte ‖ the part)*
//! ```

use std::path::Path;

use interlane_lanes::Backend;
use rusqlite::{Connection, Row, params};
use zeroize::Zeroizing;

use super::unopened::Unopened;
use super::{DataKeys, Fault, damaged, put_length, said, take_length};
use crate::bytes::Bytes;
use crate::error::Error;
use crate::secret::Secret;
use crate::store::sealed::{self, NONCE, Nonces, Place, Sealed, TAG, Unsealed};
use crate::store::unfolded::Unfolded;
use crate::store::{FoundTag, Key, Kind};

/// Rows that a look-up passes over before it begins anew from the root, which takes as long.
const PASSED_OVER: usize = 4;

/// Rows that are folded together: they fill lanes, and stay in the cache from when they are looked up to when they are
/// put back.
const FOLDED_AT_ONCE: usize = 64;

/// Bytes of their new bodies after which no more are folded with them: some are large.
const FOLDED_BYTES: usize = 1 << 20;

/// Where in the table a row is, or is a part.
pub(super) fn place(key: Key) -> Key {
    if part(key.kind).is_some() { Key { kind: Kind::Peer, ..key } } else { key }
}

/// The order of the table, parts of one row side by side.
pub(super) fn order(key: Key) -> (Key, Kind) {
    (place(key), key.kind)
}

/// Which part of a peer's row this kind is, if it is one.
fn part(kind: Kind) -> Option<usize> {
    Kind::OF_A_PEER.iter().position(|&of_a_peer| of_a_peer == kind)
}

/// What the row at a place is bound to.
pub(super) fn bound_to(at: Key) -> Place<'static> {
    match part(at.kind) {
        Some(_) => Place::Peer { account: at.account, tag: at.tag },
        None => Place::Row(at),
    }
}

/// What is in a row.
pub(super) enum Content<'a> {
    Whole(&'a [u8]),
    Parts(Parts<'a>),
}

/// The parts of a peer's row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts<'a>([Option<&'a [u8]>; Kind::OF_A_PEER.len()]);

/// What is in the row at a place, opened; `None`: nothing that a row can be.
pub(super) fn content(at: Key, plain: &[u8]) -> Option<Content<'_>> {
    match part(at.kind) {
        Some(_) => Parts::read(plain).map(Content::Parts),
        None => Some(Content::Whole(plain)),
    }
}

/// What is said of a row that cannot be opened or read.
pub(super) fn unreadable(path: &Path) -> Error {
    said(path, "has a row that was damaged or moved: restore it from a backup")
}

impl<'a> Content<'a> {
    /// The row of this kind, whose place is here, if it is there.
    pub(super) fn of(&self, kind: Kind) -> Option<&'a [u8]> {
        match (self, part(kind)) {
            (Self::Parts(parts), Some(part)) => parts.0[part],
            (Self::Whole(body), None) => Some(body),
            _ => None,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Whole(body) => body.len(),
            Self::Parts(parts) => parts.len(),
        }
    }

    fn write(&self, row: &mut Vec<u8>) {
        match self {
            Self::Whole(body) => row.extend_from_slice(body),
            Self::Parts(parts) => parts.write(row),
        }
    }
}

impl<'a> Parts<'a> {
    /// Puts the part of this kind, or takes it away.
    pub(super) fn set(&mut self, kind: Kind, body: Option<&'a [u8]>) {
        self.0[part(kind).expect("it is of a peer")] = body;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    fn len(&self) -> usize {
        let of_length = |body: &[u8]| 1 + (1..).take_while(|&i| body.len() >> (7 * i) != 0).count();
        1 + self.0.iter().flatten().map(|body| of_length(body) + body.len()).sum::<usize>()
    }

    fn write(&self, row: &mut Vec<u8>) {
        row.push((0..).zip(&self.0).map(|(i, part)| u8::from(part.is_some()) << i).sum());
        for body in self.0.iter().flatten() {
            put_length(row, body.len());
            row.extend_from_slice(body);
        }
    }

    /// What [`Self::write`] wrote.
    fn read(row: &'a [u8]) -> Option<Self> {
        let (&there, mut rest) = row.split_first()?;
        let mut parts = Self::default();
        for (i, part) in parts.0.iter_mut().enumerate() {
            if there & 1 << i != 0 {
                let length = take_length(&mut rest)?;
                let (body, after) = rest.split_at_checked(length)?;
                (*part, rest) = (Some(body), after);
            }
        }
        (rest.is_empty() && there >> parts.0.len() == 0).then_some(parts)
    }
}

/// The table, and what its rows are sealed with.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    pub(super) connection: &'a Connection,
    pub(super) data_keys: &'a DataKeys,
    pub(super) path: &'a Path,
    /// What seals and opens many of them.
    pub(super) backend: Backend,
}

impl Table<'_> {
    /// Seals the rows at `places`, which are in the table's [`order`], into it; those of one account are left out
    /// (`but`).
    pub(super) fn fold(&self, rows: &Unfolded, places: &[u32], but: Option<u32>) -> Result<(), Fault> {
        let at = |change: u32| place(rows.entry(change).0);
        let same_row = places.chunk_by(|&one, &next| at(one) == at(next));
        let changed = same_row.map(|changes| (at(changes[0]), changes)).filter(|(at, _)| but != Some(at.account));
        let changed: Vec<(Key, &[u32])> = changed.collect();
        let bytes_of = |&change: &u32| rows.entry(change).1.body().map_or(0, <[u8]>::len);
        let mut rest = &changed[..];
        while !rest.is_empty() {
            let mut bytes = 0;
            let more = |(_, changes): &&(Key, &[u32])| {
                let more = bytes < FOLDED_BYTES;
                bytes += changes.iter().map(bytes_of).sum::<usize>();
                more
            };
            let (together, behind) = rest.split_at(rest.iter().take(FOLDED_AT_ONCE).take_while(more).count());
            self.fold_together(rows, together)?;
            rest = behind;
        }
        Ok(())
    }

    /// Folds some rows, each with what changes in it.
    fn fold_together(&self, rows: &Unfolded, changed: &[(Key, &[u32])]) -> Result<(), Fault> {
        let (stored, mut bodies) = self.stored_peers(changed)?;
        let mut bodies: Vec<&mut [u8]> = sealed::cut(&mut bodies, stored.iter().map(|&(_, end)| end)).collect();
        let to_open = stored.iter().zip(&mut bodies).map(|(&(i, _), body)| {
            let (at, _) = changed[i];
            Sealed { key: self.data_key(at), place: bound_to(at), body }
        });
        sealed::open_many(self.backend, &self.data_keys.store_id, to_open).map_err(|_| unreadable(self.path))?;
        let mut parts = vec![Parts::default(); changed.len()];
        for (&(i, _), body) in stored.iter().zip(&bodies) {
            parts[i] = Parts::read(sealed::plain(body)).ok_or_else(|| unreadable(self.path))?;
        }
        let contents = changed.iter().zip(parts).map(|(&(at, changes), mut parts)| {
            if part(at.kind).is_none() {
                let (_, newest) = rows.entry(changes[0]);
                return (at, newest.body().map(Content::Whole));
            }
            for &change in changes {
                let (key, newest) = rows.entry(change);
                parts.set(key.kind, newest.body());
            }
            (at, (!parts.is_empty()).then_some(Content::Parts(parts)))
        });
        self.put(&contents.collect::<Vec<_>>())
    }

    /// The rows that are there of peers that change, sealed and one after another: which of `changed` each is, and
    /// where it ends.
    fn stored_peers(&self, changed: &[(Key, &[u32])]) -> Result<(Vec<(usize, usize)>, Bytes), Fault> {
        let mut stored = self.connection.prepare_cached("SELECT key, body FROM rows WHERE key = ?1")?;
        // Rows are opened where they lie, but only when all are here: what this leaves behind when it grows is sealed.
        let (mut peers, mut bodies) = (Vec::with_capacity(changed.len()), Bytes::default());
        for (i, (at, _)) in changed.iter().enumerate().filter(|(_, (at, _))| part(at.kind).is_some()) {
            if let Some(row) = stored.query([&at.to_bytes()[..]])?.next()? {
                bodies.extend_from_slice(self.body(row)?);
                peers.push((i, bodies.len()));
            }
        }
        Ok((peers, bodies))
    }

    /// Seals what is to be at some places, and puts it there; where that is nothing, a row that is there goes.
    fn put(&self, contents: &[(Key, Option<Content<'_>>)]) -> Result<(), Fault> {
        let rows = || contents.iter().filter_map(|(at, content)| content.as_ref().map(|content| (*at, content)));
        // Plaintext is sealed where it lies, so this must not grow.
        let room = rows().map(|(_, content)| NONCE + content.len() + TAG).sum();
        let mut bodies = Bytes::with_capacity(room);
        let mut nonces = Nonces::draw(contents.len())?;
        let mut laid_out: Vec<(Key, [u8; NONCE], usize)> = Vec::with_capacity(contents.len());
        for (at, content) in rows() {
            let nonce = nonces.next()?;
            bodies.extend_from_slice(&nonce);
            content.write(&mut bodies);
            bodies.extend_from_slice(&[0; TAG]);
            laid_out.push((at, nonce, bodies.len()));
        }
        debug_assert_eq!(bodies.len(), room, "what is written is as long as was said");
        let ends = || laid_out.iter().map(|&(.., end)| end);
        let unsealed = laid_out.iter().zip(sealed::cut(&mut bodies, ends())).map(|(&(at, nonce, _), body)| Unsealed {
            key: self.data_key(at),
            nonce,
            place: bound_to(at),
            body: &mut body[NONCE..],
        });
        sealed::seal_many(self.backend, &self.data_keys.store_id, unsealed);
        let mut put = self.connection.prepare_cached(
            "INSERT INTO rows (key, body) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET body = excluded.body",
        )?;
        let mut delete = self.connection.prepare_cached("DELETE FROM rows WHERE key = ?1")?;
        let mut bodies = sealed::cut(&mut bodies, ends());
        for (at, content) in contents {
            let key = &at.to_bytes()[..];
            if content.is_some() {
                let body = &*bodies.next().expect("each content was sealed");
                put.execute(params![key, body])?;
            } else {
                delete.execute([key])?;
            }
        }
        Ok(())
    }

    /// Looks up `keys[i]` for each `i` of `wanted`: those that are there are added to `unopened`, sealed.
    ///
    /// They are looked up in the table's order. Where many are wanted, the next one is not far: from each that was found
    /// a few rows are passed over to it, and only where it is further on does the search begin from the root.
    pub(super) fn fetch(&self, keys: &[Key], wanted: &[usize], unopened: &mut Unopened) -> Result<(), Fault> {
        // Those that are asked for one after another and are in one row.
        let same_row = wanted.chunk_by(|&one, &next| place(keys[one]) == place(keys[next]));
        let mut rows: Vec<(Key, &[usize])> = same_row.map(|parts| (place(keys[parts[0]]), parts)).collect();
        rows.sort_unstable_by_key(|&(at, _)| at);
        unopened.expect(rows.len());
        let mut rows = rows.into_iter().peekable();
        let mut stored = self.connection.prepare_cached("SELECT key, body FROM rows WHERE key >= ?1 ORDER BY key")?;
        while let Some(&(first, _)) = rows.peek() {
            let mut stored = stored.query([&first.to_bytes()[..]])?;
            let mut passed_over = 0;
            while passed_over <= PASSED_OVER && rows.peek().is_some() {
                let Some(row) = stored.next()? else { return Ok(()) };
                let at = self.key(row)?;
                while rows.next_if(|&(wanted, _)| wanted < at).is_some() {}
                passed_over += 1;
                if rows.peek().is_some_and(|&(wanted, _)| wanted == at) {
                    passed_over = 0;
                    let data_key = self.data_keys.of(at.account).ok_or_else(|| damaged(self.path))?;
                    unopened.add(at, data_key, self.body(row)?);
                    // It can be asked for twice.
                    while let Some((_, parts)) = rows.next_if(|&(wanted, _)| wanted == at) {
                        parts.iter().for_each(|&i| unopened.want(i, keys[i].kind));
                    }
                }
            }
        }
        Ok(())
    }

    /// Every row of one kind but those whose keys are `known`.
    pub(super) fn scan(
        &self,
        account: u32,
        kind: Kind,
        known: impl Fn(&Key) -> bool,
        found: FoundTag<'_>,
    ) -> Result<(), Fault> {
        let [first, last] = [0, 255].map(|byte| place(Key { account, kind, tag: [byte; 16] }).to_bytes());
        let mut rows = self.connection.prepare_cached("SELECT key, body FROM rows WHERE key BETWEEN ?1 AND ?2")?;
        let mut rows = rows.query(params![&first[..], &last[..]])?;
        let mut plain = Zeroizing::default();
        while let Some(row) = rows.next()? {
            let at = self.key(row)?;
            if !known(&Key { kind, ..at })
                && let Some(body) = self.open(at, row, &mut plain)?.of(kind)
            {
                found(at.tag, body)?;
            }
        }
        Ok(())
    }

    /// Seals what goes to a place.
    pub(super) fn seal(&self, at: Key, nonce: &[u8; NONCE], content: &Content<'_>, body: &mut Vec<u8>) {
        let (data_key, store_id) = (self.data_key(at), &self.data_keys.store_id);
        let write = |body: &mut Vec<u8>| content.write(body);
        sealed::seal_with(data_key, nonce, store_id, bound_to(at), content.len(), write, body);
    }

    /// What the row at a place is sealed under.
    fn data_key(&self, at: Key) -> &Secret<32> {
        self.data_keys.of(at.account).expect("rows are of accounts whose keys were fetched")
    }

    fn open<'p>(&self, at: Key, row: &Row<'_>, plain: &'p mut Zeroizing<Vec<u8>>) -> Result<Content<'p>, Fault> {
        self.unseal(at.account, bound_to(at), row, plain)?;
        Ok(content(at, plain).ok_or_else(|| unreadable(self.path))?)
    }

    /// Opens a row that belongs to a place.
    pub(super) fn unseal(
        &self,
        account: u32,
        place: Place<'_>,
        row: &Row<'_>,
        plain: &mut Zeroizing<Vec<u8>>,
    ) -> Result<(), Fault> {
        let body = self.body(row)?;
        let data_key = self.data_keys.of(account).ok_or_else(|| damaged(self.path))?;
        let opened = sealed::open(data_key, &self.data_keys.store_id, place, body, plain);
        Ok(opened.map_err(|_| unreadable(self.path))?)
    }

    /// The key of a row.
    pub(super) fn key(&self, row: &Row<'_>) -> Result<Key, Fault> {
        let key = row.get_ref(0)?.as_blob().ok().and_then(Key::of_bytes);
        Ok(key.ok_or_else(|| damaged(self.path))?)
    }

    /// The sealed body of a row.
    fn body<'r>(&self, row: &'r Row<'_>) -> Result<&'r [u8], Fault> {
        Ok(row.get_ref(1)?.as_blob().map_err(|_| damaged(self.path))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_survive_their_row() {
        let bodies: Vec<Vec<u8>> = [0, 1, 127, 128, 20_000].map(|length| vec![length as u8; length]).into();
        for which in 0..32_u8 {
            let mut parts = Parts::default();
            for (i, kind) in Kind::OF_A_PEER.into_iter().enumerate() {
                parts.set(kind, (which & 1 << i != 0).then_some(&bodies[(i + usize::from(which)) % 5][..]));
            }
            assert_eq!(parts.is_empty(), which == 0);
            let mut row = Vec::new();
            parts.write(&mut row);
            assert_eq!(row.len(), parts.len());
            assert_eq!(Parts::read(&row), Some(parts));
            assert_eq!(Parts::read(&row[..row.len() - 1]), None);
            row.push(0);
            assert_eq!(Parts::read(&row), None);
        }
        assert_eq!(Parts::read(&[0x20]), None);
        assert_eq!(Parts::read(&[1, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
    }

    #[test]
    fn parts_of_a_row_are_neighbours_in_the_order_of_keys() {
        let key = |account, kind, first| Key { account, kind, tag: [first; 16] };
        let mut keys: Vec<Key> = (0..3)
            .flat_map(|account| {
                Kind::ALL.into_iter().flat_map(move |kind| [9, 1].map(|first| key(account, kind, first)))
            })
            .collect();
        keys.sort_by_key(|&key| order(key));
        let rows: Vec<[u8; 21]> = keys.iter().map(|&key| place(key).to_bytes()).collect();
        assert!(rows.is_sorted());
        assert_eq!(rows.chunk_by(|one, next| one == next).count(), 3 * 2 * (Kind::ALL.len() - 4));
    }
}
