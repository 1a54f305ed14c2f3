//! `Rows`, the result of every call: it owns the columns and lends their memory, and acknowledges what it gave.

use std::ffi::c_int;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::basic::CompareOp;
use pyo3::exceptions::{PyIndexError, PyOverflowError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyByteArray, PyBytes, PyList, PyString, PyTuple, PyType};

use crate::arrow;
use crate::engine::Engine;
use crate::input::{self, KINDS, call};

/// Which column of a result.
#[derive(Clone, Copy)]
enum Name {
    Status,
    Kinds,
    Events,
    Offsets,
    Data,
}

/// One column of a result. `numpy.frombuffer(column, dtype)` copies nothing: it keeps the column, and the column keeps
/// the result's memory.
#[pyclass(frozen, module = "interlane._native")]
pub(crate) struct Column {
    rows: Arc<interlane::Rows>,
    name: Name,
}

impl Column {
    fn memory(&self) -> (*const u8, usize) {
        let rows = &*self.rows;
        let bytes = match self.name {
            Name::Status => &rows.status,
            Name::Kinds => &rows.kinds,
            Name::Events => &rows.events,
            Name::Offsets => return (rows.offsets.as_ptr().cast(), size_of_val(rows.offsets.as_slice())),
            Name::Data => &rows.data,
        };
        (bytes.as_ptr(), bytes.len())
    }

    /// The result, where this is the column of its bytes.
    pub(crate) fn data(&self) -> Option<Arc<interlane::Rows>> {
        matches!(self.name, Name::Data).then(|| Arc::clone(&self.rows))
    }
}

#[pymethods]
impl Column {
    fn __len__(&self) -> usize {
        self.memory().1
    }

    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let (memory, length) = slf.get().memory();
        // SAFETY: `view` is CPython's to fill. The memory is never written again and lives as long as `slf`, which the
        // view keeps; it is lent as read-only.
        let filled = unsafe {
            ffi::PyBuffer_FillInfo(view, slf.as_ptr(), memory.cast_mut().cast(), length as ffi::Py_ssize_t, 1, flags)
        };
        if filled == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }

    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {}
}

/// The result of a call: one entry a row in `status`, `kinds` and `events`; row `i` of `data` is
/// `data[offsets[i]:offsets[i + 1]]`, empty for a row that failed. The arrays are views, made when first asked for.
#[pyclass(frozen, sequence, module = "interlane._native")]
pub(crate) struct Rows {
    columns: Arc<interlane::Rows>,
    views: [PyOnceLock<Py<PyAny>>; 5],
    /// What rows of a receive buffer are acknowledged to.
    engine: Option<Py<Engine>>,
}

impl Rows {
    pub(crate) fn new(columns: interlane::Rows) -> Self {
        Self { columns: Arc::new(columns), views: [const { PyOnceLock::new() }; 5], engine: None }
    }

    /// The result of a call that receives.
    pub(crate) fn received(engine: &Py<Engine>, py: Python<'_>, columns: interlane::Rows) -> Self {
        let engine = columns.is_buffered().then(|| engine.clone_ref(py));
        Self { engine, ..Self::new(columns) }
    }

    fn view<'py>(&self, py: Python<'py>, name: Name) -> PyResult<Bound<'py, PyAny>> {
        let view = self.views[name as usize].get_or_try_init(py, || {
            let column = Bound::new(py, Column { rows: Arc::clone(&self.columns), name })?;
            let dtype = if matches!(name, Name::Offsets) { intern!(py, "int64") } else { intern!(py, "uint8") };
            from_buffer(py, column.into_any(), dtype).map(Bound::unbind)
        })?;
        Ok(view.bind(py).clone())
    }

    fn bytes(&self, row: usize) -> &[u8] {
        let columns = &*self.columns;
        &columns.data[columns.offsets[row] as usize..columns.offsets[row + 1] as usize]
    }

    fn row<'py>(&self, py: Python<'py>, row: usize) -> PyResult<Bound<'py, PyAny>> {
        let names = RowNames::get(py)?;
        let columns = &*self.columns;
        let fields = (
            RowNames::of(&names.status, columns.status[row])?,
            RowNames::of(&names.kinds, columns.kinds[row])?,
            PyBytes::new(py, self.bytes(row)),
            RowNames::of(&names.events, columns.events[row])?,
        );
        // `tuple.__new__(Row, fields)` is what a named tuple's own constructor ends in.
        names.tuple_new.bind(py).call1((&names.row, fields))
    }
}

#[pymethods]
impl Rows {
    fn __len__(&self) -> usize {
        self.columns.status.len()
    }

    fn __getitem__<'py>(&self, py: Python<'py>, index: isize) -> PyResult<Bound<'py, PyAny>> {
        let length = self.__len__();
        let row = if index < 0 { index.checked_add_unsigned(length) } else { Some(index) };
        match row.and_then(|row| usize::try_from(row).ok()) {
            Some(row) if row < length => self.row(py, row),
            _ => Err(PyIndexError::new_err(format!("row {index} of {length}"))),
        }
    }

    fn __iter__(slf: Py<Self>) -> RowIterator {
        RowIterator { rows: slf, next: AtomicUsize::new(0) }
    }

    /// How each row ended: uint8, see `Status`.
    #[getter]
    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.view(py, Name::Status)
    }

    /// What each row's bytes are: uint8, see `Kind`.
    #[getter]
    fn kinds<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.view(py, Name::Kinds)
    }

    /// What else happened with each row: uint8, see `Event`.
    #[getter]
    fn events<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.view(py, Name::Events)
    }

    /// Where the rows' bytes begin and end in `data`: int64, one more than there are rows.
    #[getter]
    fn offsets<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.view(py, Name::Offsets)
    }

    /// The rows' bytes, one after the other: uint8.
    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.view(py, Name::Data)
    }

    /// Whether each row's status is OK: bool.
    #[getter]
    fn ok<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        // NumPy's `==` gives an array, not one truth.
        self.status(py)?.rich_compare(interlane::Status::Ok as u8, CompareOp::Eq)
    }

    /// Acknowledges plaintexts of a receive buffer: all of this result's, or those of some rows. They are freed, and
    /// a frame that comes again is a DUPLICATE. Gives how many there were; rows that are not buffered are passed over.
    #[pyo3(signature = (rows=None))]
    fn ack(&self, py: Python<'_>, rows: Option<&Bound<'_, PyAny>>) -> PyResult<usize> {
        let which = rows.map(|rows| input::row_numbers(rows)).transpose()?;
        match &self.engine {
            None => Ok(0),
            Some(engine) => {
                let engine = &engine.get().inner;
                call(py, || engine.acknowledge(&self.columns, which.as_deref()))
            }
        }
    }

    /// The rows' bytes as a list; a row that failed is `b""`.
    fn tolist<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, (0..self.__len__()).map(|row| PyBytes::new(py, self.bytes(row))))
    }

    /// Arrow's PyCapsule interface: a struct array of `status`, `kind`, `events` (uint8) and `data` (large_binary) that
    /// shares this result's memory. A requested schema is not followed, as the interface allows.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let _ = requested_schema;
        arrow::export(py, &self.columns)
    }

    fn __repr__(&self) -> String {
        let mut counts = [0_usize; 256];
        for &status in &self.columns.status {
            counts[usize::from(status)] += 1;
        }
        let mut text = format!("<Rows: {} rows, {} bytes", self.__len__(), self.columns.data.len());
        for status in interlane::Status::ALL {
            match counts[status as usize] {
                0 => {}
                count => text.push_str(&format!(", {count} {}", status.name())),
            }
        }
        text.push('>');
        text
    }
}

/// Iterates over a result's rows.
#[pyclass(frozen, module = "interlane._native")]
pub(crate) struct RowIterator {
    rows: Py<Rows>,
    next: AtomicUsize,
}

#[pymethods]
impl RowIterator {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let rows = self.rows.get();
        let row = self.next.load(Ordering::Relaxed);
        if row >= rows.__len__() {
            return Ok(None);
        }
        self.next.store(row + 1, Ordering::Relaxed);
        rows.row(py, row).map(Some)
    }
}

/// The objects that a row's fields are: enum members and names, made once.
struct RowNames {
    row: Py<PyType>,
    tuple_new: Py<PyAny>,
    status: Vec<Py<PyAny>>,
    kinds: Vec<Py<PyAny>>,
    events: Vec<Py<PyAny>>,
}

impl RowNames {
    fn get(py: Python<'_>) -> PyResult<&'static Self> {
        static NAMES: PyOnceLock<RowNames> = PyOnceLock::new();
        NAMES.get_or_try_init(py, || {
            let enums = py.import("interlane.status")?;
            let members = |class: &str, count: u8| -> PyResult<Vec<Py<PyAny>>> {
                let class = enums.getattr(class)?;
                (0..count).map(|number| class.call1((number,)).map(Bound::unbind)).collect()
            };
            Ok(Self {
                row: py.import("interlane.packed")?.getattr("Row")?.cast_into::<PyType>()?.unbind(),
                tuple_new: py.get_type::<PyTuple>().getattr("__new__")?.unbind(),
                status: members("Status", interlane::Status::ALL.len() as u8)?,
                kinds: KINDS.iter().map(|kind| PyString::intern(py, kind).into_any().unbind()).collect(),
                events: members("Event", 16)?,
            })
        })
    }

    fn of(objects: &[Py<PyAny>], number: u8) -> PyResult<&Py<PyAny>> {
        objects
            .get(usize::from(number))
            .ok_or_else(|| PyOverflowError::new_err(format!("{number} has no name in this version of interlane")))
    }
}

fn from_buffer<'py>(
    py: Python<'py>,
    memory: Bound<'py, PyAny>,
    dtype: &Bound<'py, PyString>,
) -> PyResult<Bound<'py, PyAny>> {
    static FROM_BUFFER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    FROM_BUFFER.import(py, "numpy", "frombuffer")?.call1((memory, dtype))
}

/// A fresh, writable uint64 array of handles.
pub(crate) fn handles<'py>(py: Python<'py>, handles: &[u64]) -> PyResult<Bound<'py, PyAny>> {
    let memory = PyByteArray::new_with(py, size_of_val(handles), |bytes| {
        for (to, handle) in bytes.chunks_exact_mut(8).zip(handles) {
            to.copy_from_slice(&handle.to_ne_bytes());
        }
        Ok(())
    })?;
    from_buffer(py, memory.into_any(), intern!(py, "uint64"))
}
