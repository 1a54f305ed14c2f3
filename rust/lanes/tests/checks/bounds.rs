//! Nothing overflows, whatever the input: the field in both radixes, ladder, multiples of the base point and of others,
//! inverses, roots, packing, numbers mod `L`, and Poly1305 in lanes.
//!
//! A kernel's input enters as limbs that may be anything, so a run stands for all inputs. It stands for all lengths, too:
//! loops over curves have a fixed number of turns, and Poly1305's is shown to come to a state that a turn leaves as it is.
//! Nothing in a kernel branches on a limb.
//!
//! What is proven is arithmetic on integers. Assumed are the instructions: that each does what [`Limb`] says. For most that is
//! what their manuals say; the product by doubles (`madd51_low`, `madd51_high`) rests on two roundings of IEEE 754 besides:
//!
//! ```text
//! ab < 2^103, which is asserted      s = fma(a, b, 2^103)                   exponent 103: the multiple of 2^51 nearest to ab
//!                                    fma(a, b, 2^103 + 3 · 2^51 − s)        exponent 52: ab less that multiple, exactly
//! ```
//!
//! `nearest_multiple_and_the_exact_rest` looks at them on the CPU, for many factors, not for all.
//!
//! Of a row at a time, and so not here: Poly1305's `u128`, whose release builds check for overflow, and by crates
//! (curve25519-dalek) numbers mod `L`. Hashes and ciphers add modulo 2^32 or 2^64 on purpose.

use crate::interval::{Fault, Interval, What, factors, with};
use crate::lanes::Checking;
use crate::shapes::{Avx2, Avx512, Neon, Shape};
use crate::tile;
use interlane_lanes::isa::field25519::LIMBS;
use interlane_lanes::isa::{Eight, Field, Kernel, Limb};
use interlane_lanes::kernels::{chacha20poly1305, x25519, xeddsa};
use std::panic::{AssertUnwindSafe, catch_unwind};

type Fe<S> = <S as Shape>::Field;
type Loose<S> = <S as Shape>::Loose;

/// An element whose limbs are anything below `times` times a bound.
fn below<S: Shape>(times: u64, bound: [u64; 5]) -> Fe<S> {
    let table = bound.map(|bound| Eight([times * bound - 1; 8]));
    Fe::<S>::lookup(Interval::new(0, 7), &table)
}

fn tight<S: Shape>() -> Fe<S> {
    below::<S>(1, S::TIGHT)
}

fn product<S: Shape>() -> Loose<S> {
    S::loose(S::PRODUCT.map(|bound| Interval::new(0, bound - 1)))
}

/// Its limbs are below those bounds.
fn is_tight<S: Shape>(element: Fe<S>) {
    for i in 0..LIMBS {
        assert!(element.limb(i).most < S::TIGHT[i], "limb {i}: {:x?}", element.limb(i));
    }
}

/// It can be taken away, which goes below zero for anything larger.
fn is_product<S: Shape>(loose: Loose<S>) {
    let _ = Fe::<S>::fill(Interval::any(), 0).loose() - loose;
}

fn catches<T>(run: impl FnOnce() -> T) -> bool {
    catch_unwind(AssertUnwindSafe(run)).is_err()
}

/// A test of each instruction set.
macro_rules! on_each {
    ($($test:ident),* $(,)?) => {
        mod avx512 { $( #[test] fn $test() { super::$test::<super::Avx512>(); } )* }
        mod avx2 { $( #[test] fn $test() { super::$test::<super::Avx2>(); } )* }
        mod neon { $( #[test] fn $test() { super::$test::<super::Neon>(); } )* }
    };
}

on_each!(
    field_operations_keep_their_bounds,
    no_kernel_overflows,
    poly1305_does_not_overflow_at_any_length,
    bounds_are_no_wider_than_the_multiplier_takes,
    a_mask_left_out_is_found,
    a_mask_left_out_of_poly1305_is_found,
);

/// What every loop relies on: elements below `TIGHT` give products below `PRODUCT`, and these and their sums elements below
/// `TIGHT`.
fn field_operations_keep_their_bounds<S: Shape>() {
    let (x, y, z) = (tight::<S>(), product::<S>(), product::<S>());
    is_tight::<S>(x);
    is_product::<S>(z);

    is_product::<S>(x.loose());
    is_product::<S>(x.mul(x));
    is_product::<S>(x.square());
    is_product::<S>(x.scaled((1 << 17) - 1, Fe::<S>::fill(Interval::any(), 0).loose()));

    for above in [x.mul_above(x), x.square_above()] {
        is_tight::<S>(Fe::<S>::carry(above - z));
        is_tight::<S>(Fe::<S>::carry(above.into() + z));
    }

    // The sums that kernels carry, and more.
    is_tight::<S>(Fe::<S>::carry(z));
    is_tight::<S>(Fe::<S>::carry(z + z));
    is_tight::<S>(Fe::<S>::carry(z - y));
    is_tight::<S>(Fe::<S>::carry(z + z - z));
    is_tight::<S>(Fe::<S>::carry(z - y + (z + z)));
    is_tight::<S>(Fe::<S>::carry(z + z + z + z + z));
    is_tight::<S>(x.negated());

    let word = Interval::any();
    is_tight::<S>(Fe::<S>::unpack([word; 4]));
    is_tight::<S>(Fe::<S>::fill(word, (1 << 51) - 1));
    x.pack();
    assert_eq!(x.is_zero(), Interval::new(0, 1));
    is_tight::<S>(Fe::<S>::choose(Interval::new(0, 1), x, x));

    // What the table of the base point is made of.
    is_tight::<S>(Fe::<S>::carry(x.loose() + x.loose()));
    is_tight::<S>(Fe::<S>::carry(x.loose() - x.loose()));
    is_tight::<S>(x.times(x).times(x));
}

fn no_kernel_overflows<S: Shape>() {
    let mut kernels = 0;
    tile::limbs::<S>(|_, _| kernels += 1);
    assert_eq!(kernels, 10);
}

/// Seals rows of these lengths.
fn seal<S: Shape>(lengths: &[usize]) {
    let mut texts: Vec<Vec<u8>> = lengths.iter().map(|length| vec![0; length + 16]).collect();
    let mut rows: Vec<&mut [u8]> = texts.iter_mut().map(Vec::as_mut_slice).collect();
    let n = rows.len();
    let (keys, nonces, associated) = (&vec![[0; 32]; n][..], &vec![[0; 12]; n][..], &vec![&[][..]; n][..]);
    chacha20poly1305::Seal { keys, nonces, associated, rows: &mut rows }.in_lanes(Checking::<S>::new());
}

/// A turn multiplies what the one before left. Once two turns have the same factors all later ones have.
fn poly1305_does_not_overflow_at_any_length<S: Shape>() {
    // All rows as long; and one of them ended, so that what it had is kept.
    for lengths in [|blocks: usize| vec![16 * blocks], |blocks: usize| vec![0, 16 * blocks]] {
        let (some, more) = (factors(|| seal::<S>(&lengths(24))), factors(|| seal::<S>(&lengths(25))));
        let turn = more.len() - some.len();
        // With the block of lengths.
        assert!(turn > 0 && more.len() == 26 * turn, "a turn is {turn} products of {}", more.len());
        let turns: Vec<_> = more.chunks(turn).collect();
        let settled = turns.windows(2).position(|pair| pair[0] == pair[1]).expect("a turn that changes nothing");
        // The block of lengths comes after it.
        assert!(settled < 20, "{settled}");
        assert!(turns[settled..].windows(2).all(|pair| pair[0] == pair[1]));
    }
    // Associated data apart, what there is of runs: less than a block, more, and none.
    seal::<S>(&[0, 1, 15, 16, 17, 100, 1000, 33]);
}

/// One more addition than the bounds allow for is found, wherever it is.
fn bounds_are_no_wider_than_the_multiplier_takes<S: Shape>() {
    let (x, z) = (tight::<S>(), product::<S>());
    assert!(catches(|| is_product::<S>(z + z)), "a sum is taken away");
    assert!(catches(|| [z; 20].into_iter().fold(z, |sum, z| sum + z)), "a sum of 21 products");
    assert!(catches(|| is_tight::<S>(below::<S>(2, S::TIGHT))), "a sum that is not carried");
    // Multiplied, it is more than is read, or what comes of it more than a product.
    let sum = below::<S>(2, S::TIGHT);
    assert!(catches(|| is_product::<S>(sum.mul(x))), "times an element");
    assert!(catches(|| is_product::<S>(x.mul(sum))), "an element times it");
    assert!(catches(|| is_product::<S>(sum.square())), "its square");
    let four = below::<S>(4, S::TIGHT);
    assert!(catches(|| four.mul(four)), "a sum of four overflows");
    assert!(catches(|| four.square()), "and so does its square");
    let index = Interval::<S>::new(0, 8);
    assert!(catches(|| index.lookup(&Eight([0; 8]))), "a ninth entry");
    assert!(catches(|| index.choose(index, index)), "a choice by a number");
}

/// How many of a kind there are in a run, and which of them, left out, are not missed.
fn unseen<T>(what: What, run: impl Fn() -> T) -> (u64, Vec<u64>) {
    let mut unseen = Vec::new();
    for number in 0.. {
        let mut caught = false;
        let met = with(Fault { what, number, every: 0 }, || caught = catches(&run));
        if met == 0 {
            assert!(!caught, "a run without a fault");
            return (number, unseen);
        }
        if !caught {
            unseen.push(number);
        }
    }
    unreachable!("no run is endless")
}

/// A carry that is added to the next limb and stays in its own.
fn a_mask_left_out_is_found<S: Shape>() {
    let (x, z) = (tight::<S>(), product::<S>());
    // The four upper columns of a product are carried, too, where it is of 52 bits.
    let carries = if S::MADD52 { 9 } else { 5 };
    assert_eq!(unseen(What::Mask, || Fe::<S>::carry(z + z).mul(x)), (carries, vec![]));
    assert_eq!(unseen(What::Mask, || Fe::<S>::unpack([Interval::any(); 4]).mul(x)), (carries, vec![]));

    // In the middle of kernels: in the ladder, and in an inversion.
    let rows = [[0; 32]];
    let agree = || {
        let (mut out, mut ok) = ([[0; 32]], [false]);
        x25519::Agree { scalars: &rows, points: &rows, out: &mut out, ok: &mut ok }.in_lanes(Checking::<S>::new());
    };
    let expand = || xeddsa::Expand { publics: &rows, out: &mut [None] }.in_lanes(Checking::<S>::new());
    for n in 0..100 {
        for (first, run) in [(1_000, &agree as &dyn Fn()), (5_000, &agree), (300, &expand)] {
            let fault = Fault { what: What::Mask, number: first + n, every: 0 };
            assert_eq!(with(fault, || assert!(catches(run), "{fault:?}")), 1);
        }
    }
}

/// In every turn the same one: a single one may be made up for by the turns that follow.
fn a_mask_left_out_of_poly1305_is_found<S: Shape>() {
    let masks = |blocks: usize| unseen(What::Mask, || seal::<S>(&[16 * blocks])).0;
    let turn = masks(2) - masks(1);
    // What is between the key and the last blocks.
    let first = (masks(1) - turn).next_multiple_of(turn);
    let mut unseen = Vec::new();
    for number in 0..turn {
        let fault = Fault { what: What::Mask, number: first + number, every: turn };
        let met = with(fault, || {
            if !catches(|| seal::<S>(&[16 * 40])) {
                unseen.push(number);
            }
        });
        assert!(met > 0);
    }
    // The first carry of five limbs of 26 bits: what stays there is carried once more, and no limb grows past 32 bits. That the
    // number is wrong is for the vectors to find.
    assert_eq!(unseen.len(), usize::from(!S::MADD52), "{unseen:?} of {turn}");
}

/// Each part of a product by doubles that is prepared for and not added.
#[test]
fn a_sum_that_begins_too_low_is_found() {
    let x = tight::<Avx2>();
    let zero = Fe::<Avx2>::fill(Interval::any(), 0).loose();
    assert_eq!(unseen(What::Split, || is_product::<Avx2>(x.mul(x))), (50, vec![]));
    assert_eq!(unseen(What::Split, || is_product::<Avx2>(x.square())), (30, vec![]));
    assert_eq!(unseen(What::Split, || is_product::<Avx2>(x.scaled(121_665, zero))), (10, vec![]));
}

/// The instructions that `avx2` multiplies by, and the numbers that sums begin below zero by.
#[cfg(target_arch = "x86_64")]
mod doubles {
    use super::{Avx2 as Checked, Limb, Shape};
    use interlane_lanes::isa::field25519::radix51::TIGHT;
    use interlane_lanes::isa::{Avx2, Limbs, Part, Pieces, Words};

    struct Split(u64, u64);

    impl Part<Avx2> for Split {
        type Out = [u64; 2];
        fn run(self, isa: Avx2) -> [u64; 2] {
            let (zero, a, b) = (isa.splat_limb(0), isa.splat_limb(self.0), isa.splat_limb(self.1));
            let [pieces, _] = isa.pieces([zero.madd51_low(a, b), zero.madd51_high(a, b)]);
            let mut bytes = [0; 32];
            pieces.to_bytes(&mut bytes);
            let halves = bytes.as_chunks().0;
            [u64::from_le_bytes(halves[0]), u64::from_le_bytes(halves[1])]
        }
    }

    #[test]
    fn nearest_multiple_and_the_exact_rest() {
        let Some(isa) = Avx2::detect() else { return };
        let mut factors = vec![0, 1, 19, 121_665, TIGHT[0] - 1, TIGHT[0], (1 << 51) - 19];
        for bit in 0..52 {
            factors.extend([(1 << bit) - 1, 1 << bit, (1 << bit) + 1, 3 << bit >> 1]);
        }
        let mut random = 1_u64;
        for _ in 0..500 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            factors.push(random >> 13);
        }
        let mut ties = 0;
        for a in &factors {
            for b in &factors {
                let product = u128::from(*a) * u128::from(*b);
                if *a >> 52 != 0 || *b >> 52 != 0 || product >> 103 != 0 {
                    continue;
                }
                let [low, high] = isa.call(Split(*a, *b));
                let low = low.wrapping_sub(Checked::ABOVE51[0]).cast_signed();
                let high = high.wrapping_sub(Checked::ABOVE51[1]);
                assert!(low.unsigned_abs() <= 1 << 50, "{a} {b}: {low}");
                ties += u32::from(low.unsigned_abs() == 1 << 50);
                assert_eq!(i128::from(high) * (1 << 51) + i128::from(low), product.cast_signed(), "{a} {b}");
            }
        }
        assert!(ties > 0, "halfway between two multiples");
    }
}
