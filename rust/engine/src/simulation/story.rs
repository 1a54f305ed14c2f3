//! What is told of a history: a line a step where somebody replays it, a hash of all of it, and the faults in it.

use std::fmt;

/// What goes wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub(super) enum Fault {
    FrameLost,
    FrameDoubled,
    FrameOvertaken,
    FrameDamaged,
    FrameReplayed,
    FrameHeldBack,
    AnswerForgotten,
    DiskFails,
    DiskFull,
    DiskReadOnly,
    KilledInACall,
    KilledBetweenCalls,
    PowerCutInACall,
    PowerCutBetweenCalls,
    CutWhileOpening,
    LeaseInterrupted,
    OpenedTwice,
    Forked,
    OldCopyPutBack,
    Restored,
    ClockSet,
    PrekeysGone,
    PrekeyGivenTwice,
    IdentityChanged,
    SessionsForgotten,
    RequestLost,
    CommitUnknown,
    StandbyPromoted,
    CutOff,
    CutOffWithPrimary,
    ShardTaken,
    ShardAskedFor,
    EngineReplaced,
    ServerWentBack,
}

impl Fault {
    const ALL: [(Self, &'static str); 34] = [
        (Self::FrameLost, "frame lost"),
        (Self::FrameDoubled, "frame delivered twice"),
        (Self::FrameOvertaken, "frame overtaken by later ones"),
        (Self::FrameDamaged, "frame damaged"),
        (Self::FrameReplayed, "old frame replayed"),
        (Self::FrameHeldBack, "frames held back: a receiver away"),
        (Self::AnswerForgotten, "plaintexts forgotten before they were handled"),
        (Self::DiskFails, "disk: EIO"),
        (Self::DiskFull, "disk: ENOSPC"),
        (Self::DiskReadOnly, "disk: EROFS"),
        (Self::KilledInACall, "killed at a write, sync or truncation"),
        (Self::KilledBetweenCalls, "killed between calls"),
        (Self::PowerCutInACall, "power cut at a write, sync or truncation"),
        (Self::PowerCutBetweenCalls, "power cut between calls"),
        (Self::CutWhileOpening, "power cut while the store was opened"),
        (Self::LeaseInterrupted, "killed between the writing of a lease and its use"),
        (Self::OpenedTwice, "opened by a second engine"),
        (Self::Forked, "called by a fork"),
        (Self::OldCopyPutBack, "old copy put back, not declared"),
        (Self::Restored, "backup restored, declared"),
        (Self::ClockSet, "clock set forwards or back"),
        (Self::PrekeysGone, "one-time prekeys used up"),
        (Self::PrekeyGivenTwice, "one-time prekey given to two peers"),
        (Self::IdentityChanged, "account deleted and made anew"),
        (Self::SessionsForgotten, "sessions forgotten"),
        (Self::RequestLost, "server: request lost"),
        (Self::CommitUnknown, "server: commit without an answer"),
        (Self::StandbyPromoted, "server: primary lost, standby promoted"),
        (Self::CutOff, "server: engine cut off from it"),
        (Self::CutOffWithPrimary, "server: engine cut off with the old primary"),
        (Self::ShardTaken, "shard taken away by force"),
        (Self::ShardAskedFor, "shard asked for"),
        (Self::EngineReplaced, "engine replaced by another of its name"),
        (Self::ServerWentBack, "server: one without acknowledged commits"),
    ];
}

/// How often each fault was there.
#[derive(Clone)]
pub(super) struct Faults([u64; Fault::ALL.len()]);

impl Default for Faults {
    fn default() -> Self {
        Self([0; Fault::ALL.len()])
    }
}

impl Faults {
    pub(super) fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    pub(super) fn all(&self) -> u64 {
        self.0.iter().sum()
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }

    /// Kinds of which there was none.
    pub(super) fn missing(&self) -> Vec<&'static str> {
        Fault::ALL.iter().filter(|(fault, _)| self.of(*fault) == 0).map(|(_, name)| *name).collect()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (fault, name) in Fault::ALL {
            writeln!(f, "  {name:<52} {:>9}", grouped(self.of(fault)))?;
        }
        write!(f, "  {:<52} {:>9}", "faults in all", grouped(self.all()))
    }
}

/// A number with commas.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A history as it is told.
pub(super) struct Story {
    /// Of everything that engines gave out and that happened to them.
    hash: u64,
    aloud: bool,
    pub(super) step: u64,
    pub(super) faults: Faults,
}

impl Story {
    pub(super) fn new(aloud: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, aloud, step: 0, faults: Faults::default() }
    }

    /// Takes bytes into the hash (FNV-1a, eight at a time).
    pub(super) fn note(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.hash = (self.hash ^ u64::from_le_bytes(word)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        }
        self.hash = self.hash.wrapping_mul(0x0000_0100_0000_01b3) ^ bytes.len() as u64;
    }

    pub(super) fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.aloud {
            println!("{:>5}  {}", self.step, what());
        }
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        self.faults(fault, 1);
    }

    pub(super) fn faults(&mut self, fault: Fault, count: usize) {
        if count > 0 {
            self.faults.0[fault as usize] += count as u64;
            self.note(&[fault as u8, count as u8]);
            self.tell(|| format!("-- {fault:?} {count}"));
        }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }
}
