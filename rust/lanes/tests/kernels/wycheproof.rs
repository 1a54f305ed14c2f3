//! Project Wycheproof's vectors. Each set counts what it ran, so that a filter that lets nothing through fails.

use crate::backends::Runs;
use interlane_lanes::kernels::{cbc, chacha20poly1305, cmac, gcm, hkdf, hmac, x25519};
use wycheproof::{TestResult, aead, cipher, mac, xdh};

mod everything {
    use crate::on_everything;

    on_everything!(x25519_, aes_gcm, chacha20_poly1305, aes_cbc, aes_cmac, hmac_sha256, hkdf_sha256);
}

fn x25519_(on: &impl Runs) {
    let set = xdh::TestSet::load(xdh::TestName::X25519).expect("vectors");
    let tests: Vec<_> =
        set.test_groups.into_iter().flat_map(|group| group.tests).filter(|test| test.public_key.len() == 32).collect();
    let scalars: Vec<[u8; 32]> = tests.iter().map(|test| test.private_key[..].try_into().expect("32")).collect();
    let points: Vec<[u8; 32]> = tests.iter().map(|test| test.public_key[..].try_into().expect("32")).collect();
    let mut out = vec![[0; 32]; tests.len()];
    let mut ok = vec![false; tests.len()];
    on.run(x25519::Agree { scalars: &scalars, points: &points, out: &mut out, ok: &mut ok });
    for ((test, out), ok) in tests.iter().zip(out).zip(ok) {
        assert_eq!(out[..], test.shared_secret[..], "{}", test.tc_id);
        assert_eq!(ok, test.shared_secret[..] != [0; 32], "{}", test.tc_id);
        assert!(ok || test.result != TestResult::Valid);
    }
    assert!(tests.len() > 500, "{}", tests.len());
}

/// All vectors of one shape in one call, so that bad rows have good neighbours.
macro_rules! aead {
    ($test:ident, $kernel:ident, $name:ident, $least:literal) => {
        fn $test(on: &impl Runs) {
            let set = aead::TestSet::load(aead::TestName::$name).expect("vectors");
            let tests: Vec<_> = set
                .test_groups
                .into_iter()
                .filter(|group| (group.key_size, group.nonce_size, group.tag_size) == (256, 96, 128))
                .flat_map(|group| group.tests)
                .collect();
            let keys: Vec<[u8; 32]> = tests.iter().map(|test| test.key[..].try_into().expect("32")).collect();
            let nonces: Vec<[u8; 12]> = tests.iter().map(|test| test.nonce[..].try_into().expect("12")).collect();
            let associated: Vec<&[u8]> = tests.iter().map(|test| &test.aad[..]).collect();

            let mut rows: Vec<Vec<u8>> = tests.iter().map(|test| [&test.pt[..], &[0; 16]].concat()).collect();
            on.run($kernel::Seal {
                keys: &keys,
                nonces: &nonces,
                associated: &associated,
                rows: &mut crate::backends::slices_mut(&mut rows),
            });
            for (test, row) in tests.iter().zip(rows) {
                let expected = [&test.ct[..], &test.tag[..]].concat();
                assert_eq!(row == expected, test.result == TestResult::Valid, "{}", test.tc_id);
            }

            let mut rows: Vec<Vec<u8>> = tests.iter().map(|test| [&test.ct[..], &test.tag[..]].concat()).collect();
            let mut ok = vec![false; tests.len()];
            on.run($kernel::Open {
                keys: &keys,
                nonces: &nonces,
                associated: &associated,
                rows: &mut crate::backends::slices_mut(&mut rows),
                ok: &mut ok,
            });
            for ((test, row), ok) in tests.iter().zip(rows).zip(ok) {
                assert_eq!(ok, test.result == TestResult::Valid, "{}", test.tc_id);
                if ok {
                    assert_eq!(row[..test.pt.len()], test.pt[..], "{}", test.tc_id);
                } else {
                    assert!(row.iter().all(|byte| *byte == 0), "{}", test.tc_id);
                }
            }
            assert!(tests.len() > $least, "{}", tests.len());
        }
    };
}
aead!(aes_gcm, gcm, AesGcm, 60);
aead!(chacha20_poly1305, chacha20poly1305, ChaCha20Poly1305, 250);

/// The kernel pads nothing, so the padding (PKCS #7) is put on and taken off here.
fn aes_cbc(on: &impl Runs) {
    let set = cipher::TestSet::load(cipher::TestName::AesCbcPkcs5).expect("vectors");
    let tests: Vec<_> = set
        .test_groups
        .into_iter()
        .filter(|group| (group.key_size, group.nonce_size) == (256, 128))
        .flat_map(|group| group.tests)
        .collect();
    let keys: Vec<[u8; 32]> = tests.iter().map(|test| test.key[..].try_into().expect("32")).collect();
    let ivs: Vec<[u8; 16]> = tests.iter().map(|test| test.nonce[..].try_into().expect("16")).collect();

    let padding = |len: usize| vec![(16 - len % 16) as u8; 16 - len % 16];
    let mut rows: Vec<Vec<u8>> = tests.iter().map(|test| [&test.pt[..], &padding(test.pt.len())].concat()).collect();
    on.run(cbc::Encrypt { keys: &keys, ivs: &ivs, rows: &mut crate::backends::slices_mut(&mut rows) });
    for (test, row) in tests.iter().zip(rows) {
        assert_eq!(row == test.ct[..], test.result == TestResult::Valid, "{}", test.tc_id);
    }

    let mut rows: Vec<Vec<u8>> = tests.iter().map(|test| test.ct.to_vec()).collect();
    on.run(cbc::Decrypt { keys: &keys, ivs: &ivs, rows: &mut crate::backends::slices_mut(&mut rows) });
    for (test, row) in tests.iter().zip(rows) {
        let opened = row
            .last()
            .filter(|last| (1..=16).contains(*last))
            .and_then(|last| row.strip_suffix(&vec![*last; usize::from(*last)][..]));
        assert_eq!(opened, (test.result == TestResult::Valid).then_some(&test.pt[..]), "{}", test.tc_id);
    }
    assert!(tests.len() > 60, "{}", tests.len());
}

/// Keys of another size than ours, which some of the set's groups try, are no arguments of the kernel.
fn aes_cmac(on: &impl Runs) {
    let set = mac::TestSet::load(mac::TestName::AesCmac).expect("vectors");
    let mut ran = 0;
    for group in set.test_groups.into_iter().filter(|group| (group.key_size, group.tag_size) == (256, 128)) {
        let tests: Vec<_> = group.tests.into_iter().filter(|test| test.key.len() == 32).collect();
        let keys: Vec<[u8; 32]> = tests.iter().map(|test| test.key[..].try_into().expect("32")).collect();
        let tails: Vec<&[u8]> = tests.iter().map(|test| &test.msg[..]).collect();
        let mut out = vec![[0; 16]; tests.len()];
        on.run(cmac::Cmac { keys: &keys, heads: &vec![[]; tests.len()], tails: &tails, out: &mut out });
        for (test, out) in tests.iter().zip(out) {
            assert_eq!(out[..] == test.tag[..], test.result == TestResult::Valid, "{}", test.tc_id);
            ran += 1;
        }
    }
    assert!(ran > 50, "{ran}");
}

/// HMAC fills a short key up with zeros itself: keys of up to 32 bytes are ours.
fn hmac_sha256(on: &impl Runs) {
    let set = mac::TestSet::load(mac::TestName::HmacSha256).expect("vectors");
    let mut ran = 0;
    for group in set.test_groups.into_iter().filter(|group| group.key_size <= 256) {
        let keys: Vec<[u8; 32]> = group.tests.iter().map(|test| filled_up(&test.key)).collect();
        let heads: Vec<&[u8]> = group.tests.iter().map(|test| &test.msg[..test.msg.len() / 3]).collect();
        let tails: Vec<&[u8]> = group.tests.iter().map(|test| &test.msg[test.msg.len() / 3..]).collect();
        let mut out = vec![[0; 32]; group.tests.len()];
        on.run(hmac::Hmac { keys: &keys, heads: &heads, tails: &tails, out: &mut out });
        for (test, out) in group.tests.iter().zip(out) {
            let same = out[..group.tag_size / 8] == test.tag[..];
            assert_eq!(same, test.result == TestResult::Valid, "{}", test.tc_id);
            ran += 1;
        }
    }
    assert!(ran > 100, "{ran}");
}

fn hkdf_sha256(on: &impl Runs) {
    let set = wycheproof::hkdf::TestSet::load(wycheproof::hkdf::TestName::HkdfSha256).expect("vectors");
    let mut ran = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        if test.salt.len() > 32 || test.info.len() > hkdf::INFO_MAX || test.size > 255 * 32 {
            continue;
        }
        let mut out = vec![[0; 255 * 32]];
        let salts = [filled_up(&test.salt)];
        let salts = (!test.salt.is_empty()).then_some(&salts[..]);
        on.run(hkdf::Hkdf { salts, inputs: &[&test.ikm], info: &test.info, out: &mut out });
        assert_eq!(out[0][..test.size] == test.okm[..], test.result == TestResult::Valid, "{}", test.tc_id);
        ran += 1;
    }
    assert!(ran > 50, "{ran}");
}

fn filled_up(key: &[u8]) -> [u8; 32] {
    let mut filled = [0; 32];
    filled[..key.len()].copy_from_slice(key);
    filled
}
