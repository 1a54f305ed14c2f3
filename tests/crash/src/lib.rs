//! A disk under SQLite, and under files beside it ([`disk`]), that fails and loses power as told: for tests.
//!
//! SQLite does all that it does to files through its *VFS*. The one here passes everything on to the system's, and for
//! the files of a folder that is watched ([`Disk::watch`]) it also notes every write, truncation, sync and deletion, and
//! fails those that it is told to. From the notes it rebuilds what a power cut could have left ([`Disk::images`]):
//!
//! ```text
//! image = what was synced + any subset of what was not, by sectors of 512 bytes, one of which may be torn
//! ```
//!
//! A sync that fails leaves it open for ever whether what it was to sync is on the disk: a later one does not mend that.
//! What is made or deleted in a folder is such a piece too, until the folder is synced. Files that are not SQLite's, and
//! whose names end in `.generation`, are noted as they are found; an image may have any of those contents, but none from before
//! [`Disk::notes_synced`].

pub mod disk;
mod image;
mod vfs;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use image::{Dice, Image, Thoroughness};

/// What can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Opening a file.
    Open,
    /// Reading. A page that is in memory is not read.
    Read,
    /// Writing: half of it is done.
    Write,
    /// Syncing: nobody knows what is.
    Sync,
    /// Cutting a file.
    Truncate,
    /// Any of those that change something, deletions too.
    Change,
}

/// How it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// EIO.
    Io,
    /// ENOSPC.
    Full,
    /// EROFS: the file system was mounted again, read-only.
    ReadOnly,
    /// The power is cut: from here on, every call fails.
    PowerCut,
}

/// A failure to come.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// What fails.
    pub call: Call,
    /// How many such calls go well before.
    pub after: u64,
    /// How it fails.
    pub failure: Failure,
    /// Whether all such calls after it fail too.
    pub lasting: bool,
}

/// Something that was done to a watched file.
#[derive(Clone, Debug)]
enum Op {
    /// A file that was there before SQLite opened it, and its content.
    Found {
        name: String,
        bytes: Vec<u8>,
    },
    /// A file was made.
    Made {
        name: String,
    },
    Write {
        file: usize,
        at: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        file: usize,
        len: usize,
    },
    Sync {
        file: usize,
        folder: bool,
    },
    SyncFailed {
        file: usize,
    },
    Delete {
        name: String,
        synced: bool,
    },
    /// A file that is not SQLite's has another content, or (`None`) is gone.
    Note {
        name: String,
        bytes: Option<Vec<u8>>,
    },
    /// Those files were synced, as they are.
    NotesSynced,
}

#[derive(Default)]
struct State {
    folder: PathBuf,
    ops: Vec<Op>,
    /// How many files there were.
    files: usize,
    /// The file that has a name.
    names: HashMap<String, usize>,
    notes: HashMap<String, Vec<u8>>,
    fault: Option<Fault>,
    failed: u64,
    dead: bool,
}

impl State {
    /// Takes a file in that was made, or was there with some content; its number.
    fn add(&mut self, name: String, there: Option<Vec<u8>>) -> usize {
        let number = self.files;
        self.files += 1;
        self.names.insert(name.clone(), number);
        self.ops.push(match there {
            Some(bytes) => Op::Found { name, bytes },
            None => Op::Made { name },
        });
        number
    }

    /// Notes what became of files that are not SQLite's.
    fn look_around(&mut self) {
        if self.dead {
            return;
        }
        let mut found = HashMap::new();
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".generation")
                && let Ok(bytes) = std::fs::read(entry.path())
            {
                found.insert(name, bytes);
            }
        }
        for (name, bytes) in &found {
            if self.notes.get(name) != Some(bytes) {
                self.ops.push(Op::Note { name: name.clone(), bytes: Some(bytes.clone()) });
            }
        }
        for name in self.notes.keys().filter(|name| !found.contains_key(*name)) {
            self.ops.push(Op::Note { name: name.clone(), bytes: None });
        }
        self.notes = found;
    }

    /// How a call ends that is made now, where it is to fail.
    fn fails(&mut self, call: Call) -> Option<Failure> {
        if self.dead {
            return Some(Failure::PowerCut);
        }
        let changes = !matches!(call, Call::Open | Call::Read);
        let fault = self.fault.as_mut()?;
        if fault.call != call && !(fault.call == Call::Change && changes) {
            return None;
        }
        if fault.after > 0 {
            fault.after -= 1;
            return None;
        }
        let failure = fault.failure;
        self.failed += 1;
        self.dead = failure == Failure::PowerCut;
        if !fault.lasting {
            self.fault = None;
        }
        Some(failure)
    }
}

/// A watched folder. It is no longer watched once this is dropped.
pub struct Disk {
    state: Arc<Mutex<State>>,
}

static WATCHED: Mutex<Vec<Arc<Mutex<State>>>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The watched folder that a file is in, and its name there.
fn watched(path: &Path) -> Option<(Arc<Mutex<State>>, String)> {
    let name = path.file_name()?.to_string_lossy().into_owned();
    let folder = path.parent()?;
    let found = lock(&WATCHED).iter().find(|state| lock(state).folder == folder).cloned();
    Some((found?, name))
}

impl Disk {
    /// Watches the files of a folder from here on; none may be open. What is there counts as synced.
    pub fn watch(folder: &Path) -> Self {
        vfs::install();
        let mut state = State { folder: folder.to_owned(), ..State::default() };
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.ends_with(".generation") {
                state.add(name, Some(std::fs::read(entry.path()).unwrap_or_default()));
            }
        }
        state.look_around();
        let state = Arc::new(Mutex::new(state));
        lock(&WATCHED).push(Arc::clone(&state));
        Self { state }
    }

    /// How many things were done so far.
    pub fn now(&self) -> usize {
        let mut state = lock(&self.state);
        state.look_around();
        state.ops.len()
    }

    /// Plans a failure, or takes it back.
    pub fn fail(&self, fault: Option<Fault>) {
        lock(&self.state).fault = fault;
    }

    /// How many calls were made to fail.
    pub fn failed(&self) -> u64 {
        lock(&self.state).failed
    }

    /// Whether the power was cut.
    pub fn is_dead(&self) -> bool {
        lock(&self.state).dead
    }

    /// The files that are noted as they are found were synced by whoever wrote them: none of what they had before comes
    /// back.
    pub fn notes_synced(&self) {
        let mut state = lock(&self.state);
        state.look_around();
        state.ops.push(Op::NotesSynced);
    }

    /// Calls `look` with images that a power cut could have left, none twice: after each thing that was done since
    /// `since`. Gives how many there were.
    pub fn images(&self, since: usize, how: Thoroughness, dice: &mut Dice, look: impl FnMut(&Image)) -> usize {
        let ops = {
            let mut state = lock(&self.state);
            state.look_around();
            state.ops.clone()
        };
        image::images(&ops, since, how, dice, look)
    }

    /// One image of a power cut now, drawn.
    pub fn cut(&self, dice: &mut Dice) -> Image {
        let mut state = lock(&self.state);
        state.look_around();
        image::cut(&state.ops, dice)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        lock(&WATCHED).retain(|state| !Arc::ptr_eq(state, &self.state));
    }
}
