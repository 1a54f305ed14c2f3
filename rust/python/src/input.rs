//! What Python gives, checked once and, unless it cannot change, copied once into memory of our own, with the GIL held.
//! What comes after works on the copies: a caller's buffer may change under a released GIL.

use std::marker::PhantomData;
use std::ops::{Deref, Range};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::Arc;

use pyo3::buffer::{ElementType, PyUntypedBuffer};
use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::{PyBytes, PyIterator, PyList, PyMemoryView, PyString, PyTuple};
use zeroize::{Zeroize, Zeroizing};

use crate::arrow;
use crate::errors::{class_of, malformed, raised};
use crate::rows::Column;

/// Names of the kinds, in the order of their numbers, as they stand on the wire.
pub(crate) const KINDS: [&str; 5] = ["none", "msg", "pkmsg", "skmsg", "skdm"];

/// Rows of bytes that this call owns: row `i` is `data[offsets[i]..offsets[i + 1]]`.
#[derive(Default)]
pub(crate) struct OwnedRows {
    pub(crate) data: interlane::Bytes,
    pub(crate) offsets: Vec<i64>,
}

impl OwnedRows {
    /// No rows, with memory for `rows` of them of `bytes` in all.
    fn with_capacity(rows: usize, bytes: usize) -> PyResult<Self> {
        let data = interlane::Bytes::try_with_capacity(bytes).map_err(|_| PyMemoryError::new_err(()))?.shared();
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Ok(Self { data, offsets })
    }

    /// Ends a row, with `room` more bytes in it.
    fn end_row(&mut self, room: usize) {
        if room != 0 {
            let end = self.data.len() + room;
            self.data.resize(end, 0);
        }
        self.offsets.push(self.data.len() as i64);
    }

    /// Copies rows out of foreign memory.
    ///
    /// # Safety
    /// `offsets` passed [`check_offsets`], and `source` has as many readable bytes as its last one says (it may be
    /// anything if all rows are empty).
    pub(crate) unsafe fn gather(source: *const u8, mut offsets: Vec<i64>, room: usize) -> PyResult<Self> {
        let (first, last) = (offsets[0], offsets[offsets.len() - 1]);
        let (rows, bytes) = (offsets.len() - 1, (last - first) as usize);
        let mut gathered = Self::with_capacity(rows, bytes.saturating_add(rows.saturating_mul(room)))?;
        if room == 0 {
            // SAFETY: the caller vouches for first..last.
            unsafe { append(source, first as usize, bytes, &mut gathered.data) };
            if first != 0 {
                offsets.iter_mut().for_each(|offset| *offset -= first);
            }
            gathered.offsets = offsets;
        } else {
            for row in offsets.windows(2) {
                // SAFETY: the offsets ascend, so that this row is within first..last, for which the caller vouches.
                unsafe { append(source, row[0] as usize, (row[1] - row[0]) as usize, &mut gathered.data) };
                gathered.end_row(room);
            }
        }
        Ok(gathered)
    }
}

/// Appends `count` items that begin at item `start` of `source`.
///
/// # Safety
/// `source` has `start + count` readable items, whose bytes need no alignment; every bit pattern is a `T`. Another
/// thread may be writing to them: what is copied is then some mixture, and nothing may have been concluded from them.
unsafe fn append<T: Copy>(source: *const T, start: usize, count: usize, into: &mut Vec<T>) {
    if count == 0 {
        return;
    }
    into.reserve(count);
    let length = into.len();
    // SAFETY: the caller vouches for the source; `reserve` made room for `count` items behind the vector's own, which
    // no foreign memory overlaps. Bytes are copied, so the source's alignment does not matter.
    unsafe {
        let from = source.cast::<u8>().add(start * size_of::<T>());
        let to = into.as_mut_ptr().add(length).cast::<u8>();
        ptr::copy_nonoverlapping(from, to, count * size_of::<T>());
        into.set_len(length + count);
    }
}

/// That offsets are not negative, do not descend and end within `bytes` (where that is known).
pub(crate) fn check_offsets(offsets: &[i64], bytes: Option<usize>) -> PyResult<()> {
    let wrong = |text: String| Err(malformed("offsets", text));
    let Some((&first, rest)) = offsets.split_first() else {
        return wrong("empty; give one more offset than there are rows".into());
    };
    if first < 0 {
        return wrong(format!("the first is {first}; offsets are not negative"));
    }
    let mut before = first;
    for (row, &offset) in rest.iter().enumerate() {
        if offset < before {
            return wrong(format!("offsets[{}] is {offset}, below the one before it ({before})", row + 1));
        }
        before = offset;
    }
    match bytes {
        Some(bytes) if before as u64 > bytes as u64 => {
            wrong(format!("the last is {before}, but data has {bytes} bytes; give offsets within data"))
        }
        _ => Ok(()),
    }
}

/// A number that buffers carry.
trait Number: Copy {
    const ELEMENT: ElementType;
    const DTYPE: &'static str;
}

impl Number for u8 {
    const ELEMENT: ElementType = ElementType::UnsignedInteger { bytes: 1 };
    const DTYPE: &'static str = "uint8";
}

impl Number for u64 {
    const ELEMENT: ElementType = ElementType::UnsignedInteger { bytes: 8 };
    const DTYPE: &'static str = "uint64";
}

impl Number for i64 {
    const ELEMENT: ElementType = ElementType::SignedInteger { bytes: 8 };
    const DTYPE: &'static str = "int64";
}

/// A C-contiguous buffer of `T`, held.
struct View<T> {
    buffer: PyUntypedBuffer,
    element: PhantomData<T>,
}

impl<T: Number> View<T> {
    /// Takes hold of a buffer; `wanted` says what else could have been given.
    fn of(argument: &str, object: &Bound<'_, PyAny>, wanted: &str) -> PyResult<Self> {
        let buffer = PyUntypedBuffer::get(object)
            .map_err(|_| malformed(argument, format!("{} is no buffer; give {wanted}", class_of(object))))?;
        let format = buffer.format();
        // The standard library's parser takes both byte orders; a foreign one would be read wrongly.
        let foreign = match format.to_bytes().first() {
            Some(b'>' | b'!') => cfg!(target_endian = "little") && size_of::<T>() > 1,
            Some(b'<') => cfg!(target_endian = "big") && size_of::<T>() > 1,
            _ => false,
        };
        if ElementType::from_format(format) != T::ELEMENT || buffer.item_size() != size_of::<T>() || foreign {
            return Err(malformed(
                argument,
                format!("a buffer of format {:?}; give {}", format.to_string_lossy(), T::DTYPE),
            ));
        }
        if !buffer.is_c_contiguous() {
            return Err(malformed(argument, "the buffer has gaps; give a C-contiguous one (numpy.ascontiguousarray)"));
        }
        Ok(Self { buffer, element: PhantomData })
    }

    /// As [`Self::of`], and of one dimension.
    fn column(argument: &str, object: &Bound<'_, PyAny>, wanted: &str) -> PyResult<Self> {
        let view = Self::of(argument, object, wanted)?;
        match view.buffer.dimensions() {
            1 => Ok(view),
            dimensions => Err(malformed(argument, format!("{dimensions} dimensions; give one (array.ravel())"))),
        }
    }

    fn pointer(&self) -> *const T {
        self.buffer.buf_ptr().cast_const().cast()
    }

    fn len(&self) -> usize {
        self.buffer.item_count()
    }

    fn append_to(&self, into: &mut Vec<T>) {
        // SAFETY: the held buffer is contiguous and has `len` items of `T`'s size; numbers have no invalid bits.
        unsafe { append(self.pointer(), 0, self.len(), into) };
    }

    fn to_vec(&self) -> Vec<T> {
        let mut items = Vec::new();
        self.append_to(&mut items);
        items
    }
}

/// Rows for a call that only reads them. Memory that cannot change is not copied.
pub(crate) enum ReadRows {
    Own(OwnedRows),
    Lent { data: Unchanging, offsets: Vec<i64> },
}

impl ReadRows {
    /// How many rows.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Own(OwnedRows { offsets, .. }) | Self::Lent { offsets, .. } => offsets.len() - 1,
        }
    }

    /// The rows as the engine takes them.
    pub(crate) fn packed(&self) -> Result<interlane::Packed<'_>, interlane::Error> {
        match self {
            Self::Own(rows) => interlane::Packed::new(&rows.data, &rows.offsets),
            Self::Lent { data, offsets } => interlane::Packed::new(data, offsets),
        }
    }
}

/// Memory that cannot change, and what keeps it: a bytes object's, or that of a call's result.
pub(crate) struct Unchanging {
    owner: Owner,
    /// Which of its bytes.
    part: Range<usize>,
}

enum Owner {
    Bytes(PyBackedBytes),
    Result(Arc<interlane::Rows>),
}

impl Owner {
    /// Whose memory an object shows: its own, or that of what its `base` (numpy's name) or `obj` (memoryview's) leads to.
    fn of(object: &Bound<'_, PyAny>) -> Option<Self> {
        // An array of an array of a memoryview of a result's column.
        const STEPS_MAX: usize = 4;
        let mut object = object.clone();
        for _ in 0..STEPS_MAX {
            if let Ok(bytes) = object.cast::<PyBytes>() {
                return Some(Self::Bytes(PyBackedBytes::from(bytes.clone())));
            }
            if let Ok(column) = object.cast::<Column>() {
                return column.get().data().map(Self::Result);
            }
            let of = if object.is_instance_of::<PyMemoryView>() { "obj" } else { "base" };
            object = object.getattr_opt(of).ok()??;
        }
        None
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Result(rows) => &rows.data,
        }
    }
}

impl Unchanging {
    /// The memory of a view, where it is of that kind. What an object says of its owner is believed of bytes alone that
    /// this owner has.
    fn of(object: &Bound<'_, PyAny>, view: &View<u8>) -> Option<Self> {
        let owner = Owner::of(object)?;
        let begin = (view.pointer() as usize).checked_sub(owner.bytes().as_ptr() as usize)?;
        let part = begin..begin.checked_add(view.len())?;
        (part.end <= owner.bytes().len()).then_some(Self { owner, part })
    }
}

impl Deref for Unchanging {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.owner.bytes()[self.part.clone()]
    }
}

/// As [`rows`], for a call that only reads them.
pub(crate) fn read_rows(
    argument: &str,
    data: &Bound<'_, PyAny>,
    offsets: Option<&Bound<'_, PyAny>>,
) -> PyResult<ReadRows> {
    let Some(offsets) = offsets else { return rows(argument, data, None, 0).map(ReadRows::Own) };
    let (view, offsets) = packed(argument, data, offsets)?;
    if let Some(data) = Unchanging::of(data, &view) {
        return Ok(ReadRows::Lent { data, offsets });
    }
    // SAFETY: `packed` checked the offsets against the held, contiguous buffer's length.
    unsafe { OwnedRows::gather(view.pointer(), offsets, 0) }.map(ReadRows::Own)
}

const WANTED_ROWS: &str = "a list of bytes, a uint8 buffer with offsets, or an Arrow binary array";

/// Rows in one buffer: a view of it, and offsets that passed [`check_offsets`] for it.
fn packed(argument: &str, data: &Bound<'_, PyAny>, offsets: &Bound<'_, PyAny>) -> PyResult<(View<u8>, Vec<i64>)> {
    if data.is_instance_of::<PyList>() || data.is_instance_of::<PyTuple>() {
        return Err(malformed("offsets", format!("{argument} is a list already; leave offsets away")));
    }
    let view = View::<u8>::column(argument, data, WANTED_ROWS)?;
    let offsets = View::<i64>::column("offsets", offsets, "an int64 buffer")?.to_vec();
    check_offsets(&offsets, Some(view.len()))?;
    Ok((view, offsets))
}

/// Rows of bytes: a list or tuple of bytes-like objects, a uint8 buffer with offsets, or an Arrow array. Each row gets
/// `room` zero bytes at its end.
pub(crate) fn rows(
    argument: &str,
    data: &Bound<'_, PyAny>,
    offsets: Option<&Bound<'_, PyAny>>,
    room: usize,
) -> PyResult<OwnedRows> {
    if let Some(offsets) = offsets {
        let (view, offsets) = packed(argument, data, offsets)?;
        // SAFETY: `packed` checked the offsets against the held, contiguous buffer's length.
        return unsafe { OwnedRows::gather(view.pointer(), offsets, room) };
    }
    if let Ok(list) = data.cast::<PyList>() {
        return items(argument, list.len(), || list.iter(), room);
    }
    if let Ok(tuple) = data.cast::<PyTuple>() {
        return items(argument, tuple.len(), || tuple.iter(), room);
    }
    if let Some(rows) = arrow::import(argument, data, room)? {
        return Ok(rows);
    }
    Err(match PyUntypedBuffer::get(data) {
        Ok(_) => malformed(argument, "one buffer for all rows needs offsets; give offsets=, or a list of bytes"),
        Err(_) => malformed(argument, format!("{}; give {WANTED_ROWS}", class_of(data))),
    })
}

/// Rows from a list's or tuple's items. Bytes objects are measured first, so that memory is taken once.
fn items<'py, I: Iterator<Item = Bound<'py, PyAny>>>(
    argument: &str,
    count: usize,
    all: impl Fn() -> I,
    room: usize,
) -> PyResult<OwnedRows> {
    let mut bytes = count.saturating_mul(room);
    for item in all() {
        if let Ok(item) = item.cast::<PyBytes>() {
            bytes = bytes.saturating_add(item.as_bytes().len());
        }
    }
    let mut rows = OwnedRows::with_capacity(count, bytes)?;
    for (i, item) in all().enumerate() {
        match item.cast::<PyBytes>() {
            Ok(item) => rows.data.extend_from_slice(item.as_bytes()),
            Err(_) => {
                View::<u8>::of(&format!("{argument}[{i}]"), &item, "bytes-like rows")?.append_to(&mut rows.data);
            }
        }
        rows.end_row(room);
    }
    Ok(rows)
}

/// Iterates over a sequence; a lone string or bytes object is refused, for its letters are never what was meant.
fn iterate<'py>(argument: &str, object: &Bound<'py, PyAny>, wanted: &str) -> PyResult<Bound<'py, PyIterator>> {
    if !object.is_instance_of::<PyString>()
        && !object.is_instance_of::<PyBytes>()
        && let Ok(iterator) = object.try_iter()
    {
        return Ok(iterator);
    }
    Err(malformed(argument, format!("{}; give {wanted}", class_of(object))))
}

/// Handles: a uint64 buffer, or a sequence of int.
pub(crate) fn handles(object: &Bound<'_, PyAny>) -> PyResult<Vec<u64>> {
    const WANTED: &str = "what engine.sessions() or engine.groups() gave: a uint64 buffer or a list of int";
    unsigned("handles", "handle", object, WANTED)
}

/// Numbers of rows: a uint64 buffer, or a sequence of int.
pub(crate) fn row_numbers(object: &Bound<'_, PyAny>) -> PyResult<Vec<u64>> {
    unsigned("rows", "row", object, "numbers of rows: a uint64 buffer or a list of int")
}

fn unsigned(argument: &str, one: &str, object: &Bound<'_, PyAny>, wanted: &str) -> PyResult<Vec<u64>> {
    if !object.is_instance_of::<PyList>() && !object.is_instance_of::<PyTuple>() {
        return Ok(View::<u64>::column(argument, object, wanted)?.to_vec());
    }
    let mut numbers = Vec::with_capacity(object.len()?);
    for (i, item) in object.try_iter()?.enumerate() {
        let item = item?;
        numbers.push(item.extract::<u64>().map_err(|_| {
            malformed(&format!("{argument}[{i}]"), format!("{} is no {one}; give {wanted}", class_of(&item)))
        })?);
    }
    Ok(numbers)
}

/// Kinds of `count` rows: one name for all, a sequence of names, or a uint8 buffer.
pub(crate) fn kinds(object: &Bound<'_, PyAny>, count: usize) -> PyResult<Vec<u8>> {
    const WANTED: &str = "\"msg\" or \"pkmsg\", a list of these, or a uint8 buffer";
    let number = |argument: &str, item: &Bound<'_, PyAny>| -> PyResult<u8> {
        if let Ok(name) = item.cast::<PyString>() {
            let name = name.to_str()?;
            return KINDS
                .iter()
                .position(|kind| *kind == name)
                .map(|number| number as u8)
                .ok_or_else(|| malformed(argument, format!("{name:?} is no kind; give {WANTED}")));
        }
        item.extract::<u8>().map_err(|_| malformed(argument, format!("{}; give {WANTED}", class_of(item))))
    };
    if object.is_instance_of::<PyString>() {
        return Ok(vec![number("kinds", object)?; count]);
    }
    if !object.is_instance_of::<PyList>() && !object.is_instance_of::<PyTuple>() {
        return Ok(View::<u8>::column("kinds", object, WANTED)?.to_vec());
    }
    let mut kinds = Vec::with_capacity(object.len()?);
    for (i, item) in object.try_iter()?.enumerate() {
        let item = item?;
        kinds.push(match item.cast::<PyString>().ok().and_then(|name| name.to_str().ok()) {
            Some("msg") => 1,
            Some("pkmsg") => 2,
            _ => number(&format!("kinds[{i}]"), &item)?,
        });
    }
    Ok(kinds)
}

/// A sequence of names, which stay Python's; the strings cannot change.
pub(crate) fn names(argument: &str, object: &Bound<'_, PyAny>) -> PyResult<Vec<PyBackedStr>> {
    iterate(argument, object, "a list of str")?.enumerate().map(|(i, item)| name(argument, i, &item?)).collect()
}

/// A sequence of names or None.
pub(crate) fn names_or_none(argument: &str, object: &Bound<'_, PyAny>) -> PyResult<Vec<Option<PyBackedStr>>> {
    iterate(argument, object, "a list of str or None")?
        .enumerate()
        .map(|(i, item)| {
            let item = item?;
            if item.is_none() { Ok(None) } else { name(argument, i, &item).map(Some) }
        })
        .collect()
}

fn name(argument: &str, i: usize, item: &Bound<'_, PyAny>) -> PyResult<PyBackedStr> {
    item.extract::<PyBackedStr>()
        .map_err(|_| malformed(&format!("{argument}[{i}]"), format!("{} is no name; give a str", class_of(item))))
}

/// A sequence of anything, one [`Bound`] each.
pub(crate) fn objects<'py>(
    argument: &str,
    object: &Bound<'py, PyAny>,
    wanted: &str,
) -> PyResult<Vec<Bound<'py, PyAny>>> {
    iterate(argument, object, wanted)?.collect()
}

/// The bytes of one bytes-like object.
pub(crate) fn bytes(argument: &str, object: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    Ok(View::<u8>::of(argument, object, "bytes")?.to_vec())
}

/// One bytes-like object of exactly `N` bytes. Keys come this way: what is copied on the way is zeroed.
pub(crate) fn exactly<const N: usize>(argument: &str, object: &Bound<'_, PyAny>) -> PyResult<Zeroizing<[u8; N]>> {
    let view = View::<u8>::of(argument, object, "bytes")?;
    if view.len() != N {
        return Err(malformed(argument, format!("{} bytes; give {N}", view.len())));
    }
    let mut bytes = Zeroizing::new([0; N]);
    let mut copied = view.to_vec();
    // Another thread cannot have changed the length: a held buffer is not resized.
    bytes.copy_from_slice(&copied);
    copied.zeroize();
    Ok(bytes)
}

/// `count` values of `N` bytes: one buffer of `count * N`, or a sequence of bytes-like objects. Zeroed when dropped.
pub(crate) fn fixed<const N: usize>(argument: &str, object: &Bound<'_, PyAny>, count: usize) -> PyResult<Keys<N>> {
    let mut values = Keys(Vec::with_capacity(count));
    if object.is_instance_of::<PyList>() || object.is_instance_of::<PyTuple>() {
        let given = object.len()?;
        if given != count {
            return Err(malformed(argument, format!("{given} for {count} rows; give one for each row")));
        }
        for (i, item) in object.try_iter()?.take(count).enumerate() {
            let item = item?;
            values.0.push(match item.cast::<PyBytes>().ok().and_then(|item| item.as_bytes().try_into().ok()) {
                Some(bytes) => bytes,
                None => *exactly(&format!("{argument}[{i}]"), &item)?,
            });
        }
        if values.0.len() != count {
            return Err(malformed(argument, "it became shorter while it was read; do not change it meanwhile"));
        }
        return Ok(values);
    }
    let view = View::<u8>::of(argument, object, "one buffer for all rows, or a list of bytes")?;
    if view.len() != count * N {
        let given = view.len();
        return Err(malformed(argument, format!("{given} bytes for {count} rows; give {N} for each row")));
    }
    // SAFETY: the held buffer is contiguous and has count × N bytes; bytes have no invalid bits and no alignment.
    unsafe { append(view.pointer().cast::<[u8; N]>(), 0, count, &mut values.0) };
    Ok(values)
}

/// Keys or nonces, one a row: zeroed when dropped.
pub(crate) struct Keys<const N: usize>(Vec<[u8; N]>);

impl<const N: usize> Deref for Keys<N> {
    type Target = [[u8; N]];
    fn deref(&self) -> &[[u8; N]] {
        &self.0
    }
}

impl<const N: usize> Drop for Keys<N> {
    fn drop(&mut self) {
        self.0.fill([0; N]);
        zeroize::optimization_barrier(&self.0[..]);
    }
}

/// Makes the engine's call without the GIL.
pub(crate) fn call<T: Send>(py: Python<'_>, call: impl FnOnce() -> Result<T, interlane::Error> + Send) -> PyResult<T> {
    // A panic must not leave as an exception that nobody expects. What it touched is copies, and is dropped.
    let done = py.detach(|| catch_unwind(AssertUnwindSafe(call)));
    done.unwrap_or(Err(interlane::Error::Fault)).map_err(raised)
}
