//! Which Python exception an error is. The classes are written in Python (`interlane/errors.py`), because two of them
//! have a second base class.

use interlane_lanes::isa::Backend;
use pyo3::prelude::*;

pyo3::import_exception!(interlane.errors, Error);
pyo3::import_exception!(interlane.errors, MalformedCall);
pyo3::import_exception!(interlane.errors, StoreError);
pyo3::import_exception!(interlane.errors, StoreBusy);
pyo3::import_exception!(interlane.errors, ClosedError);
pyo3::import_exception!(interlane.errors, ForkedError);
pyo3::import_exception!(interlane.errors, UnknownAccount);

/// The exception of an engine's error.
pub(crate) fn raised(error: interlane::Error) -> PyErr {
    let text = error.to_string();
    match error {
        interlane::Error::Malformed(_) => MalformedCall::new_err(text),
        interlane::Error::Store(_) => StoreError::new_err(text),
        interlane::Error::Busy(_) => StoreBusy::new_err(text),
        interlane::Error::Closed => ClosedError::new_err(text),
        interlane::Error::Forked => ForkedError::new_err(text),
        interlane::Error::Fault => Error::new_err(text),
    }
}

/// A malformed call: `argument` names what was wrong, `text` says how and what to do.
pub(crate) fn malformed(argument: &str, text: impl std::fmt::Display) -> PyErr {
    MalformedCall::new_err(format!("{argument}: {text}"))
}

/// An account that is not there.
pub(crate) fn unknown_account(name: &str) -> PyErr {
    UnknownAccount::new_err(format!("there is no account {name:?}; make it with account(name, create=True)"))
}

/// The backend of this name, or the one in use where none is asked for.
pub(crate) fn backend(name: Option<&str>) -> PyResult<Backend> {
    let Some(name) = name else {
        return Backend::detect().map_err(|error| MalformedCall::new_err(error.to_string()));
    };
    Backend::available().into_iter().find(|backend| backend.name() == name).ok_or_else(|| {
        let available: Vec<&str> = Backend::available().into_iter().map(Backend::name).collect();
        malformed("backend", format!("{name:?} is not one of this machine; available: {}", available.join(", ")))
    })
}

/// The name of an object's class, for messages about arguments.
pub(crate) fn class_of(object: &Bound<'_, PyAny>) -> String {
    object.get_type().name().map_or_else(|_| "?".to_owned(), |name| name.to_string())
}
