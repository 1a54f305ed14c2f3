//! Paths of the engine that handle keys. All keys come of one marked seed: identities, prekeys, ratchet keys, sender keys.
//! The engine says itself what becomes public (`interlane_lanes::public`); frames and plaintexts become so here, where they
//! leave it.

use interlane::{AccountId, Engine, Location, Options, Packed, Rows};

use crate::kernels::{Given, Outputs, Probe};
use crate::marks::{reveal, secret};

/// Peers: two tiles of no account's own.
const PEERS: usize = 9;

pub const ENGINE: &[(&str, Probe)] = &[
    ("engine: set-ups", |given| History::new(given).outputs),
    ("engine: encrypt, decrypt", |given| {
        let mut history = History::new(given);
        history.there_and_back();
        history.outputs
    }),
    ("engine: late frames", |given| {
        let mut history = History::new(given);
        history.late();
        history.outputs
    }),
    ("engine: sender keys", |given| {
        let mut history = History::new(given);
        history.group();
        history.outputs
    }),
];

/// A desk and its peers, in one engine.
struct History {
    engine: Engine,
    marked: bool,
    desk: AccountId,
    peers: Vec<AccountId>,
    /// Handles of the desk's sessions with the peers, and of the peers' with it.
    out: Vec<u64>,
    back: Vec<u64>,
    outputs: Outputs,
}

struct Frames {
    kinds: Vec<u8>,
    data: Vec<u8>,
    offsets: Vec<i64>,
}

impl History {
    /// Accounts, prekeys, X3DH from both ends and the first messages.
    fn new(given: &mut Given) -> Self {
        let mut seed = [7; 32];
        if given.marked {
            secret(&mut seed);
        }
        let options = Options::new(Location::Memory, given.backend);
        let engine = Engine::open(Options { padding: true, seed: Some(seed), ..options }).expect("an engine");
        let names: Vec<String> = (0..PEERS).map(|peer| format!("peer {peer}")).collect();
        let desk = engine.create_account("desk").expect("an account");
        let peers: Vec<_> = names.iter().map(|name| engine.create_account(name).expect("an account")).collect();
        let bundles: Vec<_> =
            peers.iter().map(|&peer| engine.prekeys(peer, 1, false).expect("keys").bundle(Some(0))).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let out = engine.sessions(&[desk; PEERS], &names).expect("handles");
        let back = engine.sessions(&peers, &["desk"; PEERS]).expect("handles");
        all_ok(&engine.start_sessions(&out, &bundles).expect("an answer"), PEERS);
        let (marked, outputs) = (given.marked, Outputs::default());
        let mut history = Self { engine, marked, desk, peers, out, back, outputs };
        let (out, back) = (history.out.clone(), history.back.clone());
        history.send(&out, &back);
        history
    }

    /// Messages, marked, of lengths of their own.
    fn texts(&self, n: usize) -> (Vec<u8>, Vec<i64>) {
        let mut offsets = vec![0];
        for row in 0..n {
            offsets.push(offsets[row] + 40 + 7 * row as i64);
        }
        let mut data = vec![9; offsets[n] as usize];
        if self.marked {
            secret(&mut data);
        }
        (data, offsets)
    }

    /// What leaves the engine.
    fn left(&mut self, rows: &Rows) -> Frames {
        let mut data = rows.data.to_vec();
        self.outputs.secret.extend_from_slice(&data);
        reveal(&mut data);
        Frames { kinds: rows.kinds.clone(), data, offsets: rows.offsets.clone() }
    }

    fn encrypt(&mut self, from: &[u64]) -> Frames {
        let (data, offsets) = self.texts(from.len());
        let sent = self.engine.encrypt(from, Packed::new(&data, &offsets).expect("rows")).expect("an answer");
        all_ok(&sent, from.len());
        self.left(&sent)
    }

    fn decrypt(&mut self, to: &[u64], frames: &Frames) {
        let packed = Packed::new(&frames.data, &frames.offsets).expect("rows");
        let got = self.engine.decrypt(to, &frames.kinds, packed).expect("an answer");
        all_ok(&got, to.len());
        self.left(&got);
    }

    fn send(&mut self, from: &[u64], to: &[u64]) {
        let frames = self.encrypt(from);
        self.decrypt(to, &frames);
    }

    /// Warm frames, turns of the ratchet both ways, several rows of a session in a call, and one that is forged.
    fn there_and_back(&mut self) {
        let (out, back) = (self.out.clone(), self.back.clone());
        self.send(&out, &back);
        self.send(&back, &out);
        self.send(&out, &back);
        self.send(&out, &back);
        let twice = |handles: &[u64]| handles.iter().chain(handles).copied().collect::<Vec<_>>();
        self.send(&twice(&out), &twice(&back));
        let mut frames = self.encrypt(&out);
        let last = frames.data.len() - 1;
        frames.data[last] ^= 1;
        let packed = Packed::new(&frames.data, &frames.offsets).expect("rows");
        let got = self.engine.decrypt(&back, &frames.kinds, packed).expect("an answer");
        assert_eq!(got.status.iter().filter(|&&status| status != 0).count(), 1, "the forged frame is refused");
        self.left(&got);
    }

    /// Frames that come in the wrong order: kept keys.
    fn late(&mut self) {
        let (out, back) = (self.out.clone(), self.back.clone());
        let (first, second) = (self.encrypt(&out), self.encrypt(&out));
        self.decrypt(&back, &second);
        self.decrypt(&back, &first);
    }

    /// A sender key that is made, distributed, used and rotated.
    fn group(&mut self) {
        let ours = self.engine.groups(&[self.desk], &["family"], &[None]).expect("handles");
        let theirs = self.engine.groups(&self.peers, &["family"; PEERS], &[Some("desk"); PEERS]).expect("handles");
        let once = self.engine.group_distribute(&ours).expect("an answer");
        all_ok(&once, 1);
        // Its chain key stays marked: it goes to the peers in messages of theirs.
        let (mut data, mut offsets) = (Vec::new(), vec![0]);
        for _ in &theirs {
            data.extend_from_slice(&once.data);
            offsets.push(data.len() as i64);
        }
        let accepted = self.engine.group_accept(&theirs, Packed::new(&data, &offsets).expect("rows"));
        all_ok(&accepted.expect("an answer"), PEERS);
        for sends in [4, 8] {
            let (texts, offsets) = self.texts(sends);
            let packed = Packed::new(&texts, &offsets).expect("rows");
            let sent = self.engine.group_encrypt(&vec![ours[0]; sends], packed).expect("an answer");
            all_ok(&sent, sends);
            let frames = self.left(&sent);
            let last = frames.offsets[sends - 1] as usize..frames.offsets[sends] as usize;
            // The last one first: with the others' keys kept.
            for (at, frame) in [last, 0..frames.offsets[1] as usize].into_iter().enumerate() {
                let frame = &frames.data[frame];
                let mut offsets = vec![0];
                let data = frame.repeat(PEERS);
                offsets.extend((1..=PEERS).map(|row| (row * frame.len()) as i64));
                let packed = Packed::new(&data, &offsets).expect("rows");
                let got = self.engine.group_decrypt(&theirs, packed).expect("an answer");
                assert!(at < 2);
                all_ok(&got, PEERS);
                self.left(&got);
            }
        }
        all_ok(&self.engine.group_rotate(&ours).expect("an answer"), 1);
    }
}

fn all_ok(rows: &Rows, n: usize) {
    assert_eq!(rows.status, vec![0; n], "every row is done");
}
