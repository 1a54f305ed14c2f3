//! Every kernel at awkward numbers of rows, with unequal lengths, canaries around its output and a bad row among good ones,
//! against oracles that take one row at a time.

use crate::backends::{Canaries, Fenced, Random, Runs, SIZES, slices};
use interlane_lanes::kernels::{cbc, chacha20poly1305, chain, cmac, gcm, hkdf, hmac, sha256, sha512, x25519, xeddsa};

mod everything {
    use crate::on_everything;

    on_everything!(
        digest,
        long_digest,
        codes,
        chain_steps,
        message_keys,
        chain_steps_to_keys,
        hkdf_of_many_lengths,
        cbc_rows,
        cmac_rows,
        gcm_rows,
        chacha20poly1305_rows,
        agreements,
        public_keys,
        canonical_points,
        signatures,
    );
}

fn digest(on: &impl Runs) {
    use sha2::Digest;
    let mut random = Random(1);
    for n in SIZES {
        let messages = random.rows(n, 300);
        let mut out = Canaries::new(n, [0xa5; 32]);
        on.run(sha256::Digest { messages: &slices(&messages), out: out.rows() });
        for (message, out) in messages.iter().zip(out.check()) {
            assert_eq!(out[..], sha2::Sha256::digest(message)[..]);
        }
    }
    // Every place that the padding can begin at.
    let messages: Vec<Vec<u8>> = (0..200).map(|len| random.bytes(len)).collect();
    let mut out = vec![[0; 32]; messages.len()];
    on.run(sha256::Digest { messages: &slices(&messages), out: &mut out });
    for (message, out) in messages.iter().zip(out) {
        assert_eq!(out[..], sha2::Sha256::digest(message)[..], "{} bytes", message.len());
    }
}

fn long_digest(on: &impl Runs) {
    use sha2::Digest;
    let mut random = Random(21);
    for n in SIZES {
        let messages = random.rows(n, 600);
        let mut out = Canaries::new(n, [0xa5; 64]);
        on.run(sha512::Digest { messages: &slices(&messages), out: out.rows() });
        for (message, out) in messages.iter().zip(out.check()) {
            assert_eq!(out[..], sha2::Sha512::digest(message)[..]);
        }
    }
    // Every place that the padding can begin at.
    let messages: Vec<Vec<u8>> = (0..400).map(|len| random.bytes(len)).collect();
    let mut out = vec![[0; 64]; messages.len()];
    on.run(sha512::Digest { messages: &slices(&messages), out: &mut out });
    for (message, out) in messages.iter().zip(out) {
        assert_eq!(out[..], sha2::Sha512::digest(message)[..], "{} bytes", message.len());
    }
}

fn code(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    use ::hmac::{KeyInit, Mac};
    let mut mac = ::hmac::Hmac::<sha2::Sha256>::new_from_slice(key).expect("any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn codes(on: &impl Runs) {
    let mut random = Random(2);
    for n in SIZES {
        let keys = random.arrays(n);
        let (heads, tails) = (random.rows(n, 150), random.rows(n, 400));
        let mut out = Canaries::new(n, [0xa5; 32]);
        on.run(hmac::Hmac { keys: &keys, heads: &slices(&heads), tails: &slices(&tails), out: out.rows() });
        for (row, out) in out.check().into_iter().enumerate() {
            assert_eq!(out, code(&keys[row], &[&heads[row], &tails[row]]));
        }
    }
    // The head ends at every place in a block.
    let message = random.bytes(330);
    let keys = random.arrays(200);
    let heads: Vec<&[u8]> = (0..200).map(|at| &message[..at]).collect();
    let tails: Vec<&[u8]> = (0..200).map(|at| &message[at..]).collect();
    let mut out = vec![[0; 32]; 200];
    on.run(hmac::Hmac { keys: &keys, heads: &heads, tails: &tails, out: &mut out });
    for (key, out) in keys.iter().zip(out) {
        assert_eq!(out, code(key, &[&message]));
    }
}

fn chain_steps(on: &impl Runs) {
    let mut random = Random(3);
    for n in SIZES {
        let before: Vec<[u8; 32]> = random.arrays(n);
        let mut chains = Canaries::of(&before, [0xa5; 32]);
        let mut seeds = Canaries::new(n, [0x5a; 32]);
        on.run(chain::Step { chains: chains.rows(), seeds: seeds.rows() });
        for ((before, chain), seed) in before.iter().zip(chains.check()).zip(seeds.check()) {
            assert_eq!((seed, chain), (code(before, &[&[1]]), code(before, &[&[2]])));
        }
    }
}

fn derived(salt: &[u8], input: &[u8], info: &[u8], out: &mut [u8]) {
    ::hkdf::Hkdf::<sha2::Sha256>::new(Some(salt), input).expand(info, out).expect("an allowed length");
}

fn message_keys(on: &impl Runs) {
    message_keys_of::<80>(on, b"WhisperMessageKeys");
    message_keys_of::<48>(on, b"WhisperGroup");
    message_keys_of::<32>(on, b"");
    message_keys_of::<1>(on, &[7; 40]);
    message_keys_of::<0>(on, b"nothing");
}

fn message_keys_of<const N: usize>(on: &impl Runs, info: &'static [u8]) {
    let mut random = Random(4);
    for n in SIZES {
        let seeds: Vec<[u8; 32]> = random.arrays(n);
        let mut out = Canaries::new(n, [0xa5; N]);
        on.run(chain::MessageKeys { seeds: &seeds, info: &hkdf::Info::new(info), out: out.rows() });
        for (seed, out) in seeds.iter().zip(out.check()) {
            let mut expected = [0; N];
            derived(&[0; 32], seed, info, &mut expected);
            assert_eq!(out, expected);
        }
    }
}

fn chain_steps_to_keys(on: &impl Runs) {
    step_to_keys_of::<80>(on, b"WhisperMessageKeys");
    step_to_keys_of::<48>(on, b"WhisperGroup");
    step_to_keys_of::<33>(on, b"");
    step_to_keys_of::<65>(on, &[7; hkdf::INFO_MAX]);
    step_to_keys_of::<0>(on, b"nothing");
}

fn step_to_keys_of<const N: usize>(on: &impl Runs, info: &'static [u8]) {
    let mut random = Random(12);
    let info_laid_out = &hkdf::Info::new(info);
    for n in SIZES {
        let before: Vec<[u8; 32]> = random.arrays(n);
        for seeds_kept in [0, n] {
            let mut chains = Canaries::of(&before, [0xa5; 32]);
            let mut seeds = Canaries::new(seeds_kept, [0xa5; 32]);
            let mut out = Canaries::new(n, [0x5a; N]);
            on.run(chain::StepToKeys {
                chains: chains.rows(),
                seeds: seeds.rows(),
                info: info_laid_out,
                out: out.rows(),
            });
            let expected_seeds: Vec<[u8; 32]> = before.iter().map(|before| code(before, &[&[1]])).collect();
            for (((before, seed), chain), out) in
                before.iter().zip(&expected_seeds).zip(chains.check()).zip(out.check())
            {
                let mut expected = [0; N];
                derived(&[0; 32], seed, info, &mut expected);
                assert_eq!((chain, out), (code(before, &[&[2]]), expected));
            }
            assert!(seeds.check().into_iter().eq(expected_seeds.into_iter().take(seeds_kept)));
        }
    }
}

fn hkdf_of_many_lengths(on: &impl Runs) {
    hkdf_of::<32>(on, b"Label");
    hkdf_of::<64>(on, b"WhisperRatchet");
    hkdf_of::<96>(on, b"WhisperText and what makes it forty bytes");
    hkdf_of::<33>(on, &[3; 22]);
    hkdf_of::<65>(on, &[4; 23]);
    hkdf_of::<100>(on, &[5; hkdf::INFO_MAX]);
    hkdf_of::<{ 255 * 32 }>(on, b"as much as there is");
}

fn hkdf_of<const N: usize>(on: &impl Runs, info: &'static [u8]) {
    let mut random = Random(5);
    for n in SIZES {
        let salts: Vec<[u8; 32]> = random.arrays(n);
        let inputs = random.rows(n, 200);
        for salts in [Some(&salts[..]), None] {
            let mut out = Canaries::new(n, [0xa5; N]);
            on.run(hkdf::Hkdf { salts, inputs: &slices(&inputs), info, out: out.rows() });
            for (row, out) in out.check().into_iter().enumerate() {
                let mut expected = [0; N];
                derived(salts.map_or(&[0; 32], |salts| &salts[row]), &inputs[row], info, &mut expected);
                assert!(out == expected, "{N} bytes, row {row} of {n}");
            }
        }
    }
}

fn cbc_rows(on: &impl Runs) {
    use aes::cipher::{BlockCipherEncrypt, KeyInit};
    let mut random = Random(6);
    for n in SIZES {
        let (keys, ivs) = (random.arrays(n), random.arrays(n));
        let texts: Vec<Vec<u8>> = (0..n)
            .map(|_| {
                let blocks = random.below(40);
                random.bytes(16 * blocks)
            })
            .collect();
        let mut rows = Fenced::new(&texts);
        on.run(cbc::Encrypt { keys: &keys, ivs: &ivs, rows: &mut rows.slices() });
        let sealed = rows.check();
        for (row, (text, sealed)) in texts.iter().zip(&sealed).enumerate() {
            let cipher = aes::Aes256::new((&keys[row]).into());
            let mut before: [u8; 16] = ivs[row];
            for (text, sealed) in text.chunks(16).zip(sealed.chunks(16)) {
                let mut block = before;
                block.iter_mut().zip(text).for_each(|(byte, text)| *byte ^= text);
                cipher.encrypt_block((&mut block).into());
                assert_eq!(block, sealed);
                before = block;
            }
        }
        let mut rows = Fenced::new(&sealed);
        on.run(cbc::Decrypt { keys: &keys, ivs: &ivs, rows: &mut rows.slices() });
        assert_eq!(rows.check(), texts);
    }
}

fn cmac_rows(on: &impl Runs) {
    cmac_of::<0>(on);
    cmac_of::<16>(on);
    cmac_of::<32>(on);
}

fn cmac_of<const HEAD: usize>(on: &impl Runs) {
    let mut random = Random(13);
    let code = |key: &[u8; 32], parts: [&[u8]; 2]| -> [u8; 16] {
        use ::cmac::{KeyInit, Mac};
        let mut code = ::cmac::Cmac::<aes::Aes256>::new(key.into());
        parts.iter().for_each(|part| code.update(part));
        code.finalize().into_bytes().into()
    };
    for n in SIZES {
        let (keys, heads) = (random.arrays(n), random.arrays::<HEAD>(n));
        // Of unequal lengths, of the same one, and empty.
        for texts in [random.rows(n, 400), vec![random.bytes(330); n], vec![random.bytes(96); n], vec![vec![]; n]] {
            let mut out = Canaries::new(n, [0xa5; 16]);
            on.run(cmac::Cmac { keys: &keys, heads: &heads, tails: &slices(&texts), out: out.rows() });
            for (row, out) in out.check().into_iter().enumerate() {
                assert_eq!(out, code(&keys[row], [&heads[row], &texts[row]]), "row {row} of {n}");
            }
        }
    }
    // The message ends at every place in a block, and rows of few blocks are among those of many.
    let message = random.bytes(100);
    let (keys, heads) = (random.arrays(100), random.arrays::<HEAD>(100));
    let tails: Vec<&[u8]> = (0..100).map(|row| &message[..(37 * row) % 100]).collect();
    let mut out = vec![[0; 16]; 100];
    on.run(cmac::Cmac { keys: &keys, heads: &heads, tails: &tails, out: &mut out });
    for (row, out) in out.into_iter().enumerate() {
        assert_eq!(out, code(&keys[row], [&heads[row], tails[row]]), "{} bytes", tails[row].len());
    }
}

#[test]
#[should_panic(expected = "whole blocks")]
fn cbc_refuses_a_part_of_a_block() {
    crate::backends::backends()[0].run(cbc::Encrypt { keys: &[[0; 32]], ivs: &[[0; 16]], rows: &mut [&mut [0; 17]] });
}

#[test]
#[should_panic(expected = "one entry a row")]
fn arguments_of_unequal_numbers_of_rows() {
    crate::backends::backends()[0].run(chain::Step { chains: &mut [[0; 32]; 2], seeds: &mut [[0; 32]; 1] });
}

/// The two authenticated ciphers have the same shape and one test: sealed rows are those of the crate alone, each bad row is
/// zeroed and its neighbours are opened.
macro_rules! aead {
    ($test:ident, $kernel:ident, $cipher:ty) => {
        fn $test(on: &impl Runs) {
            use $kernel::{Open, Seal};
            let mut random = Random(7);
            for n in SIZES {
                let (keys, nonces) = (random.arrays(n), random.arrays(n));
                let (associated, texts) = (random.rows(n, 70), random.rows(n, 300));
                let associated = slices(&associated);
                let with_room: Vec<Vec<u8>> = texts.iter().map(|text| [&text[..], &[0xee; 16]].concat()).collect();
                let mut rows = Fenced::new(&with_room);
                on.run(Seal { keys: &keys, nonces: &nonces, associated: &associated, rows: &mut rows.slices() });
                let sealed = rows.check();
                for row in 0..n {
                    use aes_gcm::aead::{AeadInOut, KeyInit};
                    let mut expected = texts[row].clone();
                    let tag = <$cipher>::new((&keys[row]).into())
                        .encrypt_inout_detached((&nonces[row]).into(), associated[row], (&mut expected[..]).into())
                        .expect("short");
                    expected.extend_from_slice(&tag);
                    assert_eq!(sealed[row], expected);
                }

                // One row is bad in each way there is: a bit of text, of the tag, of the associated data, key or nonce;
                // a row shorter than a tag.
                for bad in 0..n.min(18) {
                    let (mut keys, mut nonces, mut rows, mut associated) =
                        (keys.clone(), nonces.clone(), sealed.clone(), associated.clone());
                    let place = random.below(rows[bad].len());
                    match bad % 6 {
                        0 => rows[bad][place] ^= 1 << random.below(8),
                        1 => *rows[bad].last_mut().expect("a tag") ^= 0x80,
                        2 => {
                            associated[bad] =
                                b"something else, longer than what was there before, whatever it was at all!"
                        }
                        3 => keys[bad] = random.array(),
                        4 => nonces[bad] = random.array(),
                        _ => rows[bad].truncate(15),
                    }
                    let len = rows[bad].len();
                    let mut rows = Fenced::new(&rows);
                    let mut ok = Canaries::new(n, true);
                    on.run(Open {
                        keys: &keys,
                        nonces: &nonces,
                        associated: &associated,
                        rows: &mut rows.slices(),
                        ok: ok.rows(),
                    });
                    let (rows, ok) = (rows.check(), ok.check());
                    for row in 0..n {
                        assert_eq!(ok[row], row != bad);
                        if row == bad {
                            assert_eq!(rows[row], vec![0; len], "a row that fails is zero");
                        } else {
                            assert_eq!(rows[row][..texts[row].len()], texts[row]);
                        }
                    }
                }
            }
        }
    };
}
aead!(gcm_rows, gcm, aes_gcm::Aes256Gcm);
aead!(chacha20poly1305_rows, chacha20poly1305, ::chacha20poly1305::ChaCha20Poly1305);

/// The points whose order divides 8, and spellings of them that are not canonical, by their `u`.
const SMALL_ORDER: [[u8; 32]; 7] = {
    const fn with(first: u8, middle: u8, last: u8) -> [u8; 32] {
        let mut u = [middle; 32];
        u[0] = first;
        u[31] = last;
        u
    }
    [
        with(0, 0, 0),
        with(1, 0, 0),
        with(0xec, 0xff, 0x7f),
        with(0xed, 0xff, 0x7f),
        with(0xee, 0xff, 0x7f),
        hex_literal::hex!("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        hex_literal::hex!("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    ]
};

fn agreements(on: &impl Runs) {
    let mut random = Random(8);
    for n in SIZES {
        let scalars = random.arrays(n);
        let honest: Vec<[u8; 32]> = random.arrays(n);
        // Each bad row sits elsewhere among honest ones.
        for (bad, point) in SMALL_ORDER.iter().enumerate() {
            let mut points = honest.clone();
            let bad = if n == 0 { usize::MAX } else { (5 * bad) % n };
            if let Some(row) = points.get_mut(bad) {
                *row = *point;
            }
            let mut out = Canaries::new(n, [0xa5; 32]);
            let mut ok = Canaries::new(n, true);
            on.run(x25519::Agree { scalars: &scalars, points: &points, out: out.rows(), ok: ok.rows() });
            let (out, ok) = (out.check(), ok.check());
            for row in 0..n {
                let expected = curve25519_dalek::MontgomeryPoint(points[row]).mul_clamped(scalars[row]).0;
                assert_eq!((out[row], ok[row]), (expected, row != bad));
                assert_eq!(ok[row], out[row] != [0; 32]);
            }
        }
    }
}

fn public_keys(on: &impl Runs) {
    let mut random = Random(9);
    for n in SIZES {
        let mut scalars: Vec<[u8; 32]> = random.arrays(n);
        for (row, scalar) in [[0; 32], [0xff; 32]].into_iter().enumerate().take(n) {
            scalars[n - 1 - row] = scalar;
        }
        let mut out = Canaries::new(n, [0xa5; 32]);
        on.run(x25519::PublicKey { scalars: &scalars, out: out.rows() });
        for (scalar, out) in scalars.iter().zip(out.check()) {
            assert_eq!(out, curve25519_dalek::MontgomeryPoint::mul_base_clamped(*scalar).0);
        }
    }
}

fn canonical_points(on: &impl Runs) {
    use curve25519_dalek::constants::EIGHT_TORSION;
    let mut random = Random(10);
    for n in SIZES {
        let (mut points, mut expected) = (Vec::new(), Vec::new());
        for row in 0..n {
            let honest = curve25519_dalek::EdwardsPoint::mul_base_clamped(random.array());
            let u = honest.to_montgomery().0;
            let mut high = u;
            high[31] |= 0x80;
            let (point, ok) = match row % 8 {
                0 | 4 => (u, true),
                1 => (high, false),
                // A part of order 2, 4 or 8.
                2 | 6 => ((honest + EIGHT_TORSION[1 + random.below(7)]).to_montgomery().0, false),
                3 => (SMALL_ORDER[random.below(7)], false),
                // u = 2 is on the twist; 9 + p is a spelling of the base point.
                5 => (std::array::from_fn(|i| if i == 0 { 2 } else { 0 }), false),
                _ => (std::array::from_fn(|i| [0xf6, 0xff, 0x7f][(i > 0) as usize + (i == 31) as usize]), false),
            };
            points.push(point);
            expected.push(ok);
        }
        let mut ok = Canaries::new(n, true);
        on.run(x25519::Canonical { points: &points, ok: ok.rows() });
        assert_eq!(ok.check(), expected);
    }
    // The edge of what is canonical: p − 1 is on the twist, so only the base point tells the two halves apart.
    let nine: [u8; 32] = std::array::from_fn(|i| if i == 0 { 9 } else { 0 });
    let mut ok = [false];
    on.run(x25519::Canonical { points: &[nine], ok: &mut ok });
    assert!(ok[0]);
}

fn signatures(on: &impl Runs) {
    let mut random = Random(11);
    for n in SIZES {
        let (privates, randoms) = (random.arrays(n), random.arrays(n));
        let messages = random.rows(n, 300);
        let messages = slices(&messages);
        let mut publics = vec![[0; 32]; n];
        on.run(x25519::PublicKey { scalars: &privates, out: &mut publics });
        let mut out = Canaries::new(n, [0xa5; 64]);
        on.run(xeddsa::Sign {
            privates: &privates,
            encodings: None,
            messages: &messages,
            randoms: &randoms,
            out: out.rows(),
        });
        let out = out.check();
        for row in 0..n {
            let mut alone = [[0; 64]];
            on.run(xeddsa::Sign {
                privates: &privates[row..=row],
                encodings: None,
                messages: &messages[row..=row],
                randoms: &randoms[row..=row],
                out: &mut alone,
            });
            assert_eq!(alone[0], out[row]);
        }
        for bad in 0..n.min(4) {
            let bad = (5 * bad) % n;
            let (mut publics, mut signatures) = (publics.clone(), out.clone());
            match bad % 4 {
                0 => signatures[bad][random.below(64)] ^= 1 << random.below(8),
                1 => publics[bad] = [0xff; 32],
                2 => signatures[bad] = [0; 64],
                _ => publics[bad] = std::array::from_fn(|i| if i == 0 { 2 } else { 0 }),
            }
            let mut ok = Canaries::new(n, true);
            on.run(xeddsa::Verify {
                publics: &publics,
                expanded: None,
                messages: &messages,
                signatures: &signatures,
                ok: ok.rows(),
            });
            assert_eq!(ok.check(), (0..n).map(|row| row != bad).collect::<Vec<_>>());
        }
    }
}
