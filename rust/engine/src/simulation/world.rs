//! The world of a history: gateways, the people on them, a chat server with their prekeys, and a bad network.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use interlane_crash::Dice;

use super::desk::{Desk, Folder, Kept, Manner, draw_cut, draw_failure};
use super::oracle::{Came, Content, Line, Oracle};
use super::planted::Planted;
use super::story::{Fault, Story};
use crate::batch::{Turn, backup, tap};
use crate::limits::HOLD_CONFIRMED;
use crate::machine::simulated::Machine;
use crate::store::simulated::{Server, Snapshot, Trouble};
use crate::{AccountId, BufferLimits, Bundle, Durability, Engine, Error, Packed, Rows, Status};

/// Somebody with an account.
struct Person {
    name: String,
    /// The desks that can serve the account, and the one that did last.
    desks: Vec<usize>,
    serving: usize,
    listing: Listing,
}

/// What the chat server has of somebody.
#[derive(Default)]
struct Listing {
    bundle: Option<Bundle>,
    one_time: Vec<(u32, Vec<u8>)>,
    /// What was given out, and to whom.
    given: Vec<(usize, (u32, Vec<u8>))>,
}

/// A frame on its way to one receiver.
#[derive(Clone)]
struct Parcel {
    frame: usize,
    to: usize,
    damaged: Option<Vec<u8>>,
    /// It was opened by the receiver's desk in this life, and is not handled yet.
    waits: Option<(usize, u64)>,
    tries: u32,
}

/// A plaintext that a desk was given and has not handled.
struct Unhandled {
    desk: usize,
    life: u64,
    rows: Rc<Rows>,
    row: u64,
    frame: usize,
    to: usize,
}

/// How a call was to end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Death {
    Killed,
    PowerCut,
}

pub(super) struct World {
    seed: u64,
    planted: bool,
    pub(super) story: Story,
    machine: Machine,
    dice: Dice,
    desks: Vec<Desk>,
    people: Vec<Person>,
    groups: Vec<Vec<usize>>,
    server: Option<std::sync::Arc<Server>>,
    oracle: Oracle,
    sky: Vec<Parcel>,
    unhandled: Vec<Unhandled>,
    /// Until which step a desk receives nothing.
    away: Vec<u64>,
    copies: BTreeMap<usize, Copy>,
    /// Whether things happen here from which peers only come back by new sessions.
    troubled: bool,
    /// Whether anything still goes wrong.
    hot: bool,
    steps: u64,
    written: u64,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.planted {
            let (seed, step) = (self.seed, self.story.step);
            eprintln!("\nthe history of seed {seed} fails at step {step}; to see it again:\n  {}\n", replay(seed));
        }
    }
}

/// The command that lives through a history again, step by step.
pub(super) fn replay(seed: u64) -> String {
    format!("INTERLANE_HISTORY={seed} cargo test --release -p interlane --lib simulation::one_history -- --nocapture")
}

/// A backup, and how much had been written when it was made.
struct Copy {
    folder: tempfile::TempDir,
    written: u64,
}

impl Copy {
    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("copy.db")
    }
}

fn pack(rows: &[impl AsRef<[u8]>]) -> (Vec<u8>, Vec<i64>) {
    let (mut data, mut offsets) = (Vec::new(), vec![0]);
    for row in rows {
        data.extend_from_slice(row.as_ref());
        offsets.push(data.len() as i64);
    }
    (data, offsets)
}

fn bytes_of(rows: &Rows, i: usize) -> &[u8] {
    &rows.data[rows.offsets[i] as usize..rows.offsets[i + 1] as usize]
}

fn status_of(rows: &Rows, i: usize) -> Status {
    Status::ALL[rows.status[i] as usize]
}

impl World {
    pub(super) fn new(seed: u64, planted: Option<Planted>, aloud: bool) -> Self {
        let mut dice = Dice(seed ^ 0x1357_9bdf_0246_8ace);
        let machine = Machine::start(dice.draw());
        let shared = dice.one_in(3);
        let troubled = planted.is_none() && dice.one_in(3);
        let padding = dice.one_in(2);
        let (mut desks, mut people) = (Vec::new(), Vec::new());
        let server = shared.then(|| Server::new(dice.draw()));
        let alone = if shared { 1 } else { 2 + dice.below(2) };
        for desk in 0..alone {
            let durability = match dice.below(5) {
                _ if planted == Some(Planted::UnwrittenLeases) => Durability::Leased(64),
                0 | 1 => Durability::Strict,
                2 => Durability::Leased([1, 3, 9][dice.below(3)]),
                _ => Durability::Leased(64),
            };
            let full = planted == Some(Planted::UnkeptPlaintexts);
            let (small, brief) = (!full && dice.one_in(5), !full && dice.one_in(4));
            // What was acknowledged to no avail (a crash took the acknowledgement) is in the way until its time is up:
            // so a small buffer's is brief.
            let buffer = (full || !dice.one_in(3)).then_some(BufferLimits {
                bytes: if small { 1_500 } else { 1 << 20 },
                seconds: if small || brief { 3_600 } else { 30 * 86_400 },
            });
            let fold_at = [2_000, 20_000, 1 << 20][dice.below(3)];
            let residents = dice.one_in(3).then(|| 1 + dice.below(3));
            let manner = Manner { durability, buffer, padding, residents, fold_at, planted };
            desks.push(Desk::new(manner, Kept::Sqlite(Folder::new())));
            for i in 0..2 + dice.below(2) {
                let name = format!("person{i}@desk{desk}");
                people.push(Person { name, desks: vec![desk], serving: desk, listing: Listing::default() });
            }
        }
        if let Some(server) = &server {
            let engines: Vec<usize> = (desks.len()..desks.len() + 2 + dice.below(2)).collect();
            let buffer = (!dice.one_in(4)).then_some(BufferLimits { bytes: 1 << 20, seconds: 30 * 86_400 });
            let leased = dice.one_in(2);
            for &desk in &engines {
                let durability = if leased { Durability::Leased([9, 64][dice.below(2)]) } else { Durability::Strict };
                let residents = dice.one_in(3).then(|| 1 + dice.below(3));
                let manner = Manner { durability, buffer, padding, residents, fold_at: 0, planted: None };
                let name = format!("gateway-{desk}");
                desks.push(Desk::new(manner, Kept::Shared { server: server.clone(), name }));
            }
            for i in 0..3 + dice.below(2) {
                let (name, serving) = (format!("person{i}@server"), engines[0]);
                people.push(Person { name, desks: engines.clone(), serving, listing: Listing::default() });
            }
        }
        let groups = (0..2).map(|_| {
            let mut members: Vec<usize> = (0..people.len()).collect();
            while members.len() > 4 {
                members.remove(dice.below(members.len()));
            }
            members
        });
        let groups = groups.collect();
        let (away, steps) = (vec![0; desks.len()], 120 + dice.below(160) as u64);
        let story = Story::new(aloud);
        let mut oracle = Oracle::new(people.len());
        for (i, person) in people.iter().enumerate() {
            let desk: &Desk = &desks[person.desks[0]];
            if desk.is_shared() && desk.lease() > 0 {
                oracle.moves_within_leases(i);
            }
        }
        let (sky, unhandled, copies) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self {
            seed,
            planted: planted.is_some(),
            story,
            machine,
            dice,
            desks,
            people,
            groups,
            server,
            oracle,
            sky,
            unhandled,
            away,
            copies,
            troubled,
            hot: false,
            steps,
            written: 0,
        }
    }

    /// Lives through the history.
    pub(super) fn live(&mut self) {
        self.begin();
        self.hot = true;
        for _ in 0..self.steps {
            self.story.step += 1;
            self.step();
        }
        self.hot = false;
        self.story.tell(|| "everything works from here on".into());
        self.calm();
        let before = self.server.as_ref().map(|server| server.snapshot());
        self.everyone_talks();
        match before {
            Some(before) if self.dice.one_in(3) => self.server_goes_back(&before),
            _ => self.end(),
        }
        self.count_server();
    }

    /// Opens the stores and makes the accounts, undisturbed.
    fn begin(&mut self) {
        for desk in 0..self.desks.len() {
            assert!(self.ready(desk), "desk {desk} opens");
        }
        for person in 0..self.people.len() {
            let (desk, name) = (self.people[person].serving, self.people[person].name.clone());
            self.ask(desk, |engine| engine.create_account(&name)).expect("an account is made");
            self.upload(person, 12, true);
        }
    }

    fn step(&mut self) {
        self.machine.pass(Duration::from_millis(self.dice.below(400) as u64));
        for desk in 0..self.desks.len() {
            if self.dice.one_in(3) {
                self.turn_leases(desk);
            }
        }
        let desk = self.dice.below(self.desks.len());
        match self.dice.below(100) {
            0..28 => self.send(desk),
            28..62 => self.deliver(desk),
            62..70 => self.handle_some(),
            70..74 => self.start_some(desk),
            74..76 => self.top_up(),
            76..83 => self.send_to_group(),
            83 => self.rotate_group(),
            84..96 => self.trouble(desk),
            96 => self.make_copy(desk),
            97 => self.close(desk),
            _ => self.go_away(desk),
        }
    }

    // Engines.

    /// Sees to it that a desk has an engine.
    fn ready(&mut self, desk: usize) -> bool {
        if self.desks[desk].engine.is_some() {
            return true;
        }
        if self.hot && self.dice.one_in(6) {
            let fault = if self.dice.one_in(2) { draw_cut(&mut self.dice) } else { draw_failure(&mut self.dice) };
            self.plan(desk, fault);
        }
        for _ in 0..12 {
            let failed = self.desks[desk].failed();
            let opened = self.desks[desk].open();
            self.count_failures(desk, failed);
            if self.desks[desk].is_dead() {
                self.story.fault(Fault::CutWhileOpening);
                let death = if self.dice.one_in(3) { Death::Killed } else { Death::PowerCut };
                self.leave_behind(desk, death);
                continue;
            }
            match opened {
                Ok(()) => {
                    let life = self.desks[desk].life;
                    self.story.note(&[1, desk as u8, life as u8]);
                    self.story.tell(|| format!("desk {desk} opens, life {life}"));
                    return true;
                }
                Err(Error::Busy(text) | Error::Store(text)) if self.desks[desk].is_shared() => {
                    self.story.tell(|| format!("desk {desk} does not open: {text}"));
                    assert!(self.hot, "a shared store does not open: {text}");
                    return false;
                }
                Err(error) => {
                    assert!(self.desks[desk].failed() > failed, "a store does not open: {error}");
                    self.mend(desk);
                }
            }
        }
        panic!("a store does not open, however often it is tried");
    }

    /// Asks a desk's engine, if it has one.
    fn ask<T>(&mut self, desk: usize, call: impl FnOnce(&Engine) -> Result<T, Error>) -> Option<T> {
        let failed = self.desks[desk].failed();
        let done = call(self.desks[desk].engine.as_ref()?);
        let struck = self.count_failures(desk, failed);
        if self.desks[desk].is_dead() {
            self.story.tell(|| format!("desk {desk} dies in a call"));
            let death = if self.dice.one_in(2) { Death::Killed } else { Death::PowerCut };
            self.story.fault(if death == Death::Killed { Fault::KilledInACall } else { Fault::PowerCutInACall });
            self.die(desk, death);
        }
        match done {
            Ok(done) => Some(done),
            Err(Error::Busy(text)) => {
                self.story.tell(|| format!("desk {desk}: busy: {text}"));
                None
            }
            Err(Error::Store(text)) => {
                self.story.tell(|| format!("desk {desk}: {text}"));
                if self.desks[desk].is_shared() {
                    return None;
                }
                if self.desks[desk].engine.is_some() {
                    // A store whose disk did nothing wrong now has had enough of it before.
                    if struck == 0 || self.dice.one_in(4) {
                        self.reopen(desk);
                    } else if self.dice.one_in(2) {
                        self.mend(desk);
                    }
                }
                None
            }
            Err(error) => panic!("desk {desk}: {error}"),
        }
    }

    fn plan(&mut self, desk: usize, fault: interlane_crash::Fault) {
        if let Some(disk) = self.desks[desk].disk() {
            disk.fail(Some(fault));
            self.desks[desk].planned = Some(fault.failure);
            self.story.tell(|| format!("desk {desk}: {fault:?} is planned"));
        }
    }

    fn mend(&mut self, desk: usize) {
        if let Some(disk) = self.desks[desk].disk() {
            disk.fail(None);
        }
    }

    /// Counts what a disk made to fail since; how many calls that were.
    fn count_failures(&mut self, desk: usize, since: u64) -> u64 {
        let struck = self.desks[desk].failed() - since;
        let fault = match self.desks[desk].planned {
            Some(interlane_crash::Failure::Io) => Fault::DiskFails,
            Some(interlane_crash::Failure::Full) => Fault::DiskFull,
            Some(interlane_crash::Failure::ReadOnly) => Fault::DiskReadOnly,
            _ => return struck,
        };
        self.story.faults(fault, struck as usize);
        struck
    }

    /// What a dead desk leaves is what is found.
    fn leave_behind(&mut self, desk: usize, death: Death) {
        let Kept::Sqlite(folder) = &self.desks[desk].kept else { return };
        let after = folder.after(death == Death::PowerCut, &mut self.dice);
        self.desks[desk].engine = None;
        self.desks[desk].kept = Kept::Sqlite(after);
    }

    fn die(&mut self, desk: usize, death: Death) {
        if self.desks[desk].turn.is_under_way() {
            self.story.fault(Fault::LeaseInterrupted);
        }
        self.leave_behind(desk, death);
        self.end_life(desk, false);
        self.ready(desk);
    }

    /// The store is given up by its engine, as it is, and opened again.
    fn reopen(&mut self, desk: usize) {
        self.mend(desk);
        self.desks[desk].engine = None;
        self.end_life(desk, false);
        self.ready(desk);
    }

    fn close(&mut self, desk: usize) {
        if !self.ready(desk) {
            return;
        }
        let life = self.desks[desk].life;
        // Whoever closes an engine waits for its thread.
        while self.desks[desk].turn.is_under_way() && self.desks[desk].life == life {
            self.turn_leases(desk);
        }
        if self.desks[desk].life != life {
            return;
        }
        self.story.tell(|| format!("desk {desk} is closed"));
        let closed =
            self.ask(desk, Engine::close).is_some() && self.desks[desk].failed() == self.desks[desk].failed_before;
        if self.desks[desk].life == life {
            self.desks[desk].engine = None;
            self.mend(desk);
            self.end_life(desk, closed);
            self.ready(desk);
        }
    }

    /// A life of a desk has ended: what was in memory is gone.
    fn end_life(&mut self, desk: usize, cleanly: bool) {
        let life = self.desks[desk].life;
        if cleanly {
            self.oracle.closed_cleanly(desk, life);
        }
        let lease = self.desks[desk].lease();
        if !self.desks[desk].is_shared() {
            let here: Vec<usize> = (0..self.people.len()).filter(|&i| self.people[i].serving == desk).collect();
            self.oracle.end_life(&here, if cleanly { None } else { Some(lease) });
        }
        let before = self.unhandled.len();
        self.unhandled.retain(|one| one.desk != desk);
        self.story.faults(Fault::AnswerForgotten, before - self.unhandled.len());
    }

    fn turn_leases(&mut self, desk: usize) {
        let failed = self.desks[desk].failed();
        let Desk { engine: Some(engine), turn, .. } = &mut self.desks[desk] else { return };
        let turned = engine.turn_leases(turn);
        if turned {
            self.story.tell(|| format!("desk {desk}: a third of a lease"));
        }
        self.count_failures(desk, failed);
        if self.desks[desk].is_dead() {
            self.story.fault(Fault::PowerCutInACall);
            self.die(desk, Death::PowerCut);
        }
    }

    /// Those whom a desk is asked for.
    fn served_by(&mut self, desk: usize) -> Vec<usize> {
        let mut served = Vec::new();
        for person in 0..self.people.len() {
            let Person { desks, serving, .. } = &self.people[person];
            // At times the wrong desk of several.
            if *serving == desk || (desks.contains(&desk) && self.hot && self.dice.one_in(8)) {
                served.push(person);
            }
        }
        served
    }

    /// The accounts of people at a desk; those that it does not have are left out.
    fn accounts(&mut self, desk: usize, people: &[usize]) -> BTreeMap<usize, AccountId> {
        let mut found = BTreeMap::new();
        for &person in people.iter().collect::<BTreeSet<_>>() {
            let name = self.people[person].name.clone();
            match self.ask(desk, |engine| engine.account(&name)) {
                Some(Some(id)) => drop(found.insert(person, id)),
                Some(None) => {
                    assert!(self.desks[desk].is_shared(), "the account of {name} is gone");
                    self.move_on(person, desk);
                }
                None => self.move_on(person, desk),
            }
        }
        found
    }

    /// Somebody's account is not at this desk: the next one is asked.
    fn move_on(&mut self, person: usize, desk: usize) {
        let Person { desks, serving, .. } = &mut self.people[person];
        if *serving == desk {
            let at = desks.iter().position(|&other| other == desk).unwrap_or(0);
            *serving = desks[(at + 1) % desks.len()];
        }
    }

    // Prekeys and sessions.

    fn upload(&mut self, person: usize, one_time: u32, rotate: bool) -> bool {
        let desk = self.people[person].serving;
        if !self.ready(desk) {
            return false;
        }
        let accounts = self.accounts(desk, &[person]);
        let Some(&id) = accounts.get(&person) else { return false };
        let Some(upload) = self.ask(desk, |engine| engine.prekeys(id, one_time, rotate)) else { return false };
        self.written += 1;
        self.story.tell(|| format!("{} uploads {one_time} prekeys", self.people[person].name));
        let listing = &mut self.people[person].listing;
        listing.bundle = Some(upload.bundle(None));
        listing.one_time.extend(upload.one_time.into_iter().map(|(id, key)| (id, key.to_vec())));
        true
    }

    fn top_up(&mut self) {
        let person = self.dice.below(self.people.len());
        let rotate = self.dice.one_in(3);
        self.upload(person, 6, rotate);
    }

    /// What the chat server gives of somebody to another.
    fn bundle(&mut self, person: usize, to: usize) -> Bundle {
        let twice = self.hot && self.troubled && self.dice.one_in(6);
        let listing = &mut self.people[person].listing;
        let mut bundle = listing.bundle.clone().expect("everybody has a signed prekey");
        if twice && !listing.given.is_empty() {
            let (other, one_time) = listing.given[self.dice.below(listing.given.len())].clone();
            bundle.one_time = Some(one_time);
            self.story.fault(Fault::PrekeyGivenTwice);
            // Whoever comes first has it.
            self.oracle.disturb(to, person);
            self.oracle.disturb(other, person);
            return bundle;
        }
        bundle.one_time = (!listing.one_time.is_empty()).then(|| listing.one_time.remove(0));
        match &bundle.one_time {
            Some(one_time) => listing.given.push((to, one_time.clone())),
            None => self.story.fault(Fault::PrekeysGone),
        }
        bundle
    }

    fn start_some(&mut self, desk: usize) {
        let here = self.served_by(desk);
        if here.is_empty() {
            return;
        }
        let count = 1 + self.dice.below(4);
        let pairs: Vec<(usize, usize)> = (0..count)
            .map(|_| (here[self.dice.below(here.len())], self.dice.below(self.people.len())))
            .filter(|(from, to)| from != to)
            .collect();
        self.start(desk, &pairs);
    }

    fn start(&mut self, desk: usize, pairs: &[(usize, usize)]) {
        if !self.ready(desk) {
            return;
        }
        let people: Vec<usize> = pairs.iter().map(|pair| pair.0).collect();
        let accounts = self.accounts(desk, &people);
        let pairs: Vec<(usize, usize)> = pairs.iter().copied().filter(|pair| accounts.contains_key(&pair.0)).collect();
        if pairs.is_empty() {
            return;
        }
        let mut bundles = Vec::new();
        for &(from, to) in &pairs {
            bundles.push(self.bundle(to, from));
        }
        let (ids, peers) = self.rows_of(&accounts, &pairs);
        let now = self.machine.now();
        for &(from, to) in &pairs {
            self.oracle.starts(from, to, now);
        }
        let rows = self.ask(desk, |engine| {
            let peers: Vec<&str> = peers.iter().map(String::as_str).collect();
            engine.start_sessions(&engine.sessions(&ids, &peers)?, &bundles)
        });
        let Some(rows) = rows else { return };
        self.hear(&rows);
        for (i, &(from, to)) in pairs.iter().enumerate() {
            match status_of(&rows, i) {
                Status::Ok => {
                    self.written += 1;
                    self.oracle.established(from, to);
                }
                Status::Busy if self.desks[desk].is_shared() => {}
                Status::Conflict if self.desks[desk].is_shared() => self.move_on(from, desk),
                status => panic!("a session of {from} with {to} is not started: {status:?}"),
            }
        }
    }

    fn rows_of(
        &self,
        accounts: &BTreeMap<usize, AccountId>,
        pairs: &[(usize, usize)],
    ) -> (Vec<AccountId>, Vec<String>) {
        pairs.iter().map(|&(from, to)| (accounts[&from], self.people[to].name.clone())).unzip()
    }

    /// Takes what a call gave into the history's hash.
    fn hear(&mut self, rows: &Rows) {
        self.story.note(&rows.status);
        self.story.note(&rows.kinds);
        self.story.note(&rows.events);
        self.story.note(&rows.data);
    }

    // Sending.

    fn send(&mut self, desk: usize) {
        let here = self.served_by(desk);
        if here.is_empty() {
            return;
        }
        let count = if self.dice.one_in(10) { 30 } else { 1 + self.dice.below(8) };
        let mut texts = Vec::new();
        let talkative = self.dice.one_in(4).then(|| here[self.dice.below(here.len())]);
        for _ in 0..count {
            let from = talkative.unwrap_or(here[self.dice.below(here.len())]);
            let to = self.dice.below(self.people.len());
            if from != to && (self.oracle.is_established(from, to) || self.dice.one_in(6)) {
                let content = self.oracle.text(&mut self.dice);
                texts.push((from, to, content));
            }
        }
        let lacking = self.send_texts(desk, texts);
        if self.dice.one_in(2) {
            self.start(desk, &lacking);
        }
    }

    /// Sends texts; gives the pairs that have no session to send with.
    fn send_texts(&mut self, desk: usize, texts: Vec<(usize, usize, (Vec<u8>, Content))>) -> Vec<(usize, usize)> {
        if !self.ready(desk) {
            return Vec::new();
        }
        let people: Vec<usize> = texts.iter().map(|text| text.0).collect();
        let accounts = self.accounts(desk, &people);
        let texts: Vec<_> = texts.into_iter().filter(|text| accounts.contains_key(&text.0)).collect();
        if texts.is_empty() {
            return Vec::new();
        }
        let pairs: Vec<(usize, usize)> = texts.iter().map(|text| (text.0, text.1)).collect();
        let (ids, peers) = self.rows_of(&accounts, &pairs);
        let plain: Vec<&[u8]> = texts.iter().map(|(.., (plain, _))| &plain[..]).collect();
        let (data, offsets) = pack(&plain);
        let lines: Vec<Line> = pairs.iter().map(|&(from, to)| Line::Pair(from, to)).collect();
        self.oracle.attempts(&lines);
        let life = self.desks[desk].life;
        let (rows, sealed) = tap::listen(|| {
            self.ask(desk, |engine| {
                let peers: Vec<&str> = peers.iter().map(String::as_str).collect();
                engine.encrypt(&engine.sessions(&ids, &peers)?, Packed::new(&data, &offsets)?)
            })
        });
        let shared = self.desks[desk].is_shared();
        self.oracle.attempted(&lines, rows.is_some());
        let Some(rows) = rows else {
            if shared {
                self.oracle.may_skip(&lines, 0);
            }
            return Vec::new();
        };
        self.hear(&rows);
        let mut lacking = Vec::new();
        let mut unsent = Vec::new();
        let now = self.machine.now();
        for (i, (from, to, (plain, content))) in texts.into_iter().enumerate() {
            match status_of(&rows, i) {
                Status::Ok => {
                    let frame = self.oracle.release(
                        Line::Pair(from, to),
                        rows.kinds[i],
                        bytes_of(&rows, i),
                        &sealed,
                        plain,
                        content,
                        now,
                    );
                    self.story.tell(|| format!("{from} to {to}: {}", self.oracle.show(frame)));
                    self.post(frame, to);
                }
                Status::NoSession | Status::Exhausted => {
                    self.oracle.has_no_session(from, to, status_of(&rows, i));
                    lacking.push((from, to));
                }
                Status::Busy if shared => unsent.push(Line::Pair(from, to)),
                Status::Conflict if shared => self.move_on(from, desk),
                status => panic!("{from} cannot send to {to}: {status:?}"),
            }
        }
        self.oracle.may_skip(&unsent, 0);
        if self.desks[desk].life != life {
            // It died when all was done.
            self.oracle.may_skip(&lines, self.desks[desk].lease());
        }
        lacking
    }

    /// Gives a frame to the network.
    fn post(&mut self, frame: usize, to: usize) {
        let parcel = Parcel { frame, to, damaged: None, waits: None, tries: 0 };
        if !self.hot {
            return self.sky.push(parcel);
        }
        match self.dice.below(20) {
            0 => {
                self.story.fault(Fault::FrameLost);
            }
            1 | 2 => {
                self.story.fault(Fault::FrameDoubled);
                self.sky.extend([parcel.clone(), parcel]);
            }
            3 | 4 => {
                self.story.fault(Fault::FrameDamaged);
                let damaged = self.oracle.damage(frame, &mut self.dice);
                self.sky.extend([Parcel { damaged: Some(damaged), ..parcel.clone() }, parcel]);
            }
            5 => {
                self.story.fault(Fault::FrameReplayed);
                let (old, receiver) = self.oracle.any_old(&mut self.dice).unwrap_or((frame, to));
                self.sky.extend([Parcel { frame: old, to: receiver, ..parcel.clone() }, parcel]);
            }
            _ => self.sky.push(parcel),
        }
    }

    // Receiving.

    fn go_away(&mut self, desk: usize) {
        self.story.fault(Fault::FrameHeldBack);
        self.away[desk] = self.story.step + self.dice.below(25) as u64;
    }

    fn deliver(&mut self, desk: usize) {
        if self.away[desk] > self.story.step {
            return;
        }
        let here = self.served_by(desk);
        let most = 1 + self.dice.below(16);
        let mut taken = Vec::new();
        let mut overtaken = 0;
        let mut left: BTreeSet<(usize, usize)> = BTreeSet::new();
        for (at, parcel) in self.sky.iter().enumerate() {
            let eligible = here.contains(&parcel.to)
                && (parcel.waits.is_none_or(|(at, life)| self.desks[at].life != life) || self.dice.one_in(30));
            if taken.len() == most || !eligible {
                continue;
            }
            let way = (self.oracle.sender(parcel.frame), parcel.to);
            if self.dice.one_in(5) {
                left.insert(way);
            } else {
                overtaken += usize::from(left.contains(&way));
                taken.push(at);
            }
        }
        self.story.faults(Fault::FrameOvertaken, overtaken);
        let mut parcels: Vec<Parcel> = taken.iter().rev().map(|&at| self.sky.remove(at)).collect();
        parcels.reverse();
        if self.dice.one_in(4) {
            for i in (1..parcels.len()).rev() {
                let other = self.dice.below(i + 1);
                parcels.swap(i, other);
            }
        }
        let (groups, pairwise): (Vec<Parcel>, Vec<Parcel>) =
            parcels.into_iter().partition(|parcel| self.oracle.is_of_a_group(parcel.frame));
        self.receive(desk, pairwise, false);
        self.receive(desk, groups, true);
    }

    /// A desk decrypts frames.
    fn receive(&mut self, desk: usize, parcels: Vec<Parcel>, groups: bool) {
        if parcels.is_empty() {
            return;
        }
        if !self.ready(desk) {
            return self.sky.extend(parcels);
        }
        let people: Vec<usize> = parcels.iter().map(|parcel| parcel.to).collect();
        let accounts = self.accounts(desk, &people);
        let (parcels, elsewhere): (Vec<Parcel>, Vec<Parcel>) =
            parcels.into_iter().partition(|parcel| accounts.contains_key(&parcel.to));
        self.sky.extend(elsewhere);
        if parcels.is_empty() || self.desks[desk].engine.is_none() {
            return self.sky.extend(parcels);
        }
        let life = self.desks[desk].life;
        let ids: Vec<AccountId> = parcels.iter().map(|parcel| accounts[&parcel.to]).collect();
        let senders: Vec<String> =
            parcels.iter().map(|parcel| self.people[self.oracle.sender(parcel.frame)].name.clone()).collect();
        let names: Vec<String> = parcels.iter().map(|parcel| self.oracle.group_name(parcel.frame)).collect();
        let kinds: Vec<u8> = parcels.iter().map(|parcel| self.oracle.kind(parcel.frame)).collect();
        let frames: Vec<Vec<u8>> = parcels
            .iter()
            .map(|parcel| parcel.damaged.clone().unwrap_or_else(|| self.oracle.bytes(parcel.frame).to_vec()))
            .collect();
        let (data, offsets) = pack(&frames);
        let pairs: Vec<Line> = parcels
            .iter()
            .filter(|_| !groups)
            .map(|parcel| Line::Pair(parcel.to, self.oracle.sender(parcel.frame)))
            .collect();
        self.oracle.touch(&pairs);
        let before = self.machine.now();
        let rows = self.ask(desk, |engine| {
            let senders: Vec<&str> = senders.iter().map(String::as_str).collect();
            let frames = Packed::new(&data, &offsets)?;
            if groups {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let senders: Vec<Option<&str>> = senders.into_iter().map(Some).collect();
                engine.group_decrypt(&engine.groups(&ids, &names, &senders)?, frames)
            } else {
                engine.decrypt(&engine.sessions(&ids, &senders)?, &kinds, frames)
            }
        });
        let shared = self.desks[desk].is_shared();
        let Some(rows) = rows else {
            for parcel in &parcels {
                if parcel.damaged.is_none() {
                    self.oracle.maybe_opened(parcel.frame, parcel.to, life, before);
                }
            }
            return self.sky.extend(parcels);
        };
        self.hear(&rows);
        let rows = Rc::new(rows);
        let buffered = self.desks[desk].manner.buffer;
        // The plaintexts were given out, even if whoever has them died after.
        for (i, mut parcel) in parcels.into_iter().enumerate() {
            let status = status_of(&rows, i);
            let Parcel { frame, to, .. } = parcel;
            self.story.tell(|| {
                let damaged = if parcel.damaged.is_some() { ", damaged" } else { "" };
                format!("{to} at desk {desk}: {}{damaged}: {}", self.oracle.show(frame), status.name())
            });
            match status {
                Status::Busy | Status::Conflict if shared => {
                    if status == Status::Conflict {
                        self.move_on(to, desk);
                    } else if parcel.damaged.is_none() {
                        self.oracle.maybe_opened(frame, to, life, before);
                    }
                    self.sky.push(parcel);
                    continue;
                }
                Status::BufferFull if buffered.is_some_and(|limits| limits.bytes < 1 << 16) => {
                    if !self.hot {
                        self.machine.pass(Duration::from_secs(4_000));
                    }
                    self.sky.push(parcel);
                    continue;
                }
                _ => {}
            }
            if parcel.damaged.is_some() {
                let opened = matches!(status, Status::Ok | Status::Redelivered);
                assert!(!opened, "a damaged frame was opened: {}", self.oracle.show(frame));
                continue;
            }
            let came = Came { frame, to, desk, life, buffer: buffered.as_ref(), shared, now: before };
            let opened = self.oracle.judge(came, status, bytes_of(&rows, i));
            if opened {
                self.written += 1;
                parcel.waits = Some((desk, life));
                self.sky.push(parcel);
                self.unhandled.push(Unhandled { desk, life, rows: Rc::clone(&rows), row: i as u64, frame, to });
            } else if status == Status::NoSenderKey && parcel.tries < 12 {
                parcel.tries += 1;
                self.sky.push(parcel);
            }
        }
        if buffered.is_none() {
            // Nobody gives these again: they are handled before anything else.
            self.handle(|one| one.desk == desk);
        } else if self.dice.one_in(2) {
            self.handle_some();
        }
    }

    fn handle_some(&mut self) {
        let mut dice = Dice(self.dice.draw());
        self.handle(|_| dice.one_in(2));
    }

    /// Handles plaintexts, and acknowledges them.
    fn handle(&mut self, mut which: impl FnMut(&Unhandled) -> bool) {
        let (now, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.unhandled).into_iter().partition(|one| which(one));
        self.unhandled = later;
        for one in now {
            // It died with it, but what nobody keeps was handled as it came.
            let dead = self.desks[one.desk].life != one.life || self.desks[one.desk].engine.is_none();
            let buffered = self.desks[one.desk].manner.buffer.is_some();
            if dead && buffered {
                continue;
            }
            let Unhandled { desk, life, frame, to, .. } = one;
            if let Some((group, distribution)) = self.oracle.distribution(frame) {
                let accepted = !dead && self.accept(desk, to, frame, group, &distribution);
                if !accepted && buffered {
                    if self.desks[desk].life == life {
                        self.unhandled.push(one);
                    }
                    continue;
                }
            }
            self.sky.retain(|parcel| parcel.frame != frame || parcel.to != to || parcel.waits.is_none());
            self.oracle.handled(frame, to);
            if buffered {
                let which = [one.row];
                let rows = Rc::clone(&one.rows);
                if self.ask(desk, |engine| engine.acknowledge(&rows, Some(&which))).is_some() {
                    self.oracle.acknowledged(frame, to, desk, life);
                }
            }
        }
    }

    fn accept(&mut self, desk: usize, to: usize, frame: usize, group: usize, distribution: &[u8]) -> bool {
        let accounts = self.accounts(desk, &[to]);
        let Some(&id) = accounts.get(&to) else { return false };
        let sender = self.people[self.oracle.sender(frame)].name.clone();
        let name = format!("group{group}");
        let offsets = [0, distribution.len() as i64];
        let rows = self.ask(desk, |engine| {
            engine
                .group_accept(&engine.groups(&[id], &[&name], &[Some(&sender)])?, Packed::new(distribution, &offsets)?)
        });
        // A call that did not say how it ended may have done it.
        let accepted = rows.is_some_and(|rows| match status_of(&rows, 0) {
            Status::Ok => true,
            Status::Busy | Status::Conflict if self.desks[desk].is_shared() => false,
            status => panic!("a distribution was refused: {status:?}"),
        });
        self.oracle.accepted(frame, to, accepted);
        accepted
    }

    // Groups.

    fn send_to_group(&mut self) {
        let group = self.dice.below(self.groups.len());
        let members = self.groups[group].clone();
        let from = members[self.dice.below(members.len())];
        let texts = 1 + self.dice.below(4);
        self.say_to_group(group, from, texts);
    }

    fn group_handle(&mut self, group: usize, from: usize) -> Option<(usize, u64)> {
        let desk = self.people[from].serving;
        if !self.ready(desk) {
            return None;
        }
        let accounts = self.accounts(desk, &[from]);
        let &id = accounts.get(&from)?;
        let name = format!("group{group}");
        let handles = self.ask(desk, |engine| engine.groups(&[id], &[&name], &[None]))?;
        Some((desk, handles[0]))
    }

    /// Distributes somebody's sender key to those who lack it, then sends texts with it.
    fn say_to_group(&mut self, group: usize, from: usize, texts: usize) -> Option<()> {
        let (desk, handle) = self.group_handle(group, from)?;
        let line = Line::Group(from, group);
        self.oracle.touch(&[line]);
        let life = self.desks[desk].life;
        let rows = self.ask(desk, |engine| engine.group_distribute(&[handle]))?;
        self.hear(&rows);
        if status_of(&rows, 0) != Status::Ok {
            assert!(self.desks[desk].is_shared());
            return None;
        }
        let distribution = bytes_of(&rows, 0).to_vec();
        let others: Vec<usize> = self.groups[group].iter().copied().filter(|&to| to != from).collect();
        if self.desks[desk].life != life {
            return None;
        }
        let names: Vec<String> = others.iter().map(|&to| self.people[to].name.clone()).collect();
        let accounts = self.accounts(desk, &[from]);
        let &id = accounts.get(&from)?;
        let devices =
            self.ask(desk, |engine| engine.sessions(&[id], &names.iter().map(String::as_str).collect::<Vec<_>>()))?;
        let lacking = self.ask(desk, |engine| engine.group_lacking(handle, &devices))?;
        let to: Vec<usize> = others.iter().zip(lacking).filter(|(_, lacks)| *lacks).map(|(&to, _)| to).collect();
        let content = |to: usize| {
            let mut plain = vec![b'd'];
            plain.extend_from_slice(&distribution);
            (from, to, (plain, Content::Distribution(group)))
        };
        let before: Vec<usize> = to.iter().map(|&to| self.oracle.sent(from, to)).collect();
        let missing = self.send_texts(desk, to.iter().map(|&to| content(to)).collect());
        if !missing.is_empty() {
            self.start(desk, &missing);
            self.send_texts(desk, missing.iter().map(|&(_, to)| content(to)).collect());
        }
        let sent: Vec<u64> = others
            .iter()
            .zip(&devices)
            .filter(|(other, _)| {
                let at = to.iter().position(|to| to == *other);
                at.is_some_and(|at| self.oracle.sent(from, **other) > before[at])
            })
            .map(|(_, &device)| device)
            .collect();
        if self.desks[desk].life != life || self.people[from].serving != desk {
            return None;
        }
        self.ask(desk, |engine| engine.group_holders(handle, &distribution, &sent))?;
        for _ in 0..texts.div_ceil(2) {
            self.group_texts(group, from, desk, handle, 1 + texts / 2, life)?;
        }
        Some(())
    }

    fn group_texts(
        &mut self,
        group: usize,
        from: usize,
        desk: usize,
        handle: u64,
        count: usize,
        life: u64,
    ) -> Option<()> {
        if self.desks[desk].life != life {
            return None;
        }
        let texts: Vec<(Vec<u8>, Content)> = (0..count).map(|_| self.oracle.text(&mut self.dice)).collect();
        let plain: Vec<&[u8]> = texts.iter().map(|(plain, _)| &plain[..]).collect();
        let (data, offsets) = pack(&plain);
        let line = Line::Group(from, group);
        let lines = vec![line; count];
        self.oracle.attempts(&lines);
        let handles = vec![handle; count];
        let (rows, sealed) =
            tap::listen(|| self.ask(desk, |engine| engine.group_encrypt(&handles, Packed::new(&data, &offsets)?)));
        let shared = self.desks[desk].is_shared();
        self.oracle.attempted(&lines, rows.is_some());
        let Some(rows) = rows else {
            if shared {
                self.oracle.may_skip(&lines, 0);
            }
            return None;
        };
        self.hear(&rows);
        let now = self.machine.now();
        let mut unsent = Vec::new();
        for (i, (plain, content)) in texts.into_iter().enumerate() {
            match status_of(&rows, i) {
                Status::Ok => {
                    let bytes = bytes_of(&rows, i);
                    let frame = self.oracle.release(line, rows.kinds[i], bytes, &sealed, plain, content, now);
                    self.story.tell(|| format!("{from} to group {group}: {}", self.oracle.show(frame)));
                    let others: Vec<usize> = self.groups[group].iter().copied().filter(|&to| to != from).collect();
                    for to in others {
                        self.post(frame, to);
                    }
                }
                Status::Busy if shared => unsent.push(line),
                Status::Conflict if shared => self.move_on(from, desk),
                status => panic!("{from} cannot send to group {group}: {status:?}"),
            }
        }
        let all = unsent.is_empty();
        self.oracle.may_skip(&unsent, 0);
        if self.desks[desk].life != life {
            self.oracle.may_skip(&lines, self.desks[desk].lease());
        }
        all.then_some(())
    }

    fn rotate_group(&mut self) {
        let group = self.dice.below(self.groups.len());
        let members = self.groups[group].clone();
        let from = members[self.dice.below(members.len())];
        if let Some((desk, handle)) = self.group_handle(group, from)
            && let Some(rows) = self.ask(desk, |engine| engine.group_rotate(&[handle]))
        {
            self.hear(&rows);
            self.story.tell(|| format!("{from} rotates its key of group {group}"));
        }
    }

    // Trouble.

    fn trouble(&mut self, desk: usize) {
        if self.desks[desk].is_shared() && !self.dice.one_in(4) {
            return self.server_trouble(desk);
        }
        let alone = !self.desks[desk].is_shared();
        match self.dice.below(if self.troubled { 23 } else { 20 }) {
            0..4 if alone => {
                let fault = draw_failure(&mut self.dice);
                self.plan(desk, fault);
            }
            4..9 if alone => {
                let fault = draw_cut(&mut self.dice);
                self.plan(desk, fault);
            }
            9 | 10 if self.ready(desk) => {
                self.story.fault(Fault::KilledBetweenCalls);
                self.die(desk, Death::Killed);
            }
            11 | 12 if alone && self.ready(desk) => {
                self.story.fault(Fault::PowerCutBetweenCalls);
                self.die(desk, Death::PowerCut);
            }
            13 if alone && self.ready(desk) => {
                self.mend(desk);
                assert!(
                    matches!(self.desks[desk].open_another(), Err(Error::Store(_))),
                    "a store was opened by a second engine"
                );
                self.story.fault(Fault::OpenedTwice);
            }
            14 if self.ready(desk) => self.fork(desk),
            15 => {
                self.story.fault(Fault::ClockSet);
                let by = [-86_400, -600, -1, 60, 3_000, 86_400, 10 * 86_400][self.dice.below(7)];
                self.machine.set_clock(by);
            }
            16 | 17 if alone => self.put_old_copy_back(desk),
            18 => {
                let person = self.dice.below(self.people.len());
                self.people[person].listing.one_time.clear();
                self.story.fault(Fault::PrekeysGone);
            }
            20 if alone => self.restore(desk),
            21 => self.change_identity(desk),
            22 => self.forget(desk),
            _ => {}
        }
    }

    fn fork(&mut self, desk: usize) {
        let Some(engine) = &self.desks[desk].engine else { return };
        engine.pretend_fork(true);
        let nothing = Packed::new(&[], &[0]).expect("no rows");
        assert!(matches!(engine.encrypt(&[], nothing), Err(Error::Forked)), "a fork may send");
        assert!(matches!(engine.decrypt(&[], &[], nothing), Err(Error::Forked)), "a fork may receive");
        assert!(matches!(engine.close(), Err(Error::Forked)), "a fork may close the store");
        engine.pretend_fork(false);
        self.story.fault(Fault::Forked);
    }

    fn make_copy(&mut self, desk: usize) {
        if self.desks[desk].is_shared() || !self.ready(desk) {
            return;
        }
        self.mend(desk);
        let Kept::Sqlite(folder) = &self.desks[desk].kept else { return };
        let copy = Copy { folder: tempfile::tempdir().expect("a folder"), written: self.written };
        match backup(&folder.path(), &copy.path()) {
            Ok(()) => {
                self.story.tell(|| format!("desk {desk} is copied"));
                self.copies.insert(desk, copy);
            }
            Err(error) => panic!("a store cannot be copied: {error}"),
        }
    }

    /// Nobody says that it is an old copy: it is refused.
    fn put_old_copy_back(&mut self, desk: usize) {
        let Some(copy) = self.copies.get(&desk) else { return };
        if copy.written == self.written || !self.ready(desk) {
            return;
        }
        let path = self.copies[&desk].path();
        // A commit, so that the copy is old.
        let Some(person) = (0..self.people.len()).find(|&person| self.people[person].serving == desk) else { return };
        self.mend(desk);
        if !self.upload(person, 1, false) {
            return;
        }
        let Kept::Sqlite(folder) = &self.desks[desk].kept else { return };
        let old = folder.with_copy(&path);
        self.desks[desk].engine = None;
        self.end_life(desk, false);
        let real = std::mem::replace(&mut self.desks[desk].kept, Kept::Sqlite(old));
        match self.desks[desk].open_another() {
            Err(Error::Store(text)) => assert!(text.contains("interlane restore"), "{text}"),
            Err(error) => panic!("an old copy is refused otherwise: {error}"),
            Ok(_) => panic!("an old copy was opened"),
        }
        self.desks[desk].kept = real;
        self.story.fault(Fault::OldCopyPutBack);
        self.ready(desk);
    }

    /// An old copy is declared: nothing of what was sent since is known.
    fn restore(&mut self, desk: usize) {
        let Some(copy) = self.copies.get(&desk) else { return };
        let path = copy.path();
        let Kept::Sqlite(folder) = &self.desks[desk].kept else { return };
        let old = folder.with_copy(&path);
        self.desks[desk].engine = None;
        self.end_life(desk, false);
        self.desks[desk].kept = Kept::Sqlite(old);
        Engine::restore(self.desks[desk].options(), false).expect("a copy is declared");
        // That it was being declared is noted, too, until what is noted in its place is synced.
        self.desks[desk].disk().expect("it is alone").notes_synced();
        self.story.fault(Fault::Restored);
        // The same copy in its place later is older than the store by then.
        for person in 0..self.people.len() {
            if self.people[person].serving == desk {
                self.oracle.forgets(person);
                self.people[person].listing = Listing::default();
            }
        }
        assert!(self.ready(desk));
        self.renew_listings(desk);
    }

    /// Uploads prekeys of those that have none at the chat server any more.
    fn renew_listings(&mut self, desk: usize) {
        for person in 0..self.people.len() {
            while self.people[person].serving == desk && self.people[person].listing.bundle.is_none() {
                self.mend(desk);
                self.upload(person, 12, true);
            }
        }
    }

    fn change_identity(&mut self, desk: usize) {
        let here: Vec<usize> = (0..self.people.len()).filter(|&person| self.people[person].serving == desk).collect();
        if here.is_empty() || self.desks[desk].is_shared() || !self.ready(desk) {
            return;
        }
        let person = here[self.dice.below(here.len())];
        let name = self.people[person].name.clone();
        let accounts = self.accounts(desk, &[person]);
        let Some(&id) = accounts.get(&person) else { return };
        self.mend(desk);
        self.unhandled.retain(|one| one.to != person);
        if self.ask(desk, |engine| engine.delete_account(id)).is_none() {
            return;
        }
        self.oracle.forgets(person);
        self.people[person].listing = Listing::default();
        self.ask(desk, |engine| engine.create_account(&name)).expect("the disk is mended");
        self.story.fault(Fault::IdentityChanged);
        self.renew_listings(desk);
    }

    fn forget(&mut self, desk: usize) {
        let here = self.served_by(desk);
        if here.is_empty() || !self.ready(desk) {
            return;
        }
        let from = here[self.dice.below(here.len())];
        let to = self.dice.below(self.people.len());
        let accounts = self.accounts(desk, &[from]);
        let Some(&id) = accounts.get(&from) else { return };
        if from == to {
            return;
        }
        let name = self.people[to].name.clone();
        self.oracle.forgets_sessions(from, to);
        if let Some(rows) = self.ask(desk, |engine| engine.forget(&engine.sessions(&[id], &[&name])?)) {
            self.hear(&rows);
            self.story.fault(Fault::SessionsForgotten);
        }
    }

    fn server_trouble(&mut self, desk: usize) {
        let (Some(server), Kept::Shared { name, .. }) = (self.server.clone(), &self.desks[desk].kept) else { return };
        let name = name.clone();
        let after = self.dice.below(12) as u32;
        match self.dice.below(16) {
            0..3 => server.plan(&name, Trouble::RequestLost, after),
            3..8 => server.plan(&name, Trouble::AnswerLost, after),
            8 | 9 => {
                server.promote();
                self.story.fault(Fault::StandbyPromoted);
            }
            10 => {
                server.cut_off(&name);
                self.story.fault(Fault::CutOff);
            }
            11 => {
                server.promote_but_for(&name);
                self.story.fault(Fault::CutOffWithPrimary);
            }
            12 | 13 => {
                server.reconnect(&name);
            }
            14 => {
                let force = self.dice.one_in(2);
                if self.ready(desk) {
                    let shards: Vec<u32> = (0..crate::limits::SHARDS).filter(|_| self.dice.one_in(2)).collect();
                    if self.ask(desk, |engine| engine.move_shards(&shards, &name, force)).is_some() {
                        self.story.fault(if force { Fault::ShardTaken } else { Fault::ShardAskedFor });
                    }
                }
            }
            _ => {
                // Another engine of this name takes everything over; the one before finds out by itself.
                let Ok(replacing) = self.desks[desk].open_another() else {
                    // It may have taken the shards before it failed: they are its name's.
                    return self.reopen(desk);
                };
                self.story.fault(Fault::EngineReplaced);
                self.desks[desk].turn = Turn::default();
                if let Some(replaced) = self.desks[desk].engine.replace(replacing) {
                    self.replaced(desk, &replaced);
                }
            }
        }
        self.count_server();
    }

    fn count_server(&mut self) {
        let Some(server) = &self.server else { return };
        let (lost, unknown) = server.take_counts();
        self.story.faults(Fault::RequestLost, lost as usize);
        self.story.faults(Fault::CommitUnknown, unknown as usize);
    }

    /// A server takes over that lacks what was acknowledged: engines that live do not send on it.
    fn server_goes_back(&mut self, before: &Snapshot) {
        let Some(server) = self.server.clone() else { return };
        server.go_back(before);
        self.story.fault(Fault::ServerWentBack);
        // Within leases they send for so long without asking.
        self.machine.pass(HOLD_CONFIRMED);
        for round in 0..6 * self.desks.len() {
            self.machine.pass(Duration::from_millis(150));
            let frames = self.oracle.frames();
            let desk = round % self.desks.len();
            self.send(desk);
            let sent = self.oracle.frames() > frames;
            assert!(!sent || !self.desks[desk].is_shared(), "sent on a server that lacks acknowledged commits");
        }
    }

    /// What an engine that was replaced tries to send does not leave.
    fn replaced(&mut self, desk: usize, replaced: &Engine) {
        self.desks[desk].life += 1;
        self.machine.pass(HOLD_CONFIRMED);
        for person in 0..self.people.len() {
            if self.people[person].serving != desk {
                continue;
            }
            let name = &self.people[person].name;
            let Ok(Some(id)) = replaced.account(name) else { continue };
            let to = self.people[(person + 1) % self.people.len()].name.clone();
            let text = Packed::new(b"late", &[0, 4]).expect("a row");
            let Ok(handles) = replaced.sessions(&[id], &[&to]) else { continue };
            let rows = replaced.encrypt(&handles, text).expect("rows end with a status");
            assert_ne!(status_of(&rows, 0), Status::Ok, "an engine that was replaced sends");
        }
    }

    // The end.

    /// Everything that is under way arrives.
    fn calm(&mut self) {
        if let Some(server) = &self.server {
            server.heal();
        }
        self.away.fill(0);
        for desk in 0..self.desks.len() {
            self.mend(desk);
            assert!(self.ready(desk));
        }
        for round in 0..400 {
            self.story.step += 1;
            self.machine.pass(Duration::from_millis(150));
            let desk = round % self.desks.len();
            self.turn_leases(desk);
            // Nothing waits for a crash any more: there will be none.
            self.sky.iter_mut().for_each(|parcel| parcel.waits = None);
            self.deliver(desk);
            if round % 3 == 0 {
                self.handle(|_| true);
            }
            if self.sky.is_empty() && self.unhandled.is_empty() {
                break;
            }
        }
        self.handle(|_| true);
        let left = self.sky.iter().find(|parcel| parcel.tries == 0 && parcel.damaged.is_none());
        if let Some(parcel) = left {
            panic!("{} never arrives at {}", self.oracle.show(parcel.frame), parcel.to);
        }
        self.sky.clear();
    }

    /// Everybody can talk to everybody, within a few messages.
    fn everyone_talks(&mut self) {
        for from in 0..self.people.len() {
            for to in (0..self.people.len()).filter(|&to| to != from) {
                let well = self.oracle.is_established(from, to) && !self.oracle.is_disturbed(from, to);
                let tries = if well { 1 } else { 4 };
                let talked = (0..tries).any(|tried| self.talks(from, to, tried > 0));
                assert!(talked, "{from} cannot talk to {to} in {tries} messages");
            }
        }
        for group in 0..self.groups.len() {
            for from in self.groups[group].clone() {
                let heard = (0..4).any(|tried| {
                    if tried > 0
                        && let Some((desk, handle)) = self.group_handle(group, from)
                    {
                        self.ask(desk, |engine| engine.group_rotate(&[handle]));
                    }
                    let before = self.oracle.frames();
                    self.say_to_group(group, from, 2);
                    self.arrive();
                    let members = self.groups[group].clone();
                    self.oracle.all_heard(before, &members)
                });
                assert!(heard, "{from} cannot talk to group {group}");
            }
        }
    }

    fn talks(&mut self, from: usize, to: usize, anew: bool) -> bool {
        for _ in 0..3 * self.desks.len() {
            let desk = self.people[from].serving;
            if anew {
                self.start(desk, &[(from, to)]);
            }
            let before = self.oracle.frames();
            let text = self.oracle.text(&mut self.dice);
            let lacking = self.send_texts(desk, vec![(from, to, text.clone())]);
            if !lacking.is_empty() {
                self.start(desk, &lacking);
                self.send_texts(desk, vec![(from, to, text)]);
            }
            if self.oracle.frames() > before {
                self.arrive();
                return self.oracle.all_heard(before, &[to]);
            }
            // A shared store's account may be with another engine.
            self.machine.pass(Duration::from_millis(150));
        }
        false
    }

    fn arrive(&mut self) {
        // Each time a frame may be left for the next.
        for round in 0..40 * self.desks.len() {
            self.machine.pass(Duration::from_millis(150));
            self.deliver(round % self.desks.len());
            self.handle(|_| true);
            if self.sky.is_empty() {
                return;
            }
        }
        self.sky.clear();
    }

    /// What is closed can be opened, and says that it is whole.
    fn end(&mut self) {
        for desk in 0..self.desks.len() {
            self.close(desk);
        }
    }
}
