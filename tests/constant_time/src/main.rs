//! Runs one probe, or all of them, on one tier: `constant-time TIER [PROBE]`. A line for each:
//! `probe ‖ tab ‖ reports ‖ tab ‖ marked bytes of the output ‖ tab ‖ bytes of the output`.

#![deny(unsafe_op_in_unsafe_fn)]

mod engine;
mod kernels;
mod leaks;
mod marks;

use interlane_lanes::isa::{Avx2, Portable};
use interlane_lanes::{Backend, HARNESS};

use engine::ENGINE;
use kernels::{Given, KERNELS};
use leaks::LEAKS;

/// A tier by its name. That it is this one is asserted: Valgrind hides instructions from the program, and a tier that
/// were silently another would say nothing.
fn tier(name: &str) -> Backend {
    let backend = match name {
        "portable" => Backend::portable(),
        "portable, no graviola" => Backend::Portable(Portable::without_graviola()),
        "avx2, no SHA" => Backend::Avx2(Avx2::detect().expect("AVX2 is here").without_sha()),
        "avx2, SHA" => {
            assert!(is_x86_feature_detected!("sha"), "the SHA instructions are here");
            Backend::Avx2(Avx2::detect().expect("AVX2 is here"))
        }
        _ => Backend::by_name(name).expect("the tier is here"),
    };
    assert_eq!(Some(backend.name()), name.split(',').next(), "the tier is the one that was asked for");
    if name == "portable" {
        let runners = backend.kernels();
        let x25519 = runners.iter().find(|runner| runner.kernel == "x25519").expect("a kernel");
        assert_eq!(x25519.by_row, "graviola", "graviola runs here");
    }
    backend
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().expect("a tier");
    if name == "probes" {
        for (list, probes) in [("kernel", KERNELS), ("engine", ENGINE), ("leak", LEAKS)] {
            for (probe, _) in probes {
                println!("{list}\t{probe}");
            }
        }
        return;
    }
    let only = arguments.next();
    assert!(marks::is_here(), "{} is not here", marks::HARNESS);
    let backend = tier(&name);
    assert!(HARNESS.set(marks::told).is_ok());
    let mut found = false;
    for (probe, run) in KERNELS.iter().chain(ENGINE).chain(LEAKS) {
        if only.as_ref().is_some_and(|only| only != probe) {
            continue;
        }
        found = true;
        eprintln!("probe: {probe}");
        let before = marks::errors();
        let mut outputs = run(&mut Given::new(backend, true));
        let reports = marks::errors() - before;
        let marked = marks::tainted(&outputs.secret);
        marks::reveal(&mut outputs.secret);
        let bytes = outputs.secret.len();
        // What was checked has computed the right thing.
        let oracle = run(&mut Given::new(Backend::Portable(Portable::without_graviola()), false));
        assert!(outputs.secret == oracle.secret && outputs.public == oracle.public, "{probe}: wrong result");
        println!("{probe}\t{reports}\t{marked}\t{bytes}");
    }
    assert!(found, "a probe of that name");
}
