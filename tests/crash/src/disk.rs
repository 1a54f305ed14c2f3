//! A file that is not SQLite's, on a disk that is watched: what is written, synced, cut and removed is noted and made to fail
//! as SQLite's own calls are.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::{Call, Failure, Op, State, lock, watched};

/// A file that is written at places and synced.
pub struct File {
    file: fs::File,
    /// Where it is watched: by whom, and its number there.
    watch: Option<(Arc<Mutex<State>>, usize)>,
    /// Its first sync is to sync the folder too.
    made: bool,
}

fn error(failure: Failure) -> io::Error {
    match failure {
        Failure::Full => io::ErrorKind::StorageFull.into(),
        Failure::ReadOnly => io::ErrorKind::ReadOnlyFilesystem.into(),
        Failure::Io | Failure::PowerCut => io::Error::from_raw_os_error(5),
    }
}

/// That a call goes well, or how it fails.
fn call(state: &mut State, call: Call) -> io::Result<()> {
    state.fails(call).map_or(Ok(()), |failure| Err(error(failure)))
}

impl File {
    /// The file of a name, if it is there.
    ///
    /// # Errors
    /// As planned, or as the system's.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => Self::of(opened?, path, true).map(Some),
        }
    }

    /// A new file.
    ///
    /// # Errors
    /// As planned, or as the system's.
    pub fn make(path: &Path) -> io::Result<Self> {
        if let Some((state, _)) = watched(path) {
            call(&mut lock(&state), Call::Open)?;
        }
        Self::of(OpenOptions::new().read(true).write(true).create_new(true).open(path)?, path, false)
    }

    fn of(file: fs::File, path: &Path, there: bool) -> io::Result<Self> {
        let Some((shared, name)) = watched(path) else { return Ok(Self { file, watch: None, made: true }) };
        let mut state = lock(&shared);
        if there {
            call(&mut state, Call::Open)?;
        }
        state.look_around();
        let number = match state.names.get(&name).copied().filter(|_| there) {
            Some(number) => number,
            None => {
                let bytes = if there { Some(fs::read(path)?) } else { None };
                state.add(name, bytes)
            }
        };
        drop(state);
        Ok(Self { file, watch: Some((shared, number)), made: true })
    }

    /// Its length.
    ///
    /// # Errors
    /// As the system's.
    pub fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Reads as many bytes as there is room for.
    ///
    /// # Errors
    /// As planned, or as the system's.
    pub fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        if let Some((state, _)) = &self.watch {
            call(&mut lock(state), Call::Read)?;
        }
        (&self.file).seek(SeekFrom::Start(at))?;
        (&self.file).read_exact(into)
    }

    /// Writes; where that is to fail, half of it.
    ///
    /// # Errors
    /// As planned, or as the system's.
    pub fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let put = |bytes: &[u8]| {
            (&self.file).seek(SeekFrom::Start(at))?;
            (&self.file).write_all(bytes)
        };
        let Some((state, number)) = &self.watch else { return put(bytes) };
        let mut state = lock(state);
        if state.dead {
            return Err(error(Failure::PowerCut));
        }
        let failed = call(&mut state, Call::Write);
        let written = if failed.is_ok() { bytes } else { &bytes[..bytes.len() / 2] };
        let offset = usize::try_from(at).expect("a place in memory");
        state.ops.push(Op::Write { file: *number, at: offset, bytes: written.to_vec() });
        put(written)?;
        failed
    }

    /// Makes what was written outlive a power cut.
    ///
    /// # Errors
    /// As planned, or as the system's.
    pub fn sync(&mut self) -> io::Result<()> {
        let Some((state, number)) = &self.watch else { return self.file.sync_data() };
        let mut state = lock(state);
        state.look_around();
        if let Some(failure) = state.fails(Call::Sync) {
            if failure != Failure::PowerCut {
                state.ops.push(Op::SyncFailed { file: *number });
            }
            return Err(error(failure));
        }
        state.ops.push(Op::Sync { file: *number, folder: std::mem::take(&mut self.made) });
        Ok(())
    }

    /// Cuts the file, or makes it longer.
    ///
    /// # Errors
    /// As planned, or as the system's.
    pub fn cut(&self, length: u64) -> io::Result<()> {
        if let Some((state, number)) = &self.watch {
            let mut state = lock(state);
            call(&mut state, Call::Truncate)?;
            let len = usize::try_from(length).expect("a length in memory");
            state.ops.push(Op::Truncate { file: *number, len });
        }
        self.file.set_len(length)
    }
}

/// Syncs a file while the caller does something else: at the end of that, so that a power cut or a failure comes upon all of
/// it.
#[derive(Default)]
pub struct Syncer(());

impl Syncer {
    /// Begins to sync what was written to a file.
    pub fn begin(&mut self, _: &File) {}

    /// There is no thread to be left alone.
    pub fn leave(&mut self) {}

    /// Ends it.
    ///
    /// # Errors
    /// As planned, or as the system's.
    pub fn end(&mut self, file: &mut File) -> io::Result<()> {
        file.sync()
    }
}

/// Removes a file, if it is there.
///
/// # Errors
/// As planned, or as the system's.
pub fn remove(path: &Path) -> io::Result<()> {
    let found = watched(path).filter(|_| path.exists());
    if let Some((state, name)) = found {
        let mut state = lock(&state);
        call(&mut state, Call::Change)?;
        state.names.remove(&name);
        state.ops.push(Op::Delete { name, synced: false });
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
