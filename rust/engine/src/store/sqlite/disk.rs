//! A file of the journal's. Tests have another one in its place, on a disk that fails and loses power as told.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::mem::{forget, take};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::sync_folder;

/// A file that is written at places and synced.
pub(super) struct File {
    file: Arc<fs::File>,
    path: PathBuf,
    /// It was made, and its folder is yet to be synced.
    made: bool,
}

impl File {
    /// The file of a name, if it is there.
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            // Whoever made it may not have come to sync its folder.
            opened => Ok(Some(Self::of(opened?, path))),
        }
    }

    /// A new file, which others may not read.
    pub(super) fn make(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(Self::of(options.open(path)?, path))
    }

    fn of(file: fs::File, path: &Path) -> Self {
        Self { file: Arc::new(file), path: path.to_owned(), made: true }
    }

    pub(super) fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Reads as many bytes as there is room for.
    pub(super) fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        (&*self.file).seek(SeekFrom::Start(at))?;
        (&*self.file).read_exact(into)
    }

    pub(super) fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        (&*self.file).seek(SeekFrom::Start(at))?;
        (&*self.file).write_all(bytes)
    }

    /// Makes what was written outlive a power cut.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        self.sync_name()
    }

    fn sync_name(&mut self) -> io::Result<()> {
        if self.made {
            sync_folder(self.path.parent().unwrap_or(Path::new(".")))?;
            self.made = false;
        }
        Ok(())
    }

    pub(super) fn cut(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }
}

/// Syncs a file on a thread of its own, while the caller does something else.
#[derive(Default)]
pub(super) struct Syncer {
    thread: Option<Thread>,
    /// A sync was begun and not ended.
    begun: bool,
}

struct Thread {
    asked: Sender<Arc<fs::File>>,
    answered: Receiver<io::Result<()>>,
}

impl Syncer {
    /// Begins to sync what was written to a file. Where no thread is to be had, all of it is done when it is to end.
    pub(super) fn begin(&mut self, file: &File) {
        if self.thread.is_none() {
            self.thread = Self::spawn().ok();
        }
        self.begun = self.thread.as_ref().is_some_and(|thread| thread.asked.send(Arc::clone(&file.file)).is_ok());
    }

    /// Leaves the thread alone, in a fork of the process, which does not have it: what is shared with it may be locked for
    /// ever.
    pub(super) fn leave(&mut self) {
        forget(self.thread.take());
    }

    fn spawn() -> io::Result<Thread> {
        let ((asked, ask), (answer, answered)) = (channel::<Arc<fs::File>>(), channel());
        let each = move || {
            for file in ask {
                let synced = file.sync_data();
                drop(file);
                if answer.send(synced).is_err() {
                    return;
                }
            }
        };
        // It ends when nobody can ask it any more.
        thread::Builder::new().name("interlane journal".into()).spawn(each)?;
        Ok(Thread { asked, answered })
    }

    /// Waits for the sync of the same file that was begun; where none was, does it.
    pub(super) fn end(&mut self, file: &mut File) -> io::Result<()> {
        let Some(thread) = self.thread.as_ref().filter(|_| take(&mut self.begun)) else { return file.sync() };
        thread.answered.recv().map_err(io::Error::other)??;
        file.sync_name()
    }
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn what_was_begun_is_waited_for() {
        let folder = TempDir::new().unwrap();
        let mut file = File::make(&folder.path().join("file")).unwrap();
        let mut syncer = Syncer::default();
        for begin in [true, true, false, true, false, false] {
            file.write(0, b"bytes").unwrap();
            if begin {
                syncer.begin(&file);
            }
            assert_eq!(syncer.begun, begin);
            syncer.end(&mut file).unwrap();
            assert!(!syncer.begun && !file.made);
        }
        // One that cannot be synced.
        let mut null = File::open(Path::new("/dev/null")).unwrap().unwrap();
        for begin in [true, false] {
            if begin {
                syncer.begin(&null);
            }
            assert!(syncer.end(&mut null).is_err() && null.made, "{begin}");
        }
        syncer.begin(&file);
        syncer.end(&mut file).unwrap();
    }
}
