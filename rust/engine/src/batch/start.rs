//! Starting sessions from bundles: X3DH as initiator (§2.4 there), signatures and agreements of all rows pooled.

use std::mem::take;

use interlane_lanes::kernels::xeddsa::Verify;

use super::accounts::{RunAccounts, pairs};
use super::agreement::{Agreements, Material, first_roots, root_steps};
use super::engine::Engine;
use super::plan::{Entry, Plan};
use super::randomness::{Purpose, Randomness};
use super::records::Dirty;
use super::rows::Outcome;
use crate::error::{Events, Status};
use crate::ratchet::{Bundle, CheckedBundle, Peer, Pending, Session};
use crate::store::{Changes, Key, Kind as RowKind};
use crate::wire::public_key;

/// What a run of a start call gives.
#[derive(Default)]
pub(super) struct Started {
    pub(super) outcomes: Vec<Outcome>,
    pub(super) changed: Vec<(u32, Peer)>,
    pub(super) changes: Changes,
}

/// A peer with whom sessions are started.
struct Initiator {
    slot: u32,
    key: Key,
    account: usize,
    peer: Peer,
    dirty: Dirty,
    next_wave: u32,
}

/// A row whose bundle has the right shape.
struct Beginning {
    row: u32,
    initiator: usize,
    wave: u32,
    bundle: CheckedBundle,
    prekey_wire: [u8; 33],
}

/// Starts the sessions of some entries.
pub(super) fn start(
    engine: &Engine,
    plan: &Plan<'_>,
    entries: &[Entry],
    bundles: &[Bundle],
    randomness: &Randomness,
) -> Started {
    let mut started = Started::default();
    let mut accounts = engine.accounts_of_run(plan);
    let (mut initiators, beginnings) = gather(engine, plan, entries, bundles, &mut accounts, &mut started);
    let beginnings = verify(engine, beginnings, &mut started);
    let mut waves = agree(engine, &initiators, &accounts, beginnings, randomness);
    waves.sort_by_key(|(beginning, _)| beginning.wave);
    for (beginning, session) in waves {
        let initiator = &mut initiators[beginning.initiator];
        let trusted = initiator.peer.identity;
        let changed = trusted.is_some_and(|trusted| trusted != beginning.bundle.identity);
        if changed && engine.refuses_identity_changes() {
            started.outcomes.push(Outcome::failed(beginning.row, Status::UntrustedIdentity));
            continue;
        }
        let Some(session) = session else {
            started.outcomes.push(Outcome::failed(beginning.row, Status::InvalidBundle));
            continue;
        };
        let mut events = Events::NEW_SESSION;
        if changed {
            events |= Events::IDENTITY_CHANGED;
        }
        initiator.dirty.identity |= trusted != Some(session.their_identity) || initiator.peer.current.is_none();
        initiator.dirty.archived |= initiator.peer.current.is_some();
        initiator.dirty.current = true;
        initiator.peer.identity = Some(session.their_identity);
        initiator.peer.begin(session);
        started.outcomes.push(Outcome::done(beginning.row, events));
    }
    initiators.retain(|initiator| initiator.dirty.current);
    let changed = initiators.iter_mut().map(|Initiator { slot, key, dirty, peer, .. }| (*slot, *key, *dirty, peer));
    engine.put_peers(&mut started.changes, changed);
    started.changed.extend(initiators.into_iter().map(|initiator| (initiator.slot, initiator.peer)));
    started
}

fn gather(
    engine: &Engine,
    plan: &Plan<'_>,
    entries: &[Entry],
    bundles: &[Bundle],
    accounts: &mut RunAccounts<'_>,
    started: &mut Started,
) -> (Vec<Initiator>, Vec<Beginning>) {
    let (mut initiators, mut beginnings) = (Vec::with_capacity(entries.len()), Vec::with_capacity(entries.len()));
    let pages = engine.columns.pages();
    let mut walk = pages.walk();
    for entry in entries {
        let at = walk.to(entry.slot);
        let (key, peer) = (at.key(RowKind::Peer), at.peer());
        let account = match accounts.find(key.account) {
            Ok(account) => account,
            Err(status) => {
                started.outcomes.extend(plan.rows_of(entry).map(|row| Outcome::failed(row, status)));
                continue;
            }
        };
        let mut initiator = Initiator { slot: entry.slot, key, account, peer, dirty: Dirty::default(), next_wave: 0 };
        for row in plan.rows_of(entry) {
            match bundles[row as usize].check_shape() {
                Some(bundle) => beginnings.push(Beginning {
                    row,
                    initiator: initiators.len(),
                    wave: initiator.next_wave,
                    prekey_wire: public_key(&bundle.signed_prekey),
                    bundle,
                }),
                None => started.outcomes.push(Outcome::failed(row, Status::InvalidBundle)),
            }
            initiator.next_wave += 1;
        }
        initiators.push(initiator);
    }
    (initiators, beginnings)
}

/// The identity's signature over the signed prekey: always.
fn verify(engine: &Engine, beginnings: Vec<Beginning>, started: &mut Started) -> Vec<Beginning> {
    let publics: Vec<[u8; 32]> = beginnings.iter().map(|beginning| beginning.bundle.identity).collect();
    let messages: Vec<&[u8]> = beginnings.iter().map(|beginning| &beginning.prekey_wire[..]).collect();
    let signatures: Vec<[u8; 64]> = beginnings.iter().map(|beginning| beginning.bundle.signature).collect();
    let mut ok = vec![false; beginnings.len()];
    engine.backend.run(Verify {
        publics: &publics,
        expanded: None,
        messages: &messages,
        signatures: &signatures,
        ok: &mut ok,
    });
    let mut verified = Vec::with_capacity(beginnings.len());
    for (beginning, ok) in beginnings.into_iter().zip(ok) {
        if ok {
            verified.push(beginning);
        } else {
            started.outcomes.push(Outcome::failed(beginning.row, Status::InvalidBundle));
        }
    }
    verified
}

/// X3DH and the first root step. A row with an all-zero secret gets no session, it alone.
fn agree(
    engine: &Engine,
    initiators: &[Initiator],
    accounts: &RunAccounts<'_>,
    beginnings: Vec<Beginning>,
    randomness: &Randomness,
) -> Vec<(Beginning, Option<Box<Session>>)> {
    let backend = engine.backend;
    let rows = beginnings.iter().map(|beginning| beginning.row);
    let privates = randomness.draws(rows, [Purpose::BaseKey, Purpose::RatchetKey]);
    // Two a row, which stay where they are until a session takes them.
    let mut fresh = pairs(backend, privates);
    let mut agreements = Agreements::with_capacity(5 * beginnings.len());
    let mut keyed = Vec::with_capacity(beginnings.len());
    for (beginning, fresh) in beginnings.into_iter().zip(fresh.chunks_exact_mut(2)) {
        let [base, ratchet] = &*fresh else { continue };
        let account = &accounts[initiators[beginning.initiator].account];
        let bundle = &beginning.bundle;
        agreements.add(&account.identity.private, &bundle.signed_prekey);
        agreements.add(&base.private, &bundle.identity);
        agreements.add(&base.private, &bundle.signed_prekey);
        if let Some((_, one_time)) = &bundle.one_time {
            agreements.add(&base.private, one_time);
        }
        agreements.add(&ratchet.private, &bundle.signed_prekey);
        keyed.push((beginning, fresh));
    }
    let shared = agreements.run(backend);
    let mut shared = shared.iter();
    let (mut materials, mut turns) = (Vec::with_capacity(keyed.len()), Vec::with_capacity(keyed.len()));
    let (mut agreed, mut refused) = (Vec::with_capacity(keyed.len()), Vec::new());
    for (beginning, fresh) in keyed {
        let material = Material::collect(&mut shared, beginning.bundle.one_time.is_some());
        match (material, shared.next().expect("as many results as agreements")) {
            (Some(material), Some(secret)) => {
                materials.push(material);
                turns.push(secret);
                agreed.push((beginning, fresh));
            }
            _ => refused.push((beginning, None)),
        }
    }
    let mut first = first_roots(backend, &materials);
    let steps: Vec<_> = first.iter().zip(&turns).map(|((root, _), shared)| (root, *shared)).collect();
    let mut turned = root_steps(backend, &steps);
    agreed
        .into_iter()
        .zip(first.iter_mut().zip(&mut turned))
        .map(|((beginning, fresh), ((_, receiving), (root, sending)))| {
            let bundle = &beginning.bundle;
            let pending = Pending { one_time_id: bundle.one_time.map(|(id, _)| id), signed_id: bundle.signed_id };
            let mut session = Box::new(Session {
                base_key: fresh[0].public,
                their_identity: bundle.identity,
                root: take(root),
                ratchet: take(&mut fresh[1]),
                sending: take(sending),
                previous_counter: 0,
                receiving: Vec::new(),
                pending: Some(pending),
                leased: 0,
            });
            session.begin_receiving(bundle.signed_prekey, take(receiving));
            (beginning, Some(session))
        })
        .chain(refused)
        .collect()
}
