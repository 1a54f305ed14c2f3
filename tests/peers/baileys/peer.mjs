// npm libsignal (the engine of Baileys) for sessions, and Baileys' own lib/Signal/Group for sender keys.
import { createRequire } from 'node:module';
import { OWN, engine, serve, undotted } from '../lines.mjs';

const require = createRequire(import.meta.url);
const libsignal = require('libsignal');
const { version } = require('libsignal/package.json');
const { version: baileysVersion } = require('baileys/package.json');
const group = await import('baileys/lib/Signal/Group/index.js');

const { curve, keyhelper, ProtocolAddress, SessionBuilder, SessionCipher, SessionRecord } = libsignal;
const { GroupCipher, GroupSessionBuilder, SenderKeyDistributionMessage, SenderKeyName, SenderKeyRecord } = group;

// A refused frame may have touched the record that the library was given, so what is kept is a copy, as in Baileys,
// which keeps records as JSON. The benches keep the live objects.
class Party {
  constructor({ live = false } = {}) {
    this.live = live;
    this.key = keyhelper.generateIdentityKeyPair();
    this.registrationId = keyhelper.generateRegistrationId();
    this.sessions = new Map();
    this.prekeys = new Map();
    this.signedPrekeys = new Map();
    this.senderKeys = new Map();
    this.lastId = 0;
    this.storage = {
      loadSession: async (id) => {
        const kept = this.sessions.get(id);
        return kept && !this.live ? SessionRecord.deserialize(JSON.parse(kept)) : kept;
      },
      storeSession: async (id, record) => {
        this.sessions.set(id, this.live ? record : JSON.stringify(record.serialize()));
      },
      // As Baileys does: it trusts every identity.
      isTrustedIdentity: () => true,
      loadPreKey: async (id) => this.prekeys.get(Number(id)),
      removePreKey: async (id) => { this.prekeys.delete(Number(id)); },
      loadSignedPreKey: (id) => this.signedPrekeys.get(id) ?? this.signedPrekeys.get(this.signedId),
      getOurRegistrationId: () => this.registrationId,
      getOurIdentity: () => this.key,
    };
    this.senderKeyStorage = {
      loadSenderKey: async (name) => {
        const kept = this.senderKeys.get(name.toString());
        if (!kept) return new SenderKeyRecord();
        return this.live ? kept : new SenderKeyRecord(copy(kept));
      },
      storeSenderKey: async (name, record) => {
        this.senderKeys.set(name.toString(), this.live ? record : copy(record.serialize()));
      },
    };
  }
  get identity() { return this.key.pubKey; }
}

function copy(value) {
  if (value instanceof Uint8Array) return Buffer.from(value);
  if (Array.isArray(value)) return value.map(copy);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, copy(item)]));
}

const addressOf = (name) => new ProtocolAddress(undotted(name), 1);

function publishSigned(party) {
  const id = (party.lastId += 1);
  const { keyPair, signature } = keyhelper.generateSignedPreKey(party.key, id);
  party.signedPrekeys.set(id, keyPair);
  party.signedId = id;
  return { id, public: keyPair.pubKey, signature };
}

function publishOneTime(party) {
  const id = (party.lastId += 1);
  const keyPair = curve.generateKeyPair();
  party.prekeys.set(id, keyPair);
  return { id, public: keyPair.pubKey };
}

const start = (party, address, { registrationId, identity, signedPrekey, oneTimePrekey }) =>
  new SessionBuilder(party.storage, address).initOutgoing({
    registrationId,
    identityKey: identity,
    signedPreKey: { keyId: signedPrekey.id, publicKey: signedPrekey.public, signature: signedPrekey.signature },
    ...(oneTimePrekey && { preKey: { keyId: oneTimePrekey.id, publicKey: oneTimePrekey.public } }),
  });

async function encrypt(party, address, plaintext) {
  const { type, body } = await new SessionCipher(party.storage, address).encrypt(plaintext);
  return { kind: type === 3 ? 'pkmsg' : 'msg', frame: typeof body === 'string' ? Buffer.from(body, 'binary') : body };
}

function decrypt(party, address, kind, frame) {
  const cipher = new SessionCipher(party.storage, address);
  return kind === 'pkmsg' ? cipher.decryptPreKeyWhisperMessage(frame) : cipher.decryptWhisperMessage(frame);
}

const senderName = (groupId, name) => new SenderKeyName(groupId, { id: name, deviceId: 1, toString: () => `${name}.1` });
const cipherOf = (party, groupId, name) => new GroupCipher(party.senderKeyStorage, senderName(groupId, name));
const distribute = (party, groupId) => new GroupSessionBuilder(party.senderKeyStorage).create(senderName(groupId, OWN));
const accept = (party, groupId, name, frame) =>
  new GroupSessionBuilder(party.senderKeyStorage).process(
    senderName(groupId, name), new SenderKeyDistributionMessage(null, null, null, null, frame),
  );

await serve({
  name: 'libsignal (npm), baileys groups',
  version: `${version}, ${baileysVersion}`,
  can: ['pairwise', 'group'],
  makeParty: async () => new Party(),
  ...engine({
    Party,
    address: (_, name) => addressOf(name),
    addressOf,
    publishSigned,
    publishOneTime,
    start,
    encrypt,
    decrypt,
    distribute,
    accept,
    cipherOf,
    rotate: (party, groupId) => party.senderKeys.delete(senderName(groupId, OWN).toString()),
  }),
});
