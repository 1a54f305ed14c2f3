//! Arrow's C data interface, by hand: binary arrays in, a struct array of a result's columns out.
//! <https://arrow.apache.org/docs/format/CDataInterface.html> and `CDataInterface/PyCapsuleInterface.html`.

use std::ffi::{CStr, c_char, c_void};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyTuple};

use crate::errors::{class_of, malformed};
use crate::input::{OwnedRows, check_offsets};

const SCHEMA: &CStr = c"arrow_schema";
const ARRAY: &CStr = c"arrow_array";

/// `struct ArrowSchema`.
#[repr(C)]
struct ArrowSchema {
    format: *const c_char,
    name: *const c_char,
    metadata: *const c_char,
    flags: i64,
    n_children: i64,
    children: *mut *mut ArrowSchema,
    dictionary: *mut ArrowSchema,
    release: Option<unsafe extern "C" fn(*mut ArrowSchema)>,
    private_data: *mut c_void,
}

/// `struct ArrowArray`.
#[repr(C)]
struct ArrowArray {
    length: i64,
    null_count: i64,
    offset: i64,
    n_buffers: i64,
    n_children: i64,
    buffers: *mut *const c_void,
    children: *mut *mut ArrowArray,
    dictionary: *mut ArrowArray,
    release: Option<unsafe extern "C" fn(*mut ArrowArray)>,
    private_data: *mut c_void,
}

// In.

/// The rows of an object with `__arrow_c_array__`: a binary or large_binary array without nulls. None if it has none.
pub(crate) fn import(argument: &str, object: &Bound<'_, PyAny>, room: usize) -> PyResult<Option<OwnedRows>> {
    const WANTED: &str = "a binary or large_binary array without nulls";
    let py = object.py();
    let Some(export) = object.getattr_opt(pyo3::intern!(py, "__arrow_c_array__"))? else {
        return Ok(None);
    };
    let wrong = |text: &str| malformed(argument, format!("{}: {text}; give {WANTED}", class_of(object)));
    let pair = export.call0()?;
    let capsules = || -> PyResult<_> {
        let (schema, array) = pair.extract::<(Bound<'_, PyCapsule>, Bound<'_, PyCapsule>)>()?;
        Ok((schema.pointer_checked(Some(SCHEMA))?, array.pointer_checked(Some(ARRAY))?))
    };
    let (schema, array) = capsules().map_err(|_| wrong("no pair of Arrow capsules"))?;
    let (schema, array) = (schema.cast::<ArrowSchema>(), array.cast::<ArrowArray>());
    // SAFETY: capsules of these names hold these structs (the PyCapsule interface), and `pair` keeps them until we are
    // done; nobody else has these capsules.
    let (schema, array) = unsafe { (schema.as_ref(), array.as_ref()) };
    if schema.release.is_none() || array.release.is_none() {
        return Err(wrong("the array was released already"));
    }
    // SAFETY: a schema that is not released has a format, a C string.
    let format = unsafe { CStr::from_ptr(schema.format) }.to_bytes();
    if !matches!(format, b"z" | b"Z") || !schema.dictionary.is_null() {
        return Err(wrong(&format!("Arrow format {:?}", String::from_utf8_lossy(format))));
    }
    let (Ok(start), Ok(rows)) = (usize::try_from(array.offset), usize::try_from(array.length)) else {
        return Err(wrong("a negative offset or length"));
    };
    if rows == 0 {
        return Ok(Some(OwnedRows { offsets: vec![0], ..OwnedRows::default() }));
    }
    if array.n_buffers != 3 || array.buffers.is_null() {
        return Err(wrong("not three buffers"));
    }
    // SAFETY: `n_buffers` says that there are three.
    let buffers = unsafe { slice::from_raw_parts(array.buffers, 3) };
    if array.null_count != 0 && !buffers[0].is_null() {
        let bitmap = buffers[0].cast::<u8>();
        for row in start..start + rows {
            // SAFETY: a validity bitmap has a bit for each of the array's `offset + length` entries.
            if unsafe { *bitmap.add(row / 8) } & (1 << (row % 8)) == 0 {
                return Err(malformed(
                    &format!("{argument}[{}]", row - start),
                    "is null; leave the row away, or fill_null(b\"\")",
                ));
            }
        }
    }
    if buffers[1].is_null() {
        return Err(wrong("no offsets"));
    }
    // SAFETY: the offsets buffer has `offset + length + 1` entries of the width that the format says; it may be
    // unaligned.
    let offsets: Vec<i64> = unsafe {
        if format == b"z" {
            let offsets = buffers[1].cast::<i32>();
            (start..=start + rows).map(|i| i64::from(offsets.add(i).read_unaligned())).collect()
        } else {
            let offsets = buffers[1].cast::<i64>();
            (start..=start + rows).map(|i| offsets.add(i).read_unaligned()).collect()
        }
    };
    check_offsets(&offsets, None)?;
    if buffers[2].is_null() && offsets[rows] != offsets[0] {
        return Err(wrong("no data"));
    }
    // SAFETY: the offsets ascend, and the data buffer ends where the array's last offset says, or later.
    unsafe { OwnedRows::gather(buffers[2].cast(), offsets, room) }.map(Some)
}

// Out.

/// The columns of a result's struct array: name and format.
const COLUMNS: [(&CStr, &CStr); 4] = [(c"status", c"C"), (c"kind", c"C"), (c"events", c"C"), (c"data", c"Z")];

/// What an exported array keeps: the columns' memory, and the lists that its struct points to.
struct ArrayParts {
    _columns: Arc<interlane::Rows>,
    buffers: Box<[*const c_void]>,
    children: Box<[*mut ArrowArray]>,
}

/// `(schema capsule, array capsule)` of a result: a struct array that borrows the columns' memory.
pub(crate) fn export<'py>(py: Python<'py>, columns: &Arc<interlane::Rows>) -> PyResult<Bound<'py, PyTuple>> {
    let schema =
        Box::new(schema(c"+s", c"", COLUMNS.iter().map(|(name, format)| schema(format, name, [].into())).collect()));
    // SAFETY: the pointer is a box's, which the destructor takes back; it may run in any thread.
    let schema = unsafe {
        let pointer = NonNull::from(Box::leak(schema)).cast();
        PyCapsule::new_with_pointer_and_destructor(py, pointer, SCHEMA, Some(drop_schema))
    }?;
    let array = Box::new(array_of(columns));
    // SAFETY: as above; what the array keeps is an `Arc`, which may be dropped in any thread.
    let array = unsafe {
        let pointer = NonNull::from(Box::leak(array)).cast();
        PyCapsule::new_with_pointer_and_destructor(py, pointer, ARRAY, Some(drop_array))
    }?;
    PyTuple::new(py, [schema, array])
}

fn schema(format: &'static CStr, name: &'static CStr, children: Vec<ArrowSchema>) -> ArrowSchema {
    let children: Box<[*mut ArrowSchema]> = children.into_iter().map(|child| Box::into_raw(Box::new(child))).collect();
    let n_children = children.len() as i64;
    // The list of children is a box of its own, so that it stays where it is when the struct is moved.
    let mut children = Box::new(children);
    ArrowSchema {
        format: format.as_ptr(),
        name: name.as_ptr(),
        metadata: ptr::null(),
        flags: 0,
        n_children,
        children: children.as_mut_ptr(),
        dictionary: ptr::null_mut(),
        release: Some(release_schema),
        private_data: Box::into_raw(children).cast(),
    }
}

fn array_of(columns: &Arc<interlane::Rows>) -> ArrowArray {
    let length = columns.status.len();
    let bytes = |column: &[u8]| vec![ptr::null(), column.as_ptr().cast::<c_void>()];
    let data = vec![ptr::null(), columns.offsets.as_ptr().cast(), columns.data.as_ptr().cast()];
    let children = [bytes(&columns.status), bytes(&columns.kinds), bytes(&columns.events), data]
        .map(|buffers| array(columns, length, buffers, Vec::new()));
    array(columns, length, vec![ptr::null()], children.into())
}

fn array(
    columns: &Arc<interlane::Rows>,
    length: usize,
    buffers: Vec<*const c_void>,
    children: Vec<ArrowArray>,
) -> ArrowArray {
    let mut parts = Box::new(ArrayParts {
        _columns: Arc::clone(columns),
        buffers: buffers.into(),
        children: children.into_iter().map(|child| Box::into_raw(Box::new(child))).collect(),
    });
    ArrowArray {
        length: length as i64,
        null_count: 0,
        offset: 0,
        n_buffers: parts.buffers.len() as i64,
        n_children: parts.children.len() as i64,
        buffers: parts.buffers.as_mut_ptr(),
        children: parts.children.as_mut_ptr(),
        dictionary: ptr::null_mut(),
        release: Some(release_array),
        private_data: Box::into_raw(parts).cast(),
    }
}

/// `ArrowSchema.release` of ours.
unsafe extern "C" fn release_schema(schema: *mut ArrowSchema) {
    // SAFETY: whoever holds a struct of ours that is not released may release it once, through this; its
    // `private_data` is the box from `schema`, and the children in it are boxes. A child that was moved away is marked
    // as released.
    unsafe {
        let schema = &mut *schema;
        schema.release = None;
        for child in *Box::from_raw(schema.private_data.cast::<Box<[*mut ArrowSchema]>>()) {
            let mut child = Box::from_raw(child);
            if let Some(release) = child.release {
                release(&raw mut *child);
            }
        }
    }
}

/// `ArrowArray.release` of ours.
unsafe extern "C" fn release_array(array: *mut ArrowArray) {
    // SAFETY: as in `release_schema`; `private_data` is the box from `array`.
    unsafe {
        let array = &mut *array;
        array.release = None;
        let parts = Box::from_raw(array.private_data.cast::<ArrayParts>());
        for &child in &parts.children {
            let mut child = Box::from_raw(child);
            if let Some(release) = child.release {
                release(&raw mut *child);
            }
        }
    }
}

unsafe extern "C" fn drop_schema(capsule: *mut ffi::PyObject) {
    // SAFETY: Python calls this once, with the capsule from `export`, which holds a box. Whoever took the schema over
    // has marked it as released.
    unsafe {
        let mut schema = Box::from_raw(ffi::PyCapsule_GetPointer(capsule, SCHEMA.as_ptr()).cast::<ArrowSchema>());
        if let Some(release) = schema.release {
            release(&raw mut *schema);
        }
    }
}

unsafe extern "C" fn drop_array(capsule: *mut ffi::PyObject) {
    // SAFETY: as in `drop_schema`.
    unsafe {
        let mut array = Box::from_raw(ffi::PyCapsule_GetPointer(capsule, ARRAY.as_ptr()).cast::<ArrowArray>());
        if let Some(release) = array.release {
            release(&raw mut *array);
        }
    }
}
