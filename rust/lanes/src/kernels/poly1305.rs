//! Poly1305 (RFC 8439 §2.5), one row.
//!
//! With `r` clamped and the message cut into blocks of 16 bytes, each read as a little-endian number `m_i` with a bit set
//! above its last byte, over the integers mod `p = 2^130 − 5`:
//!
//! ```text
//! h = m_1 r^n + m_2 r^(n−1) + … + m_n r     tag = (h + s) mod 2^128
//! ```
//!
//! Two blocks a turn, `h ← (h + m_1) r² + m_2 r`: one chain of multiplications waits for half as many others. A number is
//! three limbs, of 44, 44 and 42 bits; `2^130 = 5` folds what lies above them.

mod lanes;

pub(super) use lanes::tags;

use core::num::Wrapping;

const MASK44: u64 = (1 << 44) - 1;
const MASK42: u64 = (1 << 42) - 1;

/// The code of what is absorbed.
pub(super) struct Poly1305 {
    once: Power,
    twice: Power,
    h: [u64; 3],
    s: u128,
}

/// `r` or `r²`, limbs below 2^44 and a little, and its upper two limbs times 20: 5 for the fold, 4 because 3 · 44 is 132.
#[derive(Clone, Copy)]
struct Power {
    limbs: [u64; 3],
    folded: [u64; 2],
}

impl Power {
    #[inline(always)]
    fn new(limbs: [u64; 3]) -> Self {
        Self { limbs, folded: [limbs[1].wrapping_mul(20), limbs[2].wrapping_mul(20)] }
    }

    /// The product, each limb below 2^97.
    #[inline(always)]
    fn times(&self, h: [u64; 3]) -> [Wrapping<u128>; 3] {
        let [a, b, c] = h.map(wide);
        let [r0, r1, r2] = self.limbs.map(wide);
        let [f1, f2] = self.folded.map(wide);
        [a * r0 + b * f2 + c * f1, a * r1 + b * r0 + c * f2, a * r2 + b * r1 + c * r0]
    }
}

/// Nothing here wraps; but a check whether it does is a branch on a secret.
#[inline(always)]
fn wide(limb: u64) -> Wrapping<u128> {
    Wrapping(u128::from(limb))
}

impl Poly1305 {
    /// `key` is `r ‖ s`.
    #[inline(always)]
    pub(super) fn new(key: &[u8; 32]) -> Self {
        let (r, s) = key.split_at(16);
        let r = u128::from_le_bytes(r.try_into().expect("16 of 32")) & 0x0fff_fffc_0fff_fffc_0fff_fffc_0fff_ffff;
        let once = Power::new(limbs(r, 0));
        let twice = Power::new(carry(once.times(once.limbs)));
        Self { once, twice, h: [0; 3], s: u128::from_le_bytes(s.try_into().expect("16 of 32")) }
    }

    /// Takes `bytes`, and zeros up to the end of a block.
    #[inline(always)]
    pub(super) fn absorb(&mut self, bytes: &[u8]) {
        let (pairs, rest) = bytes.as_chunks::<32>();
        for pair in pairs {
            let (first, second) = pair.split_at(16);
            let first = self.twice.times(add(self.h, read(first)));
            let second = self.once.times(read(second));
            self.h = carry([first[0] + second[0], first[1] + second[1], first[2] + second[2]]);
        }
        let (blocks, rest) = rest.as_chunks::<16>();
        for block in blocks {
            self.h = carry(self.once.times(add(self.h, read(block))));
        }
        if !rest.is_empty() {
            let mut block = [0; 16];
            block[..rest.len()].copy_from_slice(rest);
            self.h = carry(self.once.times(add(self.h, read(&block))));
        }
    }

    /// The code.
    #[inline(always)]
    pub(super) fn tag(&self) -> [u8; 16] {
        let [mut a, mut b, mut c] = self.h.map(Wrapping);
        for _ in 0..2 {
            c += b >> 44;
            b &= MASK44;
            a += Wrapping(5) * (c >> 42);
            c &= MASK42;
            b += a >> 44;
            a &= MASK44;
        }
        // The number is below 2^130 now, and p or more just if adding 5 carries out of bit 130.
        let over = (c + ((b + ((a + Wrapping(5)) >> 44)) >> 44)) >> 42;
        let low = wide(a.0) + (wide(b.0) << 44);
        let h = low + (wide(c.0) << 88) + wide(over.0) * Wrapping(5);
        (h + Wrapping(self.s)).0.to_le_bytes()
    }
}

impl Drop for Poly1305 {
    fn drop(&mut self) {
        (self.once, self.twice, self.h, self.s) = (Power::new([0; 3]), Power::new([0; 3]), [0; 3], 0);
        zeroize::optimization_barrier(self);
    }
}

/// A block, with the bit above its last byte.
#[inline(always)]
fn read(block: &[u8]) -> [u64; 3] {
    limbs(u128::from_le_bytes(block.try_into().expect("a block")), 1 << 40)
}

#[inline(always)]
fn limbs(number: u128, top: u64) -> [u64; 3] {
    [number as u64 & MASK44, (number >> 44) as u64 & MASK44, (number >> 88) as u64 | top]
}

#[inline(always)]
fn add(a: [u64; 3], b: [u64; 3]) -> [u64; 3] {
    [a[0].wrapping_add(b[0]), a[1].wrapping_add(b[1]), a[2].wrapping_add(b[2])]
}

/// Limbs below 2^44, 2^44 + 2^12 and 2^42: the first carry out of the top is below 2^55, five times it reaches limb 1.
#[inline(always)]
fn carry([a, mut b, mut c]: [Wrapping<u128>; 3]) -> [u64; 3] {
    b += a >> 44;
    c += b >> 44;
    let low = (a.0 as u64 & MASK44).wrapping_add(5_u64.wrapping_mul((c >> 42).0 as u64));
    [low & MASK44, (b.0 as u64 & MASK44).wrapping_add(low >> 44), c.0 as u64 & MASK42]
}

#[cfg(test)]
mod tests {
    use super::Poly1305;
    use hex_literal::hex;

    fn tag(key: [u8; 32], message: &[u8]) -> [u8; 16] {
        let mut mac = Poly1305::new(&key);
        mac.absorb(message);
        mac.tag()
    }

    /// RFC 8439 appendix A.3, vectors of whole blocks: they carry where carrying is rare.
    #[test]
    fn numbers_around_the_modulus() {
        let r = |first: u8| {
            let mut key = [0; 32];
            key[0] = first;
            key
        };
        let ones = [0xff; 16];
        let mut with_s = r(2);
        with_s[16..].fill(0xff);
        assert_eq!(tag(r(2), &ones), hex!("03000000000000000000000000000000"), "#7");
        assert_eq!(
            tag(with_s, &hex!("02000000000000000000000000000000")),
            hex!("03000000000000000000000000000000"),
            "#8"
        );
        let nine =
            hex!("fffffffffffffffffffffffffffffffff0ffffffffffffffffffffffffffffff11000000000000000000000000000000");
        assert_eq!(tag(r(1), &nine), hex!("05000000000000000000000000000000"), "#9");
        let ten =
            hex!("fffffffffffffffffffffffffffffffffbfefefefefefefefefefefefefefefe01010101010101010101010101010101");
        assert_eq!(tag(r(1), &ten), [0; 16], "#10");
        assert_eq!(
            tag(r(2), &hex!("fdffffffffffffffffffffffffffffff")),
            hex!("faffffffffffffffffffffffffffffff"),
            "#11"
        );
        let mut two_limbs = r(1);
        two_limbs[8] = 4;
        let twelve = hex!(
            "e33594d7505e43b900000000000000003394d7505e4379cd01000000000000000000000000000000000000000000000001000000000000000000000000000000"
        );
        assert_eq!(tag(two_limbs, &twelve), hex!("14000000000000005500000000000000"), "#12");
        assert_eq!(tag(two_limbs, &twelve[..48]), hex!("13000000000000000000000000000000"), "#13");
    }
}
