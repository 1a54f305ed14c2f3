//! The records of a receive buffer. A *lot* is some frames that one call opened for one account, in one row of the store:
//! what they have in common is written once, and they go together where they are acknowledged together.
//!
//! ```text
//! lot   = when it was kept, 7 bytes ‖ 2 ‖ frame*
//! frame = tag ‖ kind       ‖ events ‖ length of the plaintext ‖ plaintext
//!       | tag ‖ kind + 128 ‖ events ‖ length of the plaintext ‖ seed of its message key
//! ```
//!
//! The tag has 16 bytes, a seed 32; lengths are written 7 bits a byte.
//!
//! Stores of earlier schemas may have rows of older forms, whose tags were made otherwise (`arrivals` says how). Form 1 is
//! else the same; rows of form 0 are a frame each, under its tag:
//!
//! ```text
//! when it was kept, 7 bytes ‖ 0 ‖ kind       ‖ events ‖ plaintext
//! when it was kept, 7 bytes ‖ 0 ‖ kind + 128 ‖ events ‖ length of the plaintext, 4 bytes ‖ AES key ‖ IV
//! ```

use super::records::damaged;
use super::rows::Kind;
use super::session_record::{Rest, put_number};
use crate::error::{Error, Events};
use crate::store::{Changes, Key};

/// Bytes of a frame's tag.
pub(super) const TAG: usize = 16;

/// Bytes of a seed.
const SEED: usize = 32;

/// Set in a frame's kind where its seed is kept.
const SEALED: u8 = 0x80;

/// Where a row says which form it has.
const FORM_AT: usize = 7;

/// Bytes of a lot before its frames.
pub(super) const LOT_HEAD: usize = 8;

/// How the tags of a lot's frames were made: its form, where it has one with several frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TaggedBy {
    /// By earlier interlanes.
    Hmac = 1,
    Cmac = 2,
}

/// Bytes of a frame beside its plaintext or seed, at most: lengths end below 2^35.
const FRAME_HEAD: usize = TAG + 2 + 5;

/// A frame that is kept.
#[derive(Clone, Copy)]
pub(super) struct Kept<'a> {
    pub(super) tag: [u8; TAG],
    pub(super) kind: Kind,
    pub(super) events: Events,
    pub(super) text: KeptText<'a>,
}

/// How a plaintext is kept: as it is, or as the seed of the key that opens its frame, which comes again with the
/// redelivery.
#[derive(Clone, Copy)]
pub(super) enum KeptText<'a> {
    Plain(&'a [u8]),
    /// Of a [`Kind::Message`]; the plaintext has so many bytes.
    Sealed {
        len: usize,
        seed: &'a [u8; SEED],
    },
    /// The same by the key itself: of form 0 alone.
    Keyed {
        len: usize,
        key: &'a [u8; 32],
        iv: &'a [u8; 16],
    },
}

impl<'a> KeptText<'a> {
    /// Whichever is shorter.
    pub(super) fn shorter(plain: &'a [u8], seed: &'a [u8; SEED]) -> Self {
        if plain.len() > SEED { Self::Sealed { len: plain.len(), seed } } else { Self::Plain(plain) }
    }

    /// Bytes of the plaintext.
    pub(super) fn len(&self) -> usize {
        match *self {
            Self::Plain(text) => text.len(),
            Self::Sealed { len, .. } | Self::Keyed { len, .. } => len,
        }
    }
}

impl Kept<'_> {
    /// Bytes that it takes in a lot, at most.
    pub(super) fn most(&self) -> usize {
        match self.text {
            KeptText::Plain(text) => FRAME_HEAD + text.len(),
            _ => FRAME_HEAD + SEED,
        }
    }

    /// Appends it to a lot, in a buffer that has room.
    pub(super) fn write(&self, lot: &mut Vec<u8>) {
        let (sealed, body) = match self.text {
            KeptText::Plain(text) => (0, text),
            KeptText::Sealed { seed, .. } => (SEALED, &seed[..]),
            KeptText::Keyed { .. } => unreachable!("a row of form 0 has one frame: it is never written anew"),
        };
        lot.extend_from_slice(&self.tag);
        lot.extend_from_slice(&[self.kind as u8 | sealed, self.events.0]);
        put_number(lot, self.text.len() as u64);
        lot.extend_from_slice(body);
    }

    fn read<'a>(rest: &mut Rest<'a>) -> Option<Kept<'a>> {
        let (tag, kind, events) = (*rest.take()?, rest.byte()?, Events(rest.byte()?));
        let len = rest.small()? as usize;
        let text = if kind & SEALED == 0 {
            KeptText::Plain(rest.slice(len)?)
        } else {
            KeptText::Sealed { len, seed: rest.take()? }
        };
        let kind = kind_of(kind & !SEALED)?;
        let opens = kind == Kind::Message || matches!(text, KeptText::Plain(_));
        opens.then_some(Kept { tag, kind, events, text })
    }
}

/// Puts a lot in a row; `new`: the store has none of this key.
pub(super) fn put(changes: &mut Changes, key: Key, new: bool, kept_at: u64, tagged_by: TaggedBy, frames: &[Kept<'_>]) {
    changes.reserve(LOT_HEAD + frames.iter().map(Kept::most).sum::<usize>());
    let write = |row: &mut Vec<u8>| write(kept_at, tagged_by, frames, row);
    if new { changes.put_new(key, write) } else { changes.put(key, write) }
}

fn write(kept_at: u64, tagged_by: TaggedBy, frames: &[Kept<'_>], row: &mut Vec<u8>) {
    let [when @ .., _] = kept_at.to_le_bytes();
    row.extend_from_slice(&when);
    row.push(tagged_by as u8);
    frames.iter().for_each(|frame| frame.write(row));
}

/// What is in a lot.
pub(super) struct Lot<'a> {
    /// When it was kept, in seconds.
    pub(super) kept_at: u64,
    pub(super) tagged_by: TaggedBy,
    pub(super) frames: Vec<Kept<'a>>,
}

impl<'a> Lot<'a> {
    /// Reads the row of this tag.
    pub(super) fn read(tag: [u8; TAG], row: &'a [u8]) -> Result<Self, Error> {
        match row.get(FORM_AT) {
            Some(0) => Self::read_single(tag, row),
            Some(1) => Self::read_several(TaggedBy::Hmac, row),
            Some(2) => Self::read_several(TaggedBy::Cmac, row),
            _ => None,
        }
        .ok_or_else(damaged)
    }

    fn read_several(tagged_by: TaggedBy, row: &'a [u8]) -> Option<Self> {
        let (head, frames) = row.split_first_chunk::<LOT_HEAD>()?;
        let mut rest = Rest(frames);
        let mut frames = Vec::new();
        while !rest.is_empty() {
            frames.push(Kept::read(&mut rest)?);
        }
        Some(Self { kept_at: when(*head), tagged_by, frames })
    }

    fn read_single(tag: [u8; TAG], row: &'a [u8]) -> Option<Self> {
        let (head, rest) = row.split_first_chunk::<LOT_HEAD>()?;
        let (&[kind, events], text) = rest.split_first_chunk()?;
        let text = if kind & SEALED == 0 {
            KeptText::Plain(text)
        } else {
            let mut rest = Rest(text);
            let len = u32::from_le_bytes(*rest.take()?) as usize;
            KeptText::Keyed { len, key: rest.take()?, iv: rest.take()? }
        };
        let frame = Kept { tag, kind: kind_of(kind & !SEALED)?, events: Events(events), text };
        Some(Self { kept_at: when(*head), tagged_by: TaggedBy::Hmac, frames: vec![frame] })
    }
}

fn when(mut head: [u8; LOT_HEAD]) -> u64 {
    head[FORM_AT] = 0;
    u64::from_le_bytes(head)
}

fn kind_of(number: u8) -> Option<Kind> {
    let kinds = [Kind::Message, Kind::PrekeyMessage, Kind::SenderKeyMessage];
    kinds.into_iter().find(|&kind| kind as u8 == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lot(frames: &[Kept<'_>]) -> Vec<u8> {
        let mut row = Vec::new();
        write(1 << 40, TaggedBy::Cmac, frames, &mut row);
        row
    }

    fn is_same(one: &Kept<'_>, other: &Kept<'_>) -> bool {
        let text = match (one.text, other.text) {
            (KeptText::Plain(one), KeptText::Plain(other)) => one == other,
            (KeptText::Sealed { len, seed }, KeptText::Sealed { len: other_len, seed: other_seed }) => {
                (len, seed) == (other_len, other_seed)
            }
            _ => false,
        };
        text && (one.tag, one.kind, one.events.0) == (other.tag, other.kind, other.events.0)
    }

    #[test]
    fn lots_survive_their_records() {
        let (plain, seed) = (vec![9; 70_000], [3; SEED]);
        let mut frames = Vec::new();
        for (i, len) in [0, 1, SEED, SEED + 1, 127, 128, 256, 70_000].into_iter().enumerate() {
            for text in [KeptText::Plain(&plain[..len]), KeptText::shorter(&plain[..len], &seed)] {
                assert_eq!(text.len(), len);
                frames.push(Kept { tag: [i as u8; TAG], kind: Kind::Message, events: Events(5), text });
            }
            assert_eq!(matches!(frames[2 * i + 1].text, KeptText::Sealed { .. }), len > SEED);
        }
        for kind in [Kind::PrekeyMessage, Kind::SenderKeyMessage] {
            frames.push(Kept { tag: [1; TAG], kind, events: Events::default(), text: KeptText::Plain(b"first") });
        }
        let row = lot(&frames);
        assert!(row.len() <= LOT_HEAD + frames.iter().map(Kept::most).sum::<usize>());
        let found = Lot::read([7; TAG], &row).unwrap_or_else(|_| panic!("a lot"));
        assert_eq!((found.kept_at, found.tagged_by), (1 << 40, TaggedBy::Cmac));
        assert_eq!(found.frames.len(), frames.len());
        assert!(frames.iter().zip(&found.frames).all(|(frame, found)| is_same(frame, found)));
    }

    #[test]
    fn what_is_no_lot_is_refused() {
        let seed = [3; SEED];
        let sealed = KeptText::Sealed { len: 300, seed: &seed };
        let whole = lot(&[Kept { tag: [1; TAG], kind: Kind::Message, events: Events(1), text: sealed }]);
        for cut in (0..whole.len()).filter(|&cut| cut != LOT_HEAD) {
            assert!(Lot::read([0; TAG], &whole[..cut]).is_err(), "{cut}");
        }
        // A seed opens frames of one kind alone; others are not kept at all.
        for kind in [Kind::PrekeyMessage as u8 | SEALED, Kind::Distribution as u8, 0] {
            let mut row = whole.clone();
            row[LOT_HEAD + TAG] = kind;
            assert!(Lot::read([0; TAG], &row).is_err(), "{kind}");
        }
        let mut another_form = whole.clone();
        another_form[FORM_AT] = 3;
        assert!(Lot::read([0; TAG], &another_form).is_err());
    }

    #[test]
    fn rows_of_the_older_forms_are_read() {
        let text = KeptText::Plain(b"text");
        let frame = Kept { tag: [1; TAG], kind: Kind::PrekeyMessage, events: Events(3), text };
        let mut row = lot(&[frame, frame]);
        row[FORM_AT] = 1;
        let found = Lot::read([8; TAG], &row).unwrap_or_else(|_| panic!("a lot"));
        assert_eq!((found.kept_at, found.tagged_by), (1 << 40, TaggedBy::Hmac));
        assert!(matches!(&found.frames[..], [one, other] if is_same(one, &frame) && is_same(other, &frame)));

        let row = [&1_800_000_000_u64.to_le_bytes()[..], &[Kind::PrekeyMessage as u8, 3], b"text"].concat();
        let found = Lot::read([8; TAG], &row).unwrap_or_else(|_| panic!("a lot"));
        assert_eq!((found.kept_at, found.tagged_by), (1_800_000_000, TaggedBy::Hmac));
        let frame =
            Kept { tag: [8; TAG], kind: Kind::PrekeyMessage, events: Events(3), text: KeptText::Plain(b"text") };
        assert!(matches!(&found.frames[..], [found] if is_same(found, &frame)));
        assert!(Lot::read([8; TAG], &row[..9]).is_err());
        let keyed =
            [&row[..8], &[Kind::Message as u8 | SEALED, 3], &300_u32.to_le_bytes(), &[5; 32], &[6; 16]].concat();
        let found = Lot::read([8; TAG], &keyed).unwrap_or_else(|_| panic!("a lot"));
        let [Kept { text: KeptText::Keyed { len: 300, key, iv }, .. }] = found.frames[..] else { panic!("a key") };
        assert_eq!((key, iv), (&[5; 32], &[6; 16]));
        assert!((LOT_HEAD + 2..keyed.len()).all(|cut| Lot::read([8; TAG], &keyed[..cut]).is_err()));
    }
}
