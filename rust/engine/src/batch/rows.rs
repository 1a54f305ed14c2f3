//! What goes into a call and what comes out of it: packed bytes and columns.

use std::mem::take;

use crate::bytes::Bytes;
use crate::error::{Error, Events, Status};
use crate::limits::MAX_ROWS;

/// What a row of bytes is: its number is the `kinds` column's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Nothing: the row failed, or has no bytes.
    None = 0,
    /// A SignalMessage, `msg` on the wire.
    Message = 1,
    /// A PreKeySignalMessage, `pkmsg` on the wire.
    PrekeyMessage = 2,
    /// A SenderKeyMessage, `skmsg` on the wire.
    SenderKeyMessage = 3,
    /// A SenderKeyDistributionMessage; it travels inside pairwise messages.
    Distribution = 4,
}

/// Rows of bytes, one after the other: row `i` is `data[offsets[i]..offsets[i + 1]]`, as in Arrow's LargeBinary.
#[derive(Clone, Copy)]
pub struct Packed<'a> {
    data: &'a [u8],
    offsets: &'a [i64],
}

impl<'a> Packed<'a> {
    /// Checks the offsets once, so that every row is a slice from here on.
    ///
    /// # Errors
    /// [`Error::Malformed`] for no offsets at all, a negative, descending or too large one, or too many rows.
    pub fn new(data: &'a [u8], offsets: &'a [i64]) -> Result<Self, Error> {
        let malformed = |text: String| Err(Error::Malformed(text));
        let Some((&first, rest)) = offsets.split_first() else {
            return malformed("offsets: empty; give one more offset than there are rows".into());
        };
        if rest.len() > MAX_ROWS {
            return malformed(format!("offsets: {} rows; split the call, {MAX_ROWS} is the most", rest.len()));
        }
        if first < 0 {
            return malformed(format!("offsets[0] is {first}; offsets are not negative"));
        }
        let mut before = first;
        for (i, &offset) in rest.iter().enumerate() {
            if offset < before {
                return malformed(format!("offsets[{}] is {offset}, below the one before it ({before})", i + 1));
            }
            before = offset;
        }
        if before as u64 > data.len() as u64 {
            return malformed(format!("the last offset is {before}, but data has {} bytes", data.len()));
        }
        Ok(Self { data, offsets })
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// How many bytes all rows have.
    pub(crate) fn bytes(&self) -> usize {
        (self.offsets[self.len()] - self.offsets[0]) as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &'a [u8] {
        &self.data[self.offsets[i] as usize..self.offsets[i + 1] as usize]
    }
}

/// A call's result, in columns. A row that failed has no bytes and kind [`Kind::None`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// A [`Status`] for each row.
    pub status: Vec<u8>,
    /// A [`Kind`] for each row.
    pub kinds: Vec<u8>,
    /// [`Events`] for each row.
    pub events: Vec<u8>,
    /// One more than there are rows.
    pub offsets: Vec<i64>,
    /// The rows' bytes.
    pub data: Bytes,
    /// The rows that are in a receive buffer, in order.
    pub(crate) buffered: Vec<Buffered>,
}

/// What a received row is acknowledged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Buffered {
    pub(crate) row: u32,
    pub(crate) account: u32,
    pub(crate) tag: [u8; 16],
}

/// How one row ended, and where its bytes are in its run's buffer.
#[derive(Clone, Copy)]
pub(crate) struct Outcome {
    pub(crate) row: u32,
    pub(crate) status: Status,
    pub(crate) kind: Kind,
    pub(crate) events: Events,
    pub(crate) start: usize,
    pub(crate) len: usize,
}

impl Outcome {
    /// A row that failed.
    pub(crate) fn failed(row: u32, status: Status) -> Self {
        Self { row, status, kind: Kind::None, events: Events::default(), start: 0, len: 0 }
    }

    /// A row that went well and has no bytes.
    pub(crate) fn done(row: u32, events: Events) -> Self {
        Self { row, status: Status::Ok, kind: Kind::None, events, start: 0, len: 0 }
    }
}

impl Rows {
    /// Rows of bytes that no session has to do with: without kinds and events.
    pub fn of_bytes(status: Vec<u8>, offsets: Vec<i64>, data: Bytes) -> Self {
        let n = status.len();
        Self { status, kinds: vec![0; n], events: vec![0; n], offsets, data, buffered: Vec::new() }
    }

    /// Whether any row is to be acknowledged.
    pub fn is_buffered(&self) -> bool {
        !self.buffered.is_empty()
    }

    /// Rows that all failed in one way.
    pub(crate) fn failed(n: usize, status: Status) -> Self {
        Self {
            status: vec![status as u8; n],
            kinds: vec![Kind::None as u8; n],
            events: vec![0; n],
            offsets: vec![0; n + 1],
            data: Bytes::default(),
            buffered: Vec::new(),
        }
    }

    /// Puts the runs' outcomes in the rows' order. Every row has exactly one outcome.
    pub(crate) fn assemble(n: usize, results: &mut [(Vec<Outcome>, Bytes)]) -> Self {
        let mut rows = Self::laid_out(n, results);
        rows.pieces(results).into_iter().for_each(Piece::fill);
        rows
    }

    /// The same but for the rows' bytes, which [`Self::pieces`] are to fill in. Where they lie in this order already, these
    /// bytes are taken.
    pub(crate) fn laid_out(n: usize, results: &mut [(Vec<Outcome>, Bytes)]) -> Self {
        let mut rows = Self::failed(n, Status::Ok);
        let mut known = 0;
        for outcome in results.iter().flat_map(|(outcomes, _)| outcomes) {
            let row = outcome.row as usize;
            rows.status[row] = outcome.status as u8;
            rows.kinds[row] = outcome.kind as u8;
            rows.events[row] = outcome.events.0;
            rows.offsets[row + 1] = outcome.len as i64;
            known += 1;
        }
        debug_assert_eq!(known, n, "a row has one outcome");
        for row in 0..n {
            rows.offsets[row + 1] += rows.offsets[row];
        }
        let end = rows.offsets[n] as usize;
        rows.data = match rows.in_order(results) {
            Some(bytes) => {
                bytes.end_at(end);
                take(bytes)
            }
            None => Bytes::to_be_written(end),
        }
        .shared();
        rows
    }

    /// The bytes that all rows with any lie in as they are to.
    fn in_order<'r>(&self, results: &'r mut [(Vec<Outcome>, Bytes)]) -> Option<&'r mut Bytes> {
        let mut having = results.iter_mut().filter(|(_, bytes)| !bytes.is_empty());
        let (outcomes, bytes) = having.next()?;
        let there = |outcome: &Outcome| outcome.len == 0 || self.offsets[outcome.row as usize] == outcome.start as i64;
        (having.next().is_none() && outcomes.iter().all(there)).then_some(bytes)
    }

    /// The bytes of rows that were laid out for these runs: a piece for each run, so that several cores can fill them in. Where
    /// the rows of runs are mixed there is one.
    pub(crate) fn pieces<'p>(&'p mut self, results: &'p [(Vec<Outcome>, Bytes)]) -> Vec<Piece<'p>> {
        let Self { data, offsets, .. } = self;
        let (mut rest, offsets) = (data.as_mut_slice(), &offsets[..]);
        // Of bytes that were taken there is nothing to be filled in.
        let runs = results.iter().map(|(outcomes, bytes)| (&outcomes[..], &bytes[..]));
        let mut spans: Vec<(usize, usize, Run<'p>)> =
            runs.filter(|(_, bytes)| !bytes.is_empty()).filter_map(span).collect();
        spans.sort_unstable_by_key(|&(first, ..)| first);
        if spans.windows(2).any(|pair| pair[0].1 > pair[1].0) {
            let runs = spans.into_iter().map(|(.., run)| run).collect();
            return vec![Piece { runs, offsets, base: 0, data: rest }];
        }
        let mut pieces = Vec::with_capacity(spans.len());
        for (first, end, run) in spans {
            let base = offsets[first] as usize;
            let (data, behind) = take(&mut rest).split_at_mut(offsets[end] as usize - base);
            rest = behind;
            pieces.push(Piece { runs: vec![run], offsets, base, data });
        }
        pieces
    }
}

/// What a run of a call gives: outcomes, and the bytes that they lie in.
pub(crate) type Run<'a> = (&'a [Outcome], &'a [u8]);

/// The first row of a run, and the row behind its last one.
fn span(run: Run<'_>) -> Option<(usize, usize, Run<'_>)> {
    let rows = run.0.iter().map(|outcome| outcome.row as usize);
    Some((rows.clone().min()?, rows.max()? + 1, run))
}

/// A part of a result's bytes, and the runs that they come from.
pub(crate) struct Piece<'a> {
    runs: Vec<Run<'a>>,
    offsets: &'a [i64],
    /// Where it begins in the result.
    base: usize,
    data: &'a mut [u8],
}

impl Piece<'_> {
    /// Writes all of it.
    pub(crate) fn fill(self) {
        for (outcomes, bytes) in self.runs {
            let behind = |one: &Outcome, next: &Outcome| next.row == one.row + 1 && next.start == one.start + one.len;
            for in_order in outcomes.chunk_by(behind) {
                let (first, last) = (&in_order[0], &in_order[in_order.len() - 1]);
                let from = &bytes[first.start..last.start + last.len];
                let to = self.offsets[first.row as usize] as usize - self.base;
                self.data[to..to + from.len()].copy_from_slice(from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_checked() {
        assert_eq!(Packed::new(b"abc", &[0, 1, 3]).unwrap().row(1), b"bc");
        assert!(Packed::new(b"", &[0]).unwrap().is_empty());
        for bad in [&[][..], &[-1, 2], &[0, 2, 1], &[0, 4], &[i64::MIN, i64::MAX]] {
            assert!(matches!(Packed::new(b"abc", bad), Err(Error::Malformed(_))), "{bad:?}");
        }
    }

    #[test]
    fn rows_come_back_in_order() {
        let outcome = |row, start, len| Outcome {
            row,
            status: Status::Ok,
            kind: Kind::Message,
            events: Events::default(),
            start,
            len,
        };
        let bytes = |text: &[u8]| {
            let mut bytes = Bytes::zeroes(text.len());
            bytes.copy_from_slice(text);
            bytes
        };
        let first = (vec![outcome(2, 0, 2), outcome(0, 2, 1)], bytes(b"ccA"));
        let second = (vec![Outcome::failed(1, Status::Invalid), outcome(3, 1, 1)], bytes(b"xd"));
        let rows = Rows::assemble(4, &mut [first, second]);
        assert_eq!((rows.data.as_slice(), rows.offsets.as_slice()), (&b"Accd"[..], &[0, 1, 1, 3, 4][..]));
        assert_eq!(rows.status, [0, 4, 0, 0]);
        // Runs whose rows are not mixed are pieces of their own, whatever their order.
        let one = (vec![outcome(3, 0, 2), outcome(2, 2, 1)], bytes(b"ddc"));
        let other = (vec![outcome(1, 0, 1), outcome(0, 1, 0)], bytes(b"b"));
        let mut results = [one, (Vec::new(), bytes(b"")), other];
        let mut rows = Rows::laid_out(4, &mut results);
        let pieces = rows.pieces(&results);
        assert_eq!(pieces.len(), 2);
        pieces.into_iter().rev().for_each(Piece::fill);
        assert_eq!((rows.data.as_slice(), rows.offsets.as_slice()), (&b"bcdd"[..], &[0, 0, 1, 2, 4][..]));
        // Rows that lie one behind the other are copied at once, up to a hole.
        let holed = (vec![outcome(1, 0, 2), outcome(2, 2, 1), outcome(3, 4, 1)], bytes(b"bbc.d"));
        let rows = Rows::assemble(5, &mut [holed, (vec![outcome(0, 1, 1), outcome(4, 0, 1)], bytes(b"ea"))]);
        assert_eq!((rows.data.as_slice(), rows.offsets.as_slice()), (&b"abbcde"[..], &[0, 1, 3, 4, 5, 6][..]));
        // What lies in order is taken as it is, without what is behind it; a hole is none.
        for (start, taken) in [(2, true), (3, false)] {
            let outcomes = vec![outcome(0, 0, 2), Outcome::failed(2, Status::Invalid), outcome(3, start, 1)];
            let mut results = [(outcomes, bytes(b"aaddd")), (vec![Outcome::failed(1, Status::NoSession)], bytes(b""))];
            let memory = results[0].1.as_ptr();
            let rows = Rows::assemble(4, &mut results);
            assert_eq!((rows.data.as_slice(), rows.offsets.as_slice()), (&b"aad"[..], &[0, 2, 2, 2, 3][..]));
            assert_eq!(rows.data.as_ptr() == memory, taken);
        }
    }
}
