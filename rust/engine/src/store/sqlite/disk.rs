//! A file of the journal's. Tests have another one in its place, on a disk that fails and loses power as told.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::sync_folder;

/// A file that is written at places and synced.
pub(super) struct File {
    file: fs::File,
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
            opened => Ok(Some(Self { file: opened?, path: path.to_owned(), made: true })),
        }
    }

    /// A new file, which others may not read.
    pub(super) fn make(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(Self { file: options.open(path)?, path: path.to_owned(), made: true })
    }

    pub(super) fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Reads as many bytes as there is room for.
    pub(super) fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        (&self.file).seek(SeekFrom::Start(at))?;
        (&self.file).read_exact(into)
    }

    pub(super) fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        (&self.file).seek(SeekFrom::Start(at))?;
        (&self.file).write_all(bytes)
    }

    /// Makes what was written outlive a power cut.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
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

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
