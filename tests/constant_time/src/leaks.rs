//! Kernels that leak, each in its own way: what a harness must catch, on the same backend and by the same way of running as
//! the kernels that must be clean. Each takes a step in lanes before, so that what is caught has gone through the vectors.

use std::hint::black_box;

use interlane_lanes::isa::{Portable, Step};
use interlane_lanes::kernels::sha256::Digest;
use interlane_lanes::{Isa, Kernel};

use crate::kernels::{Given, Outputs, Probe};

pub const LEAKS: &[(&str, Probe)] = &[
    ("branch on a secret", |given| leak(given, Leak::Branch)),
    ("table index by a secret", |given| leak(given, Leak::Index)),
    ("loop as long as a secret says", |given| leak(given, Leak::Loop)),
    ("secrets compared until they differ", |given| leak(given, Leak::Compare)),
];

#[derive(Clone, Copy)]
enum Leak {
    Branch,
    Index,
    Loop,
    Compare,
}

struct Leaky<'a> {
    how: Leak,
    rows: &'a [[u8; 32]],
    out: &'a mut [[u8; 32]],
}

fn leak(given: &mut Given, how: Leak) -> Outputs {
    let rows = given.secrets();
    let mut out = vec![[0; 32]; rows.len()];
    given.backend.run_in_lanes(Leaky { how, rows: &rows, out: &mut out });
    Outputs { secret: out.concat(), public: Vec::new() }
}

impl Leaky<'_> {
    /// After a real step has been taken on the row.
    fn leak(self) {
        let digest = self.out[7];
        let told = match self.how {
            Leak::Branch if digest[3] & 1 == 1 => black_box(shout()),
            Leak::Branch => black_box(0),
            Leak::Index => black_box(&TABLE)[usize::from(digest[5])],
            Leak::Loop => {
                let mut told = 0;
                for i in 0..digest[1] & 7 {
                    told ^= black_box(i);
                }
                told
            }
            Leak::Compare => {
                let mut same = 0;
                while same < 32 && digest[same] == self.out[8][same] {
                    same = black_box(same + 1);
                }
                same as u8
            }
        };
        self.out[0][0] ^= told;
    }
}

/// More than a select can do.
#[inline(never)]
fn shout() -> u8 {
    black_box(TABLE)[7]
}

static TABLE: [u8; 256] = [9; 256];

impl Kernel for Leaky<'_> {
    type Out = ();
    const STEP: Step = Step::Hash;

    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn by_row(self, crates: Portable) {
        let messages: Vec<&[u8]> = self.rows.iter().map(|row| &row[..]).collect();
        Digest { messages: &messages, out: self.out }.by_row(crates);
        self.leak();
    }

    #[inline(always)]
    fn in_lanes<I: Isa>(self, isa: I) {
        let messages: Vec<&[u8]> = self.rows.iter().map(|row| &row[..]).collect();
        Digest { messages: &messages, out: self.out }.in_lanes(isa);
        self.leak();
    }
}
