//! Every kernel on every backend. One program: whatever a test runs in lanes is compiled for each instruction set, so that a
//! program for each file would take minutes to build.

mod backends;
mod rows;
mod vectors;
mod wycheproof;
mod xeddsa;
