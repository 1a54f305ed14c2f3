//! The generation: how far a store has come, noted outside of its file.
//!
//! Whoever puts an old copy in a store's place takes every counter back with it, and the file cannot know. So the
//! number of the last block of its journal is noted in a file beside it and, where the operator names one, in a second
//! place, which an old copy of the whole machine does not take back:
//!
//! ```text
//! store id, 16 bytes ‖ number, 8 bytes, little-endian [‖ 1: a second place was named]
//! ```
//!
//! The last byte is beside the store alone. It tells a second place that is new from one whose disk is not there: that
//! would be taken for new, too, just when a machine has been set back.
//!
//! It is written in place after each commit, and synced when the store is opened and closed. A crash may leave it
//! behind the store, which harms nothing; a store that is behind its note is an old one.
//!
//! The note beside the store is also what its owner and a copier agree by: who holds its lock keeps the log from being
//! copied back into the database.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::sealed::StoreId;
use super::sqlite::{beside, said, sync_folder};
use crate::error::Error;

/// Bytes of a note.
const NOTE: usize = size_of::<StoreId>() + 8;

/// Behind the note beside a store that has a second one.
const HAS_SECOND: u8 = 1;

/// Stands while an old store is being declared: what was begun and not ended is refused.
const DECLARING: u64 = u64::MAX;

/// Further than any store of an older generation can have come: once declared, a store cannot be taken for one.
pub(super) const LEAP: u64 = 1 << 32;

/// The places in which a store's generation is noted.
pub(super) struct Generation {
    /// The first is beside the store.
    places: Vec<(PathBuf, File)>,
    store_id: StoreId,
    /// A second place was named, now or before.
    has_second: bool,
    declaring: bool,
}

/// What a place has.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Note {
    store_id: StoreId,
    number: u64,
    has_second: bool,
}

/// The note beside a store.
pub(super) fn path_beside(store: &Path) -> PathBuf {
    // By whatever name a store is opened, its note has one.
    beside(&fs::canonicalize(store).unwrap_or_else(|_| store.to_owned()), ".generation")
}

impl Generation {
    /// Opens a store's notes. A store that is behind them is refused, unless it is to be declared: then the notes say
    /// so until [`Self::declare`], and the number that it has to go on from is given.
    pub(super) fn open(
        store: &Path,
        second: Option<&Path>,
        store_id: StoreId,
        number: u64,
        declaring: bool,
    ) -> Result<(Self, u64), Error> {
        let mut generation = Self { places: Vec::new(), store_id, has_second: second.is_some(), declaring };
        let (mut newest, mut stale, mut had_second) = (number, declaring, false);
        for (i, path) in std::iter::once(path_beside(store)).chain(second.map(Path::to_owned)).enumerate() {
            let (mut file, made) = open_or_make(&path).map_err(|error| failed(&path, &error))?;
            let note = if made { None } else { read(&mut file).map_err(|error| failed(&path, &error))? };
            let ours = note.is_some_and(|note| note.store_id == store_id);
            let text = match note {
                // A mistyped second place must not cost another store its own.
                Some(_) if !ours && i > 0 => {
                    return Err(said(&path, "is another store's generation file: name another place"));
                }
                _ if declaring => None,
                // Nothing was ever written to it; what is there was left by a store that is gone.
                _ if number == 0 && i == 0 && !ours => None,
                None if made && i > 0 && had_second => {
                    Some("has a second generation file, which is not there: see that its disk is, or move it there")
                }
                // A second place is given for the first time.
                None if made && i > 0 => None,
                None => Some("cannot show that it is the newest state, for its generation file is missing or damaged"),
                Some(_) if !ours => Some("is not the store that its generation file was made for"),
                Some(note) if note.number > number => Some("is older than it was: a copy was put in its place"),
                Some(_) => None,
            };
            if let Some(text) = text {
                if made {
                    let _ = fs::remove_file(&path);
                }
                let (note, store_path) = (path.display(), store.display());
                let command = format!("{text} ({note}); declare it: interlane restore --store {store_path}");
                return Err(said(store, &command));
            }
            if let Some(note) = note.filter(|_| ours) {
                had_second |= note.has_second;
                generation.has_second |= had_second;
                if note.number != DECLARING {
                    newest = newest.max(note.number);
                }
            }
            stale |= note != Some(Note { store_id, number, has_second: i == 0 && generation.has_second });
            generation.places.push((path, file));
        }
        if stale {
            generation.write(if declaring { DECLARING } else { number })?;
            generation.sync()?;
        }
        Ok((generation, newest + LEAP))
    }

    /// Notes that the store has come so far.
    pub(super) fn set(&mut self, number: u64) -> Result<(), Error> {
        if self.declaring { Ok(()) } else { self.write(number) }
    }

    /// The store is the newest from here on.
    pub(super) fn declare(&mut self, number: u64) -> Result<(), Error> {
        self.declaring = false;
        self.write(number)?;
        self.sync()
    }

    fn write(&mut self, number: u64) -> Result<(), Error> {
        let mut note = [HAS_SECOND; NOTE + 1];
        note[..16].copy_from_slice(&self.store_id);
        note[16..NOTE].copy_from_slice(&number.to_le_bytes());
        for (i, (path, file)) in self.places.iter_mut().enumerate() {
            let note = &note[..note_bytes(i, self.has_second)];
            file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(note)).map_err(|error| failed(path, &error))?;
        }
        Ok(())
    }

    /// Makes the notes outlive a power cut.
    pub(super) fn sync(&self) -> Result<(), Error> {
        for (i, (path, file)) in self.places.iter().enumerate() {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            // What it was before may have been longer.
            let cut = file.set_len(note_bytes(i, self.has_second) as u64).and_then(|()| file.sync_all());
            cut.and_then(|()| sync_folder(folder)).map_err(|error| failed(path, &error))?;
        }
        Ok(())
    }

    /// Whether nobody copies the store, who then cannot begin to before [`Self::release`].
    pub(super) fn try_hold(&self) -> Result<bool, Error> {
        let Some((path, file)) = self.places.first() else { return Err(Error::Closed) };
        match file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(failed(path, &error)),
        }
    }

    /// Waits until nobody copies the store.
    pub(super) fn hold(&self) -> Result<(), Error> {
        let Some((path, file)) = self.places.first() else { return Ok(()) };
        file.lock().map_err(|error| failed(path, &error))
    }

    /// Lets go of the files, and of what was held: who comes after may open them, or their disk be taken away.
    pub(super) fn close(&mut self) {
        self.places.clear();
    }

    pub(super) fn release(&self) {
        // It goes with the file too.
        let _ = self.places.first().map(|(_, file)| file.unlock());
    }
}

fn failed(path: &Path, error: &io::Error) -> Error {
    said(path, &format!("cannot be used to note the store's generation: {error}"))
}

/// The file, and whether it was made; others may not read it.
fn open_or_make(path: &Path) -> io::Result<(File, bool)> {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return Ok((opened?, false)),
    }
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    Ok((options.create_new(true).open(path)?, true))
}

/// Bytes of the note in a place, by its number.
fn note_bytes(place: usize, has_second: bool) -> usize {
    if place == 0 && has_second { NOTE + 1 } else { NOTE }
}

/// What is noted, if it is a note.
fn read(file: &mut File) -> io::Result<Option<Note>> {
    let mut bytes = Vec::with_capacity(NOTE + 2);
    file.take(NOTE as u64 + 2).read_to_end(&mut bytes)?;
    let Some((store_id, rest)) = bytes.split_first_chunk() else { return Ok(None) };
    let Some((number, rest)) = rest.split_first_chunk() else { return Ok(None) };
    let has_second = match rest {
        [] => false,
        [HAS_SECOND] => true,
        _ => return Ok(None),
    };
    Ok(Some(Note { store_id: *store_id, number: u64::from_le_bytes(*number), has_second }))
}
