//! A gateway: an engine over a store that fails, and is opened again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use interlane_crash::{Call, Dice, Disk, Failure};
use interlane_lanes::Backend;
use tempfile::TempDir;

use super::planted::{Planted, untrue};
use crate::batch::Turn;
use crate::store::Store;
use crate::store::simulated::{Server, SimulatedStore};
use crate::store::sqlite::SqliteStore;
use crate::{BufferLimits, Durability, Engine, Error, Location, Options, Secret};

/// How a desk's engine is opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    pub(super) durability: Durability,
    pub(super) buffer: Option<BufferLimits>,
    pub(super) padding: bool,
    /// How many sessions it has room for.
    pub(super) residents: Option<usize>,
    /// Bytes of the journal before it is folded.
    pub(super) fold_at: u64,
    pub(super) planted: Option<Planted>,
}

/// Where its state is.
pub(super) enum Kept {
    Sqlite(Folder),
    Shared { server: Arc<Server>, name: String },
}

/// A gateway.
pub(super) struct Desk {
    pub(super) manner: Manner,
    pub(super) kept: Kept,
    pub(super) engine: Option<Engine>,
    /// How often it was opened.
    pub(super) life: u64,
    pub(super) turn: Turn,
    /// How its disk is to fail next, or did last.
    pub(super) planned: Option<Failure>,
    /// How many calls its disk had made to fail when it was opened.
    pub(super) failed_before: u64,
}

/// A store's files on a disk that does as told.
pub(super) struct Folder {
    folder: TempDir,
    pub(super) disk: Disk,
}

impl Folder {
    pub(super) fn new() -> Self {
        Self::watched(fresh())
    }

    fn watched(folder: TempDir) -> Self {
        let disk = Disk::watch(folder.path());
        Self { folder, disk }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("gateway.db")
    }

    /// What is there when whoever has the store open dies now, or the machine.
    pub(super) fn after(&self, power_cut: bool, dice: &mut Dice) -> Self {
        let copy = fresh();
        if power_cut {
            self.disk.cut(dice).write(copy.path());
        } else {
            copy_files(self.folder.path(), copy.path());
        }
        Self::watched(copy)
    }

    /// The same files, closed, but for the database and its log: those are the copy's.
    pub(super) fn with_copy(&self, copy: &Path) -> Self {
        let folder = fresh();
        std::fs::copy(copy, folder.path().join("gateway.db")).expect("a copy is there");
        let note = "gateway.db.generation";
        // A store that was put elsewhere has none.
        let _ = std::fs::copy(self.folder.path().join(note), folder.path().join(note));
        Self::watched(folder)
    }
}

/// Memory is a disk that loses nothing: what a cut leaves is what `Disk` says, not what the machine does.
fn fresh() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
    made.expect("a folder for a simulated disk")
}

fn copy_files(from: &Path, to: &Path) {
    let files = std::fs::read_dir(from).expect("a folder");
    for file in files {
        let file = file.expect("a file");
        std::fs::copy(file.path(), to.join(file.file_name())).expect("a file can be copied");
    }
}

pub(super) fn operator_key() -> Secret<32> {
    Secret::copy_of(&[42; 32])
}

impl Desk {
    pub(super) fn new(manner: Manner, kept: Kept) -> Self {
        Self { manner, kept, engine: None, life: 0, turn: Turn::default(), planned: None, failed_before: 0 }
    }

    pub(super) fn disk(&self) -> Option<&Disk> {
        match &self.kept {
            Kept::Sqlite(folder) => Some(&folder.disk),
            Kept::Shared { .. } => None,
        }
    }

    pub(super) fn is_shared(&self) -> bool {
        self.disk().is_none()
    }

    pub(super) fn is_dead(&self) -> bool {
        self.disk().is_some_and(Disk::is_dead)
    }

    /// How many calls the disk made to fail.
    pub(super) fn failed(&self) -> u64 {
        self.disk().map_or(0, Disk::failed)
    }

    /// How many rows a lease has; 0: none.
    pub(super) fn lease(&self) -> u64 {
        match self.manner.durability {
            Durability::Strict => 0,
            Durability::Leased(lease) => lease.into(),
        }
    }

    pub(super) fn options(&self) -> Options {
        let location = match &self.kept {
            Kept::Sqlite(folder) => Location::Sqlite { path: folder.path(), key: operator_key(), generation: None },
            Kept::Shared { .. } => Location::Memory,
        };
        let backend = Backend::detect().expect("INTERLANE_BACKEND is one of this machine");
        Options {
            padding: self.manner.padding,
            durability: self.manner.durability,
            receive_buffer: self.manner.buffer,
            resident_sessions: self.manner.residents,
            ..Options::new(location, backend)
        }
    }

    /// Another engine over the same store.
    pub(super) fn open_another(&self) -> Result<Engine, Error> {
        let store: Box<dyn Store> = match &self.kept {
            Kept::Sqlite(folder) => {
                let mut store = SqliteStore::open(&folder.path(), operator_key(), None)?;
                store.fold_at(self.manner.fold_at);
                Box::new(store)
            }
            Kept::Shared { server, name } => Box::new(SimulatedStore::open(server, name)?),
        };
        let store = match self.manner.planted {
            Some(planted) => untrue(store, planted),
            None => store,
        };
        Engine::over(store, self.options())
    }

    /// Opens the store; a new life begins.
    pub(super) fn open(&mut self) -> Result<(), Error> {
        self.engine = None;
        self.engine = Some(self.open_another()?);
        self.turn = Turn::default();
        self.failed_before = self.failed();
        self.life += 1;
        Ok(())
    }
}

/// A failure of a disk to come, drawn.
pub(super) fn draw_failure(dice: &mut Dice) -> interlane_crash::Fault {
    let (call, failure) = match dice.below(12) {
        0 => (Call::Write, Failure::Io),
        1 | 2 => (Call::Write, Failure::Full),
        3 => (Call::Write, Failure::ReadOnly),
        4 | 5 => (Call::Sync, Failure::Io),
        6 => (Call::Sync, Failure::Full),
        7 => (Call::Truncate, Failure::Io),
        8 => (Call::Read, Failure::Io),
        _ => (Call::Change, Failure::Io),
    };
    interlane_crash::Fault { call, after: dice.below(20) as u64, failure, lasting: dice.one_in(3) }
}

/// The power cut to come, drawn: at a write, a sync or whatever else changes the disk.
pub(super) fn draw_cut(dice: &mut Dice) -> interlane_crash::Fault {
    let after = dice.below(24) as u64;
    interlane_crash::Fault { call: Call::Change, after, failure: Failure::PowerCut, lasting: true }
}
