//! A batch as arrays: each row once, in the order of the keys, sealed.

use std::collections::BTreeSet;
use std::mem::take;
use std::ops::Range;

use interlane_lanes::Backend;

use crate::bytes::Bytes;
use crate::error::Error;
use crate::limits::{STATEMENT_BYTES, STATEMENT_ROWS};
use crate::secret::Secret;
use crate::store::sealed::{self, Nonces, Place, StoreId, Unsealed};
use crate::store::{Changes, Key};

/// A row's change: where its sealed body lies, or that it goes.
type Sealed = Option<Range<usize>>;

/// What one commit writes.
pub(super) struct Batch {
    rows: Vec<(i32, [u8; 21], Sealed)>,
    bodies: Bytes,
}

/// What one statement takes of it.
#[derive(Default)]
pub(super) struct Part<'a> {
    pub(super) put_shards: Vec<i32>,
    pub(super) put_keys: Vec<&'a [u8]>,
    pub(super) bodies: Vec<&'a [u8]>,
    pub(super) gone_shards: Vec<i32>,
    pub(super) gone_keys: Vec<&'a [u8]>,
}

impl Batch {
    /// Seals each row's last change. `account` gives an account's shard and data key.
    pub(super) fn seal<'a>(
        backend: Backend,
        changes: &Changes,
        store: &StoreId,
        account: impl Fn(u32) -> Option<(u32, &'a Secret<32>)>,
    ) -> Result<Self, Error> {
        let changes: Vec<(Key, Option<&[u8]>)> = changes.iter().collect();
        let mut order: Vec<usize> = (0..changes.len()).collect();
        // Neighbours in the table are written one after another; of two changes to a row the later one is first.
        order.sort_unstable_by_key(|&at| (changes[at].0, std::cmp::Reverse(at)));
        order.dedup_by_key(|at| changes[*at].0);
        let room = |at: &usize| changes[*at].1.map_or(0, |body| body.len() + sealed::NONCE + sealed::TAG);
        // Plaintext is sealed where it lies, so this must not grow.
        let mut bodies = Bytes::with_capacity(order.iter().map(room).sum());
        let mut nonces = Nonces::draw(order.len())?;
        let (mut rows, mut to_seal) = (Vec::with_capacity(order.len()), Vec::with_capacity(order.len()));
        let mut last = None;
        for at in order {
            let (key, body) = changes[at];
            let (shard, data_key) = match last {
                Some((of, found)) if of == key.account => found,
                _ => account(key.account).ok_or_else(|| super::super::no_account(key.account))?,
            };
            last = Some((key.account, (shard, data_key)));
            let sealed = match body {
                None => None,
                Some(body) => {
                    let start = bodies.len();
                    let nonce = nonces.next()?;
                    bodies.extend_from_slice(&nonce);
                    bodies.extend_from_slice(body);
                    bodies.extend_from_slice(&[0; sealed::TAG]);
                    to_seal.push((data_key, nonce, key, bodies.len()));
                    Some(start..bodies.len())
                }
            };
            rows.push((shard as i32, key.to_bytes(), sealed));
        }
        let lying = sealed::cut(&mut bodies, to_seal.iter().map(|&(.., end)| end));
        let unsealed = to_seal.iter().zip(lying).map(|(&(key, nonce, row, _), body)| Unsealed {
            key,
            nonce,
            place: Place::Row(row),
            body: &mut body[sealed::NONCE..],
        });
        sealed::seal_many(backend, store, unsealed);
        Ok(Self { rows, bodies })
    }

    /// The shards that it touches, each once, in order.
    pub(super) fn shards(&self) -> impl Iterator<Item = u32> + use<> {
        self.rows.iter().map(|&(shard, ..)| shard as u32).collect::<BTreeSet<_>>().into_iter()
    }

    /// What each statement takes: one, unless it is very long.
    pub(super) fn parts(&self) -> Vec<Part<'_>> {
        let mut parts = Vec::new();
        let mut part = Part::default();
        let (mut rows, mut bytes) = (0, 0);
        for row in &self.rows {
            let more = row.2.as_ref().map_or(0, Range::len);
            if rows == STATEMENT_ROWS || (rows > 0 && bytes + more > STATEMENT_BYTES) {
                parts.push(take(&mut part));
                (rows, bytes) = (0, 0);
            }
            self.add(&mut part, row);
            (rows, bytes) = (rows + 1, bytes + more);
        }
        parts.push(part);
        parts
    }

    /// All of it in one.
    pub(super) fn all(&self) -> Part<'_> {
        let mut part = Part::default();
        self.rows.iter().for_each(|row| self.add(&mut part, row));
        part
    }

    fn add<'a>(&'a self, part: &mut Part<'a>, (shard, key, sealed): &'a (i32, [u8; 21], Sealed)) {
        match sealed {
            Some(range) => {
                part.put_shards.push(*shard);
                part.put_keys.push(key);
                part.bodies.push(&self.bodies[range.clone()]);
            }
            None => {
                part.gone_shards.push(*shard);
                part.gone_keys.push(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Kind;

    fn key(account: u32, i: u32) -> Key {
        Key { account, kind: Kind::Session, tag: u128::from(i).to_be_bytes() }
    }

    #[test]
    fn a_row_is_there_once_with_its_last_change_and_in_order() {
        let mut changes = Changes::default();
        changes.put(key(2, 1), |bytes| bytes.extend([1; 10]));
        changes.put(key(1, 7), |bytes| bytes.extend([2; 20]));
        changes.put(key(2, 1), |bytes| bytes.extend([3; 30]));
        changes.put(key(1, 8), |bytes| bytes.extend([4; 5]));
        changes.delete(key(1, 8));
        changes.delete(key(1, 9));
        changes.put(key(1, 9), |_| {});
        let data_key = Secret::copy_of(&[5; 32]);
        let batch =
            Batch::seal(Backend::portable(), &changes, &[9; 16], |account| Some((10 * account, &data_key))).unwrap();
        assert_eq!(batch.shards().collect::<Vec<_>>(), [10, 20]);
        let part = batch.all();
        assert_eq!(part.put_shards, [10, 10, 20]);
        assert_eq!(part.put_keys, [key(1, 7), key(1, 9), key(2, 1)].map(|key| key.to_bytes().to_vec()));
        let mut plain = zeroize::Zeroizing::default();
        for (of, sealed, expected) in
            [(key(1, 7), 0, vec![2; 20]), (key(1, 9), 1, Vec::new()), (key(2, 1), 2, vec![3; 30])]
        {
            sealed::open(&data_key, &[9; 16], Place::Row(of), part.bodies[sealed], &mut plain).unwrap();
            assert_eq!(*plain, expected);
        }
        assert_eq!((part.gone_shards, part.gone_keys), (vec![10], vec![&key(1, 8).to_bytes()[..]]));
        assert!(Batch::seal(Backend::portable(), &changes, &[9; 16], |_| None).is_err());
    }

    #[test]
    fn a_long_batch_is_parted_by_rows_and_by_bytes() {
        let data_key = Secret::copy_of(&[5; 32]);
        let parts = |rows: usize, bytes: usize| -> Vec<usize> {
            let mut changes = Changes::default();
            for i in 0..rows as u32 {
                changes.put(key(1, i), |body| body.resize(body.len() + bytes, 1));
            }
            let batch = Batch::seal(Backend::portable(), &changes, &[9; 16], |_| Some((0, &data_key))).unwrap();
            batch.parts().iter().map(|part| part.put_keys.len()).collect()
        };
        assert_eq!(parts(STATEMENT_ROWS, 1), [STATEMENT_ROWS]);
        assert_eq!(parts(2 * STATEMENT_ROWS + 1, 1), [STATEMENT_ROWS, STATEMENT_ROWS, 1]);
        assert_eq!(parts(3, STATEMENT_BYTES - 100), [1, 1, 1]);
        assert_eq!(parts(3, STATEMENT_BYTES / 2 - 100), [2, 1]);
        assert_eq!(parts(2, STATEMENT_BYTES + 1), [1, 1]);
    }
}
