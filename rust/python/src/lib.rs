//! The extension module `interlane._native`: checks what Python gives once, copies it once, releases the GIL, makes one
//! engine call, and lends the result's columns to NumPy and Arrow without a copy.
//!
//! - `engine`: the class `Engine`, whose handles are the primitive
//! - `account`: the classes `Account` and `Group`, which know handles by their names
//! - `aead`: batch AEAD with a key a row, straight on the lanes
//! - `measure`: how long kernels take on this machine
//! - `rows`: the class `Rows`, every call's result
//! - `arrow`: the two C structs of Arrow's C data interface, in and out
//! - `input`: handles, kinds, names and rows of bytes, from whatever form they come in
//! - `errors`: which Python exception an error is
//!
//! `engine`, `account`, `aead` and `measure` name the parts below them; `input`, `arrow` and `errors` know no engine call,
//! `rows` one: a result is acknowledged to the engine that gave it.
//! This crate is the only one of the engine's that has `unsafe`: for memory that Python lends, and for Arrow's structs.

mod account;
mod aead;
mod arrow;
mod engine;
mod errors;
mod input;
mod measure;
mod rows;

use interlane_lanes::isa::Backend;
use mimalloc::MiMalloc;
use pyo3::prelude::*;

/// Of Rust's side alone: Python's objects are Python's.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The names of the backends that this CPU can run, the best first.
#[pyfunction]
fn backends() -> Vec<&'static str> {
    Backend::available().into_iter().map(Backend::name).collect()
}

/// The name of the backend in use where none is asked for: the best, or the one that INTERLANE_BACKEND names.
#[pyfunction]
fn backend() -> PyResult<&'static str> {
    Ok(errors::backend(None)?.name())
}

/// Each kernel and what runs it, for a backend's name or for the one in use.
#[pyfunction]
#[pyo3(signature = (backend=None))]
fn kernels(backend: Option<&str>) -> PyResult<Vec<(&'static str, String)>> {
    Ok(errors::backend(backend)?.kernels().into_iter().map(|runner| (runner.kernel, runner.to_string())).collect())
}

/// The names of the row statuses, in the order of their numbers.
#[pyfunction]
fn statuses() -> Vec<&'static str> {
    interlane::Status::ALL.into_iter().map(interlane::Status::name).collect()
}

#[pymodule(gil_used = false)]
mod _native {
    #[pymodule_export]
    use super::account::{Account, Group};
    #[pymodule_export]
    use super::aead::{aead_open, aead_seal};
    #[pymodule_export]
    use super::engine::{Engine, backup, restore};
    #[pymodule_export]
    use super::measure::{measure, works};
    #[pymodule_export]
    use super::rows::{Column, RowIterator, Rows};
    #[pymodule_export]
    use super::{backend, backends, kernels, statuses};

    #[pymodule_export]
    #[allow(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
