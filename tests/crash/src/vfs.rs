//! The VFS: <https://sqlite.org/vfs.html>.

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, Once, OnceLock};

use rusqlite::ffi::{
    self, SQLITE_FULL, SQLITE_IOERR_DELETE, SQLITE_IOERR_FSYNC, SQLITE_IOERR_READ, SQLITE_IOERR_TRUNCATE,
    SQLITE_IOERR_WRITE, SQLITE_OK, SQLITE_READONLY, sqlite3_file, sqlite3_int64, sqlite3_io_methods, sqlite3_vfs,
};

use super::{Call, Failure, Op, State, lock, watched};

/// A watched file: SQLite gives us room for this and, behind it, for the system's own.
#[repr(C)]
struct Watch {
    base: sqlite3_file,
    state: *const Mutex<State>,
    number: usize,
    /// Whether its first sync is to sync the folder too: SQLite's VFS for Unix does so for logs that it made.
    folder: bool,
}

struct System(*mut sqlite3_vfs);
// SAFETY: SQLite's own VFS is never changed or freed once it is registered, and may be called from any thread.
unsafe impl Send for System {}
// SAFETY: as above.
unsafe impl Sync for System {}

static SYSTEM: OnceLock<System> = OnceLock::new();

fn system() -> *mut sqlite3_vfs {
    SYSTEM.get().expect("it is set before ours is registered").0
}

static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    // Without shared memory and mapped files, which an exclusive owner needs not.
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock_file),
    xUnlock: Some(unlock_file),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

/// Makes the VFS that of all connections opened from here on.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the system's VFS lives for ever; ours is a copy of it, leaked, with its own room for files and its own
        // opening and deleting. Calls that are copied are given our VFS for theirs, of which they use `pAppData` alone.
        unsafe {
            let theirs = ffi::sqlite3_vfs_find(std::ptr::null());
            assert!(!theirs.is_null(), "SQLite has a VFS");
            assert!(SYSTEM.set(System(theirs)).is_ok());
            let mut ours = *theirs;
            ours.szOsFile += c_int::try_from(size_of::<Watch>()).expect("it is small");
            ours.pNext = std::ptr::null_mut();
            ours.zName = c"crash".as_ptr();
            ours.xOpen = Some(open);
            ours.xDelete = Some(delete);
            let registered = ffi::sqlite3_vfs_register(Box::leak(Box::new(ours)), 1);
            assert_eq!(registered, SQLITE_OK);
        }
    });
}

fn code(failure: Failure, io: c_int) -> c_int {
    match failure {
        Failure::Full => SQLITE_FULL,
        Failure::ReadOnly => SQLITE_READONLY,
        Failure::Io | Failure::PowerCut => io,
    }
}

/// The file that ours stands before.
///
/// # Safety
/// `file` is one that [`open`] has opened.
unsafe fn theirs(file: *mut sqlite3_file) -> *mut sqlite3_file {
    // SAFETY: SQLite has allocated `szOsFile` bytes, ours first.
    unsafe { file.cast::<Watch>().add(1).cast() }
}

/// # Safety
/// `file` is one that [`open`] has opened and [`close`] has not closed.
unsafe fn watch<'a>(file: *mut sqlite3_file) -> (&'a mut Watch, &'a Mutex<State>) {
    // SAFETY: SQLite uses a file in one thread at a time; the state is held by a count that `close` gives back.
    unsafe {
        let watch = &mut *file.cast::<Watch>();
        let state = &*watch.state;
        (watch, state)
    }
}

macro_rules! pass {
    ($file:ident, $method:ident $(, $argument:expr)*) => {{
        // SAFETY: the file behind ours was opened by the system's VFS, whose method this is.
        unsafe {
            let theirs = theirs($file);
            (*(*theirs).pMethods).$method.expect("every VFS has it")(theirs $(, $argument)*)
        }
    }};
}

unsafe extern "C" fn open(
    _: *mut sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    let open = |file: *mut sqlite3_file| {
        // SAFETY: SQLite's arguments, and room for a file of the system's.
        unsafe { (*system()).xOpen.expect("every VFS opens")(system(), name, file, flags, out) }
    };
    if name.is_null() {
        return open(file);
    }
    // SAFETY: SQLite gives a string that ends with a zero.
    let path = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes()));
    let Some((state, name)) = watched(path) else { return open(file) };
    let mut noted = lock(&state);
    if let Some(failure) = noted.fails(Call::Open) {
        // SAFETY: `file` is room for a file; one without methods is not open.
        unsafe { (*file).pMethods = std::ptr::null() };
        return code(failure, ffi::SQLITE_CANTOPEN);
    }
    let there = path.exists();
    // SAFETY: as SQLite calls us: room for ours, then theirs.
    let opened = open(unsafe { theirs(file) });
    if opened != SQLITE_OK {
        // SAFETY: as above.
        unsafe { (*file).pMethods = std::ptr::null() };
        return opened;
    }
    noted.look_around();
    let known = noted.names.get(&name).copied();
    let number = match known {
        Some(number) if there => number,
        _ => {
            let bytes = there.then(|| std::fs::read(path).unwrap_or_default());
            noted.add(name, bytes)
        }
    };
    drop(noted);
    let base = sqlite3_file { pMethods: &METHODS };
    // As SQLite's VFS for Unix: of a log that it was asked to make, also where one is there that an opening before this
    // made and did not come to sync.
    let logs = ffi::SQLITE_OPEN_WAL | ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_SUPER_JOURNAL;
    let folder = !there || (flags & ffi::SQLITE_OPEN_CREATE != 0 && flags & logs != 0);
    let watch = Watch { base, state: Arc::into_raw(state), number, folder };
    // SAFETY: the room is for a `Watch` first; SQLite allocates it at a multiple of 8, which is what that needs.
    unsafe { file.cast::<Watch>().write(watch) };
    SQLITE_OK
}

unsafe extern "C" fn delete(_: *mut sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    // SAFETY: SQLite gives a string that ends with a zero.
    let path = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes()));
    let found = watched(path);
    if let Some((state, _)) = &found
        && let Some(failure) = lock(state).fails(Call::Change)
    {
        return code(failure, SQLITE_IOERR_DELETE);
    }
    // SAFETY: SQLite's arguments.
    let deleted = unsafe { (*system()).xDelete.expect("every VFS deletes")(system(), name, sync) };
    if let (Some((state, name)), SQLITE_OK) = (found, deleted) {
        let mut state = lock(&state);
        state.names.remove(&name);
        state.ops.push(Op::Delete { name, synced: sync != 0 });
    }
    deleted
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    let closed = pass!(file, xClose);
    // SAFETY: `open` has left a count here, and a closed file is not used again.
    drop(unsafe { Arc::from_raw(watch(file).0.state) });
    closed
}

unsafe extern "C" fn read(file: *mut sqlite3_file, out: *mut c_void, len: c_int, at: sqlite3_int64) -> c_int {
    // SAFETY: an open file.
    let (_, state) = unsafe { watch(file) };
    if let Some(failure) = lock(state).fails(Call::Read) {
        return code(failure, SQLITE_IOERR_READ);
    }
    pass!(file, xRead, out, len, at)
}

unsafe extern "C" fn write(file: *mut sqlite3_file, from: *const c_void, len: c_int, at: sqlite3_int64) -> c_int {
    // SAFETY: an open file.
    let (watch, state) = unsafe { watch(file) };
    let mut state = lock(state);
    if state.dead {
        return SQLITE_IOERR_WRITE;
    }
    let failure = state.fails(Call::Write);
    let len = if failure.is_some() { len / 2 } else { len };
    let (whole, offset) = (usize::try_from(len).expect("a length"), usize::try_from(at).expect("a place"));
    // SAFETY: SQLite gives as many bytes, or twice as many.
    let bytes = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), whole) }.to_vec();
    state.ops.push(Op::Write { file: watch.number, at: offset, bytes });
    let written = pass!(file, xWrite, from, len, at);
    failure.map_or(written, |failure| code(failure, SQLITE_IOERR_WRITE))
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    // SAFETY: an open file.
    let (watch, state) = unsafe { watch(file) };
    let mut state = lock(state);
    if let Some(failure) = state.fails(Call::Truncate) {
        return code(failure, SQLITE_IOERR_TRUNCATE);
    }
    let len = usize::try_from(size).expect("a length");
    state.ops.push(Op::Truncate { file: watch.number, len });
    pass!(file, xTruncate, size)
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: an open file.
    let (watch, state) = unsafe { watch(file) };
    let mut state = lock(state);
    state.look_around();
    if let Some(failure) = state.fails(Call::Sync) {
        if failure != Failure::PowerCut {
            state.ops.push(Op::SyncFailed { file: watch.number });
        }
        // However it failed: SQLite's own VFS has no other word for it.
        return SQLITE_IOERR_FSYNC;
    }
    let folder = std::mem::take(&mut watch.folder);
    let synced = pass!(file, xSync, flags);
    if synced == SQLITE_OK {
        state.ops.push(Op::Sync { file: watch.number, folder });
    }
    synced
}

unsafe extern "C" fn file_size(file: *mut sqlite3_file, out: *mut sqlite3_int64) -> c_int {
    pass!(file, xFileSize, out)
}

unsafe extern "C" fn lock_file(file: *mut sqlite3_file, level: c_int) -> c_int {
    pass!(file, xLock, level)
}

unsafe extern "C" fn unlock_file(file: *mut sqlite3_file, level: c_int) -> c_int {
    pass!(file, xUnlock, level)
}

unsafe extern "C" fn check_reserved_lock(file: *mut sqlite3_file, out: *mut c_int) -> c_int {
    pass!(file, xCheckReservedLock, out)
}

unsafe extern "C" fn file_control(file: *mut sqlite3_file, op: c_int, argument: *mut c_void) -> c_int {
    pass!(file, xFileControl, op, argument)
}

unsafe extern "C" fn sector_size(file: *mut sqlite3_file) -> c_int {
    pass!(file, xSectorSize)
}

unsafe extern "C" fn device_characteristics(file: *mut sqlite3_file) -> c_int {
    pass!(file, xDeviceCharacteristics)
}
