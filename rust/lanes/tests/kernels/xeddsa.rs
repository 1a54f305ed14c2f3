//! What XEdDSA accepts and refuses.

use crate::backends::{Random, Runs, slices};
use interlane_lanes::kernels::{x25519, xeddsa};

mod everything {
    use crate::on_everything;

    on_everything!(
        every_bit_counts,
        another_key_refuses,
        s_plus_l_is_accepted_below_two_to_the_253,
        top_bits_are_refused,
        the_sign_bit_is_in_about_half,
        cofactorless,
        odd_keys,
        the_nonce_takes_key_message_and_randomness,
    );
}

/// The order of the base point, little-endian (RFC 8032 §5.1).
const L: [u8; 32] = hex_literal::hex!("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");

fn public(on: &impl Runs, private: [u8; 32]) -> [u8; 32] {
    let mut out = [[0; 32]];
    on.run(x25519::PublicKey { scalars: &[private], out: &mut out });
    out[0]
}

fn sign(on: &impl Runs, private: [u8; 32], message: &[u8], random: [u8; 64]) -> [u8; 64] {
    let mut out = [[0; 64]];
    on.run(xeddsa::Sign {
        privates: &[private],
        encodings: None,
        messages: &[message],
        randoms: &[random],
        out: &mut out,
    });
    let (mut encodings, mut again) = ([[0; 32]], [[0; 64]]);
    on.run(xeddsa::EncodeOwn { privates: &[private], out: &mut encodings });
    on.run(xeddsa::Sign {
        privates: &[private],
        encodings: Some(&encodings),
        messages: &[message],
        randoms: &[random],
        out: &mut again,
    });
    assert_eq!(out, again, "an encoding that was kept gives the same signature");
    out[0]
}

/// The answers for one key, which must be the same when it is kept, with its `x` or without.
fn verify(on: &impl Runs, public: [u8; 32], messages: &[&[u8]], signatures: &[[u8; 64]]) -> Vec<bool> {
    let n = messages.len();
    let publics = vec![public; n];
    let mut ok = vec![false; n];
    on.run(xeddsa::Verify { publics: &publics, expanded: None, messages, signatures, ok: &mut ok });
    let mut expanded = [None];
    on.run(xeddsa::Expand { publics: &[public], out: &mut expanded });
    match expanded[0] {
        Some([y, x]) => {
            for x in [x, xeddsa::UNKNOWN] {
                let mut again = vec![true; n];
                let expanded = Some(&vec![[y, x]; n][..]);
                on.run(xeddsa::Verify { publics: &publics, expanded, messages, signatures, ok: &mut again });
                assert_eq!(ok, again, "a key that was kept gives the same answer");
            }
        }
        None => assert!(!ok.contains(&true), "nothing verifies under a key without a point"),
    }
    ok
}

/// All flips of a message and of a signature in one call, the honest one among them.
fn every_bit_counts(on: &impl Runs) {
    let mut random = Random(20);
    // A key for each sign of A.
    for sign_bit in [0, 0x80] {
        let (private, message, signature) = loop {
            let (private, message) = (random.array(), random.bytes(9));
            let signature = sign(on, private, &message, random.array());
            if signature[63] & 0x80 == sign_bit {
                break (private, message, signature);
            }
        };
        let public = public(on, private);
        let made = |messages: &[&[u8]], signatures: &[[u8; 64]]| {
            let mut ok = vec![false; messages.len()];
            let publics = &vec![public; messages.len()];
            on.run(xeddsa::Verify { publics, expanded: None, messages, signatures, ok: &mut ok });
            ok
        };

        let mut signatures = vec![signature];
        for bit in 0..512 {
            let mut flipped = signature;
            flipped[bit / 8] ^= 1 << (bit % 8);
            signatures.push(flipped);
        }
        let ok = made(&vec![&message[..]; signatures.len()], &signatures);
        assert!(ok[0]);
        assert_eq!(ok.iter().filter(|ok| **ok).count(), 1);

        let mut messages = vec![message.clone(), message[..8].to_vec(), [&message[..], &[0]].concat()];
        for bit in 0..8 * 9 {
            let mut flipped = message.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            messages.push(flipped);
        }
        let ok = verify(on, public, &slices(&messages), &vec![signature; messages.len()]);
        assert!(ok[0]);
        assert_eq!(ok.iter().filter(|ok| **ok).count(), 1);
    }
}

fn another_key_refuses(on: &impl Runs) {
    let mut random = Random(21);
    let signature = sign(on, random.array(), b"message", random.array());
    for _ in 0..20 {
        assert_eq!(verify(on, public(on, random.array()), &[b"message"], &[signature]), [false]);
    }
    // u = 2 is on the twist, so no key at all.
    let mut twist = [0; 32];
    twist[0] = 2;
    assert_eq!(verify(on, twist, &[b"message"], &[signature]), [false]);
}

fn plus_l(signature: &[u8; 64]) -> [u8; 64] {
    let mut out = *signature;
    let sign = out[63] & 0x80;
    out[63] &= 0x7f;
    let mut carry = 0;
    for (byte, l) in out[32..].iter_mut().zip(L) {
        let sum = u16::from(*byte) + u16::from(l) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    out[63] |= sign;
    out
}

/// s < L < 2^252 + 2^125, so s + L is always below 2^253 and s + 2 L is below it for small s alone.
fn s_plus_l_is_accepted_below_two_to_the_253(on: &impl Runs) {
    let mut random = Random(22);
    for _ in 0..20 {
        let private = random.array();
        let signature = sign(on, private, b"message", random.array());
        let (once, twice) = (plus_l(&signature), plus_l(&plus_l(&signature)));
        assert_eq!(once[63] & 0x60, 0);
        let ok = verify(on, public(on, private), &[&b"message"[..]; 3], &[signature, once, twice]);
        assert_eq!(ok, [true, true, twice[63] & 0x60 == 0]);
    }
}

fn top_bits_are_refused(on: &impl Runs) {
    let mut random = Random(23);
    let private = random.array();
    let signature = sign(on, private, b"message", random.array());
    assert_eq!(signature[63] & 0x60, 0);
    // s + 8 L has the same value mod L, and its top bits set: it is those that are refused.
    let mut large = signature;
    for _ in 0..2 {
        large = plus_l(&large);
    }
    assert_ne!(large[63] & 0x60, 0, "2^253 and more");
    for top in [0x20, 0x40, 0x60] {
        let mut bad = signature;
        bad[63] |= top;
        assert_eq!(verify(on, public(on, private), &[&b"message"[..]; 2], &[bad, large]), [false; 2]);
    }
}

fn the_sign_bit_is_in_about_half(on: &impl Runs) {
    let mut random = Random(24);
    let privates: Vec<[u8; 32]> = random.arrays(200);
    let randoms = random.arrays(200);
    let mut out = vec![[0; 64]; 200];
    on.run(xeddsa::Sign {
        privates: &privates,
        encodings: None,
        messages: &[&b"message"[..]; 200],
        randoms: &randoms,
        out: &mut out,
    });
    let set = out.iter().filter(|signature| signature[63] & 0x80 != 0).count();
    assert!((60..140).contains(&set), "{set} of 200");
    // It is the key's, whatever the message and randomness.
    for (private, signature) in privates.iter().zip(&out) {
        let another = sign(on, *private, b"another message", random.array());
        assert_eq!(another[63] & 0x80, signature[63] & 0x80);
    }
}

/// R with a point of order 8 added: 8 s B = 8 R + 8 h A still holds, and is not enough.
fn cofactorless(on: &impl Runs) {
    use curve25519_dalek::{EdwardsPoint, Scalar, constants::EIGHT_TORSION};
    use sha2::{Digest, Sha512};
    let mut random = Random(25);
    let private = random.array();
    let a = Scalar::from_bytes_mod_order(curve25519_dalek::scalar::clamp_integer(private));
    let big_a = EdwardsPoint::mul_base(&a).compress();
    let r = Scalar::from_bytes_mod_order_wide(&random.array());
    for (torsion, expected) in [(EIGHT_TORSION[0], true), (EIGHT_TORSION[1], false)] {
        let big_r = (EdwardsPoint::mul_base(&r) + torsion).compress();
        let digest = Sha512::new().chain_update(big_r.0).chain_update(big_a.0).chain_update(b"message").finalize();
        let s = r + Scalar::from_bytes_mod_order_wide(&digest.into()) * a;
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&big_r.0);
        signature[32..].copy_from_slice(s.as_bytes());
        signature[63] |= big_a.0[31] & 0x80;
        assert_eq!(verify(on, public(on, private), &[b"message"], &[signature]), [expected]);
    }
}

/// Keys that no honest signer has: of small order, on the twist, without a point, and spelt in another way. Each stands among
/// honest rows, and is asked with either sign; what is right is the definition, by curve25519-dalek.
fn odd_keys(on: &impl Runs) {
    use curve25519_dalek::{EdwardsPoint, MontgomeryPoint, Scalar};
    use sha2::{Digest, Sha512};
    let mut random = Random(27);
    let private = random.array();
    let honest = public(on, private);
    let mut high = honest;
    high[31] |= 0x80;
    let number = |low: u8| std::array::from_fn(|i| if i == 0 { low } else { 0 });
    let below_p = |less: u8| std::array::from_fn(|i| [0xed - less, 0xff, 0x7f][(i > 0) as usize + (i == 31) as usize]);
    let keys: [[u8; 32]; 9] = [
        high,
        number(0),
        number(1),
        number(2),
        number(9),
        below_p(1),
        below_p(0),
        std::array::from_fn(|_| 0xff),
        honest,
    ];
    let message = random.bytes(50);
    let honest_signature = sign(on, private, &message, random.array());
    let mut accepted = [0; 9];
    for (which, key) in keys.into_iter().enumerate() {
        for round in 0..24 {
            // A signature that is right for as many keys as can be: s B is R, and h A is zero, or not.
            let s = Scalar::from_bytes_mod_order(random.array());
            let mut signature = [0; 64];
            signature[..32].copy_from_slice(&EdwardsPoint::mul_base(&s).compress().0);
            signature[32..].copy_from_slice(s.as_bytes());
            signature[63] |= (round & 1) << 7;
            if which == 0 || which == 8 {
                signature = honest_signature;
                signature[63] ^= (round & 1) << 7;
            }
            let expected = MontgomeryPoint(key).to_edwards(signature[63] >> 7).is_some_and(|a| {
                let mut bytes: [u8; 32] = *signature.last_chunk().expect("32 of 64");
                bytes[31] &= 0x7f;
                let hash = Sha512::new().chain_update(&signature[..32]).chain_update(a.compress().0);
                let h = Scalar::from_bytes_mod_order_wide(&hash.chain_update(&message).finalize().into());
                let r = EdwardsPoint::mul_base(&Scalar::from_bytes_mod_order(bytes)) - h * a;
                r.compress().0 == signature[..32]
            });
            accepted[which] += usize::from(expected);
            assert_eq!(verify(on, key, &[&message], &[signature]), [expected], "{key:?}");
            let mut ok = [false; 5];
            let mut publics = [honest; 5];
            let mut signatures = [honest_signature; 5];
            (publics[round as usize % 5], signatures[round as usize % 5]) = (key, signature);
            let (messages, signatures) = (&[&message[..]; 5], &signatures);
            on.run(xeddsa::Verify { publics: &publics, expanded: None, messages, signatures, ok: &mut ok });
            for (row, ok) in ok.into_iter().enumerate() {
                assert_eq!(ok, expected || row != round as usize % 5);
            }
        }
    }
    // Of order 2, 4 and the two spellings of honest keys are accepted now and then; others never.
    for which in [0, 1, 2, 6, 8] {
        assert!((1..24).contains(&accepted[which]), "{which}: {accepted:?}");
    }
    assert_eq!([accepted[3], accepted[5]], [0; 2], "on the twist, or no point");
}

/// The whole of §2 of the scheme by hand, for one signature.
fn the_nonce_takes_key_message_and_randomness(on: &impl Runs) {
    use curve25519_dalek::{EdwardsPoint, Scalar, scalar::clamp_integer};
    use sha2::{Digest, Sha512};
    let mut random = Random(26);
    let (private, message, z): ([u8; 32], _, [u8; 64]) =
        (clamp_integer(random.array()), random.bytes(99), random.array());
    let mut prefix = [0xff; 32];
    prefix[0] = 0xfe;
    let wide = |parts: &[&[u8]]| Scalar::from_bytes_mod_order_wide(&Sha512::digest(parts.concat()).into());
    let a = Scalar::from_bytes_mod_order(private);
    let big_a = EdwardsPoint::mul_base(&a).compress().0;
    let r = wide(&[&prefix, &private, &message, &z]);
    let big_r = EdwardsPoint::mul_base(&r).compress().0;
    let s = r + wide(&[&big_r, &big_a, &message]) * a;
    let mut expected = [big_r, s.to_bytes()].concat();
    expected[63] |= big_a[31] & 0x80;
    assert_eq!(sign(on, private, &message, z)[..], expected);
}
