//! Vectors of the standards themselves.

use crate::backends::Runs;
use hex_literal::hex;
use interlane_lanes::kernels::{cbc, chacha20poly1305, cmac, gcm, hkdf, hmac, sha256, sha512, x25519};

mod everything {
    use crate::on_everything;

    on_everything!(
        fips_180_4,
        fips_180_4_sha_512,
        rfc_4231,
        rfc_5869,
        sp_800_38a_f_2_5_and_6,
        sp_800_38b_d_3,
        gcm_test_case_16,
        rfc_8439_2_8_2,
        rfc_7748_5_2,
        rfc_7748_6_1,
    );
}

/// The examples of FIPS 180-4 (CSRC's SHA256.pdf and the long message of FIPS 180-2 §B.3).
fn fips_180_4(on: &impl Runs) {
    let long = vec![b'a'; 1_000_000];
    let messages: [&[u8]; 4] = [b"", b"abc", b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", &long];
    let mut out = [[0; 32]; 4];
    on.run(sha256::Digest { messages: &messages, out: &mut out });
    assert_eq!(out[0], hex!("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"));
    assert_eq!(out[1], hex!("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
    assert_eq!(out[2], hex!("248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"));
    assert_eq!(out[3], hex!("cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"));
}

/// The examples of FIPS 180-4 (CSRC's SHA512.pdf and the long message of FIPS 180-2 §C.3).
fn fips_180_4_sha_512(on: &impl Runs) {
    let long = vec![b'a'; 1_000_000];
    let two_blocks = b"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu";
    let messages: [&[u8]; 4] = [b"", b"abc", two_blocks, &long];
    let mut out = [[0; 64]; 4];
    on.run(sha512::Digest { messages: &messages, out: &mut out });
    assert_eq!(
        out[0],
        hex!(
            "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce"
            "47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"
        )
    );
    assert_eq!(
        out[1],
        hex!(
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
            "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
        )
    );
    assert_eq!(
        out[2],
        hex!(
            "8e959b75dae313da8cf4f72814fc143f8f7779c6eb9f7fa17299aeadb6889018"
            "501d289e4900f7e4331b99dec4b5433ac7d329eeb6dd26545e96e55b874be909"
        )
    );
    assert_eq!(
        out[3],
        hex!(
            "e718483d0ce769644e2e42c7bc15b4638e1f98b13b2044285632a803afa973eb"
            "de0ff244877ea60a4cb0432ce577c31beb009c5c2c49aa2e4eadb217ad8cc09b"
        )
    );
}

/// Test cases 1 to 4: those whose key is at most the 32 bytes of ours (filled up with zeros, which HMAC does itself).
fn rfc_4231(on: &impl Runs) {
    let mut keys = [[0; 32]; 4];
    keys[0][..20].fill(0x0b);
    keys[1][..4].copy_from_slice(b"Jefe");
    keys[2][..20].fill(0xaa);
    for (byte, value) in keys[3].iter_mut().zip(1..=25) {
        *byte = value;
    }
    let messages: [&[u8]; 4] = [b"Hi There", b"what do ya want for nothing?", &[0xdd; 50], &[0xcd; 50]];
    let mut out = [[0; 32]; 4];
    on.run(hmac::Hmac {
        keys: &keys,
        heads: &messages.map(|message| &message[..5]),
        tails: &messages.map(|message| &message[5..]),
        out: &mut out,
    });
    assert_eq!(out[0], hex!("b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"));
    assert_eq!(out[1], hex!("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"));
    assert_eq!(out[2], hex!("773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"));
    assert_eq!(out[3], hex!("82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"));
}

/// Test cases 1 and 3 (the salt of case 2 is longer than ours).
fn rfc_5869(on: &impl Runs) {
    let mut salt = [0; 32];
    for (byte, value) in salt.iter_mut().zip(0..=12) {
        *byte = value;
    }
    let okm = hex!("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865");
    let mut out = [[0; 42]];
    let info = &hex!("f0f1f2f3f4f5f6f7f8f9");
    on.run(hkdf::Hkdf { salts: Some(&[salt]), inputs: &[&[0x0b; 22]], info, out: &mut out });
    assert_eq!(out[0], okm);

    let okm = hex!("8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8");
    on.run(hkdf::Hkdf { salts: None, inputs: &[&[0x0b; 22]], info: b"", out: &mut out });
    assert_eq!(out[0], okm);
}

fn sp_800_38a_f_2_5_and_6(on: &impl Runs) {
    let key = hex!("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
    let iv = hex!("000102030405060708090a0b0c0d0e0f");
    let plain = hex!(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    );
    let sealed = hex!(
        "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d"
        "39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b"
    );
    let mut row = plain;
    on.run(cbc::Encrypt { keys: &[key], ivs: &[iv], rows: &mut [&mut row] });
    assert_eq!(row, sealed);
    on.run(cbc::Decrypt { keys: &[key], ivs: &[iv], rows: &mut [&mut row] });
    assert_eq!(row, plain);
}

/// Each message behind heads of as many blocks as it has, and of fewer.
fn sp_800_38b_d_3(on: &impl Runs) {
    let message = hex!(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    );
    let codes = [
        (0, hex!("028962f61b7bf89efc6b551f4667d983")),
        (16, hex!("28a7023f452e8f82bd4bf28d8c37c35c")),
        (40, hex!("aaf3d8f1de5640c232f5b169b9c911e6")),
        (64, hex!("e1992190549f6ed5696a2c056c315410")),
    ];
    assert_eq!(codes_behind::<0>(on, &message, &codes), 4);
    assert_eq!(codes_behind::<16>(on, &message, &codes), 3);
    assert_eq!(codes_behind::<32>(on, &message, &codes), 2);
    assert_eq!(codes_behind::<64>(on, &message, &codes), 1);
}

/// Gives how many of the messages have so long a head.
fn codes_behind<const HEAD: usize>(on: &impl Runs, message: &[u8; 64], codes: &[(usize, [u8; 16])]) -> usize {
    let key = hex!("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
    let head = *message.first_chunk::<HEAD>().expect("a head");
    let (lengths, expected): (Vec<usize>, Vec<[u8; 16]>) =
        codes.iter().copied().filter(|&(length, _)| length >= HEAD).unzip();
    let tails: Vec<&[u8]> = lengths.iter().map(|&length| &message[HEAD..length]).collect();
    let n = tails.len();
    let mut out = vec![[0; 16]; n];
    on.run(cmac::Cmac { keys: &vec![key; n], heads: &vec![head; n], tails: &tails, out: &mut out });
    assert_eq!(out, expected, "{HEAD} bytes of a head");
    n
}

/// The Galois/Counter Mode of Operation (the submission to NIST), appendix B.
fn gcm_test_case_16(on: &impl Runs) {
    let key = hex!("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308");
    let nonce = hex!("cafebabefacedbaddecaf888");
    let associated = hex!("feedfacedeadbeeffeedfacedeadbeefabaddad2");
    let plain = hex!(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
        "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
    );
    let sealed = hex!(
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
        "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
        "76fc6ece0f4e1768cddf8853bb2d551b"
    );
    let mut row = [0; 76];
    row[..60].copy_from_slice(&plain);
    let associated: &[&[u8]] = &[&associated];
    on.run(gcm::Seal { keys: &[key], nonces: &[nonce], associated, rows: &mut [&mut row] });
    assert_eq!(row, sealed);
    let mut ok = [false];
    on.run(gcm::Open { keys: &[key], nonces: &[nonce], associated, rows: &mut [&mut row], ok: &mut ok });
    assert_eq!((&row[..60], ok), (&plain[..], [true]));
}

fn rfc_8439_2_8_2(on: &impl Runs) {
    let key = hex!("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f");
    let nonce = hex!("070000004041424344454647");
    let associated = hex!("50515253c0c1c2c3c4c5c6c7");
    let plain: &[u8] = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
        sunscreen would be it.";
    let sealed = hex!(
        "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6"
        "3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36"
        "92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
        "3ff4def08e4b7a9de576d26586cec64b6116"
        "1ae10b594f09e26a7e902ecbd0600691"
    );
    let mut row = [plain, &[0; 16]].concat();
    let associated: &[&[u8]] = &[&associated];
    on.run(chacha20poly1305::Seal { keys: &[key], nonces: &[nonce], associated, rows: &mut [&mut row] });
    assert_eq!(row, sealed);
    let mut ok = [false];
    on.run(chacha20poly1305::Open { keys: &[key], nonces: &[nonce], associated, rows: &mut [&mut row], ok: &mut ok });
    assert_eq!((&row[..plain.len()], ok), (plain, [true]));
}

fn agree(on: &impl Runs, scalar: [u8; 32], point: [u8; 32]) -> [u8; 32] {
    let mut out = [[0; 32]];
    let mut ok = [false];
    on.run(x25519::Agree { scalars: &[scalar], points: &[point], out: &mut out, ok: &mut ok });
    assert!(ok[0]);
    out[0]
}

fn rfc_7748_5_2(on: &impl Runs) {
    assert_eq!(
        agree(
            on,
            hex!("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"),
            hex!("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c"),
        ),
        hex!("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552")
    );
    assert_eq!(
        agree(
            on,
            hex!("4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d"),
            hex!("e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493"),
        ),
        hex!("95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957")
    );
    let nine = hex!("0900000000000000000000000000000000000000000000000000000000000000");
    let (mut k, mut u) = (nine, nine);
    for iteration in 0..1000 {
        (k, u) = (agree(on, k, u), k);
        if iteration == 0 {
            assert_eq!(k, hex!("422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"));
        }
    }
    assert_eq!(k, hex!("684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"));
}

fn rfc_7748_6_1(on: &impl Runs) {
    let privates = [
        hex!("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"),
        hex!("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"),
    ];
    let publics = [
        hex!("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"),
        hex!("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"),
    ];
    let shared = hex!("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
    let mut out = [[0; 32]; 2];
    on.run(x25519::PublicKey { scalars: &privates, out: &mut out });
    assert_eq!(out, publics);
    assert_eq!([agree(on, privates[0], publics[1]), agree(on, privates[1], publics[0])], [shared; 2]);
}
