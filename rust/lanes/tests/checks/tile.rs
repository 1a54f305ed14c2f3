//! Every kernel once, for a tile of rows.

use crate::lanes::Checking;
use crate::shapes::Shape;
use crate::tally::{Tally, take};
use interlane_lanes::isa::{Kernel, TILE};
use interlane_lanes::kernels::hkdf::{Hkdf, Info};
use interlane_lanes::kernels::{cbc, chacha20poly1305, chain, cmac, gcm, hmac, sha256, sha512, x25519, xeddsa};

/// Kernels of words and pieces.
pub(crate) fn words<S: Shape>(mut done: impl FnMut(&'static str, Tally)) {
    let isa = Checking::<S>::new();
    let bytes = [0; 330];
    let (keys, ivs, nonces) = (&[[0; 32]; TILE], &[[0; 16]; TILE], &[[0; 12]; TILE]);
    let (mut chains, mut seeds) = ([[0; 32]; TILE], [[0; 32]; TILE]);
    let (mut message_keys, mut group_keys) = ([[0; 80]; TILE], [[0; 48]; TILE]);
    let (mut out, mut root, mut ok) = ([[0; 32]; TILE], [[0; 64]; TILE], [false; TILE]);
    let (info, group) = (&Info::new(b"WhisperMessageKeys"), &Info::new(b"WhisperGroup"));
    let (heads, tails, inputs) = (&[&bytes[..66]; TILE], &[&bytes[..]; TILE], &[&bytes[..96]; TILE]);
    let none = &[&[][..]; TILE];
    let mut count = |name, run: &mut dyn FnMut()| {
        take();
        run();
        done(name, take());
    };
    count("sha256::Digest, 330 bytes", &mut || sha256::Digest { messages: tails, out: &mut out }.in_lanes(isa));
    count("hmac::Hmac, 66 + 330 bytes", &mut || hmac::Hmac { keys, heads, tails, out: &mut out }.in_lanes(isa));
    count("hkdf::Hkdf<64>, salt, 96 bytes", &mut || {
        Hkdf { salts: Some(keys), inputs, info: b"WhisperRatchet", out: &mut root }.in_lanes(isa);
    });
    count("chain::Step", &mut || chain::Step { chains: &mut chains, seeds: &mut seeds }.in_lanes(isa));
    count("chain::StepToKeys<80>", &mut || {
        chain::StepToKeys { chains: &mut chains, seeds: &mut [], info, out: &mut message_keys }.in_lanes(isa);
    });
    count("chain::MessageKeys<80>", &mut || {
        chain::MessageKeys { seeds: &seeds, info, out: &mut message_keys }.in_lanes(isa);
    });
    count("chain::MessageKeys<48>", &mut || {
        chain::MessageKeys { seeds: &seeds, info: group, out: &mut group_keys }.in_lanes(isa);
    });
    let mut texts = [[0; 272]; TILE];
    let mut rows = texts.each_mut().map(|row| &mut row[..]);
    let rows = &mut rows;
    count("cbc::Encrypt, 272 bytes", &mut || cbc::Encrypt { keys, ivs, rows }.in_lanes(isa));
    count("cbc::Decrypt, 272 bytes", &mut || cbc::Decrypt { keys, ivs, rows }.in_lanes(isa));
    let mut codes = [[0; 16]; TILE];
    count("cmac::Cmac, 32 + 330 bytes", &mut || {
        cmac::Cmac { keys, heads: &[[0; 32]; TILE], tails, out: &mut codes }.in_lanes(isa);
    });
    // What is sealed by counting is opened by counting: the codes are the same bytes.
    count("gcm::Seal, 256 bytes", &mut || gcm::Seal { keys, nonces, associated: none, rows }.in_lanes(isa));
    count("gcm::Open, 256 bytes", &mut || {
        gcm::Open { keys, nonces, associated: none, rows, ok: &mut ok }.in_lanes(isa);
    });
    assert_eq!(ok, [true; TILE], "opened");
    count("chacha20poly1305::Seal, 256 bytes", &mut || {
        chacha20poly1305::Seal { keys, nonces, associated: none, rows }.in_lanes(isa);
    });
    ok.fill(false);
    count("chacha20poly1305::Open, 256 bytes", &mut || {
        chacha20poly1305::Open { keys, nonces, associated: none, rows, ok: &mut ok }.in_lanes(isa);
    });
    assert_eq!(ok, [true; TILE], "opened");
}

/// Kernels of limbs.
pub(crate) fn limbs<S: Shape>(mut done: impl FnMut(&'static str, Tally)) {
    let isa = Checking::<S>::new();
    let bytes = [0; 64];
    let (keys, messages, randoms) = (&[[0; 32]; TILE], &[&bytes[..]; TILE], &[[0; 64]; TILE]);
    let (mut out, mut ok) = ([[0; 32]; TILE], [false; TILE]);
    let (mut signatures, mut expanded) = ([[0; 64]; TILE], [None; TILE]);
    // The table of the base point is made once, for the whole program.
    x25519::PublicKey { scalars: keys, out: &mut out }.in_lanes(isa);
    let mut count = |name, run: &mut dyn FnMut()| {
        take();
        run();
        done(name, take());
    };
    let mut digests = [[0; 64]; TILE];
    let long = &[&[0; 330][..]; TILE];
    count("sha512::Digest, 330 bytes", &mut || sha512::Digest { messages: long, out: &mut digests }.in_lanes(isa));
    count("x25519::Agree", &mut || {
        x25519::Agree { scalars: keys, points: keys, out: &mut out, ok: &mut ok }.in_lanes(isa);
    });
    count("x25519::PublicKey", &mut || x25519::PublicKey { scalars: keys, out: &mut out }.in_lanes(isa));
    count("x25519::Canonical", &mut || x25519::Canonical { points: keys, ok: &mut ok }.in_lanes(isa));
    count("xeddsa::Expand", &mut || xeddsa::Expand { publics: keys, out: &mut expanded }.in_lanes(isa));
    count("xeddsa::EncodeOwn", &mut || xeddsa::EncodeOwn { privates: keys, out: &mut out }.in_lanes(isa));
    for (name, encodings) in [("xeddsa::Sign", None), ("xeddsa::Sign, key kept", Some(&out[..]))] {
        count(name, &mut || {
            xeddsa::Sign { privates: keys, encodings, messages, randoms, out: &mut signatures }.in_lanes(isa);
        });
    }
    // Those made above may have an `s` that is refused.
    let (signatures, expanded) = (&[[0; 64]; TILE], &[[[0; 32]; 2]; TILE]);
    for (name, expanded) in [("xeddsa::Verify", None), ("xeddsa::Verify, key kept", Some(&expanded[..]))] {
        count(name, &mut || {
            xeddsa::Verify { publics: keys, expanded, messages, signatures, ok: &mut ok }.in_lanes(isa);
        });
    }
}
