//! SHA-512 (FIPS 180-4 §5.1.2, §6.4).
//!
//! A message `M` of `l` bits is followed by a bit 1, by as few zeros as fill a block of 128 bytes but for its last 128 bits,
//! and by `l` in those. With the blocks `B_1 … B_N` of that, `H_0` the initial value and `f` the compression function, the
//! digest is `H_N`, where
//!
//! ```text
//! H_i = f(H_{i−1}, B_i)
//! ```

use super::{rows, unrolled, wipe};
use crate::isa::limbs::{load_limbs, store_limbs};
use crate::isa::{Isa, Kernel, Limb, Part, Portable, Step};
use zeroize::Zeroizing;

/// The digest of each message.
#[derive(Debug)]
pub struct Digest<'a> {
    /// What is hashed.
    pub messages: &'a [&'a [u8]],
    /// The digests.
    pub out: &'a mut [[u8; 64]],
}

impl Kernel for Digest<'_> {
    type Out = ();
    const STEP: Step = Step::Sha512;

    #[inline(always)]
    fn rows(&self) -> usize {
        self.out.len()
    }

    fn by_row(self, _: Portable) {
        rows([self.messages.len(), self.out.len()]);
        for (message, out) in self.messages.iter().zip(self.out) {
            *out = *by_crate(&[message, &[], &[], &[]]);
        }
    }

    #[inline(always)]
    fn in_lanes<I: Isa>(self, isa: I) {
        rows([self.messages.len(), self.out.len()]);
        for (messages, out) in self.messages.chunks(I::ROWS).zip(self.out.chunks_mut(I::ROWS)) {
            let mut parts = [NOTHING; ROWS];
            for (parts, message) in parts.iter_mut().zip(messages) {
                parts[0] = message;
            }
            let mut digests = isa.call(Hashed(&parts[..messages.len()]));
            store_limbs(isa, digests, out);
            wipe(&mut digests, isa.splat_limb(0));
        }
    }
}

/// A message, its parts one after the other.
pub(super) type Parts<'a> = [&'a [u8]; 4];

/// An empty message.
pub(super) const NOTHING: Parts<'static> = [&[]; 4];

/// Most rows that are hashed together.
pub(super) const ROWS: usize = crate::isa::WIDEST / 2;

/// The digest of a message, by the crate.
pub(super) fn by_crate(parts: &Parts<'_>) -> Zeroizing<[u8; 64]> {
    use sha2::Digest as _;
    let mut hash = sha2::Sha512::new();
    for part in parts {
        hash.update(part);
    }
    Zeroizing::new(hash.finalize().into())
}

/// The digests of up to `I::ROWS` messages, as the little-endian limbs of their bytes.
pub(super) struct Hashed<'a>(pub(super) &'a [Parts<'a>]);

impl<I: Isa> Part<I> for Hashed<'_> {
    type Out = [I::U64; 8];

    #[inline(always)]
    fn run(self, isa: I) -> [I::U64; 8] {
        let count = self.0.len();
        assert!(count <= I::ROWS, "half a group");
        let zero = isa.splat_limb(0);
        let mut messages = [Message { parts: &NOTHING, len: 0 }; ROWS];
        let (mut most, mut fewest) = (0, usize::MAX);
        for (message, parts) in messages.iter_mut().zip(self.0) {
            *message = Message::new(parts);
            most = message.blocks().max(most);
            fewest = message.blocks().min(fewest);
        }
        let mut state = [zero; 8];
        for i in 0..8 {
            state[i] = isa.splat_limb(START[i]);
        }
        let mut block = [zero; 16];
        let mut before = state;
        let mut bytes = [[0; 128]; ROWS];
        for index in 0..most {
            let mut places = [&[0; 128]; ROWS];
            for ((message, place), spare) in messages[..count].iter().zip(&mut places).zip(&mut bytes) {
                if index < message.blocks() {
                    *place = message.block(index, spare);
                }
            }
            block = load_limbs(isa, &places[..I::ROWS]);
            if index < fewest {
                compress::<I>(isa, &mut state, &mut block);
                continue;
            }
            before = state;
            compress::<I>(isa, &mut state, &mut block);
            // A row's state stands still when its blocks are done.
            let mut alive = [[0; 16]; ROWS];
            for (alive, message) in alive.iter_mut().zip(&messages) {
                alive.fill(if index < message.blocks() { 0xff } else { 0 });
            }
            let [alive, _]: [I::U64; 2] = load_limbs(isa, &alive[..I::ROWS]);
            for i in 0..8 {
                state[i] = alive.select(state[i], before[i]);
            }
        }
        for word in &mut state {
            *word = word.swap_bytes();
        }
        wipe(&mut block, zero);
        wipe(&mut before, zero);
        wipe(&mut bytes, [0; 128]);
        state
    }
}

#[derive(Clone, Copy)]
struct Message<'a> {
    parts: &'a Parts<'a>,
    len: usize,
}

impl<'a> Message<'a> {
    #[inline(always)]
    fn new(parts: &'a Parts<'a>) -> Self {
        Self { parts, len: parts[0].len() + parts[1].len() + parts[2].len() + parts[3].len() }
    }

    /// How many blocks it is with its padding, which is a byte and a 128-bit length at the least.
    #[inline(always)]
    fn blocks(&self) -> usize {
        (self.len + 17).div_ceil(128)
    }

    /// One of its blocks: where it stands, or in `spare`.
    #[inline(always)]
    fn block<'b>(&self, index: usize, spare: &'b mut [u8; 128]) -> &'b [u8; 128]
    where
        'a: 'b,
    {
        let mut from = 128 * index;
        for part in self.parts {
            if let Some(bytes) = part.get(from..).and_then(|rest| rest.first_chunk()) {
                return bytes;
            }
            let Some(behind) = from.checked_sub(part.len()) else { break };
            from = behind;
        }
        self.write_edge(index, spare);
        spare
    }

    /// A block where parts meet or with padding in it.
    fn write_edge(&self, index: usize, block: &mut [u8; 128]) {
        *block = [0; 128];
        let from = 128 * index;
        let mut at = 0;
        for part in self.parts.iter().copied().chain([&[0x80][..]]) {
            let (first, end) = (at.max(from), (at + part.len()).min(from + 128));
            if first < end {
                block[first - from..end - from].copy_from_slice(&part[first - at..end - at]);
            }
            at += part.len();
        }
        if index + 1 == self.blocks() {
            // Of the 128 bits, a length in memory needs 67.
            block[112..].copy_from_slice(&(8 * self.len as u128).to_be_bytes());
        }
    }
}

/// The compression function. Overwrites the block.
#[inline(always)]
fn compress<I: Isa>(isa: I, state: &mut [I::U64; 8], block: &mut [I::U64; 16]) {
    let mut after = *state;
    for word in &mut *block {
        *word = word.swap_bytes();
    }
    for first in [0, 16, 32, 48] {
        sixteen_rounds::<I, true>(isa, &mut after, block, first);
    }
    sixteen_rounds::<I, false>(isa, &mut after, block, 64);
    for i in 0..8 {
        state[i] = state[i].wrapping_add(after[i]);
    }
}

#[inline(always)]
fn sixteen_rounds<I: Isa, const EXTEND: bool>(isa: I, state: &mut [I::U64; 8], words: &mut [I::U64; 16], first: usize) {
    let constants: &[u64; 16] = ROUND_CONSTANTS[first..].first_chunk().expect("16 of 80");
    unrolled!(T in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15] {
        round::<I::U64, T>(state, words[T].wrapping_add(isa.splat_limb(constants[T])));
        if EXTEND {
            let near = words[(T + 1) % 16];
            let far = words[(T + 14) % 16];
            let near = near.rotr::<1>().xor3(near.rotr::<8>(), near.shr(7));
            let far = far.rotr::<19>().xor3(far.rotr::<61>(), far.shr(6));
            words[T] = words[T].wrapping_add(words[(T + 9) % 16]).wrapping_add(near).wrapping_add(far);
        }
    });
}

/// Round `T`. The working variables stay where they are; their names move.
#[inline(always)]
fn round<V: Limb, const T: usize>(s: &mut [V; 8], word: V) {
    let [a, b, c, d, e, f, g, h] = const {
        let t = 80 - T;
        [t % 8, (t + 1) % 8, (t + 2) % 8, (t + 3) % 8, (t + 4) % 8, (t + 5) % 8, (t + 6) % 8, (t + 7) % 8]
    };
    let sum1 = s[e].rotr::<14>().xor3(s[e].rotr::<18>(), s[e].rotr::<41>());
    // Used twice, so that the compiler cannot put `sum1`, which comes last, first.
    let early = s[h].wrapping_add(word).wrapping_add(s[e].select(s[f], s[g]));
    let sum0 = s[a].rotr::<28>().xor3(s[a].rotr::<34>(), s[a].rotr::<39>());
    s[d] = s[d].wrapping_add(early).wrapping_add(sum1);
    s[h] = early.wrapping_add(s[a].majority(s[b], s[c])).wrapping_add(sum0.wrapping_add(sum1));
}

/// `H_0` (FIPS 180-4 §5.3.5).
const START: [u64; 8] = [
    0x6a09_e667_f3bc_c908,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
    0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1,
    0x9b05_688c_2b3e_6c1f,
    0x1f83_d9ab_fb41_bd6b,
    0x5be0_cd19_137e_2179,
];

/// The constants of the rounds (FIPS 180-4 §4.2.3).
const ROUND_CONSTANTS: [u64; 80] = [
    0x428a_2f98_d728_ae22,
    0x7137_4491_23ef_65cd,
    0xb5c0_fbcf_ec4d_3b2f,
    0xe9b5_dba5_8189_dbbc,
    0x3956_c25b_f348_b538,
    0x59f1_11f1_b605_d019,
    0x923f_82a4_af19_4f9b,
    0xab1c_5ed5_da6d_8118,
    0xd807_aa98_a303_0242,
    0x1283_5b01_4570_6fbe,
    0x2431_85be_4ee4_b28c,
    0x550c_7dc3_d5ff_b4e2,
    0x72be_5d74_f27b_896f,
    0x80de_b1fe_3b16_96b1,
    0x9bdc_06a7_25c7_1235,
    0xc19b_f174_cf69_2694,
    0xe49b_69c1_9ef1_4ad2,
    0xefbe_4786_384f_25e3,
    0x0fc1_9dc6_8b8c_d5b5,
    0x240c_a1cc_77ac_9c65,
    0x2de9_2c6f_592b_0275,
    0x4a74_84aa_6ea6_e483,
    0x5cb0_a9dc_bd41_fbd4,
    0x76f9_88da_8311_53b5,
    0x983e_5152_ee66_dfab,
    0xa831_c66d_2db4_3210,
    0xb003_27c8_98fb_213f,
    0xbf59_7fc7_beef_0ee4,
    0xc6e0_0bf3_3da8_8fc2,
    0xd5a7_9147_930a_a725,
    0x06ca_6351_e003_826f,
    0x1429_2967_0a0e_6e70,
    0x27b7_0a85_46d2_2ffc,
    0x2e1b_2138_5c26_c926,
    0x4d2c_6dfc_5ac4_2aed,
    0x5338_0d13_9d95_b3df,
    0x650a_7354_8baf_63de,
    0x766a_0abb_3c77_b2a8,
    0x81c2_c92e_47ed_aee6,
    0x9272_2c85_1482_353b,
    0xa2bf_e8a1_4cf1_0364,
    0xa81a_664b_bc42_3001,
    0xc24b_8b70_d0f8_9791,
    0xc76c_51a3_0654_be30,
    0xd192_e819_d6ef_5218,
    0xd699_0624_5565_a910,
    0xf40e_3585_5771_202a,
    0x106a_a070_32bb_d1b8,
    0x19a4_c116_b8d2_d0c8,
    0x1e37_6c08_5141_ab53,
    0x2748_774c_df8e_eb99,
    0x34b0_bcb5_e19b_48a8,
    0x391c_0cb3_c5c9_5a63,
    0x4ed8_aa4a_e341_8acb,
    0x5b9c_ca4f_7763_e373,
    0x682e_6ff3_d6b2_b8a3,
    0x748f_82ee_5def_b2fc,
    0x78a5_636f_4317_2f60,
    0x84c8_7814_a1f0_ab72,
    0x8cc7_0208_1a64_39ec,
    0x90be_fffa_2363_1e28,
    0xa450_6ceb_de82_bde9,
    0xbef9_a3f7_b2c6_7915,
    0xc671_78f2_e372_532b,
    0xca27_3ece_ea26_619c,
    0xd186_b8c7_21c0_c207,
    0xeada_7dd6_cde0_eb1e,
    0xf57d_4f7f_ee6e_d178,
    0x06f0_67aa_7217_6fba,
    0x0a63_7dc5_a2c8_98a6,
    0x113f_9804_bef9_0dae,
    0x1b71_0b35_131c_471b,
    0x28db_77f5_2304_7d84,
    0x32ca_ab7b_40c7_2493,
    0x3c9e_be0a_15c9_bebc,
    0x431d_67c4_9c10_0d4c,
    0x4cc5_d4be_cb3e_42b6,
    0x597f_299c_fc65_7e2a,
    0x5fcb_6fab_3ad6_faec,
    0x6c44_198c_4a47_5817,
];
