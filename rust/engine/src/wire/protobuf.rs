//! As much of protobuf (proto2 wire format) as the frames use.

use crate::limits::MAX_FIELDS;

/// One field: its number and value.
pub(super) enum Field<'a> {
    Varint(u32, u64),
    Bytes(u32, &'a [u8]),
    /// A fixed-width value: known only to be skipped.
    Fixed,
}

/// Reads the fields of a message, [`MAX_FIELDS`] at most.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Fields<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self { rest: message, left: MAX_FIELDS }
    }

    /// The next field; `Ok(None)` at the end.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Result<Option<Field<'a>>, ()> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        self.left = self.left.checked_sub(1).ok_or(())?;
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).map_err(|_| ())?;
        if number == 0 || number >= 1 << 29 {
            return Err(());
        }
        match key & 7 {
            0 => Ok(Some(Field::Varint(number, self.varint()?))),
            1 => self.take(8).map(|_| Some(Field::Fixed)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| ())?;
                Ok(Some(Field::Bytes(number, self.take(length)?)))
            }
            5 => self.take(4).map(|_| Some(Field::Fixed)),
            _ => Err(()),
        }
    }

    /// Nearly all are of one byte or two.
    #[inline(always)]
    fn varint(&mut self) -> Result<u64, ()> {
        let (value, rest) = match *self.rest {
            [low @ 0..0x80, ref rest @ ..] => (u64::from(low), rest),
            [low, high @ 0..0x80, ref rest @ ..] => (u64::from(low & 0x7f) | u64::from(high) << 7, rest),
            _ => return self.long_varint(),
        };
        self.rest = rest;
        Ok(value)
    }

    #[cold]
    fn long_varint(&mut self) -> Result<u64, ()> {
        let mut value = 0;
        for (i, &byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.rest = &self.rest[i + 1..];
                return Ok(value);
            }
        }
        Err(())
    }

    #[inline(always)]
    fn take(&mut self, length: usize) -> Result<&'a [u8], ()> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(())?;
        self.rest = rest;
        Ok(taken)
    }
}

/// A u32 field: wider values lose their upper half, as protobuf has it.
pub(super) fn narrow(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}

/// Bytes of a minimal varint.
pub(super) fn varint_len(value: u32) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        0x20_0000..=0x0fff_ffff => 4,
        _ => 5,
    }
}

/// Writes into a slice that is known to be long enough.
pub(super) struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl<'a> Writer<'a> {
    pub(super) fn new(out: &'a mut [u8]) -> Self {
        Self { out, at: 0 }
    }

    pub(super) fn written(&self) -> usize {
        self.at
    }

    #[inline(always)]
    pub(super) fn byte(&mut self, byte: u8) {
        self.out[self.at] = byte;
        self.at += 1;
    }

    #[inline(always)]
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.out[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    #[inline(always)]
    pub(super) fn varint(&mut self, mut value: u32) {
        while value > 0x7f {
            self.byte((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    /// A varint field; numbers up to 15.
    #[inline(always)]
    pub(super) fn number(&mut self, field: u8, value: u32) {
        self.byte(field << 3);
        self.varint(value);
    }

    /// The key and length of a bytes field, whose content follows.
    #[inline(always)]
    pub(super) fn length(&mut self, field: u8, length: usize) {
        self.byte(field << 3 | 2);
        self.varint(u32::try_from(length).expect("lengths stay below MAX_FRAME"));
    }

    #[inline(always)]
    pub(super) fn key(&mut self, field: u8, key: &[u8; 32]) {
        self.length(field, 33);
        self.byte(super::KEY_TYPE);
        self.raw(key);
    }
}
