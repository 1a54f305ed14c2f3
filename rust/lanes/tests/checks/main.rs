//! Instruction sets that check: every kernel runs on them as it runs on any other, and no value is computed.
//!
//! - `bounds`: a limb is the interval of the values it may have, whatever the input. A run without a panic proves that
//!   nothing overflows.
//! - `counts`: operations by kind, a cost that noise cannot touch.
//!
//! Both come from the same run, of [`lanes::Checking`]. A program of its own: what is kept of tables of the base point would
//! be of no use to the tests of values.

mod bounds;
mod counts;
mod interval;
mod lanes;
mod shapes;
mod tally;
mod tile;
