//! Every kernel that takes secrets, with all of them marked. What is public (nonces of AEADs, associated data, public keys,
//! ciphertexts and signatures as they come in, lengths) is not.

use interlane_lanes::kernels::hkdf::Info;
use interlane_lanes::kernels::{cbc, chacha20poly1305, chain, cmac, gcm, hkdf, hmac, sha256, sha512, x25519, xeddsa};
use interlane_lanes::{Backend, Kernel};

use crate::marks::secret;

/// Rows: two tiles, and a lane of a third.
const ROWS: usize = 33;

/// What one run of a kernel is given: marks or none, and data that are the same in every run.
pub struct Given {
    pub backend: Backend,
    pub marked: bool,
    random: u64,
}

/// What came out: what must still be marked then, and what has become public.
#[derive(Default)]
pub struct Outputs {
    pub secret: Vec<u8>,
    pub public: Vec<u8>,
}

pub type Probe = fn(&mut Given) -> Outputs;

/// Every kernel with secrets. `xeddsa::Verify`, `Expand` and `x25519::Canonical` have none: all of theirs is public.
pub const KERNELS: &[(&str, Probe)] = &[
    ("sha256", sha256),
    ("sha512", sha512),
    ("hmac", hmac),
    ("hkdf", hkdf),
    ("hkdf, no salt", hkdf_no_salt),
    ("chain step", step),
    ("message keys", message_keys),
    ("chain step to keys", step_to_keys),
    ("cbc encrypt", cbc_encrypt),
    ("cbc decrypt", cbc_decrypt),
    ("cmac", cmac),
    ("gcm seal", gcm_seal),
    ("gcm open", gcm_open),
    ("chacha20poly1305 seal", chacha_seal),
    ("chacha20poly1305 open", chacha_open),
    ("x25519", agree),
    ("x25519, points of small order", agree_small),
    ("x25519 public key", public_key),
    ("xeddsa encode own", encode_own),
    ("xeddsa sign", sign),
    ("xeddsa sign, encodings kept", sign_kept),
];

impl Given {
    pub fn new(backend: Backend, marked: bool) -> Self {
        Self { backend, marked, random: 1 }
    }

    fn run<K: Kernel>(&self, kernel: K) -> K::Out {
        self.backend.run_in_lanes(kernel)
    }

    fn word(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.random;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.word() as u8).collect()
    }

    pub fn arrays<const N: usize>(&mut self) -> Vec<[u8; N]> {
        (0..ROWS).map(|_| self.bytes(N).try_into().expect("N bytes")).collect()
    }

    pub fn secrets<const N: usize>(&mut self) -> Vec<[u8; N]> {
        let mut rows = self.arrays();
        self.mark(&mut rows);
        rows
    }

    fn rows(&mut self, len: impl Fn(u64) -> usize) -> Vec<Vec<u8>> {
        (0..ROWS)
            .map(|_| {
                let len = len(self.word());
                self.bytes(len)
            })
            .collect()
    }

    fn secret_rows(&mut self, len: impl Fn(u64) -> usize) -> Vec<Vec<u8>> {
        let mut rows = self.rows(len);
        for row in &mut rows {
            self.mark(row);
        }
        rows
    }

    fn mark<T: Copy>(&self, items: &mut [T]) {
        if self.marked {
            secret(items);
        }
    }
}

fn slices(rows: &[Vec<u8>]) -> Vec<&[u8]> {
    rows.iter().map(Vec::as_slice).collect()
}

fn slices_mut(rows: &mut [Vec<u8>]) -> Vec<&mut [u8]> {
    rows.iter_mut().map(Vec::as_mut_slice).collect()
}

fn all_secret<const N: usize>(rows: &[&[[u8; N]]]) -> Outputs {
    Outputs { secret: rows.concat().concat(), public: Vec::new() }
}

fn any_length(word: u64) -> usize {
    (word % 700) as usize
}

fn whole_blocks(word: u64) -> usize {
    16 * (word % 40) as usize
}

fn sha256(given: &mut Given) -> Outputs {
    let messages = given.secret_rows(any_length);
    let mut out = [[0; 32]; ROWS];
    given.run(sha256::Digest { messages: &slices(&messages), out: &mut out });
    // The digest of the empty message is no secret.
    let out: Vec<_> =
        out.iter().zip(&messages).filter(|(_, message)| !message.is_empty()).map(|(out, _)| *out).collect();
    all_secret(&[&out])
}

fn sha512(given: &mut Given) -> Outputs {
    let messages = given.secret_rows(|word| 1 + any_length(word));
    let mut out = [[0; 64]; ROWS];
    given.run(sha512::Digest { messages: &slices(&messages), out: &mut out });
    all_secret(&[&out])
}

fn hmac(given: &mut Given) -> Outputs {
    let keys = given.secrets();
    let (heads, tails) = (given.rows(|word| (word % 99) as usize), given.secret_rows(any_length));
    let mut out = [[0; 32]; ROWS];
    given.run(hmac::Hmac { keys: &keys, heads: &slices(&heads), tails: &slices(&tails), out: &mut out });
    all_secret(&[&out])
}

fn hkdf_by(given: &mut Given, salted: bool) -> Outputs {
    let salts = given.secrets();
    let inputs = given.secret_rows(|word| 32 + (word % 130) as usize);
    let mut out = [[0; 80]; ROWS];
    let salts = salted.then_some(&salts[..]);
    given.run(hkdf::Hkdf { salts, inputs: &slices(&inputs), info: b"of this label", out: &mut out });
    all_secret(&[&out])
}

fn hkdf(given: &mut Given) -> Outputs {
    hkdf_by(given, true)
}

fn hkdf_no_salt(given: &mut Given) -> Outputs {
    hkdf_by(given, false)
}

fn step(given: &mut Given) -> Outputs {
    let (mut chains, mut seeds) = (given.secrets(), [[0; 32]; ROWS]);
    given.run(chain::Step { chains: &mut chains, seeds: &mut seeds });
    all_secret(&[&chains, &seeds])
}

const INFO: Info = Info::new(b"WhisperMessageKeys");

fn message_keys(given: &mut Given) -> Outputs {
    let (seeds, mut out) = (given.secrets(), [[0; 80]; ROWS]);
    given.run(chain::MessageKeys { seeds: &seeds, info: &INFO, out: &mut out });
    all_secret(&[&out])
}

fn step_to_keys(given: &mut Given) -> Outputs {
    let (mut chains, mut seeds, mut out) = (given.secrets::<32>(), [[0; 32]; ROWS], [[0; 48]; ROWS]);
    given.run(chain::StepToKeys { chains: &mut chains, seeds: &mut seeds, info: &INFO, out: &mut out });
    Outputs { secret: [chains.concat(), seeds.concat(), out.concat()].concat(), public: Vec::new() }
}

fn cbc_encrypt(given: &mut Given) -> Outputs {
    let (keys, ivs) = (given.secrets(), given.secrets());
    let mut rows = given.secret_rows(whole_blocks);
    given.run(cbc::Encrypt { keys: &keys, ivs: &ivs, rows: &mut slices_mut(&mut rows) });
    Outputs { secret: rows.concat(), public: Vec::new() }
}

fn cbc_decrypt(given: &mut Given) -> Outputs {
    let (keys, ivs) = (given.secrets(), given.secrets());
    let mut rows = given.rows(whole_blocks);
    given.run(cbc::Decrypt { keys: &keys, ivs: &ivs, rows: &mut slices_mut(&mut rows) });
    Outputs { secret: rows.concat(), public: Vec::new() }
}

fn cmac(given: &mut Given) -> Outputs {
    let keys = given.secrets();
    let (heads, tails) = (given.arrays::<32>(), given.secret_rows(any_length));
    let mut out = [[0; 16]; ROWS];
    given.run(cmac::Cmac { keys: &keys, heads: &heads, tails: &slices(&tails), out: &mut out });
    all_secret(&[&out])
}

/// Seals rows of an AEAD; then, with marks on the keys alone, opens them, of which every fifth is forged.
macro_rules! aead {
    ($seal:ident, $open:ident, $module:ident) => {
        fn $seal(given: &mut Given) -> Outputs {
            let (keys, nonces) = (given.secrets(), given.arrays());
            let associated = given.rows(|word| (word % 50) as usize);
            let mut rows = given.secret_rows(|word| 16 + any_length(word));
            let (associated, rows_mut) = (slices(&associated), &mut slices_mut(&mut rows));
            given.run($module::Seal { keys: &keys, nonces: &nonces, associated: &associated, rows: rows_mut });
            Outputs { secret: rows.concat(), public: Vec::new() }
        }

        fn $open(given: &mut Given) -> Outputs {
            let (mut keys, nonces) = (given.arrays(), given.arrays());
            let associated = given.rows(|word| (word % 50) as usize);
            let mut rows = given.rows(|word| 17 + any_length(word));
            let associated = slices(&associated);
            given.run($module::Seal {
                keys: &keys,
                nonces: &nonces,
                associated: &associated,
                rows: &mut slices_mut(&mut rows),
            });
            for row in rows.iter_mut().step_by(5) {
                row[0] ^= 1;
            }
            given.mark(&mut keys);
            let mut ok = [false; ROWS];
            let rows_mut = &mut slices_mut(&mut rows);
            given.run($module::Open {
                keys: &keys,
                nonces: &nonces,
                associated: &associated,
                rows: rows_mut,
                ok: &mut ok,
            });
            for (row, ok) in ok.iter().enumerate() {
                assert_eq!(*ok, row % 5 != 0, "a forged row, and no other, is refused");
            }
            // Behind a plaintext its tag is left, which is public; of a forged row zeros are left.
            let texts = rows.iter().zip(ok).filter(|(_, ok)| *ok).map(|(row, _)| &row[..row.len() - 16]);
            Outputs { secret: texts.collect::<Vec<_>>().concat(), public: Vec::new() }
        }
    };
}

aead!(gcm_seal, gcm_open, gcm);
aead!(chacha_seal, chacha_open, chacha20poly1305);

fn agree_with(given: &mut Given, points: &[[u8; 32]]) -> Outputs {
    let scalars = given.secrets();
    let (mut out, mut ok) = ([[0; 32]; ROWS], [false; ROWS]);
    given.run(x25519::Agree { scalars: &scalars, points, out: &mut out, ok: &mut ok });
    let secrets = out.iter().zip(ok).filter(|(_, ok)| *ok).map(|(out, _)| *out);
    Outputs { secret: secrets.collect::<Vec<_>>().concat(), public: ok.map(u8::from).to_vec() }
}

fn agree(given: &mut Given) -> Outputs {
    let points = given.arrays();
    agree_with(given, &points)
}

/// In every third row: 0, 1 and the point of order 8 of RFC 7748 §6.1's warning.
fn agree_small(given: &mut Given) -> Outputs {
    let mut points = given.arrays();
    let mut one = [0; 32];
    one[0] = 1;
    let eight = [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09,
        0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ];
    for (at, small) in points.iter_mut().step_by(3).zip([[0; 32], one, eight].into_iter().cycle()) {
        *at = small;
    }
    let outputs = agree_with(given, &points);
    assert!(outputs.public.iter().step_by(3).all(|&ok| ok == 0), "these points are refused");
    outputs
}

fn public_key(given: &mut Given) -> Outputs {
    let (scalars, mut out) = (given.secrets(), [[0; 32]; ROWS]);
    given.run(x25519::PublicKey { scalars: &scalars, out: &mut out });
    all_secret(&[&out])
}

fn encode_own(given: &mut Given) -> Outputs {
    let (privates, mut out) = (given.secrets(), [[0; 32]; ROWS]);
    given.run(xeddsa::EncodeOwn { privates: &privates, out: &mut out });
    all_secret(&[&out])
}

fn sign_by(given: &mut Given, kept: bool) -> Outputs {
    let (mut privates, randoms) = (given.arrays(), given.secrets());
    let messages = given.rows(any_length);
    let (mut out, mut encodings) = ([[0; 64]; ROWS], [[0; 32]; ROWS]);
    // The encoding says no more than the public key does.
    given.run(xeddsa::EncodeOwn { privates: &privates, out: &mut encodings });
    given.mark(&mut privates);
    let (messages, encodings) = (slices(&messages), kept.then_some(&encodings[..]));
    given.run(xeddsa::Sign { privates: &privates, encodings, messages: &messages, randoms: &randoms, out: &mut out });
    all_secret(&[&out])
}

fn sign(given: &mut Given) -> Outputs {
    sign_by(given, false)
}

fn sign_kept(given: &mut Given) -> Outputs {
    sign_by(given, true)
}
