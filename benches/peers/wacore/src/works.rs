//! What is timed. Each work makes its sessions and frames, starts the clock, goes over its rows, stops the clock, and
//! checks the last row's result at the other end.

use crate::Result;
use crate::party::{Party, address, now};
use bytes::Bytes;
use std::hint::black_box;
use std::time::Instant;
use wacore_libsignal::protocol::{
    CiphertextMessage, OwnedCiphertextMessage, PreKeyBundle, PreKeySignalMessage, PreKeyStore, ProtocolAddress,
    SenderKeyDistributionMessage, SenderKeyName, SignalMessage, UsePQRatchet, create_sender_key_distribution_message,
    group_decrypt, group_encrypt, message_decrypt_owned, message_encrypt, process_prekey_bundle,
    process_sender_key_distribution_message,
};

/// Nanoseconds a row.
pub fn measure(work: &str, rows: usize, bytes: usize) -> Result<f64> {
    let message = vec![0x5a; bytes];
    match work {
        "encrypt/warm" => encrypt_warm(rows, &message),
        "decrypt/warm" => decrypt_warm(rows, &message),
        "turn" => turn(rows, &message),
        "setup" => setup(rows, &message),
        "setup/responder" => setup_responder(rows, &message),
        "fanout/1000" => fanout(rows, &message),
        "group/send" => group_send(rows, &message),
        "group/open" => group_open(rows, &message),
        _ => Err(format!("no bench {work}").into()),
    }
}

fn encrypt_warm(rows: usize, message: &[u8]) -> Result<f64> {
    let mut link = Link::warm(rows, message)?;
    let mut last = None;
    let begin = Instant::now();
    for peer in &link.addresses {
        last = Some(black_box(send(&mut link.near, peer, message)?));
    }
    let ns = per_row(begin, rows);
    link.deliver(rows - 1, last)?;
    Ok(ns)
}

fn decrypt_warm(rows: usize, message: &[u8]) -> Result<f64> {
    let mut link = Link::warm(rows, message)?;
    let frames = send_all(&mut link.near, &link.addresses, message)?;
    let mut last = Vec::new();
    let begin = Instant::now();
    for (peer, frame) in link.addresses.iter().zip(frames) {
        last = black_box(open(&mut link.far, peer, frame)?);
    }
    let ns = per_row(begin, rows);
    check(&last, message)?;
    Ok(ns)
}

/// A decrypt with a new ratchet key, then an encrypt with a new one of our own.
fn turn(rows: usize, message: &[u8]) -> Result<f64> {
    let mut link = Link::warm(rows, message)?;
    let frames = send_all(&mut link.far, &link.addresses, message)?;
    let (mut opened, mut last) = (Vec::new(), None);
    let begin = Instant::now();
    for (peer, frame) in link.addresses.iter().zip(frames) {
        opened = black_box(open(&mut link.near, peer, frame)?);
        last = Some(black_box(send(&mut link.near, peer, message)?));
    }
    let ns = per_row(begin, rows);
    check(&opened, message)?;
    link.deliver(rows - 1, last)?;
    Ok(ns)
}

/// From a bundle with a one-time prekey: the session, then its first message.
fn setup(rows: usize, message: &[u8]) -> Result<f64> {
    let mut link = Link::new(rows, message)?;
    let bundles = link.bundles()?;
    let mut last = None;
    let begin = Instant::now();
    for (peer, bundle) in link.addresses.iter().zip(&bundles) {
        start(&mut link.near, peer, bundle)?;
        last = Some(black_box(send(&mut link.near, peer, message)?));
    }
    let ns = per_row(begin, rows);
    link.deliver(rows - 1, last)?;
    Ok(ns)
}

/// The first message of a session that the peer started; its one-time prekey is spent.
fn setup_responder(rows: usize, message: &[u8]) -> Result<f64> {
    let mut link = Link::new(rows, message)?;
    let bundles = link.bundles()?;
    for (peer, bundle) in link.addresses.iter().zip(&bundles) {
        start(&mut link.near, peer, bundle)?;
    }
    let frames = send_all(&mut link.near, &link.addresses, message)?;
    let mut last = Vec::new();
    let begin = Instant::now();
    for (peer, frame) in link.addresses.iter().zip(frames) {
        last = black_box(open(&mut link.far, peer, frame)?);
    }
    let ns = per_row(begin, rows);
    check(&last, message)?;
    Ok(ns)
}

/// As `setup`, to devices that have an identity and a signed prekey each.
fn fanout(rows: usize, message: &[u8]) -> Result<f64> {
    let mut sender = Party::new()?;
    let mut devices = (0..rows).map(|_| Party::new()).collect::<Result<Vec<_>>>()?;
    let bundles = devices.iter_mut().map(Party::bundle).collect::<Result<Vec<_>>>()?;
    let addresses: Vec<_> = (0..rows).map(address).collect();
    let mut last = None;
    let begin = Instant::now();
    for (peer, bundle) in addresses.iter().zip(&bundles) {
        start(&mut sender, peer, bundle)?;
        last = Some(black_box(send(&mut sender, peer, message)?));
    }
    let ns = per_row(begin, rows);
    let frame = Frame::of(&last.ok_or("no rows")?);
    check(&open(&mut devices[rows - 1], &addresses[0], frame)?, message)?;
    Ok(ns)
}

fn group_send(rows: usize, message: &[u8]) -> Result<f64> {
    let mut link = GroupLink::warm(rows, message)?;
    let mut last = Vec::new();
    let rng = &mut rand::rng();
    let begin = Instant::now();
    for name in &link.names {
        last = black_box(now(group_encrypt(&mut link.near.sender_keys, name, message, rng))?.into_serialized().into());
    }
    let ns = per_row(begin, rows);
    check(&link.open(rows - 1, &last)?, message)?;
    Ok(ns)
}

fn group_open(rows: usize, message: &[u8]) -> Result<f64> {
    let mut link = GroupLink::warm(rows, message)?;
    let frames = (0..rows).map(|n| link.send(n, message)).collect::<Result<Vec<_>>>()?;
    let mut last = Vec::new();
    let begin = Instant::now();
    for (name, frame) in link.names.iter().zip(&frames) {
        last = black_box(now(group_decrypt(frame, &mut link.far.sender_keys, name))?);
    }
    let ns = per_row(begin, rows);
    check(&last, message)?;
    Ok(ns)
}

/// What a network carries.
enum Frame {
    First(Bytes),
    Later(Bytes),
}

impl Frame {
    fn of(message: &CiphertextMessage) -> Self {
        let bytes = Bytes::copy_from_slice(message.serialize());
        match message {
            CiphertextMessage::PreKeySignalMessage(_) => Self::First(bytes),
            _ => Self::Later(bytes),
        }
    }
}

/// Session `n` of either party is with the address `n`.
struct Link {
    near: Party,
    far: Party,
    addresses: Vec<ProtocolAddress>,
    message: Vec<u8>,
}

impl Link {
    fn new(rows: usize, message: &[u8]) -> Result<Self> {
        let addresses = (0..rows).map(address).collect();
        Ok(Self { near: Party::new()?, far: Party::new()?, addresses, message: message.to_vec() })
    }

    /// Every session acknowledged in both directions; near has just sent on a chain that far follows.
    fn warm(rows: usize, message: &[u8]) -> Result<Self> {
        let mut link = Self::new(rows, message)?;
        let bundles = link.bundles()?;
        for (peer, bundle) in link.addresses.iter().zip(&bundles) {
            start(&mut link.near, peer, bundle)?;
            for near_sends in [true, false, true] {
                let (from, to) =
                    if near_sends { (&mut link.near, &mut link.far) } else { (&mut link.far, &mut link.near) };
                let sent = Frame::of(&send(from, peer, message)?);
                check(&open(to, peer, sent)?, message)?;
            }
        }
        Ok(link)
    }

    fn bundles(&mut self) -> Result<Vec<PreKeyBundle>> {
        self.addresses.iter().map(|_| self.far.bundle()).collect()
    }

    /// Opens at far what near sent last.
    fn deliver(&mut self, n: usize, sent: Option<CiphertextMessage>) -> Result<()> {
        let frame = Frame::of(&sent.ok_or("no rows")?);
        check(&open(&mut self.far, &self.addresses[n], frame)?, &self.message)
    }
}

/// A sender key a row: the groups of one sender, or the senders of one group, are the same work.
struct GroupLink {
    near: Party,
    far: Party,
    names: Vec<SenderKeyName>,
}

impl GroupLink {
    /// Every sender key distributed, and used once.
    fn warm(rows: usize, message: &[u8]) -> Result<Self> {
        let names = (0..rows).map(|n| SenderKeyName::new(format!("{n}@g.us"), "sender.1".into())).collect();
        let mut link = Self { near: Party::new()?, far: Party::new()?, names };
        for n in 0..rows {
            let (name, rng) = (&link.names[n], &mut rand::rng());
            let made = now(create_sender_key_distribution_message(name, &mut link.near.sender_keys, rng))?;
            let carried = SenderKeyDistributionMessage::try_from(made.serialized())?;
            now(process_sender_key_distribution_message(name, &carried, &mut link.far.sender_keys))?;
            let sent = link.send(n, message)?;
            check(&link.open(n, &sent)?, message)?;
        }
        Ok(link)
    }

    fn send(&mut self, n: usize, message: &[u8]) -> Result<Vec<u8>> {
        let sent = now(group_encrypt(&mut self.near.sender_keys, &self.names[n], message, &mut rand::rng()))?;
        Ok(sent.into_serialized().into())
    }

    fn open(&mut self, n: usize, frame: &[u8]) -> Result<Vec<u8>> {
        Ok(now(group_decrypt(frame, &mut self.far.sender_keys, &self.names[n]))?)
    }
}

fn start(from: &mut Party, peer: &ProtocolAddress, bundle: &PreKeyBundle) -> Result<()> {
    now(process_prekey_bundle(
        peer,
        &mut from.sessions,
        &mut from.identities,
        bundle,
        &mut rand::rng(),
        UsePQRatchet::No,
    ))?;
    Ok(())
}

fn send(from: &mut Party, peer: &ProtocolAddress, message: &[u8]) -> Result<CiphertextMessage> {
    Ok(now(message_encrypt(message, peer, &mut from.sessions, &mut from.identities))?)
}

fn send_all(from: &mut Party, peers: &[ProtocolAddress], message: &[u8]) -> Result<Vec<Frame>> {
    peers.iter().map(|peer| Ok(Frame::of(&send(from, peer, message)?))).collect()
}

/// From the bytes on the wire. The engine may decrypt in the frame's own memory.
fn open(to: &mut Party, peer: &ProtocolAddress, frame: Frame) -> Result<Vec<u8>> {
    let parsed = match frame {
        Frame::First(bytes) => CiphertextMessage::PreKeySignalMessage(PreKeySignalMessage::try_from(&bytes[..])?),
        Frame::Later(bytes) => CiphertextMessage::SignalMessage(SignalMessage::try_from(bytes)?),
    };
    let opened = now(message_decrypt_owned(
        &mut OwnedCiphertextMessage::new(parsed),
        peer,
        &mut to.sessions,
        &mut to.identities,
        &mut to.prekeys,
        &to.signed_prekeys,
        &mut rand::rng(),
        UsePQRatchet::No,
    ))?;
    if let Some(spent) = opened.consumed_prekey_id {
        now(to.prekeys.remove_pre_key(spent))?;
    }
    Ok(opened.plaintext)
}

fn check(opened: &[u8], message: &[u8]) -> Result<()> {
    if opened == message { Ok(()) } else { Err("the last result is wrong".into()) }
}

fn per_row(begin: Instant, rows: usize) -> f64 {
    begin.elapsed().as_nanos() as f64 / rows as f64
}
