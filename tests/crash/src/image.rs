//! What a power cut leaves.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashSet};
use std::hash::{Hash, Hasher};
use std::path::Path;

use super::Op;

/// What a disk writes in one piece.
const SECTOR: usize = 512;

/// Numbers that look random (SplitMix64).
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.draw() % n as u64) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// How many of the images are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Thoroughness {
    /// Every subset, where there are so few pieces at most.
    pub pieces_whole: usize,
    /// Else nothing, everything, and so many of: all up to a write, all but one piece, one piece alone.
    pub ordered: usize,
    /// And so many random subsets.
    pub random: usize,
}

/// The files of a folder after a power cut.
#[derive(Clone, Debug)]
pub struct Image {
    /// How many things had been done.
    pub at: usize,
    /// Which of the pieces that were not synced are there.
    pub what: String,
    /// Names and contents.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Image {
    /// Writes the files into a folder.
    ///
    /// # Panics
    /// If they cannot be written.
    pub fn write(&self, folder: &Path) {
        for (name, bytes) in &self.files {
            std::fs::write(folder.join(name), bytes).expect("an image can be written");
        }
    }
}

/// Something that was not synced.
#[derive(Clone, Debug)]
enum Piece {
    Bytes { file: usize, at: usize, bytes: Vec<u8> },
    Length { file: usize, len: usize },
    Link { name: String, file: usize },
    Unlink { name: String },
}

impl Piece {
    fn file(&self) -> Option<usize> {
        match self {
            Self::Bytes { file, .. } | Self::Length { file, .. } => Some(*file),
            Self::Link { .. } | Self::Unlink { .. } => None,
        }
    }

    /// Whether nothing is seen of this once the other one is there.
    fn is_under(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bytes { file, at, bytes }, Self::Length { file: f, len }) => file == f && at + bytes.len() > *len,
            (Self::Bytes { file, at, bytes }, Self::Bytes { file: f, at: a, bytes: b }) => {
                file == f && *at < a + b.len() && *a < at + bytes.len()
            }
            (Self::Length { file, .. }, Self::Length { file: f, .. }) => file == f,
            // A file has one length: what was synced behind the end that an earlier call gave it has moved that end.
            (Self::Length { file, len }, Self::Bytes { file: f, at, bytes }) => file == f && at + bytes.len() > *len,
            _ => false,
        }
    }
}

/// A piece, the operation it is of, and whether a sync of it has failed.
#[derive(Clone, Debug)]
struct Pending {
    piece: Piece,
    op: usize,
    stuck: bool,
}

#[derive(Clone, Default)]
struct Surface {
    files: Vec<Vec<u8>>,
    names: BTreeMap<String, usize>,
    pending: Vec<Pending>,
    notes: BTreeMap<String, Vec<u8>>,
    /// What the notes were before, since they were synced.
    older_notes: Vec<BTreeMap<String, Vec<u8>>>,
}

fn put(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if file.len() < at + bytes.len() {
        file.resize(at + bytes.len(), 0);
    }
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

fn apply(files: &mut [Vec<u8>], names: &mut BTreeMap<String, usize>, piece: &Piece, torn: bool) {
    match piece {
        Piece::Bytes { file, at, bytes } => {
            let len = if torn { bytes.len() / 2 } else { bytes.len() };
            put(&mut files[*file], *at, &bytes[..len]);
        }
        Piece::Length { file, len } => files[*file].resize(*len, 0),
        Piece::Link { name, file } => drop(names.insert(name.clone(), *file)),
        Piece::Unlink { name } => drop(names.remove(name)),
    }
}

impl Surface {
    fn take(&mut self, op: &Op, number: usize) {
        let mut pend = |piece| self.pending.push(Pending { piece, op: number, stuck: false });
        match op {
            Op::Found { name, bytes } => {
                self.names.insert(name.clone(), self.files.len());
                self.files.push(bytes.clone());
            }
            Op::Made { name } => {
                pend(Piece::Link { name: name.clone(), file: self.files.len() });
                self.files.push(Vec::new());
            }
            Op::Write { file, at, bytes } => {
                let (mut start, end) = (*at, at + bytes.len());
                while start < end {
                    let next = (start / SECTOR + 1) * SECTOR;
                    let part = &bytes[start - at..next.min(end) - at];
                    pend(Piece::Bytes { file: *file, at: start, bytes: part.to_vec() });
                    start = next;
                }
            }
            Op::Truncate { file, len } => pend(Piece::Length { file: *file, len: *len }),
            Op::Sync { file, folder } => self.sync(Some(*file), *folder),
            Op::SyncFailed { file } => {
                for pending in self.pending.iter_mut().filter(|pending| pending.piece.file() == Some(*file)) {
                    pending.stuck = true;
                }
            }
            Op::Delete { name, synced } => {
                pend(Piece::Unlink { name: name.clone() });
                if *synced {
                    self.sync(None, true);
                }
            }
            Op::Note { name, bytes } => {
                self.older_notes.push(self.notes.clone());
                match bytes {
                    Some(bytes) => drop(self.notes.insert(name.clone(), bytes.clone())),
                    None => drop(self.notes.remove(name)),
                }
            }
            Op::NotesSynced => self.older_notes.clear(),
        }
    }

    fn sync(&mut self, file: Option<usize>, folder: bool) {
        let (synced, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.pending).into_iter().partition(|pending| match pending.piece.file() {
                None => folder,
                of => of == file && !pending.stuck,
            });
        self.pending = kept;
        for Pending { piece, op, .. } in synced {
            // What came before it in the same place is no longer seen.
            self.pending.retain(|earlier| earlier.op > op || !earlier.piece.is_under(&piece));
            apply(&mut self.files, &mut self.names, &piece, false);
        }
    }

    fn image(&self, at: usize, chosen: &[bool], torn: Option<usize>, note: Option<usize>) -> Image {
        let (mut files, mut names) = (self.files.clone(), self.names.clone());
        for (i, pending) in self.pending.iter().enumerate().filter(|&(i, _)| chosen[i]) {
            apply(&mut files, &mut names, &pending.piece, torn == Some(i));
        }
        let mut named: BTreeMap<String, Vec<u8>> =
            names.into_iter().map(|(name, file)| (name, std::mem::take(&mut files[file]))).collect();
        named.extend(note.map_or(&self.notes, |note| &self.older_notes[note]).clone());
        let bits: String = chosen.iter().map(|&there| if there { '1' } else { '0' }).collect();
        Image { at, what: format!("{bits}, torn {torn:?}, note {note:?}"), files: named }
    }

    /// Which notes there may be: the newest, at times another one.
    fn note(&self, dice: &mut Dice) -> Option<usize> {
        if self.older_notes.is_empty() || !dice.one_in(4) {
            return None;
        }
        let note = dice.below(self.older_notes.len());
        // Their names are synced when they are made; their contents are not.
        self.older_notes[note].keys().eq(self.notes.keys()).then_some(note)
    }

    fn drawn(&self, at: usize, dice: &mut Dice) -> Image {
        let n = self.pending.len();
        let odds = 1 + dice.below(8);
        let chosen: Vec<bool> = (0..n).map(|_| dice.below(8) < odds).collect();
        let torn = (n > 0 && dice.one_in(2)).then(|| dice.below(n));
        let note = self.note(dice);
        self.image(at, &chosen, torn, note)
    }
}

/// Sorts of subsets between which is drawn where there are too many.
enum Subset {
    UpTo(usize),
    AllBut(usize),
    Alone(usize),
}

pub(super) fn images(
    ops: &[Op],
    since: usize,
    how: Thoroughness,
    dice: &mut Dice,
    mut look: impl FnMut(&Image),
) -> usize {
    let mut surface = Surface::default();
    let mut looked_at = 0;
    for number in 0..=ops.len() {
        // What is there before a sync is, in its subsets, all that was there since the last one.
        let settles = ops.get(number).is_none_or(|op| {
            matches!(
                op,
                Op::Sync { .. } | Op::SyncFailed { .. } | Op::Delete { .. } | Op::Found { .. } | Op::NotesSynced
            )
        });
        if settles && number >= since {
            let n = surface.pending.len();
            // The same files a moment later are to keep more.
            let mut seen: HashSet<u64> = HashSet::new();
            let mut look_at = |image: Image| {
                let mut hasher = DefaultHasher::new();
                image.files.hash(&mut hasher);
                if seen.insert(hasher.finish()) {
                    looked_at += 1;
                    look(&image);
                }
            };
            if n <= how.pieces_whole {
                for mask in 0..1_usize << n {
                    let chosen: Vec<bool> = (0..n).map(|i| mask >> i & 1 != 0).collect();
                    look_at(surface.image(number, &chosen, None, None));
                    if n > 0 {
                        let torn = dice.below(n);
                        look_at(surface.image(number, &chosen, Some(torn), surface.note(dice)));
                    }
                }
            } else {
                look_at(surface.image(number, &vec![false; n], None, None));
                look_at(surface.image(number, &vec![true; n], None, None));
                let mut subsets: Vec<Subset> = (1..n)
                    .filter(|&i| surface.pending[i].op != surface.pending[i - 1].op)
                    .map(Subset::UpTo)
                    .chain((0..n).flat_map(|i| [Subset::AllBut(i), Subset::Alone(i)]))
                    .collect();
                for i in 0..how.ordered.min(subsets.len()) {
                    let other = i + dice.below(subsets.len() - i);
                    subsets.swap(i, other);
                }
                for subset in subsets.iter().take(how.ordered) {
                    let chosen = |i: usize| match subset {
                        Subset::UpTo(end) => i < *end,
                        Subset::AllBut(one) => i != *one,
                        Subset::Alone(one) => i == *one,
                    };
                    let chosen: Vec<bool> = (0..n).map(chosen).collect();
                    let torn = dice.one_in(2).then(|| dice.below(n));
                    let note = surface.note(dice);
                    look_at(surface.image(number, &chosen, torn, note));
                }
                for _ in 0..how.random {
                    look_at(surface.drawn(number, dice));
                }
            }
        }
        if let Some(op) = ops.get(number) {
            surface.take(op, number);
        }
    }
    looked_at
}

pub(super) fn cut(ops: &[Op], dice: &mut Dice) -> Image {
    let mut surface = Surface::default();
    for (number, op) in ops.iter().enumerate() {
        surface.take(op, number);
    }
    surface.drawn(ops.len(), dice)
}
