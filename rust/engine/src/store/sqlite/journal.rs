//! The journal: batches, each sealed as one *block*, in two files beside the database.
//!
//! ```text
//! file  = block*                                          each begins at a multiple of 4,096 bytes
//! block = store id, 16 bytes ‖ number, 8 bytes ‖ length of the sections, 8 bytes ‖ CRC-32 of all else ‖ sections ‖ zeros
//! ```
//!
//! A block is written and synced, and that is its batch's commit: one write and one sync, of bytes that a file already has
//! after the first round, so that its file system has nothing to write down beside them. SQLite's log takes two writes a page
//! and copies each page once more.
//!
//! One file, the *active* one, grows. When it is long enough, it stays as it is while its rows are folded into the table, and
//! the other one is written over from its beginning ([`Journal::turn`]), whose blocks are folded by then. So blocks are known by
//! their numbers, not by where they lie, and those that are folded are nobody's.
//!
//! A power cut may leave some of the last block, which the CRC tells; whether a block is what was written is for the seals of
//! its sections to say. Blocks are never in one page of a disk, so that what tears one leaves the others. The next block is
//! only written when the one before it is synced: one that cannot be read, and has later ones, was damaged.

use std::io;
use std::path::{Path, PathBuf};

use crc32fast::Hasher;

use super::beside_itself;
#[cfg(not(test))]
use super::disk::{self, File, Syncer};
use crate::bytes::Bytes;
use crate::store::sealed::StoreId;
#[cfg(test)]
use interlane_crash::disk::{self, File, Syncer};

/// Blocks begin at multiples of so many bytes.
const PAGE: usize = 4_096;

/// Bytes of a block before its sections.
pub(super) const HEAD: usize = CRC + 4;
const NUMBER: usize = size_of::<StoreId>();
const LENGTH: usize = NUMBER + 8;
const CRC: usize = LENGTH + 8;

/// Bytes that are read and written again at once.
const REWRITTEN_AT_ONCE: usize = 1 << 20;

/// Both files.
pub(in crate::store) struct Journal {
    store_id: StoreId,
    parts: [Part; 2],
    /// The part that grows.
    active: usize,
    syncer: Syncer,
}

struct Part {
    path: PathBuf,
    /// None: there is no file.
    file: Option<File>,
    /// Where the last of its blocks ends that is not folded.
    end: u64,
}

/// A block that is in the journal in whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Block {
    pub(in crate::store) number: u64,
    /// Which of the files it is in.
    part: usize,
    at: u64,
    /// Bytes of its sections.
    length: usize,
}

/// Bytes of a block with sections of so many.
pub(super) fn bytes_for(sections: usize) -> usize {
    (HEAD + sections).next_multiple_of(PAGE)
}

/// The journal's files of a store.
pub(in crate::store) fn paths(store: &Path) -> [PathBuf; 2] {
    [".journal-0", ".journal-1"].map(|suffix| beside_itself(store, suffix))
}

impl Journal {
    /// The journal of the store at `store`, and its blocks behind number `folded`, by their numbers.
    pub(in crate::store) fn read(store: &Path, store_id: StoreId, folded: u64) -> io::Result<(Self, Vec<Block>)> {
        let [first, second] = paths(store);
        let part = |path: PathBuf| Ok::<_, io::Error>(Part { file: File::open(&path)?, path, end: 0 });
        let mut journal = Self { store_id, parts: [part(first)?, part(second)?], active: 0, syncer: Syncer::default() };
        let mut blocks = Vec::new();
        for part in 0..journal.parts.len() {
            journal.find(part, folded, &mut blocks)?;
        }
        blocks.sort_unstable_by_key(|block| block.number);
        for block in &blocks {
            (journal.active, journal.parts[block.part].end) = (block.part, block.at + bytes_for(block.length) as u64);
        }
        Ok((journal, blocks))
    }

    /// Looks for blocks behind number `folded` in a part.
    fn find(&self, part: usize, folded: u64, blocks: &mut Vec<Block>) -> io::Result<()> {
        let Some(file) = &self.parts[part].file else { return Ok(()) };
        let end = file.length()?;
        let (mut at, mut head, mut whole) = (0, [0; HEAD], Vec::new());
        while at + HEAD as u64 <= end {
            file.read(at, &mut head)?;
            let number = u64::from_be_bytes(*head[NUMBER..].first_chunk().expect("8 bytes"));
            let length = u64::from_be_bytes(*head[LENGTH..].first_chunk().expect("8 bytes"));
            let mut next = at + PAGE as u64;
            let rest = end - at;
            if head[..NUMBER] == self.store_id && number > folded && length <= rest - HEAD as u64 {
                // It is no longer than the file, which fits memory as often as it is opened.
                let length = length as usize;
                let bytes = bytes_for(length);
                if bytes as u64 <= rest {
                    whole.resize(bytes, 0);
                    file.read(at, &mut whole)?;
                    if head[CRC..] == crc(&whole) {
                        blocks.push(Block { number, part, at, length });
                        next = at + bytes as u64;
                    }
                }
            }
            at = next;
        }
        Ok(())
    }

    /// The sections of a block.
    pub(in crate::store) fn sections(&self, block: &Block, into: &mut Vec<u8>) -> io::Result<()> {
        into.resize(block.length, 0);
        self.file(block.part)?.read(block.at + HEAD as u64, into)
    }

    fn file(&self, part: usize) -> io::Result<&File> {
        self.parts[part].file.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Whether a block is in the part that grows.
    pub(super) fn is_active(&self, block: &Block) -> bool {
        block.part == self.active
    }

    /// Writes blocks again where they are, and syncs them.
    pub(super) fn secure(&mut self, blocks: &[Block]) -> io::Result<()> {
        for block in blocks {
            rewrite(self.file(block.part)?, block.at, block.at + bytes_for(block.length) as u64)?;
        }
        for part in 0..self.parts.len() {
            if let (true, Some(file)) = (blocks.iter().any(|block| block.part == part), &mut self.parts[part].file) {
                file.sync()?;
            }
        }
        Ok(())
    }

    /// Bytes of the part that grows.
    pub(super) fn active_bytes(&self) -> u64 {
        self.parts[self.active].end
    }

    /// Bytes of both files.
    pub(super) fn size(&self) -> io::Result<u64> {
        self.parts.iter().flat_map(|part| &part.file).map(File::length).sum()
    }

    #[cfg(test)]
    fn has_files(&self) -> bool {
        self.parts.iter().any(|part| part.file.is_some())
    }

    /// Writes a block behind the last one: `block` has room for a head, then its sections. It is there in whole once
    /// [`Self::sync`] has succeeded.
    pub(super) fn write(&mut self, number: u64, block: &mut Bytes) -> io::Result<()> {
        finish(&self.store_id, number, block);
        let part = &mut self.parts[self.active];
        if part.file.is_none() {
            part.file = Some(File::make(&part.path)?);
        }
        self.file(self.active)?.write(self.parts[self.active].end, block)
    }

    /// Begins to sync the block that was written: [`Self::sync`] is to follow, whatever the caller does meanwhile.
    pub(super) fn begin_sync(&mut self) {
        if let Some(file) = &self.parts[self.active].file {
            self.syncer.begin(file);
        }
    }

    /// Syncs the block that was written, of so many bytes.
    pub(super) fn sync(&mut self, bytes: usize) -> io::Result<()> {
        let part = &mut self.parts[self.active];
        self.syncer.end(part.file.as_mut().ok_or(io::ErrorKind::NotFound)?)?;
        part.end += bytes as u64;
        Ok(())
    }

    /// Leaves the thread that syncs alone, in a fork of the process.
    pub(super) fn leave_the_thread(&mut self) {
        self.syncer.leave();
    }

    /// Goes on in the other part, all of whose blocks are folded, from its beginning. What a large batch took beyond `usual`
    /// bytes is given back.
    pub(super) fn turn(&mut self, usual: u64) -> io::Result<()> {
        let other = &mut self.parts[1 - self.active];
        if let Some(file) = &other.file
            && file.length()? > usual
        {
            file.cut(usual)?;
        }
        other.end = 0;
        self.active = 1 - self.active;
        Ok(())
    }

    /// Leaves nothing of blocks that are all folded.
    pub(super) fn wipe(&mut self) -> io::Result<()> {
        for part in &mut self.parts {
            part.end = 0;
            if let Some(file) = &mut part.file {
                file.cut(0)?;
                file.sync()?;
            }
        }
        Ok(())
    }

    /// Removes the files, once all blocks are folded.
    pub(super) fn remove(&mut self) -> io::Result<()> {
        for part in &mut self.parts {
            part.end = 0;
            if part.file.take().is_some() {
                disk::remove(&part.path)?;
            }
        }
        Ok(())
    }
}

/// Writes a file again as it is, and syncs it, where there is one: after a sync that failed, what was written may be in the
/// system's memory alone, and no later sync changes that, but that of another write does.
pub(super) fn write_again(path: &Path) -> io::Result<()> {
    let Some(mut file) = File::open(path)? else { return Ok(()) };
    match file.length()? {
        0 => Ok(()),
        end => rewrite(&file, 0, end).and_then(|()| file.sync()),
    }
}

/// Writes a part of a file again as it is.
fn rewrite(file: &File, mut at: u64, end: u64) -> io::Result<()> {
    let mut bytes = vec![0; REWRITTEN_AT_ONCE.min((end - at) as usize)];
    while at < end {
        let length = bytes.len().min((end - at) as usize);
        file.read(at, &mut bytes[..length])?;
        file.write(at, &bytes[..length])?;
        at += length as u64;
    }
    Ok(())
}

/// Gives a block its head, and fills it up.
pub(super) fn finish(store_id: &StoreId, number: u64, block: &mut Bytes) {
    let length = block.len() - HEAD;
    block[..NUMBER].copy_from_slice(store_id);
    block[NUMBER..LENGTH].copy_from_slice(&number.to_be_bytes());
    block[LENGTH..CRC].copy_from_slice(&(length as u64).to_be_bytes());
    block.resize(bytes_for(length), 0);
    let crc = crc(block);
    block[CRC..HEAD].copy_from_slice(&crc);
}

/// The check of a block, over all of it but the check.
fn crc(block: &[u8]) -> [u8; HEAD - CRC] {
    let mut hasher = Hasher::new();
    hasher.update(&block[..CRC]);
    hasher.update(&block[HEAD..]);
    hasher.finalize().to_be_bytes()
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const ID: StoreId = [7; 16];

    fn open(folder: &TempDir, folded: u64) -> (Journal, Vec<Block>) {
        Journal::read(&store(folder), ID, folded).unwrap()
    }

    fn store(folder: &TempDir) -> PathBuf {
        let path = folder.path().join("gateway.db");
        std::fs::write(&path, b"").unwrap();
        path
    }

    fn append(journal: &mut Journal, number: u64, sections: &[u8]) {
        let mut block = Bytes::zeroes(HEAD);
        block.reserve(bytes_for(sections.len()));
        block.extend_from_slice(sections);
        journal.write(number, &mut block).unwrap();
        journal.sync(block.len()).unwrap();
    }

    fn contents(journal: &Journal, blocks: &[Block]) -> Vec<(u64, Vec<u8>)> {
        let content = |block: &Block| {
            let mut sections = Vec::new();
            journal.sections(block, &mut sections).unwrap();
            (block.number, sections)
        };
        blocks.iter().map(content).collect()
    }

    #[test]
    fn blocks_are_found_by_their_numbers_in_both_files() {
        let folder = TempDir::new().unwrap();
        let (mut journal, blocks) = open(&folder, 0);
        assert!(blocks.is_empty() && !journal.has_files());
        let lengths = [0, 1, PAGE - HEAD, PAGE - HEAD + 1, 3 * PAGE];
        let expected: Vec<(u64, Vec<u8>)> = (1..).zip(lengths.map(|length| vec![length as u8 | 1; length])).collect();
        for (number, sections) in &expected {
            append(&mut journal, *number, sections);
        }
        let pages = journal.active_bytes() / PAGE as u64;
        assert_eq!((pages, journal.size().unwrap()), (1 + 1 + 1 + 2 + 4, pages * PAGE as u64));
        let (mut journal, blocks) = open(&folder, 0);
        assert_eq!((contents(&journal, &blocks), journal.active_bytes() / PAGE as u64), (expected.clone(), pages));
        // The other one, and back: what is folded is written over, and what is left of it is nobody's.
        journal.turn(u64::MAX).unwrap();
        append(&mut journal, 6, b"six");
        let (mut journal, blocks) = open(&folder, 3);
        assert_eq!(contents(&journal, &blocks), [&expected[3..], &[(6, b"six".to_vec())]].concat());
        assert_eq!(blocks.iter().map(|block| journal.is_active(block)).collect::<Vec<_>>(), [false, false, true]);
        journal.secure(&blocks).unwrap();
        journal.turn(2 * PAGE as u64).unwrap();
        append(&mut journal, 7, b"seven");
        let (mut journal, blocks) = open(&folder, 5);
        assert_eq!(contents(&journal, &blocks), [(6, b"six".to_vec()), (7, b"seven".to_vec())]);
        assert_eq!(journal.size().unwrap(), 3 * PAGE as u64);
        journal.wipe().unwrap();
        assert_eq!((journal.size().unwrap(), open(&folder, 0).1), (0, Vec::new()));
        journal.remove().unwrap();
        assert!(!open(&folder, 0).0.has_files());
    }

    #[test]
    fn what_is_not_whole_is_no_block() {
        let folder = TempDir::new().unwrap();
        let (mut journal, _) = open(&folder, 0);
        append(&mut journal, 1, &[1; 5_000]);
        append(&mut journal, 2, &[2; 5_000]);
        let path = paths(&store(&folder))[0].clone();
        let whole = std::fs::read(&path).unwrap();
        // Cut short, zeroed or changed at any place, zeros behind the sections too.
        for at in (0..2 * PAGE).step_by(61).chain([CRC, HEAD, HEAD + 5_000, 2 * PAGE - 1]) {
            let mut changed = whole.clone();
            changed[2 * PAGE + at] ^= 0x10;
            std::fs::write(&path, &changed).unwrap();
            assert_eq!(contents(&journal, &open(&folder, 0).1), [(1, vec![1; 5_000])], "{at}");
            std::fs::write(&path, &whole[..2 * PAGE + at]).unwrap();
            assert_eq!(open(&folder, 0).1.len(), 1, "{at}");
        }
        // What lies behind one that is damaged is found.
        let mut changed = whole.clone();
        changed[100] ^= 1;
        std::fs::write(&path, &changed).unwrap();
        assert_eq!(open(&folder, 0).1.iter().map(|block| block.number).collect::<Vec<_>>(), [2]);
        // Another store's.
        std::fs::write(&path, &whole).unwrap();
        assert!(Journal::read(&store(&folder), [8; 16], 0).unwrap().1.is_empty());
    }
}
