//! From rows to waves: which sessions a call touches, and each one's rows in order. A call claims its sessions
//! before it looks at them, so that two calls on one session take turns, and two on different ones do not meet.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::Status;

/// No further row.
const END: u32 = u32::MAX;

/// A session that a call touches.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) slot: u32,
    first_row: u32,
    /// How many rows it has in this call.
    pub(crate) rows: u32,
}

/// How many rows some entries have.
pub(crate) fn rows_in(entries: &[Entry]) -> usize {
    entries.iter().map(|entry| entry.rows as usize).sum()
}

/// A call's sessions, in the order of their first rows; each one's rows hang together in a list.
pub(crate) struct Plan<'c> {
    pub(crate) entries: Vec<Entry>,
    /// Rows whose handle is not one.
    pub(crate) unknown: Vec<u32>,
    /// Accounts that were not here when the call's state was read, and how their rows end: also where one has come back
    /// since, for then there is a state that was not read. In the order of their numbers.
    pub(crate) away: Vec<(u32, Status)>,
    next: Vec<u32>,
    claims: &'c Claims,
    token: u32,
    prekeys: Vec<(u32, u32)>,
}

/// Who holds which slot, and which one-time prekey.
#[derive(Default)]
pub(crate) struct Claims {
    held: Mutex<Held>,
    released: Condvar,
}

#[derive(Default)]
struct Held {
    /// For each slot: the holder's token (0 is nobody) and, while its plan is made, the entry's place.
    slots: Vec<(u32, u32)>,
    /// How many of them are held.
    count: usize,
    prekeys: HashMap<(u32, u32), u32>,
    last_token: u32,
    /// Calls that wait, in the order in which they came: a large call has its turn however busy its sessions are.
    queue: VecDeque<u32>,
}

impl Claims {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims the slots of `handles`, of which `len` exist, and the one-time prekeys (account, id), all or none;
    /// waits until they are free.
    pub(crate) fn claim(&self, handles: &[u64], len: usize, prekeys: Vec<(u32, u32)>) -> Plan<'_> {
        let mut held = self.lock();
        let token = held.next_token();
        if held.slots.len() < len {
            held.slots.resize(len, (0, 0));
        }
        let mut plan = Plan {
            entries: Vec::with_capacity(handles.len()),
            unknown: Vec::new(),
            away: Vec::new(),
            next: vec![END; handles.len()],
            claims: self,
            token,
            prekeys: Vec::new(),
        };
        let mut queued = false;
        loop {
            let my_turn = held.queue.front().is_none_or(|&first| first == token);
            if my_turn && held.try_claim(&mut plan, handles, len, &prekeys) {
                break;
            }
            held.release(&mut plan);
            plan.next.fill(END);
            plan.unknown.clear();
            if !queued {
                held.queue.push_back(token);
                queued = true;
            }
            held = self.released.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        if queued {
            held.queue.pop_front();
            self.released.notify_all();
        }
        drop(held);
        plan
    }

    /// How many slots are claimed.
    pub(crate) fn count(&self) -> usize {
        self.lock().count
    }

    /// Claims the first `most` of some slots that nobody has; waits for none.
    pub(crate) fn claim_free(&self, slots: &[u32], most: usize) -> Plan<'_> {
        let mut held = self.lock();
        let token = held.next_token();
        let mut entries = Vec::with_capacity(most.min(slots.len()));
        for &slot in slots {
            if entries.len() == most {
                break;
            }
            // Of one that no call ever claimed there is no record.
            if let Some(holder @ (0, _)) = held.slots.get_mut(slot as usize) {
                *holder = (token, entries.len() as u32);
                entries.push(Entry { slot, first_row: END, rows: 0 });
            }
        }
        held.count += entries.len();
        Plan {
            entries,
            unknown: Vec::new(),
            away: Vec::new(),
            next: Vec::new(),
            claims: self,
            token,
            prekeys: Vec::new(),
        }
    }
}

impl Held {
    fn next_token(&mut self) -> u32 {
        self.last_token = self.last_token.checked_add(1).unwrap_or(1);
        self.last_token
    }

    fn try_claim(&mut self, plan: &mut Plan<'_>, handles: &[u64], len: usize, prekeys: &[(u32, u32)]) -> bool {
        // While the plan is made, an entry's `first_row` list is walked by its last row, kept in `tail`.
        let mut tails: Vec<u32> = Vec::new();
        for (row, &handle) in handles.iter().enumerate() {
            let row = row as u32;
            if handle >= len as u64 {
                plan.unknown.push(row);
                continue;
            }
            let (holder, place) = &mut self.slots[handle as usize];
            if *holder == 0 {
                *holder = plan.token;
                *place = plan.entries.len() as u32;
                self.count += 1;
                plan.entries.push(Entry { slot: handle as u32, first_row: row, rows: 1 });
            } else if *holder == plan.token {
                let place = *place as usize;
                if tails.len() < plan.entries.len() {
                    let from = tails.len();
                    tails.extend(plan.entries[from..].iter().map(|entry| entry.first_row));
                }
                plan.next[tails[place] as usize] = row;
                tails[place] = row;
                plan.entries[place].rows += 1;
            } else {
                return false;
            }
        }
        for &prekey in prekeys {
            let holder = *self.prekeys.entry(prekey).or_insert(plan.token);
            if holder != plan.token {
                return false;
            }
            plan.prekeys.push(prekey);
        }
        true
    }

    fn release(&mut self, plan: &mut Plan<'_>) {
        self.count -= plan.entries.len();
        for entry in plan.entries.drain(..) {
            self.slots[entry.slot as usize] = (0, 0);
        }
        for prekey in plan.prekeys.drain(..) {
            self.prekeys.remove(&prekey);
        }
    }
}

impl Drop for Plan<'_> {
    fn drop(&mut self) {
        let claims = self.claims;
        let mut held = claims.lock();
        held.release(self);
        // Waking is a system call; hardly ever does anyone wait.
        if !held.queue.is_empty() {
            claims.released.notify_all();
        }
    }
}

impl Plan<'_> {
    /// Accounts that are not here while the call's state is read; each may be named more than once.
    pub(crate) fn note_away(&mut self, mut away: Vec<(u32, Status)>) {
        away.sort_unstable_by_key(|&(account, _)| account);
        away.dedup_by_key(|&mut (account, _)| account);
        self.away = away;
    }

    /// An entry's rows, in order.
    pub(crate) fn rows_of(&self, entry: &Entry) -> impl Iterator<Item = u32> {
        let mut row = entry.first_row;
        std::iter::from_fn(move || {
            let this = row;
            (this != END).then(|| {
                row = self.next[this as usize];
                this
            })
        })
    }

    /// Cuts the entries into runs: about a thousand rows each (they stay in the cache), or fewer, so that every one
    /// of `threads` has one; never under `least` rows, which one core does before another has woken up, or which
    /// must stay together. Of several threads the last runs are smaller: none is long alone with a last one.
    pub(crate) fn runs(&self, threads: usize, least: usize) -> Vec<Range<usize>> {
        const MOST: usize = 1024;
        const LAST: usize = 128;
        let mut left = rows_in(&self.entries);
        let target = |left: usize| {
            let share = left.div_ceil(threads);
            let share = if threads == 1 { share } else { share.div_ceil(2).max(LAST).min(share) };
            share.next_multiple_of(interlane_lanes::TILE).min(MOST).max(least)
        };
        let mut runs = Vec::with_capacity(left / target(left).min(MOST) + 1);
        let (mut start, mut filled) = (0, 0);
        for (i, entry) in self.entries.iter().enumerate() {
            filled += entry.rows as usize;
            if filled >= target(left) {
                runs.push(start..i + 1);
                left -= filled;
                (start, filled) = (i + 1, 0);
            }
        }
        if start < self.entries.len() {
            runs.push(start..self.entries.len());
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_session_stay_in_order() {
        let claims = Claims::default();
        let plan = claims.claim(&[3, 1, 3, 9, 1, 3], 4, Vec::new());
        assert_eq!(plan.unknown, [3]);
        let rows: Vec<Vec<u32>> = plan.entries.iter().map(|entry| plan.rows_of(entry).collect()).collect();
        assert_eq!(rows, [vec![0, 2, 5], vec![1, 4]]);
        assert_eq!(plan.runs(1, 16).len(), 1);
    }

    #[test]
    fn what_is_claimed_is_not_free() {
        let claims = Claims::default();
        let all = claims.claim(&[0, 1, 2, 3, 4, 4], 5, Vec::new());
        assert_eq!(claims.count(), 5);
        drop(all);
        let call = claims.claim(&[2, 0], 5, Vec::new());
        let slots = |plan: &Plan<'_>| plan.entries.iter().map(|entry| entry.slot).collect::<Vec<u32>>();
        let free = claims.claim_free(&[0, 4, 9, 2, 1, 3], 2);
        assert_eq!((slots(&free), claims.count()), (vec![4, 1], 4));
        let rest = claims.claim_free(&[0, 1, 2, 3, 4], 5);
        assert_eq!((slots(&rest), claims.count()), (vec![3], 5));
        drop((free, rest));
        assert_eq!(claims.count(), 2);
        drop(call);
        assert_eq!(claims.count(), 0);
    }

    #[test]
    fn the_last_runs_of_several_threads_are_small() {
        let claims = Claims::default();
        let handles: Vec<u64> = (0..10_000).collect();
        let plan = claims.claim(&handles, handles.len(), Vec::new());
        let lengths = |threads, least| -> Vec<usize> {
            let runs = plan.runs(threads, least);
            assert_eq!((runs[0].start, runs[runs.len() - 1].end), (0, 10_000));
            assert!(runs.windows(2).all(|pair| pair[0].end == pair[1].start));
            runs.into_iter().map(|run| run.len()).collect()
        };
        assert_eq!(lengths(1, 16), [[1024; 9].as_slice(), &[784]].concat());
        for threads in [2, 3, 8] {
            let lengths = lengths(threads, 128);
            assert!(lengths.is_sorted_by(|a, b| a >= b) && lengths[0] <= 1024, "{lengths:?}");
            assert!(lengths[lengths.len() - 1] <= 128 && lengths[lengths.len() - 2] == 128, "{lengths:?}");
        }
        assert_eq!(lengths(2, usize::MAX), [10_000]);
    }

    #[test]
    fn two_calls_on_one_session_take_turns() {
        let claims = Claims::default();
        let first = claims.claim(&[0, 1], 4, vec![(1, 7)]);
        drop(claims.claim(&[2, 3], 4, Vec::new()));
        std::thread::scope(|scope| {
            let second = scope.spawn(|| drop(claims.claim(&[2, 1], 4, Vec::new())));
            let third = scope.spawn(|| drop(claims.claim(&[3], 4, vec![(1, 7)])));
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(!second.is_finished() && !third.is_finished());
            drop(first);
            second.join().unwrap();
            third.join().unwrap();
        });
    }
}
