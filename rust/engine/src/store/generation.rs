//! The generation: how far a store has come, noted outside of its file.
//!
//! Whoever puts an old copy in a store's place takes every counter back with it, and the file cannot know. So the
//! number of the last block of its journal is noted in a file beside it and, where the operator names one, in a second
//! place, which an old copy of the whole machine does not take back:
//!
//! ```text
//! store id, 16 bytes ‖ number, 8 bytes, little-endian ‖ 1: a second place was named ‖ owner, 8 bytes
//! ```
//!
//! The second place is told of beside the store alone. That tells one that is new from one whose disk is not there: it
//! would be taken for new, too, just when a machine has been set back. Notes of earlier versions end with that byte, or
//! in front of it where it would be 0.
//!
//! The number is written in place after each commit, and synced when the store is opened and closed. A crash may leave
//! it behind the store, which harms nothing; a store that is behind its note is an old one. So what an opening finds is noted
//! when the disk is known to have it, and not before.
//!
//! # The owner
//!
//! A store has one owner, which locks see to. Some file systems grant a lock to everybody, and then several engines
//! believe that they have the store. So each draws a random number when it opens the store, puts it into the note, and
//! from then on looks whether it is still there. It does so in this order:
//!
//! ```text
//! opening:  read the store and the note · put the owner · read the number again: another one than before? refused
//! a commit: owner? · commit · owner? · put the number · owner? then what it was for may leave
//! ```
//!
//! Nobody else writes the owner, so it is of whoever opened last. Where a commit of one engine was not in what another
//! one read, either the owner was put before the engine looked for the second time, and it lets nothing leave, or the
//! number was put before the owner was, and the other one refuses to open the store. So whatever left is in what the
//! owner has read.
//!
//! This is no lock, and so two can write to the files at once: one that has asked, and one that opens meanwhile. Who
//! finds that it may have been so (the owner is another one after it has written, and not before) says so in the note,
//! in place of number and owner. Then nobody has the store, and nobody opens it before it is declared.
//!
//! The note beside the store is also what its owner and a copier agree by: who holds its lock keeps the log from being
//! copied back into the database.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::mem::take;
use std::path::{Path, PathBuf};

use super::sealed::{self, StoreId};
use super::sqlite::{beside_itself, said, sync_folder};
use crate::error::Error;

/// Drawn when a store is opened.
type Owner = [u8; 8];

/// Where the number begins in a note.
const NUMBER: usize = size_of::<StoreId>();

/// Where the byte is that tells of a second place: [`HAS_SECOND`] or 0.
const SECOND: usize = NUMBER + 8;

/// Where the owner begins.
const OWNER: usize = SECOND + 1;

/// Bytes of a note.
const NOTE: usize = OWNER + size_of::<Owner>();

/// In the note beside a store that has a second one.
const HAS_SECOND: u8 = 1;

/// Stands while an old store is being declared: what was begun and not ended is refused.
const DECLARING: u64 = u64::MAX;

/// Stands once two engines may have written to the store at once.
const IN_DOUBT: u64 = u64::MAX - 1;

/// The owner of a store that is in doubt.
const NOBODY: Owner = [0xff; 8];

/// What whoever has the store open with another one is told.
const OPENED_TOO: &str = "says that another process has opened the store too, which its file system should not have \
                          allowed: nothing leaves here any more; close both, and keep the store on a local disk";

/// Further than any store of an older generation can have come: once declared, a store cannot be taken for one.
pub(super) const LEAP: u64 = 1 << 32;

/// The places in which a store's generation is noted.
pub(super) struct Generation {
    /// The first is beside the store.
    places: Vec<(PathBuf, File)>,
    store_id: StoreId,
    /// A second place was named, now or before.
    has_second: bool,
    /// Of this opening.
    owner: Owner,
    declaring: bool,
    /// A place does not have the number that the store was found with.
    behind: bool,
}

/// What a place has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Note {
    store_id: StoreId,
    number: u64,
    has_second: bool,
}

impl Note {
    /// What is noted, if it is a note.
    fn of(bytes: &[u8]) -> Option<Self> {
        let (store_id, rest) = bytes.split_first_chunk()?;
        // Its owner was put, and nothing else: it was made a moment before the machine stopped.
        if *store_id == StoreId::default() {
            return None;
        }
        let (number, rest) = rest.split_first_chunk()?;
        let has_second = match rest {
            [] => false,
            [HAS_SECOND] => true,
            [second @ (0 | HAS_SECOND), owner @ ..] if owner.len() == size_of::<Owner>() => *second == HAS_SECOND,
            _ => return None,
        };
        Some(Self { store_id: *store_id, number: u64::from_le_bytes(*number), has_second })
    }
}

/// Notes that were read and not written.
struct Looked {
    generation: Generation,
    /// What they began with.
    heads: Vec<[u8; OWNER]>,
    /// They say something else than they are to, apart from the number.
    stale: bool,
    /// The highest number that they say.
    noted: u64,
}

impl Looked {
    /// Makes the store this engine's.
    ///
    /// # Errors
    /// [`Error::Store`], also where another engine has gone on with the store since the notes were read.
    fn claim(self) -> Result<Generation, Error> {
        self.put_owner()?;
        self.take()
    }

    /// The owner alone: what another one notes at this moment must stay.
    fn put_owner(&self) -> Result<(), Error> {
        self.generation.places.iter().try_for_each(|(path, file)| put(path, file, OWNER, &self.generation.owner))
    }

    /// The rest, once the owner is there.
    fn take(self) -> Result<Generation, Error> {
        let Self { generation, heads, stale, noted } = self;
        for ((path, file), before) in generation.places.iter().zip(&heads) {
            // So that other machines see it.
            file.sync_data().map_err(|error| failed(path, &error))?;
            if head(&read_anew(path, file).map_err(|error| failed(path, &error))?) != *before {
                return Err(said(
                    path,
                    "was written to by another process that has the store open, which its file system should not have \
                     allowed: close both, and keep the store on a local disk",
                ));
            }
        }
        if stale {
            let number = if generation.declaring { DECLARING } else { noted };
            let mut head = [0; OWNER];
            head[..NUMBER].copy_from_slice(&generation.store_id);
            head[NUMBER..SECOND].copy_from_slice(&number.to_le_bytes());
            head[SECOND] = if generation.has_second { HAS_SECOND } else { 0 };
            for (path, file) in &generation.places {
                put(path, file, 0, &head)?;
                // Beside the store alone.
                head[SECOND] = 0;
            }
            generation.sync()?;
        }
        Ok(generation)
    }
}

/// The note beside a store.
pub(super) fn path_beside(store: &Path) -> PathBuf {
    beside_itself(store, ".generation")
}

impl Generation {
    /// Opens a store's notes. A store that is behind them is refused, unless it is to be declared: then the notes say
    /// so until [`Self::declare`], and the number that it has to go on from is given. The store is this engine's from
    /// then on: see above. [`Self::catch_up`] is to follow.
    pub(super) fn open(
        store: &Path,
        second: Option<&Path>,
        store_id: StoreId,
        number: u64,
        declaring: bool,
    ) -> Result<(Self, u64), Error> {
        let (looked, newest) = Self::look(store, second, store_id, number, declaring)?;
        Ok((looked.claim()?, newest + LEAP))
    }

    /// Reads the notes, and refuses what is to be refused. Gives the newest number that there was, too.
    fn look(
        store: &Path,
        second: Option<&Path>,
        store_id: StoreId,
        number: u64,
        declaring: bool,
    ) -> Result<(Looked, u64), Error> {
        let mut owner = Owner::default();
        sealed::random(&mut owner)?;
        let has_second = second.is_some();
        let mut generation = Self { places: Vec::new(), store_id, has_second, owner, declaring, behind: false };
        let (mut noted, mut stale, mut had_second, mut heads) = (0, declaring, false, Vec::new());
        for (i, path) in std::iter::once(path_beside(store)).chain(second.map(Path::to_owned)).enumerate() {
            let (file, made) = open_or_make(&path).map_err(|error| failed(&path, &error))?;
            let bytes = read(&file).map_err(|error| failed(&path, &error))?;
            let note = Note::of(&bytes);
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
                Some(note) if note.number == IN_DOUBT => Some(
                    "may be damaged: two processes had it open at once, which its file system should not have allowed; \
                     keep it on a local disk",
                ),
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
            let note = note.filter(|_| ours);
            if let Some(note) = note {
                had_second |= note.has_second;
                generation.has_second |= had_second;
                if note.number < IN_DOUBT {
                    noted = noted.max(note.number);
                }
            }
            stale |= note.map(|note| note.has_second) != Some(i == 0 && generation.has_second);
            generation.behind |= note.map(|note| note.number) != Some(number);
            heads.push(head(&bytes));
            generation.places.push((path, file));
        }
        Ok((Looked { generation, heads, stale, noted }, number.max(noted)))
    }

    /// Notes that the store has come so far.
    ///
    /// # Errors
    /// [`Error::Store`], also where the store has another owner by now: nothing of what was committed may leave.
    pub(super) fn set(&mut self, number: u64) -> Result<(), Error> {
        if !self.declaring {
            self.put_number(number)?;
        }
        self.confirm_owner()
    }

    /// Notes the number that the store was found with, once it outlives a power cut.
    pub(super) fn catch_up(&mut self, number: u64) -> Result<(), Error> {
        if take(&mut self.behind) {
            self.set(number)?;
            self.sync()?;
        }
        Ok(())
    }

    fn put_number(&self, number: u64) -> Result<(), Error> {
        self.places.iter().try_for_each(|(path, file)| put(path, file, NUMBER, &number.to_le_bytes()))
    }

    /// The store is the newest from here on.
    pub(super) fn declare(&mut self, number: u64) -> Result<(), Error> {
        self.declaring = false;
        self.set(number)?;
        self.sync()
    }

    /// That no other engine has opened the store since this one did. To be called before it is read or written.
    pub(super) fn check_owner(&self) -> Result<(), Error> {
        match self.anothers()? {
            Some(path) => Err(said(path, OPENED_TOO)),
            None => Ok(()),
        }
    }

    /// The same, after something was written: if another one has opened the store meanwhile, it is in doubt.
    pub(super) fn confirm_owner(&self) -> Result<(), Error> {
        let Some(path) = self.anothers()? else { return Ok(()) };
        let second = if self.has_second { HAS_SECOND } else { 0 };
        for (i, (path, file)) in self.places.iter().enumerate() {
            let second = if i == 0 { second } else { 0 };
            let doubt = [&IN_DOUBT.to_le_bytes()[..], &[second], &NOBODY].concat();
            // In one write, so that nobody finds half of it. Where there can be none, this engine has stopped at least.
            if put(path, file, NUMBER, &doubt).is_ok() {
                let _ = file.sync_data();
            }
        }
        Err(said(path, OPENED_TOO))
    }

    /// The place where another owner is noted.
    fn anothers(&self) -> Result<Option<&Path>, Error> {
        for (path, file) in &self.places {
            let note = read_anew(path, file).map_err(|error| failed(path, &error))?;
            if note.get(OWNER..NOTE) != Some(&self.owner) {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    /// Makes the notes outlive a power cut.
    pub(super) fn sync(&self) -> Result<(), Error> {
        for (path, file) in &self.places {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            // What it was before may have been longer.
            let cut = file.set_len(NOTE as u64).and_then(|()| file.sync_all());
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

fn put(path: &Path, mut file: &File, at: usize, bytes: &[u8]) -> Result<(), Error> {
    let put = file.seek(SeekFrom::Start(at as u64)).and_then(|_| file.write_all(bytes));
    put.map_err(|error| failed(path, &error))
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

/// What a file begins with, and whether there is more than a note.
fn read(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(NOTE + 1);
    file.take(NOTE as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The same, as others see it: a shared file system looks for what was written elsewhere when a file is opened. A name
/// that cannot be opened, or that nobody has any more, tells nothing of others.
fn read_anew(path: &Path, mut file: &File) -> io::Result<Vec<u8>> {
    if let Ok(bytes) = File::open(path).and_then(|file| read(&file)) {
        return Ok(bytes);
    }
    file.seek(SeekFrom::Start(0))?;
    read(file)
}

/// The note but for the owner, with zeros where there is none.
fn head(bytes: &[u8]) -> [u8; OWNER] {
    let mut head = [0; OWNER];
    let length = bytes.len().min(OWNER);
    head[..length].copy_from_slice(&bytes[..length]);
    head
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tempfile::TempDir;

    use super::*;

    const ID: StoreId = [7; 16];

    /// In memory where that can be: what is looked at here is no disk.
    fn folder() -> TempDir {
        TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap()
    }

    #[test]
    fn a_note_has_a_few_forms() {
        let number = 5_u64.to_le_bytes();
        let note = |rest: &[u8]| Note::of(&[&ID[..], &number, rest].concat());
        let of = |has_second| Some(Note { store_id: ID, number: 5, has_second });
        for (rest, expected) in [
            // Of earlier versions.
            (&[][..], of(false)),
            (&[1], of(true)),
            (&[0], None),
            (&[0, 9, 9, 9, 9, 9, 9, 9, 9], of(false)),
            (&[1, 9, 9, 9, 9, 9, 9, 9, 9], of(true)),
            (&[2, 9, 9, 9, 9, 9, 9, 9, 9], None),
            (&[1, 9, 9, 9, 9, 9, 9, 9], None),
            (&[1, 9, 9, 9, 9, 9, 9, 9, 9, 9], None),
        ] {
            assert_eq!(note(rest), expected, "{rest:?}");
        }
        assert_eq!(Note::of(&[]), None);
        assert_eq!(Note::of(&[7; 23]), None);
        assert_eq!(Note::of(&[0; NOTE]), None, "but for the owner nothing was written");
    }

    #[test]
    fn notes_of_earlier_versions_are_taken_over() {
        for (second, rest) in [(false, &[][..]), (true, &[HAS_SECOND])] {
            let folder = folder();
            let store = folder.path().join("gateway.db");
            let elsewhere = folder.path().join("second");
            let elsewhere = second.then_some(elsewhere.as_path());
            let note = path_beside(&store);
            let old = [&ID[..], &5_u64.to_le_bytes()].concat();
            fs::write(&note, [&old, rest].concat()).unwrap();
            if let Some(path) = elsewhere {
                fs::write(path, &old).unwrap();
            }
            assert!(Generation::open(&store, elsewhere, ID, 4, false).is_err());
            assert_eq!(fs::read(&note).unwrap(), [&old, rest].concat(), "what is refused stays as it is");
            let (mut generation, _) = Generation::open(&store, elsewhere, ID, 6, false).unwrap();
            generation.set(7).unwrap();
            for (path, flag) in [(note.as_path(), u8::from(second))].into_iter().chain(elsewhere.map(|path| (path, 0)))
            {
                let found = fs::read(path).unwrap();
                assert_eq!(found[..OWNER], [&ID[..], &7_u64.to_le_bytes(), &[flag]].concat());
                assert_eq!(found[OWNER..], generation.owner);
            }
        }
    }

    #[test]
    fn an_owner_is_known_in_each_place() {
        let folder = folder();
        let [store, elsewhere] = ["gateway.db", "second"].map(|name| folder.path().join(name));
        let (generation, _) = Generation::open(&store, Some(&elsewhere), ID, 0, false).unwrap();
        generation.check_owner().unwrap();
        for path in [path_beside(&store), elsewhere] {
            let ours = fs::read(&path).unwrap();
            for others in [&ours[..NOTE - 1], &ours[..SECOND], &[], &[ours.as_slice(), &[1]].concat()[1..]] {
                fs::write(&path, others).unwrap();
                assert!(generation.check_owner().is_err(), "{others:?}");
            }
            // What is put in its place, too.
            fs::write(&path, &ours).unwrap();
            fs::rename(&path, folder.path().join("aside")).unwrap();
            generation.check_owner().unwrap();
            fs::write(&path, [&ours[..OWNER], &[1; 8]].concat()).unwrap();
            assert!(generation.check_owner().is_err());
            fs::write(&path, &ours).unwrap();
            generation.check_owner().unwrap();
        }
    }

    /// An engine on a file system without locks, whose calls are done one by one.
    #[derive(Default)]
    struct Stepped {
        done: usize,
        /// How far it has come.
        number: u64,
        looked: Option<Looked>,
        generation: Option<Generation>,
        refused: bool,
    }

    /// The store, and what it was used for: how often each number was.
    struct Shared {
        path: PathBuf,
        number: u64,
        used: BTreeMap<u64, u32>,
    }

    /// Calls of an engine that opens the store and commits once.
    const CALLS: usize = 9;

    impl Stepped {
        fn step(&mut self, shared: &mut Shared) {
            let call = self.done;
            self.done += 1;
            if !self.refused {
                self.refused = self.go(call, shared).is_err();
            }
        }

        fn go(&mut self, call: usize, shared: &mut Shared) -> Result<(), Error> {
            let generation = || self.generation.as_ref().expect("it is open");
            match call {
                0 => self.number = shared.number,
                1 => self.looked = Some(Generation::look(&shared.path, None, ID, self.number, false)?.0),
                2 => self.looked.as_ref().expect("it has looked").put_owner()?,
                3 => self.generation = Some(self.looked.take().expect("it has looked").take()?),
                4 => self.generation.as_mut().expect("it is open").catch_up(self.number)?,
                5 => generation().check_owner()?,
                6 => {
                    self.number += 1;
                    shared.number = shared.number.max(self.number);
                }
                7 => generation().put_number(self.number)?,
                _ => {
                    generation().confirm_owner()?;
                    *shared.used.entry(self.number).or_default() += 1;
                }
            }
            Ok(())
        }

        fn commit(&mut self, shared: &mut Shared) {
            for call in 5..CALLS {
                if !self.refused {
                    self.refused = self.go(call, shared).is_err();
                }
            }
        }
    }

    /// Two engines that all locks were granted to, in whatever order they do what they do.
    #[test]
    fn of_two_engines_at_once_one_uses_each_number() {
        let folder = folder();
        let path = folder.path().join("gateway.db");
        // Each 16th where this would wait for a disk.
        let every = if folder.path().starts_with("/dev/shm") { 1 } else { 16 };
        let (mut both_open, mut none_goes_on, mut looked_at) = (0, 0, 0);
        // A new store, and one that was written to; its note is as it is to be, or behind.
        for (begun, behind) in [(false, 0), (true, 0), (true, 1)] {
            let orders = (0..1_u32 << (2 * CALLS)).filter(|order| order.count_ones() as usize == CALLS);
            for order in orders.step_by(every) {
                let _ = fs::remove_file(path_beside(&path));
                let mut shared = Shared { path: path.clone(), number: 0, used: BTreeMap::new() };
                let mut engines = [Stepped::default(), Stepped::default()];
                if begun {
                    let mut before = Generation::open(&path, None, ID, 0, false).unwrap().0;
                    shared.number = 1;
                    before.set(1 - behind).unwrap();
                }
                for i in 0..2 * CALLS {
                    engines[(order >> i & 1) as usize].step(&mut shared);
                }
                both_open += u32::from(engines.iter().all(|engine| engine.generation.is_some()));
                for _ in 0..2 {
                    engines.iter_mut().for_each(|engine| engine.commit(&mut shared));
                }
                looked_at += 1;
                assert!(
                    shared.used.values().all(|&times| times == 1),
                    "{order:#020b} {begun} {behind}: {:?}",
                    shared.used
                );
                let going_on = engines.iter().filter(|engine| !engine.refused).count();
                assert!(going_on <= 1, "{order:#020b} {begun} {behind}");
                none_goes_on += u32::from(going_on == 0);
                // One after the other: the second has it.
                if order == 0x3fe00 {
                    assert!(engines[0].refused && !engines[1].refused);
                    assert_eq!(shared.used.len(), 4);
                }
            }
        }
        println!("{looked_at} orders; in {both_open} both opened the store, in {none_goes_on} none went on");
        assert!(both_open > looked_at / 8 && none_goes_on < looked_at, "{both_open} {none_goes_on} {looked_at}");
    }
}
